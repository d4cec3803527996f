"""How a method declares a hyperparameter: its sentence, its range, its kind, its default.

A field that is declared is checked by its declaration and explained by it in `--help`; its name means nothing else. Its
kind is that of its type (a number, a truth, a word, a compressor) or of its range (whole numbers, one of some values),
or is named where neither says it. A field with a type alone may be anything of that type, numbers being finite.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedjax_lc.core.errors import InputError, unknown

KEY, CHOICES = "hyperparameter", "choices"  #: of a field's metadata
SCHEDULE, PER_CLIENT, ARRAY = "schedule", "per client", "array"  #: kinds that a declaration names
_PLAIN = (bool, int, float, str, tuple, type(None))
_FORM = re.compile(r"(whole )?([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends, each of them in or out; `whole`: whole ones.

    An end may be n, the number of clients, or a field of the same hyperparameters, which is n where it is None.
    """

    whole: bool
    low: float | str
    high: float | str
    low_in: bool
    high_in: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """The range that "(0, 1]", "[0, inf)", "whole [1, n]" or "whole [2, cohort_size]" spells.

        Raises:
            InputError: another form.
        """
        match = _FORM.fullmatch(text)
        try:
            whole, left, low, high, right = match.groups()  # type: ignore[union-attr]
            low, high = (end if end.isidentifier() and end != "inf" else float(end) for end in (low, high))
        except (AttributeError, ValueError):
            raise InputError(f"a range is written as in '(0, 1]', '[0, inf)' or 'whole [1, n]', got {text!r}") from None
        return cls(bool(whole), low, high, left == "[", right == "]")

    @property
    def names(self) -> set[str]:
        """The fields among its ends."""
        return {end for end in (self.low, self.high) if isinstance(end, str)} - {"n"}

    def of(self, hp: Any) -> Range:
        """The range whose ends are numbers, or n, as these hyperparameters have them."""
        if not self.names:
            return self
        low, high = (getattr(hp, end) or "n" if end in self.names else end for end in (self.low, self.high))
        return dataclasses.replace(self, low=low, high=high)

    def holds(self, number: float, n: int) -> bool:
        """Whether a finite number lies in the range, for n clients."""
        low, high = (n if end == "n" else float(end) for end in (self.low, self.high))
        above = number >= low if self.low_in else number > low
        below = number <= high if self.high_in else number < high
        return math.isfinite(number) and above and below and (not self.whole or float(number).is_integer())

    def words(self, n: int | str = "n") -> str:
        """The range as errors and help say it, for n clients."""
        low, high = (f"{n if end == 'n' else end}".removesuffix(".0") for end in (self.low, self.high))
        if self.high == math.inf:
            text = f"{'>=' if self.low_in else '>'} {low}"
        elif self.whole:
            text = f"in {low}..{high}"
        else:
            text = f"in {'[' if self.low_in else '('}{low}, {high}{']' if self.high_in else ')'}"
        return f"whole and {text}" if self.whole else text


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What is known of a field before it has a value.

    Attributes:
        doc: a sentence for people, without its full stop; empty where a field has a type alone.
        within: the range of a number, or the values to choose from; None: any.
        named: the kind, where the type and the range do not say it.
        types: the types of its annotation, None's among them where it may be None; empty where they are unknown.
    """

    doc: str = ""
    within: Range | tuple[Any, ...] | None = None
    named: str | None = None
    types: frozenset[Any] = frozenset()

    def admits(self, kind: type | None) -> bool:
        """Whether the annotation names this type, or a subclass."""
        kind = type(None) if kind is None else kind
        return any(each is kind or (each is not bool and issubclass(each, kind)) for each in self.types)

    @property
    def ends(self) -> set[str]:
        """The fields that its range ends at."""
        return self.range.names if self.range else set()

    @property
    def range(self) -> Range | None:
        """The range, of numbers that have one."""
        return self.within if isinstance(self.within, Range) else None

    @property
    def whole(self) -> bool:
        """Whether it takes whole numbers alone."""
        return self.range.whole if self.range else self.admits(int) and not self.admits(float)

    @property
    def kind(self) -> str:
        """number, whole number, truth, choice, word, schedule, per client, array, or a class such as compressor."""
        if self.named or isinstance(self.within, tuple):
            return self.named or "choice"
        classes = [each.__name__.lower() for each in self.types if not issubclass(each, _PLAIN)]
        if classes:
            return min(classes)
        if self.range or self.admits(int) or self.admits(float):
            return "whole number" if self.whole else "number"
        return "truth" if self.admits(bool) else "word" if self.admits(str) else "number"

    def words(self) -> str:
        """What may stand here beside None, in help and tables."""
        if isinstance(self.within, tuple):
            return _either(self.within)
        words = self.range.words() if self.range else "true or false" if self.kind == "truth" else ""
        return f"{words}, or one for each client" if self.kind == PER_CLIENT else words

    def check(self, method: str, name: str, value: Any, hp: Any, n: int) -> None:
        """Raise InputError where a value of field `name`, which is not None, does not fit; for n clients."""
        needs = f"{method} needs {name}"
        if isinstance(self.within, tuple):
            if value not in self.within and all(isinstance(each, str) for each in (value, *self.within)):
                raise unknown(name, value, self.within)
            if value not in self.within:
                raise InputError(f"{needs} {_either(self.within)}, got {value!r}")
        elif self.kind == "truth":
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{needs} true or false, got {value!r}")
        elif isinstance(value, str) and not (self.admits(str) or (self.range and self.range.whole)):
            what = "a compressor, as from fl.compressors.parse" if self.kind == "compressor" else "a number"
            raise InputError(f"{needs} as {what}, got the word {value!r}")
        elif self.range:
            _check_numbers(needs, value, self.range.of(hp), n)
        elif isinstance(value, numbers.Real | np.ndarray | jax.Array) and not isinstance(value, bool | np.bool_):
            _check_numbers(needs, value, None, n)


def _check_numbers(needs: str, value: Any, within: Range | None, n: int) -> None:
    text = within.words(n) if within else "finite"
    try:
        each = np.ravel(np.asarray(value, np.float64)).tolist()
    except (TypeError, ValueError):
        raise InputError(f"{needs} {text}, got {value!r}") from None
    for number in each:
        if not (within.holds(number, n) if within else math.isfinite(number)):
            raise InputError(f"{needs} {text}, got {number:g}")


def _either(values: tuple[Any, ...]) -> str:
    """The values as in: a, b or c."""
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last


def hyperparameter(
    doc: str,
    within: str | tuple[Any, ...] | Callable[[], tuple[Any, ...]] | None = None,
    *,
    default: Any = dataclasses.MISSING,
    static: bool = False,
    count: bool = False,
    kind: str | None = None,
) -> Any:
    """Declare a field of a method's `Hparams`.

    Args:
        doc: one sentence for people, shown by `fedjax-lc run METHOD --help`.
        within: range of a number, as in "(0, 1]", "[0, inf)", "whole [1, n]", n being the number of clients, or
            "whole [2, cohort_size]", up to another field; a tuple of the values to choose from, or a function that
            returns it whenever it is asked for; or, if None, any finite number, any truth, compressor, ..., as the
            field's type has it.
        default: value where none is given; required if missing.
        static: part of the program's structure: it fixes a shape or a choice, and another value compiles again. Always
            so of choices, schedules and truths with a default.
        count: number of turns of a loop: structure where it is a plain whole number, traced otherwise.
        kind: SCHEDULE, PER_CLIENT (a number, or one for each client) or ARRAY.

    Raises:
        InputError: a range that cannot be read.

    Example:
        >>> @pytree.dataclass
        ... class Hparams:
        ...     gamma: Scalar = hyperparameter("step size", "(0, inf)")
        ...     alpha: Scalar = hyperparameter("how far clients overshoot", "[1, 2]", default=1.5)
        ...     form: str = hyperparameter("whose update", ("paper", "code"), default="paper")
    """
    late = {CHOICES: within} if callable(within) else {}
    known = Range.parse(within) if isinstance(within, str) else () if callable(within) else within
    static = static or isinstance(known, tuple) or kind == SCHEDULE or isinstance(default, bool)
    metadata = {KEY: Declaration(doc, known, kind), **late}
    metadata |= ({"static": True} if static else {}) | ({"count": True} if count else {})
    return dataclasses.field(default=default, metadata=metadata)


def declarations(cls: type) -> dict[str, Declaration]:
    """Field -> what is known of it, of a dataclass of hyperparameters or a compressor.

    Raises:
        InputError: a range up to a field that there is not.
    """
    late = {f.name: f.metadata[CHOICES] for f in dataclasses.fields(cls) if CHOICES in f.metadata}
    known = _declarations(cls)
    return known | {name: dataclasses.replace(known[name], within=choices()) for name, choices in late.items()}


@functools.cache
def _declarations(cls: type) -> dict[str, Declaration]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = _hints(typing.get_type_hints, cls)
    found = {}
    for name, field in fields.items():
        declared = field.metadata.get(KEY, Declaration())
        if missing := declared.ends - fields.keys():
            raise InputError(f"the range of {name} ends at {missing.pop()}: it is neither n nor a field")
        found[name] = dataclasses.replace(declared, types=_types(hints.get(name, Any), field.default))
    return found


def parameters(function: Callable[..., Any]) -> dict[str, Declaration]:
    """Parameter -> what is known of it, of a method's theory or another function that makes hyperparameters."""
    signature = _hints(lambda f: inspect.signature(f, eval_str=True), function) or inspect.signature(function)
    return {p.name: Declaration(types=_types(p.annotation, p.default)) for p in signature.parameters.values()}


def _hints(read: Callable[[Any], Any], of: Any) -> Any:
    """What the annotations stand for; {} where a name among them cannot be looked up."""
    try:
        return read(of)
    except NameError:
        return {}


def _types(hint: Any, default: Any) -> frozenset[Any]:
    """The types that an annotation names; None's too where it is the default."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    found = {typing.get_origin(each) or each for each in (typing.get_args(hint) if union else (hint,))}
    known = {each for each in found if isinstance(each, type) and each not in (Any, Callable, inspect.Parameter.empty)}
    return frozenset(known | ({type(None)} if default is None else set()))
