"""InputError, which any unusable input raises. One line: what is wrong, what is expected, what came, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

MOST_LISTED = 30  #: an error lists up to this many known names
LONGEST_NAME = 100  #: letters of a name for which a near one is looked for
LONGEST_LINE = 1000  #: letters of a line for people


class InputError(ValueError):
    """Input cannot be used. The message is one printable line, whatever it quotes; the command line prints it and exits
    with status 2.

    Attributes:
        everywhere: whether all processes of a computation raise it, or one that follows from it.
    """

    everywhere = False

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: object) -> str:
    """Text for people: line breaks, escape codes and the like are spelled out, and what is very long is cut short.

    >>> one_line("two\\nlines")
    'two\\\\nlines'
    """
    line = str(text)
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def unknown(kind: str, name: Any, known: Iterable[str]) -> InputError:
    """The error for a name that is not among the `known` names; it suggests the nearest of them.

    >>> str(unknown("method", "locdl", ["locodl", "gd"]))
    "unknown method 'locdl': did you mean 'locodl'? (known: gd, locodl)"
    """
    names, text = sorted(map(str, known)), str(name)
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.0) if len(text) <= LONGEST_NAME else []
    hint = f" did you mean {near[0]!r}?" if near else ""
    listing = f"known: {', '.join(names)}" if len(names) <= MOST_LISTED else f"{len(names)} are known"
    return InputError(f"unknown {kind} {name!r}:{hint} ({listing})")
