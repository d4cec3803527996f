"""Which configurations a sweep runs: product grids and samples of hyperparameters, as plain values on the host.

An axis (see axes.py) names a field of the hyperparameters, or a choice that the method's theory offers. A nested field
is dotted: `compressor.first.k`, `compressor__first__k` in Python, or `compressor.k` where only one field below has that
name.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import Declaration, declarations, parameters
from fedjax_lc.sweeping.axes import Slot, Span, Times, is_number, label, plain, read_axis, short

SAMPLERS = ("random", "sobol", "halton", "latin")
THEORY = "/theory"  #: ends the name of a setting that is a multiple of the base's own value


@dataclasses.dataclass(frozen=True)
class Grid:
    """The configurations of a sweep, in order.

    Attributes:
        hparams: one Hparams per configuration; product grids in row-major order, the last axis fastest.
        axes: of product grids, axis -> its values as plain labels (float, int, str), in order; {} otherwise.
        settings: per configuration, axis -> its label ({} where the configurations were given one by one).

    Example:
        >>> found = grid(hp, gamma=[0.1, 0.2], compressor="rand_k:1|natural; natural")
        >>> len(found), found.settings[1]
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
        """A Grid from one Hparams or a list of them; a Grid passes through.

        Raises:
            InputError: an empty list, entries that are no hyperparameters, or of several methods.
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
        base: an Hparams, whose other fields stay; or a callable that returns one, such as
            `functools.partial(algorithm.theory, problem)`. Axes that are parameters of the callable (compressor,
            p="balanced", local_steps, ...) are passed to it, so the theory is computed again for each of their values.
            The other axes replace fields afterwards, and nothing else follows: with compressor.k on an axis, gamma
            stays that of the base's own k (put whole compressors on an axis to have it follow).
        axes: field -> a sequence (numbers; Compressors or their strings; None, labelled "None", where its type
            admits it), one value, `times(values)`, or the string form of `parse_axis`. Nested fields: see the head of
            this file.

    Returns:
        A Grid. Numbers are plain Python numbers, of the kind the field has in the base: whole where it is an int and
        all values are whole, else floats. A sweep takes them as arrays, so they never part its lanes.

    Raises:
        InputError: an unknown or ambiguous field; an empty axis; a value given twice or of the wrong kind.

    Example:
        >>> theory = functools.partial(fl.algorithms.get("locodl").theory, problem)
        >>> found = grid(theory, compressor=["rand_k:1|natural", "natural"], gamma="theory*log:0.25:4:9")
        >>> len(found), found.settings[0]
        (18, {'compressor': 'rand_k:1|natural', 'gamma/theory': 0.25})
    """
    make, choices = _base(base)
    found = _axes(make, choices, axes)
    columns = [axis.listed() for axis in found]
    labels = {axis.setting: tuple(map(label, values)) for axis, values in zip(found, columns, strict=True)}
    return _build(make, found, list(itertools.product(*columns)), labels)


def sample(base: Any, num: int, *, method: str = "random", seed: int = 0, **axes: Any) -> Grid:
    """`num` configurations drawn from the axes' ranges.

    Args:
        base: as for `grid`.
        num: how many, any number (Sobol's points are balanced at powers of two).
        method: "random" (NumPy's generator), or a low-discrepancy set of scipy.stats.qmc, scrambled: "sobol",
            "halton", "latin" (Latin hypercube).
        seed: of the draw; the same seed gives the same configurations.
        axes: field -> `uniform`, `loguniform`, `times` of them, their string forms; or values as for `grid`, each
            equally likely.

    Raises:
        InputError: as `grid`; no axes, num < 1, a negative seed, or an unknown method.

    Example:
        >>> found = sample(theory, 64, method="sobol", gamma="theory*loguniform:0.25:4", compressor="rand_k:1; natural")
        >>> sorted(found.settings[0])
        ['compressor', 'gamma/theory']
    """
    if not axes:
        raise InputError("sample needs at least one axis, got none: give one, as in gamma=loguniform(0.01, 1)")
    make, choices = _base(base)
    found = _axes(make, choices, axes)
    drawn = [axis.at(u) for axis, u in zip(found, _cube(num, len(found), method, seed).T, strict=True)]
    return _build(make, found, list(zip(*drawn, strict=True)), {})


