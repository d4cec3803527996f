"""InputError, which any unusable input raises. One line: what is wrong, what is expected, what came, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 30  #: an error lists up to this many known names
LONGEST = 1500  #: characters of a message; of a longer one the middle is left out


class InputError(ValueError):
    """Input cannot be used. The message is one line; the command line prints it and exits with status 2.

    What a message quotes may be anything, so what cannot be printed (line breaks, control codes, halves of characters)
    is escaped, and the middle of a message that is too long is left out.

    >>> str(InputError("toy.csv: no column 'a\\nb'"))
    "toy.csv: no column 'a\\\\nb'"
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 3 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among the `known` names; it suggests the nearest of them.

    >>> str(unknown("method", "locdl", ["locodl", "gd"]))
    "unknown method 'locdl': did you mean 'locodl'? (known: gd, locodl)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f" did you mean {near[0]!r}?" if near else ""
    listing = f"known: {', '.join(names)}" if len(names) <= MOST_LISTED else f"{len(names)} are known"
    return InputError(f"unknown {kind} {name!r}:{hint} ({listing})")
