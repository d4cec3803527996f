"""Which configurations a sweep runs: product grids and samples of hyperparameters, as plain values on the host.

An axis names a field of the hyperparameters, or a choice that the method's theory offers. A nested field is dotted:
`compressor.first.k`, `compressor__first__k` in Python, or `compressor.k` where only one field below has that name.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from scipy.stats import qmc

from fedjax_lc import pytree
from fedjax_lc.compressors import Compressor, parse
from fedjax_lc.compressors.parse import _split
from fedjax_lc.errors import InputError, unknown

SAMPLERS = ("random", "sobol", "halton", "latin")
COMPRESSORS = "compressors such as rand_k:1"
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
                raise InputError(f"a sweep takes hyperparameters, a list of them or a Grid, got {_short(hp)}")
            if type(hp) is not type(given[0]):
                raise InputError("a sweep takes hyperparameters of one method, got several kinds: sweep them in turn")
        return cls(given, {}, tuple({} for _ in given))


@dataclasses.dataclass(frozen=True)
class Span:
    """Numbers between lo and hi, even or (`log`) even in the logarithm: `num` of them, or any (None, for samples)."""

    lo: float
    hi: float
    log: bool = False
    num: int | None = None

    def __post_init__(self) -> None:
        ends = (self.lo, self.hi)
        if not all(map(_is_number, ends)):
            raise InputError(f"axis {self} needs finite numbers as its ends, got {self.lo!r} and {self.hi!r}")
        if self.num is not None and (not _is_number(self.num) or self.num != int(self.num) or self.num < 1):
            raise InputError(f"axis {self} needs a whole number of values, at least 1, got {self.num}")
        if not ends[0] < ends[1]:
            raise InputError(f"axis {self} needs lo < hi, got {ends[0]:g} and {ends[1]:g}: the smaller one goes first")
        if self.log and ends[0] <= 0:
            raise InputError(f"axis {self} needs lo > 0, got {ends[0]:g}: start above 0, or use a linear scale")

    def __str__(self) -> str:
        kind = ("uniform", "loguniform") if self.num is None else ("linear", "log")
        return f"{kind[self.log]}:{self.lo}:{self.hi}" + ("" if self.num is None else f":{self.num}")

    def at(self, u: Any) -> np.ndarray:
        """The numbers at shares u in [0, 1] of the way."""
        if not self.log:
            return np.clip(self.lo + np.asarray(u) * (self.hi - self.lo), self.lo, self.hi)
        return np.clip(self.lo * (self.hi / self.lo) ** np.asarray(u), self.lo, self.hi)

    def values(self) -> list[float]:
        """The `num` numbers, to 15 digits, so that 1 in the middle is 1."""
        return [float(f"{value:.15g}") for value in self.at(np.linspace(0, 1, int(self.num or 1)))]


@dataclasses.dataclass(frozen=True)
class Times:
    """Multipliers of each configuration's own value."""

    values: Any


def uniform(lo: float, hi: float) -> Span:
    """An axis for `sample`: numbers in [lo, hi], uniform.

    Whole numbers lo..hi, equally likely, where the field holds a whole number and both ends are whole.

    Raises:
        InputError: ends that are no finite numbers, or lo >= hi.

    Example:
        >>> points = sample(hp, 64, method="sobol", p=uniform(0.05, 0.5))
    """
    return Span(_plain(lo), _plain(hi))


def loguniform(lo: float, hi: float) -> Span:
    """An axis for `sample`: numbers in [lo, hi] whose logarithm is uniform.

    Where the field holds a whole number and both ends are whole: whole numbers, k as likely as [k, k + 1) is.

    Raises:
        InputError: as `uniform`, or lo <= 0.

    Example:
        >>> points = sample(hp, 64, gamma=times(loguniform(0.25, 4)))
    """
    return Span(_plain(lo), _plain(hi), log=True)


