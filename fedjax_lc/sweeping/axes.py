"""What an axis of a grid or a sample is: values, numbers between two ends, multiples; and how text spells them."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors import Compressor, parse
from fedjax_lc.core import pytree, spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import Declaration

COMPRESSORS = "compressors such as rand_k:1"
TOPOLOGIES = "topologies, as from fl.topology"
MOST = 1_000_000  #: values of an axis, configurations of a grid, lanes of a sweep
SPACED, DRAWN = ("linear", "log"), ("uniform", "loguniform")  #: spans of a grid and of a sample, each even or log


@dataclasses.dataclass(frozen=True)
class Span:
    """Numbers between lo and hi, even or (`log`) even in the logarithm: `num` of them, or any (None, for samples)."""

    lo: float
    hi: float
    log: bool = False
    num: int | None = None

    def __post_init__(self) -> None:
        lo, hi, num = self.lo, self.hi, self.num
        if not (is_number(lo) and is_number(hi)):
            raise InputError(f"axis {self} needs finite numbers as its ends, got {lo!r} and {hi!r}")
        if num is not None and (not is_number(num) or num != int(num) or not 1 <= num <= MOST):
            raise InputError(f"axis {self} needs a whole number of values, at most {MOST:,} and at least 1, got {num}")
        if not lo < hi:
            raise InputError(f"axis {self} needs lo < hi, got {lo:g} and {hi:g}: the smaller one goes first")
        if self.log and lo <= 0:
            raise InputError(f"axis {self} needs lo > 0, got {lo:g}: start above 0, or use a linear scale")

    def __str__(self) -> str:
        parts = (self.lo, self.hi) if self.num is None else (self.lo, self.hi, self.num)
        return ":".join([(DRAWN if self.num is None else SPACED)[self.log], *map(str, parts)])

    def at(self, u: Any, whole: bool = False) -> np.ndarray:
        """The numbers at shares u in [0, 1] of the way; whole: k for what falls in [k, k + 1), if both ends are whole.

        Shape that of u.
        """
        if whole and self._whole_ends:
            return np.clip(np.floor(Span(self.lo, self.hi + 1, self.log).at(u)), self.lo, self.hi).astype(int)
        u = np.asarray(u)
        between = self.lo * (self.hi / self.lo) ** u if self.log else self.lo + u * (self.hi - self.lo)
        return np.clip(between, self.lo, self.hi)

    def spaced(self, whole: bool = False) -> tuple[float, ...]:
        """The `num` numbers, to 15 digits, so that 1 in the middle is 1; whole: rounded, if both ends are whole."""
        spaced = [float(f"{value:.15g}") for value in self.at(np.linspace(0, 1, int(self.num or 0)))]
        return tuple(dict.fromkeys(map(round, spaced)) if whole and self._whole_ends else spaced)

    @property
    def _whole_ends(self) -> bool:
        return float(self.lo).is_integer() and float(self.hi).is_integer()


@dataclasses.dataclass(frozen=True)
class Times:
    """Multipliers of the value of each configuration."""

    values: Any


def uniform(lo: float, hi: float) -> Span:
    """An axis for `sample`: numbers in [lo, hi], uniform.

    Whole numbers lo..hi, equally likely, where the field holds a whole number and both ends are whole.

    Raises:
        InputError: ends that are no finite numbers, or lo >= hi.

    Example:
        >>> points = sample(hp, 64, method="sobol", p=uniform(0.05, 0.5))
    """
    return Span(plain(lo), plain(hi))


def loguniform(lo: float, hi: float) -> Span:
    """An axis for `sample`: numbers in [lo, hi] whose logarithm is uniform.

    Where the field holds a whole number and both ends are whole: whole numbers, k as likely as [k, k + 1) is.

    Raises:
        InputError: as `uniform`, or lo <= 0.

    Example:
        >>> points = sample(hp, 64, gamma=times(loguniform(0.25, 4)))
    """
    return Span(plain(lo), plain(hi), log=True)


def times(values: Any) -> Times:
    """An axis that multiplies the value of each configuration, as its theory or `base` gives it, by these numbers.

    Its name in `axes` and `settings` is "gamma/theory" and its labels are the multipliers. The choices that other axes
    make come first: with compressors on an axis and theory as the base, the gamma of each compressor is multiplied.

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

    "0.1, 0.3, 1"                      values; words too ("theory, balanced", "2, None")
    "rand_k:1|natural; natural"        compressors, separated by ';' because they hold commas
    "linear:LO:HI:NUM"                 NUM values, both ends included, evenly spaced
    "log:LO:HI:NUM"                    the same, evenly spaced in the logarithm
    "uniform:LO:HI", "loguniform:LO:HI"  any number in between, for samples
    "theory*AXIS"                      multiples of the value of the base, AXIS any of the above that gives numbers

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
    if kind in SPACED + DRAWN:
        return _span(kind, ends, text)
    pieces = _pieces(text)
    if not all(pieces):
        what = "has an empty value" if len(pieces) > 1 else "is empty"
        raise InputError(f"axis {text!r} {what}: write values as in '0.1, 0.3' or 'log:0.1:1:5'")
    return tuple(map(_number_or_word, pieces))


