"""How a method declares a hyperparameter: a sentence, a range, a kind and a default.

The declaration of a field decides how its value is checked and what `--help` says; the name of the field decides
nothing. The kind follows from the type (number, truth, word, compressor) or from the range (whole number, choice);
where neither determines it, the declaration states it. A field with a type and no declaration takes any value of that
type; numbers must be finite.
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

KEY, CHOICES = "hyperparameter", "choices"  #: keys in a field's metadata
SCHEDULE, PER_CLIENT, ARRAY = "schedule", "per client", "array"  #: kinds that a declaration states
_PLAIN = (bool, int, float, str, tuple, type(None))
_FORM = re.compile(r"(whole )?([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers. An end is a number, "n" (the number of clients) or the name of another field.

    Attributes:
        whole: whether only whole numbers are in the range.
        low, high: the ends; a field that is None counts as n.
        low_in, high_in: whether each end belongs to the range.
    """

    whole: bool
    low: float | str
    high: float | str
    low_in: bool
    high_in: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range such as "(0, 1]", "[0, inf)", "whole [1, n]" or "whole [2, cohort_size]".

        Raises:
            InputError: the text has another form.
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
        """The ends that are names of fields."""
        return {end for end in (self.low, self.high) if isinstance(end, str)} - {"n"}

    def of(self, hp: Any) -> Range:
        """The same range with the values of `hp` in place of field names; "n" stays."""
        if not self.names:
            return self
        low, high = (getattr(hp, end) or "n" if end in self.names else end for end in (self.low, self.high))
        return dataclasses.replace(self, low=low, high=high)

    def holds(self, number: float, n: int) -> bool:
        """Whether a finite number lies in the range, for n clients; whole ones have 64 bits at most."""
        low, high = (n if end == "n" else float(end) for end in (self.low, self.high))
        above = number >= low if self.low_in else number > low
        below = number <= high if self.high_in else number < high
        whole = not self.whole or (-(2**63) <= number < 2**63 and float(number).is_integer())
        return above and below and whole and math.isfinite(number)

    def words(self, n: int | str = "n") -> str:
        """The range in words, for errors and help."""
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
    """A field's declaration and annotation.

    Attributes:
        doc: a sentence for people, without full stop; empty where nothing was declared.
        within: the range of a number, or the tuple of values to choose from; None for any value.
        named: the kind, where the type and the range do not determine it.
        types: the types in the annotation, NoneType among them where None is allowed; empty where unknown.
    """

    doc: str = ""
    within: Range | tuple[Any, ...] | None = None
    named: str | None = None
    types: frozenset[Any] = frozenset()

    def admits(self, kind: type | None) -> bool:
        """Whether the annotation contains this type or a subclass of it."""
        kind = type(None) if kind is None else kind
        return any(each is kind or (each is not bool and issubclass(each, kind)) for each in self.types)

    @property
    def ends(self) -> set[str]:
        """Names of fields that are ends of the range."""
        return self.range.names if self.range else set()

    @property
    def range(self) -> Range | None:
        """`within` if it is a range, else None."""
        return self.within if isinstance(self.within, Range) else None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are allowed."""
        return self.range.whole if self.range else self.admits(int) and not self.admits(float)

    @property
    def kind(self) -> str:
        """One of number, whole number, truth, choice, word, schedule, per client, array; or a class: compressor."""
        if self.named or isinstance(self.within, tuple):
            return self.named or "choice"
        classes = [each.__name__.lower() for each in self.types if not issubclass(each, _PLAIN)]
        if classes:
            return min(classes)
        if self.range or self.admits(int) or self.admits(float):
            return "whole number" if self.whole else "number"
        return "truth" if self.admits(bool) else "word" if self.admits(str) else "number"

    def words(self) -> str:
        """The allowed values (other than None) in words, for help and tables."""
        if isinstance(self.within, tuple):
            return _either(self.within)
        words = self.range.words() if self.range else "true or false" if self.kind == "truth" else ""
        return f"{words}, or one for each client" if self.kind == PER_CLIENT else words

    def check(self, method: str, name: str, value: Any, hp: Any, n: int) -> None:
        """Raise InputError unless `value` (not None) is allowed for field `name` of `hp`, with n clients."""
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
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{needs} {text}, got {value!r}") from None
    for number in each:
        if not (within.holds(number, n) if within else math.isfinite(number)):
            raise InputError(f"{needs} {text}, got {number:g}")


def _either(values: tuple[Any, ...]) -> str:
    """The values joined as in "a, b or c"."""
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
        within: the range of a number, as in "(0, 1]", "[0, inf)", "whole [1, n]" (n: the number of clients) or
            "whole [2, cohort_size]" (up to another field); a tuple of the values to choose from, or a
            function that returns it whenever it is asked; or None for any value of the field's type (numbers must be
            finite).
        default: the value where none is given; without it the field is required.
        static: the field fixes a shape or a choice in the compiled program, so each value compiles anew. Choices,
            schedules and truths with a default are always static.
        count: the field is the length of a loop: static if it is a plain whole number, traced otherwise.
        kind: SCHEDULE, PER_CLIENT (one number, or one for each client) or ARRAY.

    Raises:
        InputError: `within` is not a range.

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
    """The declaration of each field of a dataclass (hyperparameters or a compressor), by name.

    Raises:
        InputError: the end of a range is not a field.
    """
    late = {f.name: f.metadata[CHOICES] for f in dataclasses.fields(cls) if CHOICES in f.metadata}
    known = _declarations(cls)
    return known | {name: dataclasses.replace(known[name], within=choices()) for name, choices in late.items()}


@functools.cache
def _declarations(cls: type) -> dict[str, Declaration]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = _hints(typing.get_type_hints, cls)
    result = {}
    for name, field in fields.items():
        declared = field.metadata.get(KEY, Declaration())
        if missing := declared.ends - fields.keys():
            raise InputError(f"the range of {name} ends at {missing.pop()}: it is neither n nor a field")
        result[name] = dataclasses.replace(declared, types=_types(hints.get(name, Any), field.default))
    return result


def parameters(function: Callable[..., Any]) -> dict[str, Declaration]:
    """The declaration of each parameter of a function, such as a method's theory, from its annotation."""
    signature = _hints(lambda f: inspect.signature(f, eval_str=True), function) or inspect.signature(function)
    return {p.name: Declaration(types=_types(p.annotation, p.default)) for p in signature.parameters.values()}


def _hints(read: Callable[[Any], Any], of: Any) -> Any:
    """The resolved annotations; {} where a name in them cannot be resolved."""
    try:
        return read(of)
    except NameError:
        return {}


def _types(hint: Any, default: Any) -> frozenset[Any]:
    """The types in an annotation, and NoneType if the default is None."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = {typing.get_origin(each) or each for each in (typing.get_args(hint) if union else (hint,))}
    unknown_types = (Any, Callable, inspect.Parameter.empty)
    known = {each for each in members if isinstance(each, type) and each not in unknown_types}
    return frozenset(known | ({type(None)} if default is None else set()))