def times(values: Any) -> Times:
    """An axis that multiplies each configuration's own value, as its theory or `base` gives it, by these numbers.

    Its name in `axes` and `settings` is "gamma/theory" and its labels are the multipliers. The choices that other axes
    make come first: with compressors on an axis and theory as the base, each compressor's own gamma is multiplied.

    Args:
        values: numbers, their string form, or `uniform` or `loguniform` in a sample.

    Raises:
        InputError: multipliers that are no axis of numbers (when the grid is made).

    Example:
        >>> grid(hp, gamma=times([0.5, 1, 2])).axes
        {'gamma/theory': (0.5, 1.0, 2.0)}
    """
    return Times(values)


def parse_axis(text: str) -> tuple[Any, ...] | Span | Times:
    """The axis that `text` spells.

    "0.1, 0.3, 1"                      values; words too ("theory, balanced")
    "rand_k:1|natural; natural"        compressors, separated by ';' because they hold commas
    "linear:LO:HI:NUM"                 NUM values, both ends included, evenly spaced
    "log:LO:HI:NUM"                    the same, evenly spaced in the logarithm
    "uniform:LO:HI", "loguniform:LO:HI"  any number in between, for samples
    "theory*AXIS"                      multiples of the base's own value, AXIS any of the above that gives numbers

    On a field that holds a whole number (k, local_steps), linear and log with whole ends round to distinct whole
    numbers, so they may give fewer than NUM; on any other field nothing is rounded.

    Raises:
        InputError: an empty value or a form other than these.

    Example:
        >>> parse_axis("log:0.25:4:5")
        Span(lo=0.25, hi=4, log=True, num=5)
        >>> parse_axis("theory*0.5, 1")
        Times(values=(0.5, 1))
    """
    multiple = re.fullmatch(r"\s*theory\s*\*(.*)", text, flags=re.S)
    if multiple:
        return Times(parse_axis(multiple[1]))
    kind, *ends = (part.strip() for part in text.split(":"))
    if kind in ("linear", "log", "uniform", "loguniform"):
        return _span(kind, ends, text)
    pieces = [part.strip() for part in _pieces(text)]
    if not all(pieces):
        what = "has an empty value" if len(pieces) > 1 else "is empty"
        raise InputError(f"axis {text!r} {what}: write values as in '0.1, 0.3' or 'log:0.1:1:5'")
    return tuple(map(_number_or_word, pieces))


