"""The configurations of a sweep: product grids and samples of hyperparameters, as plain values on the host.

An axis (see axes.py) varies a field of the hyperparameters, or a choice that the method's theory takes. A nested field
is written with dots, `compressor.first.k` (`compressor__first__k` as a Python keyword), or as `compressor.k` if only
one field below `compressor` is called k.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import Declaration, declarations, parameters
from fedjax_lc.sweeping.axes import MOST, Slot, Span, Times, is_number, label, plain, read_axis, short

SAMPLERS = ("random", "sobol", "halton", "latin")
THEORY = "/theory"  #: suffix of a setting that is a multiple of the base's value


@dataclasses.dataclass(frozen=True)
class Grid:
    """The configurations of a sweep, in order.

    Attributes:
        hparams: one Hparams per configuration; product grids in row-major order, the last axis fastest.
        axes: axis -> its values in order, as plain labels (float, int, str); {} unless this is a product grid.
        settings: for each configuration, axis -> label; {} if the configurations were given one by one.

    Example:
        >>> configurations = grid(hp, gamma=[0.1, 0.2], compressor="rand_k:1|natural; natural")
        >>> len(configurations), configurations.settings[1]
        (4, {'gamma': 0.1, 'compressor': 'natural'})
    """

    hparams: tuple[Any, ...]
    axes: dict[str, tuple[Any, ...]]
    settings: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.hparams)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.hparams)

    @classmethod
    def of(cls, hparams: Any) -> Grid:
        """A Grid from one Hparams or a list of them; a Grid is returned as it is.

        Raises:
            InputError: the list is empty, or its entries are not hyperparameters of one method.
        """
        if isinstance(hparams, Grid):
            return hparams
        given = (hparams,) if _is_tree(hparams) or not isinstance(hparams, Iterable) else tuple(hparams)
        if not given:
            raise InputError("a sweep needs at least one configuration, got an empty list: give hyperparameters")
        for hp in given:
            if not _is_tree(hp):
                raise InputError(f"a sweep takes hyperparameters, a list of them or a Grid, got {short(hp)}")
            if type(hp) is not type(given[0]):
                raise InputError("a sweep takes hyperparameters of one method, got several kinds: sweep them in turn")
        return cls(given, {}, tuple({} for _ in given))


def grid(base: Any, **axes: Any) -> Grid:
    """All combinations of the axes' values, in row-major order: the last axis given moves fastest.

    Args:
        base: an Hparams, whose other fields are kept; or a callable that returns one, such as
            `functools.partial(algorithm.theory, problem)`. Axes that are parameters of the callable (compressor,
            p="balanced", local_steps, ...) are passed to it, so that the theory is computed for each of their values.
            The other axes replace fields afterwards, without effect on other fields: with compressor.k on an axis,
            gamma stays as the base has it (vary whole compressors to have theory adapt gamma).
        axes: field -> a sequence (numbers; Compressors or their strings; None, labelled "None", if the field's type
            allows it), one value, `times(values)`, or the string form of `parse_axis`. For nested fields see the head
            of this file.

    Returns:
        A Grid. Numbers are plain Python numbers of the type that the field has in the base: whole if it is an int and
        all values are whole, else floats. Lanes that differ only in numbers share one program.

    Raises:
        InputError: a field is unknown or ambiguous, an axis is empty, or a value is repeated or of the wrong kind.

    Example:
        >>> theory = functools.partial(fl.algorithms.get("locodl").theory, problem)
        >>> configurations = grid(theory, compressor=["rand_k:1|natural", "natural"], gamma="theory*log:0.25:4:9")
        >>> len(configurations), configurations.settings[0]
        (18, {'compressor': 'rand_k:1|natural', 'gamma/theory': 0.25})
    """
    make, choices = _base(base)
    checked = _axes(make, choices, axes)
    columns = [axis.listed() for axis in checked]
    if (points := math.prod(map(len, columns))) > MOST:
        raise InputError(f"a grid has at most {MOST:,} points, got {points:,}: draw a sample of them")
    labels = {axis.setting: tuple(map(label, values)) for axis, values in zip(checked, columns, strict=True)}
    return _build(make, checked, list(itertools.product(*columns)), labels)


def sample(base: Any, num: int, *, method: str = "random", seed: int = 0, **axes: Any) -> Grid:
    """`num` configurations drawn from the axes' ranges.

    Args:
        base: as for `grid`.
        num: number of configurations (Sobol's points are balanced if it is a power of two).
        method: "random" (NumPy's generator), or a low-discrepancy set of scipy.stats.qmc, scrambled: "sobol",
            "halton", "latin" (Latin hypercube).
        seed: seed of the draw; equal seeds give equal configurations.
        axes: field -> `uniform`, `loguniform`, `times` of them, their string forms; or values as for `grid`, each
            equally likely.

    Raises:
        InputError: as `grid`; no axes, num < 1, a negative seed, or an unknown method.

    Example:
        >>> axes = {"gamma": "theory*loguniform:0.25:4", "compressor": "rand_k:1; natural"}
        >>> sorted(sample(theory, 64, method="sobol", **axes).settings[0])
        ['compressor', 'gamma/theory']
    """
    if not axes:
        raise InputError("sample needs at least one axis, got none: give one, as in gamma=loguniform(0.01, 1)")
    make, choices = _base(base)
    checked = _axes(make, choices, axes)
    drawn = [axis.at(u) for axis, u in zip(checked, _cube(num, len(checked), method, seed).T, strict=True)]
    return _build(make, checked, list(zip(*drawn, strict=True)), {})


_MULTIPLIER = Slot(1.0, Declaration(types=frozenset({float})))


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An axis after checks against the base.

    Attributes:
        name: field of the hyperparameters, or choice of the base.
        slot: the value in the base, and the declaration.
        values: the values, or the Span that a sample draws from.
        multiplies: whether the values are multiples of the base's value.
        passed: whether values are passed to the callable base; otherwise they replace a field.
    """

    name: str
    slot: Slot
    values: tuple[Any, ...] | Span
    multiplies: bool
    passed: bool

    @property
    def setting(self) -> str:
        return self.name + THEORY * self.multiplies

    @property
    def first(self) -> Any:
        return self.values.lo if isinstance(self.values, Span) else self.values[0]

    def listed(self) -> tuple[Any, ...]:
        """The values; an error for a Span, which only samples can draw from."""
        if isinstance(self.values, Span):
            raise InputError(f"axis {self.name} is {self.values}: only sample() draws, use linear or log:LO:HI:NUM")
        return self.values

    def at(self, u: np.ndarray) -> list[Any]:
        """The values at the points u of [0, 1)."""
        if isinstance(self.values, Span):
            return self.values.at(u, whole=self.slot.whole and not self.multiplies).tolist()
        last = len(self.values) - 1
        return [self.values[min(int(share * len(self.values)), last)] for share in u]

    def value(self, chosen: Any, hp: Any) -> Any:
        """The new value of the field: `chosen`, or `chosen` times its value in `hp`."""
        if not self.multiplies:
            return chosen
        product = chosen * _base_value(hp, self.name)
        if self.slot.whole and abs(product - round(product)) <= 1e-9 * abs(product):
            return round(product)
        if self.slot.declared.whole:
            got = f"{chosen:g} times the base's value is {product:g}, not a whole number"
            raise InputError(f"axis {self.setting}: {got}: list whole ones, as in {self.name}=2,4")
        return product


def _axes(make: Callable[..., Any], choices: Mapping[str, Slot], given: Mapping[str, Any]) -> list[_Axis]:
    """The axes in the given order; each is checked against the first configuration of the axes before it."""
    wanted = {name.replace("__", "."): read_axis(name, values) for name, values in given.items()}
    if len(wanted) < len(given):
        raise InputError(f"an axis is given twice, dotted and with '__', in {', '.join(given)}: keep one of them")
    checked: dict[str, _Axis] = {}
    filled: dict[str, str] = {}
    # Choices of theory come before fields, and whole compressors before the fields inside them.
    for name in sorted(wanted, key=lambda name: (name not in choices, name.count("."))):
        before = list(checked.values())
        hp = _configure(make, before, [axis.first for axis in before])
        path = name if name in choices else _path(hp, name, choices)
        if (other := filled.setdefault(path, name)) != name:
            raise InputError(f"axes {other} and {name} are one field, {path}: keep one of them")
        slot = choices[name] if name in choices else _slot(hp, path)
        checked[name] = _axis(name, wanted[name], hp, slot, passed=name in choices)
    return [checked[name] for name in wanted]


def _axis(name: str, values: tuple[Any, ...] | Span | Times, hp: Any, slot: Slot, passed: bool) -> _Axis:
    if not isinstance(values, Times):
        return _Axis(name, slot, slot.fit(name, values), multiplies=False, passed=passed)
    slot = dataclasses.replace(slot, like=_base_value(hp, name))
    return _Axis(name, slot, _MULTIPLIER.fit(name + THEORY, values.values), multiplies=True, passed=passed)


def _build(
    make: Callable[..., Any], axes: Sequence[_Axis], rows: Sequence[Sequence[Any]], labels: dict[str, tuple[Any, ...]]
) -> Grid:
    hparams = tuple(_configure(make, axes, row) for row in rows)
    settings = tuple({axis.setting: label(value) for axis, value in zip(axes, row, strict=True)} for row in rows)
    return Grid(hparams, labels, settings)


def _configure(make: Callable[..., Any], axes: Sequence[_Axis], row: Sequence[Any]) -> Any:
    """One configuration: the base for the chosen values, then fields replaced, whole compressors first."""
    chosen = list(zip(axes, row, strict=True))
    passed = {axis.name: value for axis, value in chosen if axis.passed and not axis.multiplies}
    plain_base = make(**passed)
    multiples = {axis.name: axis.value(value, plain_base) for axis, value in chosen if axis.passed and axis.multiplies}
    hp = make(**passed, **multiples)
    fields = [(axis, value) for axis, value in chosen if not axis.passed]
    for axis, value in sorted(fields, key=lambda pair: pair[0].name.count(".")):
        hp = _put(hp, _path(hp, axis.name).split("."), axis.value(value, hp))
    return hp


def _base(base: Any) -> tuple[Callable[..., Any], dict[str, Slot]]:
    """A function that makes the base for given choices (cached), and the slot of each choice."""
    if _is_tree(base):
        return lambda: base, {}
    if not callable(base) or isinstance(base, type):
        raise InputError(f"a grid's base is hyperparameters or a callable that returns them, got {short(base)}")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    choices = [choice for choice in inspect.signature(base).parameters.values() if choice.kind in kinds]
    unbound = [choice.name for choice in choices if choice.default is choice.empty]
    if unbound:
        fix = "use functools.partial(algorithm.theory, problem)"
        raise InputError(f"a grid's base must need no arguments, got one that needs {' and '.join(unbound)}: {fix}")
    made: dict[tuple[Any, ...], Any] = {}

    def make(**passed: Any) -> Any:
        key = tuple((name, str(value)) for name, value in passed.items())
        if key not in made:
            made[key] = _called(base, passed)
        return made[key]

    declared = parameters(base)
    return make, {choice.name: Slot(plain(choice.default), declared[choice.name]) for choice in choices}


def _called(base: Callable[..., Any], passed: Mapping[str, Any]) -> Any:
    try:
        hp = base(**passed)
    except InputError:
        raise
    except ValueError as error:
        given = ", ".join(f"{name}={value}" for name, value in passed.items())
        raise InputError(f"the grid's base does not take {given}: {error}") from error
    if not _is_tree(hp):
        raise InputError(f"a grid's base must return hyperparameters, got {short(hp)}")
    return hp


def _paths(tree: Any) -> Iterator[str]:
    """The dotted names of all fields, nested ones included."""
    for field in dataclasses.fields(tree):
        yield field.name
        value = getattr(tree, field.name)
        if _is_tree(value):
            yield from (f"{field.name}.{path}" for path in _paths(value))


def _path(hp: Any, name: str, choices: Iterable[str] = ()) -> str:
    """The full dotted name for `name`: `name` itself, or the only field below its head with its last name."""
    paths = list(_paths(hp))
    if name in paths:
        return name
    head, _, last = name.rpartition(".")
    below = [path for path in paths if head and path.startswith(head + ".") and path.endswith("." + last)]
    if len(below) > 1:
        raise InputError(f"axis {name} may be {' or '.join(below)}: write one of them in full")
    if not below:
        inside = f" ({head} is {_get(hp, head)})" if head in paths else ""
        raise unknown(f"hyperparameter{inside}", name, {*paths, *choices})
    return below[0]


def _slot(hp: Any, path: str) -> Slot:
    holder, _, name = path.rpartition(".")
    owner = _get(hp, holder) if holder else hp
    return Slot(plain(getattr(owner, name)), declarations(type(owner))[name])


def _base_value(hp: Any, name: str) -> Any:
    """The number that the base has in a field, which multiples need."""
    value = plain(_get(hp, _path(hp, name)))
    if not is_number(value):
        raise InputError(f"axis {name}: theory* (times) needs a number, got {short(value)}: list values instead")
    return value


def _get(hp: Any, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), hp)


def _put(tree: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `tree` with the field at `path` replaced."""
    name, *rest = path
    return pytree.replace(tree, **{name: _put(getattr(tree, name), rest, value) if rest else value})


def _cube(num: int, dims: int, method: str, seed: int) -> np.ndarray:
    """(num, dims) points of [0, 1)."""
    from scipy.stats import qmc

    if not isinstance(num, numbers.Integral) or not 1 <= num <= MOST:
        few = f"at most {MOST:,} and at least 1"
        raise InputError(f"sample needs a whole number of configurations, {few}, got {short(num)}")
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"sample needs a whole seed, at least 0, got {short(seed)}")
    if method not in SAMPLERS:
        raise unknown("sampling method", method, SAMPLERS)
    rng = np.random.default_rng(seed)
    if method == "random":
        return rng.random((num, dims))
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton, "latin": qmc.LatinHypercube}[method](dims, seed=rng)
    # SciPy warns where Sobol's points are no power of two: the first num of the next power are the same points.
    drawn = 1 << (num - 1).bit_length() if method == "sobol" else num
    return engine.random(drawn)[:num]


def _is_tree(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