_MULTIPLIER = Slot(1.0, Declaration(types=frozenset({float})))


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An axis that fits the base: its values, or the Span that a sample draws from."""

    name: str
    slot: Slot
    values: tuple[Any, ...] | Span
    multiplies: bool
    passed: bool  #: to the callable base; otherwise it replaces a field

    @property
    def setting(self) -> str:
        return self.name + THEORY * self.multiplies

    @property
    def first(self) -> Any:
        return self.values.lo if isinstance(self.values, Span) else self.values[0]

    def listed(self) -> tuple[Any, ...]:
        """The values, which a Span for samples lacks."""
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
        """What the field becomes: `chosen`, or that multiple of what `hp` has there."""
        if not self.multiplies:
            return chosen
        product = chosen * _own(hp, self.name)
        if self.slot.whole and abs(product - round(product)) <= 1e-9 * abs(product):
            return round(product)
        if self.slot.declared.whole:
            got = f"{chosen:g} times the base's own value is {product:g}, not a whole number"
            raise InputError(f"axis {self.setting}: {got}: list whole ones, as in {self.name}=2,4")
        return product


def _axes(make: Callable[..., Any], choices: Mapping[str, Slot], given: Mapping[str, Any]) -> list[_Axis]:
    """The axes in the order given, each held against the first configuration of those that come before it."""
    wanted = {name.replace("__", "."): read_axis(name, values) for name, values in given.items()}
    if len(wanted) < len(given):
        raise InputError(f"an axis is given twice, dotted and with '__', in {', '.join(given)}: keep one of them")
    found: dict[str, _Axis] = {}
    filled: dict[str, str] = {}
    # Choices of theory before fields, and whole compressors before what is inside them.
    for name in sorted(wanted, key=lambda name: (name not in choices, name.count("."))):
        before = list(found.values())
        hp = _configure(make, before, [axis.first for axis in before])
        path = name if name in choices else _path(hp, name, choices)
        if (other := filled.setdefault(path, name)) != name:
            raise InputError(f"axes {other} and {name} are one field, {path}: keep one of them")
        slot = choices[name] if name in choices else _slot(hp, path)
        found[name] = _axis(name, wanted[name], hp, slot, passed=name in choices)
    return [found[name] for name in wanted]


def _axis(name: str, values: tuple[Any, ...] | Span | Times, hp: Any, slot: Slot, passed: bool) -> _Axis:
    if not isinstance(values, Times):
        return _Axis(name, slot, slot.fit(name, values), multiplies=False, passed=passed)
    slot = dataclasses.replace(slot, like=_own(hp, name))
    return _Axis(name, slot, _MULTIPLIER.fit(name + THEORY, values.values), multiplies=True, passed=passed)


def _build(
    make: Callable[..., Any], axes: Sequence[_Axis], rows: Sequence[Sequence[Any]], labels: dict[str, tuple[Any, ...]]
) -> Grid:
    hparams = tuple(_configure(make, axes, row) for row in rows)
    settings = tuple({axis.setting: label(value) for axis, value in zip(axes, row, strict=True)} for row in rows)
    return Grid(hparams, labels, settings)


def _configure(make: Callable[..., Any], axes: Sequence[_Axis], row: Sequence[Any]) -> Any:
    """One configuration: theory for the choices made, then its fields replaced, whole compressors first."""
    chosen = list(zip(axes, row, strict=True))
    passed = {axis.name: value for axis, value in chosen if axis.passed and not axis.multiplies}
    own = make(**passed)
    multiples = {axis.name: axis.value(value, own) for axis, value in chosen if axis.passed and axis.multiplies}
    hp = make(**passed, **multiples)
    fields = [(axis, value) for axis, value in chosen if not axis.passed]
    for axis, value in sorted(fields, key=lambda pair: pair[0].name.count(".")):
        hp = _put(hp, _path(hp, axis.name).split("."), axis.value(value, hp))
    return hp


def _base(base: Any) -> tuple[Callable[..., Any], dict[str, Slot]]:
    """How to make the base for some choices (each made once), and what the choices are."""
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
        told = ", ".join(f"{name}={value}" for name, value in passed.items())
        raise InputError(f"the grid's base does not take {told}: {error}") from error
    if not _is_tree(hp):
        raise InputError(f"a grid's base must return hyperparameters, got {short(hp)}")
    return hp


def _paths(tree: Any) -> Iterator[str]:
    """Dotted names of all fields, nested ones too."""
    for field in dataclasses.fields(tree):
        yield field.name
        value = getattr(tree, field.name)
        if _is_tree(value):
            yield from (f"{field.name}.{path}" for path in _paths(value))


def _path(hp: Any, name: str, choices: Iterable[str] = ()) -> str:
    """The field that `name` means: itself, or the one field of its last name below the others."""
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


def _own(hp: Any, name: str) -> Any:
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

    if not isinstance(num, numbers.Integral) or num < 1:
        raise InputError(f"sample needs a whole number of configurations, at least 1, got {short(num)}")
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
