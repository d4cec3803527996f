"""Options that several functions share, as typed keyword arguments: `**options: Unpack[Options]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedjax_lc.core.errors import unknown


def refuse_unknown(function: str, options: Mapping[str, Any], known: type) -> None:
    """Raise InputError if an option is not a key of the TypedDict `known`; `function` is named in the error."""
    for name in options:
        if name not in known.__annotations__:
            raise unknown(f"option of {function}", name, known.__annotations__)