def grid(base: Any, **axes: Any) -> Grid:
    """All combinations of the axes' values, in row-major order: the last axis given moves fastest.

    Args:
        base: an Hparams, whose other fields stay; or a callable that returns one, such as
            `functools.partial(algorithm.theory, problem)`. Axes that are parameters of the callable (compressor,
            p="balanced", local_steps, ...) are passed to it, so the theory is computed again for each of their values.
            The other axes replace fields afterwards, and nothing else follows: with compressor.k on an axis, gamma
            stays that of the base's own k (put whole compressors on an axis to have it follow).
        axes: field -> a sequence (numbers; Compressors or their strings), one value, `times(values)`, or the string
            form of `parse_axis`. Nested fields: see the head of this file.

    Returns:
        A Grid. Numbers are plain Python numbers, of the kind the field has in the base: whole where it is an int and
        all values are whole, else floats. They are leaves, so they never change the tree's structure.

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
    labels = {axis.setting: tuple(map(_label, values)) for axis, values in zip(found, columns, strict=True)}
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


@dataclasses.dataclass(frozen=True)
class _Slot:
    """What an axis fills: its value in the base (None if unknown) and the words of its annotation."""

    like: Any
    words: frozenset[str]

    @classmethod
    def of(cls, like: Any, annotation: Any) -> _Slot:
        return cls(_plain(like), frozenset(re.findall(r"\w+", str(annotation))))

    @property
    def kinds(self) -> list[str]:
        """The kinds of values that may stand here."""
        if isinstance(self.like, Compressor) or "Compressor" in self.words:
            return [COMPRESSORS]
        truth, word = "bool" in self.words or isinstance(self.like, bool), "str" in self.words
        number = bool(self.words & {"int", "float"}) or not (truth or word)
        return ["finite numbers"] * number + ["words"] * word + ["true or false"] * truth

    @property
    def must_be_whole(self) -> bool:
        return "int" in self.words and "float" not in self.words

    @property
    def whole(self) -> bool:
        return self.must_be_whole or (_is_number(self.like) and isinstance(self.like, numbers.Integral))

    def read(self, name: str, value: Any) -> Any:
        """A value of one of the kinds."""
        value, kinds = _plain(value), self.kinds
        if COMPRESSORS in kinds and isinstance(value, str | Compressor):
            return parse(value)
        if "true or false" in kinds and (isinstance(value, bool) or value in ("true", "false")):
            return value in (True, "true")
        if ("finite numbers" in kinds and _is_number(value)) or ("words" in kinds and isinstance(value, str)):
            return value
        raise InputError(f"axis {name} takes {' or '.join(kinds)}, got {_short(value)}")

    def alike(self, name: str, values: Sequence[Any]) -> tuple[Any, ...]:
        """The values, their numbers all of one type: that of the base where it can be."""
        broken = [value for value in values if _is_number(value) and value != int(value)]
        if broken and self.must_be_whole:
            raise InputError(f"axis {name} takes whole numbers, got {broken[0]}: list whole ones, as in {name}=2,4")
        if self.like is None and not self.words & {"int", "float"}:
            return tuple(values)
        kind: Callable[[Any], Any] = int if self.whole and not broken else float
        return tuple(kind(value) if _is_number(value) else value for value in values)


_MULTIPLIER = _Slot(1.0, frozenset({"float"}))


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An axis that fits the base: its values, or the Span that a sample draws from."""

    name: str
    slot: _Slot
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
        if not isinstance(self.values, Span):
            return [self.values[min(int(share * len(self.values)), len(self.values) - 1)] for share in u]
        if self.multiplies or not (self.slot.whole and _whole_ends(self.values)):
            return self.values.at(u).tolist()
        lo, hi = int(self.values.lo), int(self.values.hi)
        return [min(int(value), hi) for value in Span(lo, hi + 1, self.values.log).at(u)]

    def value(self, chosen: Any, hp: Any) -> Any:
        """What the field becomes: `chosen`, or that multiple of what `hp` has there."""
        if not self.multiplies:
            return chosen
        product = chosen * _own(hp, self.name)
        if self.slot.whole and abs(product - round(product)) <= 1e-9 * abs(product):
            return round(product)
        if self.slot.must_be_whole:
            got = f"{chosen:g} times the base's own value is {product:g}, not a whole number"
            raise InputError(f"axis {self.setting}: {got}: list whole ones, as in {self.name}=2,4")
        return product


def _axes(make: Callable[..., Any], choices: Mapping[str, _Slot], given: Mapping[str, Any]) -> list[_Axis]:
    """The axes in the order given, each held against the first configuration of those that come before it."""
    wanted = {name.replace("__", "."): _opened(name, values) for name, values in given.items()}
    if len(wanted) < len(given):
        raise InputError(f"an axis is given twice, dotted and with '__', in {', '.join(given)}: keep one of them")
    # Choices of theory before fields, and whole compressors before what is inside them.
    order = sorted(wanted, key=lambda name: (name not in choices, name.count(".")))
    found: dict[str, _Axis] = {}
    for name in order:
        found[name] = _axis(name, wanted[name], _first(make, found), choices)
    _distinct(_first(make, found), [axis.name for axis in found.values() if not axis.passed])
    return [found[name] for name in wanted]


