"""Paths that people give, and what the files there hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError

LONGEST, LONGEST_PATH = 255, 4096  #: bytes of a name in a folder, and of a path, on common systems
NEEDS = f"must not be empty, nor hold a zero byte or a name of more than {LONGEST} bytes"


def check_name(path: str | Path) -> None:
    """Raise InputError if no file or folder can have this path."""
    if not is_name(os.fspath(path)):
        raise InputError(f"a path {NEEDS}, got {os.fspath(path)!r}")


def is_name(text: str) -> bool:
    """Whether a file or folder can have this path."""
    fits = bool(text) and "\0" not in text and len(os.fsencode(text)) < LONGEST_PATH
    return fits and all(len(os.fsencode(part)) <= LONGEST for part in Path(text).parts)


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder of this path that may be looked at."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def user_path(text: str | os.PathLike[str], what: str = "") -> Path:
    """The path that a user wrote, `~` expanded. Raises InputError for one that no file can have."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{what}{os.fspath(text)}: not a path that can be read ({reason})") from None
    return path


def read_json(path: str | Path) -> Any:
    """What a JSON file holds; a pipe in its place is not waited for.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, or holds no JSON.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return json.loads(Path(path).read_text(encoding="utf-8"))
