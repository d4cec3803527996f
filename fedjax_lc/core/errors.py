"""The one kind of error a user's input raises: a single line that says what, expected, got and how to fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_TOLD = 30  #: names that an error lists in full


class InputError(ValueError):
    """Input that cannot be used; its message is one clear line (the command line prints it and exits with 2)."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry, with the nearest name that is.

    >>> str(unknown("method", "locdl", ["locodl", "gd"]))
    "unknown method 'locdl': did you mean 'locodl'? (known: gd, locodl)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f" did you mean {near[0]!r}?" if near else ""
    told = f"known: {', '.join(names)}" if len(names) <= MOST_TOLD else f"{len(names)} are known"
    return InputError(f"unknown {kind} {name!r}:{hint} ({told})")
