"""How a method declares a hyperparameter: its sentence, its range, its default, and whether it fixes the program.

A field that is declared is checked by its declaration and explained by it in `--help`; its name means nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from fedjax_lc.core.errors import InputError

KEY = "hyperparameter"  #: of a field's metadata
_FORM = re.compile(r"(whole )?([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two ends, each of them in or out; `whole`: whole ones. An end may be n, the number of clients."""

    text: str
    whole: bool
    low: float | str
    high: float | str
    low_in: bool
    high_in: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """The range that "(0, 1]", "[0, inf)" or "whole [1, n]" spells.

        Raises:
            InputError: another form.
        """
        match = _FORM.fullmatch(text)
        try:
            whole, left, low, high, right = match.groups()  # type: ignore[union-attr]
            low, high = (end if end == "n" else float(end) for end in (low, high))
        except (AttributeError, ValueError):
            raise InputError(f"a range is written as in '(0, 1]', '[0, inf)' or 'whole [1, n]', got {text!r}") from None
        return cls(text, bool(whole), low, high, left == "[", right == "]")

    def holds(self, number: float, n: int) -> bool:
        """Whether a finite number lies in the range, for n clients."""
        low, high = (n if end == "n" else float(end) for end in (self.low, self.high))
        above = number >= low if self.low_in else number > low
        below = number <= high if self.high_in else number < high
        return math.isfinite(number) and above and below and (not self.whole or float(number).is_integer())

    def words(self, n: int) -> str:
        """The range in an error message."""
        interval = self.text.removeprefix("whole ").replace("n]", f"{n}]").replace("n)", f"{n})")
        return f"whole and in {interval}" if self.whole else f"in {interval}"


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What a method says of a hyperparameter: a sentence without its full stop, and its range (None: any number)."""

    doc: str
    within: Range | None


def hyperparameter(
    doc: str,
    within: str | None = None,
    *,
    default: Any = dataclasses.MISSING,
    static: bool = False,
    count: bool = False,
) -> Any:
    """Declare a field of a method's `Hparams`.

    Args:
        doc: one sentence for people, shown by `fedjax-lc run METHOD --help`.
        within: range of a number, as in "(0, 1]", "[0, inf)" or "whole [1, n]", n being the number of clients; any
            finite number if None.
        default: value where none is given; required if missing.
        static: part of the program's structure: it fixes a shape or a choice, and another value compiles again.
        count: number of turns of a loop: structure where it is a plain whole number, traced otherwise.

    Raises:
        InputError: a range that cannot be read.

    Example:
        >>> @pytree.dataclass
        ... class Hparams:
        ...     gamma: Scalar = hyperparameter("step size", "(0, inf)")
        ...     alpha: Scalar = hyperparameter("how far clients overshoot", "[1, 2]", default=1.5)
    """
    declared = Declaration(doc, None if within is None else Range.parse(within))
    metadata = {KEY: declared} | ({"static": True} if static else {}) | ({"count": True} if count else {})
    return dataclasses.field(default=default, metadata=metadata)


def declaration(field: dataclasses.Field[Any]) -> Declaration | None:
    """What was declared of a field by `hyperparameter`; None if nothing was."""
    return field.metadata.get(KEY)