def _axis(name: str, values: Any, hp: Any, choices: Mapping[str, _Slot]) -> _Axis:
    multiplies, passed = isinstance(values, Times), name in choices
    slot = choices[name] if passed else _slot(hp, _path(hp, name, choices))
    if not multiplies:
        return _Axis(name, slot, _listed(name, slot, values), multiplies, passed)
    slot = dataclasses.replace(slot, like=_own(hp, name))
    return _Axis(name, slot, _listed(name + THEORY, _MULTIPLIER, values.values), multiplies, passed)


def _first(make: Callable[..., Any], found: Mapping[str, _Axis]) -> Any:
    return _configure(make, list(found.values()), [axis.first for axis in found.values()])


def _distinct(hp: Any, names: list[str]) -> None:
    """Refuse two names for one field."""
    at: dict[str, str] = {}
    for name in names:
        other = at.setdefault(_path(hp, name), name)
        if other != name:
            raise InputError(f"axes {other} and {name} are one field, {_path(hp, name)}: keep one of them")


def _opened(name: str, values: Any) -> Any:
    """The values as a tuple, or the Span or Times that they are."""
    values = parse_axis(values) if isinstance(values, str) else _plain(values)
    if isinstance(values, Times):
        inner = _opened(name, values.values)
        if isinstance(inner, Times):
            raise InputError(f"axis {name} multiplies twice (theory*theory*): name the multipliers once")
        return Times(inner)
    if isinstance(values, Span):
        return values
    if isinstance(values, Compressor | bool | numbers.Number):
        return (values,)
    if isinstance(values, Mapping | Set) or not isinstance(values, Iterable):
        raise InputError(f"axis {name} takes a list of values, times(...) or a string, got {_short(values)}")
    return tuple(values)


def _listed(name: str, slot: _Slot, values: tuple[Any, ...] | Span) -> tuple[Any, ...] | Span:
    """The values, each of a kind that fits, or the Span to draw from."""
    if isinstance(values, Span):
        whole = slot.whole and _whole_ends(values)
        slot.read(name, values.lo)
        if values.num is None:
            slot.alike(name, (values.lo, values.hi))
            return values
        spaced = values.values()
        values = tuple(dict.fromkeys(map(round, spaced))) if whole else tuple(spaced)
    read = slot.alike(name, [slot.read(name, value) for value in values])
    if not read:
        raise InputError(f"axis {name} is empty: give at least one value")
    seen: set[Any] = set()
    for label in map(_label, read):
        if label in seen:
            raise InputError(f"axis {name} has {label} twice: list each value once")
        seen.add(label)
    return read


def _build(
    make: Callable[..., Any], axes: Sequence[_Axis], rows: Sequence[Sequence[Any]], labels: dict[str, tuple[Any, ...]]
) -> Grid:
    hparams = tuple(_configure(make, axes, row) for row in rows)
    settings = tuple({axis.setting: _label(value) for axis, value in zip(axes, row, strict=True)} for row in rows)
    return Grid(hparams, labels, settings)


def _configure(make: Callable[..., Any], axes: Sequence[_Axis], row: Sequence[Any]) -> Any:
    """One configuration: theory for the choices made, then its fields replaced, whole compressors first."""
    chosen = list(zip(axes, row, strict=True))
    passed = {axis.name: value for axis, value in chosen if axis.passed and not axis.multiplies}
    hp = make(**passed)
    multiples = {axis.name: axis.value(value, hp) for axis, value in chosen if axis.passed and axis.multiplies}
    hp = make(**passed, **multiples) if multiples else hp
    fields = [(axis, value) for axis, value in chosen if not axis.passed]
    for axis, value in sorted(fields, key=lambda pair: pair[0].name.count(".")):
        hp = _put(hp, _path(hp, axis.name).split("."), axis.value(value, hp))
    return hp


