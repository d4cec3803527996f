"""Paths that people give, and files of settings that anyone may have edited."""

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


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds; anyone may have edited the file.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged, or none of fedjax-lc's: choose another folder")
    return content