def read_axis(name: str, values: Any) -> tuple[Any, ...] | Span | Times:
    """What was given for the axis `name` (a list, one value, text, ...) as a tuple, or the Span or Times that it is.

    Raises:
        InputError: text that is no axis, a set or another thing without an order, multiples of multiples.

    Example:
        >>> read_axis("gamma", np.array([0.5, 1.0])), read_axis("gamma", "theory*1, 2")
        ((0.5, 1.0), Times(values=(1, 2)))
    """
    values = parse_axis(values) if isinstance(values, str) else plain(values)
    if isinstance(values, Times):
        inner = read_axis(name, values.values)
        if isinstance(inner, Times):
            raise InputError(f"axis {name} multiplies twice (theory*theory*): name the multipliers once")
        return Times(inner)
    if isinstance(values, Span):
        return values
    if isinstance(values, Compressor | Topology | bool | numbers.Number):
        return (values,)
    if isinstance(values, Mapping | Set) or not isinstance(values, Iterable):
        raise InputError(f"axis {name} takes a list of values, times(...) or a string, got {short(values)}")
    return tuple(map(plain, values))


@dataclasses.dataclass(frozen=True)
class Slot:
    """What an axis fills: its value in the base (None if unknown), and what is declared of it."""

    like: Any
    declared: Declaration

    @property
    def kinds(self) -> list[str]:
        """The kinds of values that may stand here."""
        compressor = isinstance(self.like, Compressor) or self.declared.admits(Compressor)
        word = self.declared.admits(str) and not compressor
        truth = isinstance(self.like, bool) or self.declared.admits(bool)
        admitted = {
            COMPRESSORS: compressor,
            "finite numbers": self._numeric or not (compressor or word or truth),
            "words": word,
            TOPOLOGIES: self.declared.admits(Topology),
            "true or false": truth,
            "None": self.declared.admits(None),
        }
        return [kind for kind, fits in admitted.items() if fits]

    @property
    def _numeric(self) -> bool:
        return self.declared.admits(int) or self.declared.admits(float)

    @property
    def whole(self) -> bool:
        return self.declared.whole or (is_number(self.like) and isinstance(self.like, numbers.Integral))

    def fit(self, name: str, values: tuple[Any, ...] | Span) -> tuple[Any, ...] | Span:
        """The values of the axis `name` as the slot holds them, or the Span to draw from.

        Numbers are all of one type: that of the base where it can be. None is for a slot whose type admits it.

        Raises:
            InputError: no value, a value that does not fit, or one that is given twice.
        """
        if isinstance(values, Span) and values.num is None:
            self._read(name, (values.lo, values.hi))
            return values
        read = self._read(name, values.spaced(self.whole) if isinstance(values, Span) else values)
        if not read:
            raise InputError(f"axis {name} is empty: give at least one value")
        twice = [text for text, count in Counter(map(label, read)).items() if count > 1]
        if twice:
            raise InputError(f"axis {name} has {twice[0]} twice: list each value once")
        return read

    def _read(self, name: str, values: Iterable[Any]) -> tuple[Any, ...]:
        read = [self._read_one(name, value) for value in values]
        broken = [value for value in read if is_number(value) and value != int(value)]
        if broken and self.declared.whole:
            raise InputError(f"axis {name} takes whole numbers, got {broken[0]}: list whole ones, as in {name}=2,4")
        if self.like is None and not self._numeric:
            return tuple(read)
        kind: Callable[[Any], Any] = int if self.whole and not broken else float
        return tuple(kind(value) if is_number(value) else value for value in read)

    def _read_one(self, name: str, value: Any) -> Any:
        kinds = self.kinds
        if isinstance(value, str):
            spelled = {"None": type(None), "true or false": bool}
            value = spec.read(value, (*(kind for words, kind in spelled.items() if words in kinds), str))
        if COMPRESSORS in kinds and isinstance(value, str | Compressor):
            return parse(value)
        is_of = {
            "finite numbers": is_number(value),
            "words": isinstance(value, str),
            TOPOLOGIES: isinstance(value, Topology),
            "true or false": isinstance(value, bool),
            "None": value is None,
        }
        if any(is_of.get(kind) for kind in kinds):
            return value
        raise InputError(f"axis {name} takes {' or '.join(kinds)}, got {short(value)}")


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number, a whole one of 64 bits at most; truth values are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return -(2**63) <= int(value) < 2**63 if isinstance(value, numbers.Integral) else math.isfinite(value)


def plain(value: Any) -> Any:
    """NumPy's and JAX's numbers as Python's; all else as it is."""
    scalar = hasattr(value, "item") and not pytree.is_traced(value) and np.ndim(value) == 0
    return value.item() if scalar else value


def label(value: Any) -> Any:
    """How a setting tells a value: compressors, topologies and None by their text, numbers and words as they are."""
    return str(value) if value is None or isinstance(value, Compressor | Topology) else value


def short(value: Any) -> str:
    """`value` in one line of an error."""
    text = " ".join((str(value) if isinstance(value, Compressor | Topology) else repr(value)).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _span(kind: str, ends: Sequence[str], text: str) -> Span:
    form = ("LO", "HI", "NUM") if kind in SPACED else ("LO", "HI")
    if len(ends) != len(form):
        raise InputError(f"axis {text!r} must be {':'.join((kind, *form))}, got {len(ends)} of its {len(form)} numbers")
    lo, hi, *num = map(_number_or_word, ends)
    return Span(lo, hi, kind.startswith("log"), *num)  # type: ignore[arg-type]


def _pieces(text: str) -> list[str]:
    """Split at ';' outside parentheses; else at ',' where only numbers and plain words stand between them."""
    if len(parts := spec.split("axis", text, ";")) > 1:
        return parts
    pieces = spec.split("axis", text, ",")
    simple = all(re.fullmatch(r"\w*", piece) or is_number(_number_or_word(piece)) for piece in pieces)
    return pieces if simple else parts


def _number_or_word(text: str) -> int | float | str:
    return spec.read(text, (int, float, str))