def _base(base: Any) -> tuple[Callable[..., Any], dict[str, _Slot]]:
    """How to make the base for some choices (each made once), and what the choices are."""
    if _is_tree(base):
        return lambda: base, {}
    if not callable(base) or isinstance(base, type):
        raise InputError(f"a grid's base is hyperparameters or a callable that returns them, got {_short(base)}")
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

    return make, {choice.name: _Slot.of(choice.default, choice.annotation) for choice in choices}


def _called(base: Callable[..., Any], passed: Mapping[str, Any]) -> Any:
    try:
        hp = base(**passed)
    except InputError:
        raise
    except ValueError as error:
        told = ", ".join(f"{name}={value}" for name, value in passed.items())
        raise InputError(f"the grid's base does not take {told}: {error}") from error
    if not _is_tree(hp):
        raise InputError(f"a grid's base must return hyperparameters, got {_short(hp)}")
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


def _slot(hp: Any, path: str) -> _Slot:
    holder, _, name = path.rpartition(".")
    owner = _get(hp, holder) if holder else hp
    annotation = next(field.type for field in dataclasses.fields(owner) if field.name == name)
    return _Slot.of(getattr(owner, name), annotation)


def _own(hp: Any, name: str) -> Any:
    value = _plain(_get(hp, _path(hp, name)))
    if not _is_number(value):
        raise InputError(f"axis {name}: theory* (times) needs a number, got {_short(value)}: list values instead")
    return value


def _get(hp: Any, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), hp)


def _put(tree: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `tree` with the field at `path` replaced."""
    name, *rest = path
    return pytree.replace(tree, **{name: _put(getattr(tree, name), rest, value) if rest else value})


def _cube(num: int, dims: int, method: str, seed: int) -> np.ndarray:
    """(num, dims) points of [0, 1)."""
    if not isinstance(num, numbers.Integral) or num < 1:
        raise InputError(f"sample needs a whole number of configurations, at least 1, got {_short(num)}")
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"sample needs a whole seed, at least 0, got {_short(seed)}")
    if method not in SAMPLERS:
        raise unknown("sampling method", method, SAMPLERS)
    rng = np.random.default_rng(seed)
    if method == "random":
        return rng.random((num, dims))
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton, "latin": qmc.LatinHypercube}[method](dims, seed=rng)
    # SciPy warns where Sobol's points are no power of two: the first num of the next power are the same points.
    drawn = 1 << (num - 1).bit_length() if method == "sobol" else num
    return engine.random(drawn)[:num]


def _span(kind: str, ends: Sequence[str], text: str) -> Span:
    form = ("LO", "HI", "NUM") if kind in ("linear", "log") else ("LO", "HI")
    if len(ends) != len(form):
        raise InputError(f"axis {text!r} must be {':'.join((kind, *form))}, got {len(ends)} of its {len(form)} numbers")
    lo, hi, *num = map(_number_or_word, ends)
    return Span(lo, hi, kind.startswith("log"), *num)


def _pieces(text: str) -> list[str]:
    """Split at ';' outside brackets; else at ',' where only numbers and plain words stand between them."""
    if len(parts := _split(text, ";")) > 1:
        return parts
    pieces = text.split(",")
    simple = all(re.fullmatch(r"\s*\w*\s*", piece) or _is_number(_number_or_word(piece)) for piece in pieces)
    return pieces if simple else [text]


def _number_or_word(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _whole_ends(span: Span) -> bool:
    return float(span.lo).is_integer() and float(span.hi).is_integer()


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_tree(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _plain(value: Any) -> Any:
    """NumPy's and JAX's numbers as Python's; all else as it is."""
    scalar = hasattr(value, "item") and not pytree.is_traced(value) and np.ndim(value) == 0
    return value.item() if scalar else value


def _label(value: Any) -> Any:
    return str(value) if isinstance(value, Compressor) else value


def _short(value: Any) -> str:
    text = " ".join((str(value) if isinstance(value, Compressor) else repr(value)).split())
    return text if len(text) <= 60 else text[:57] + "..."
