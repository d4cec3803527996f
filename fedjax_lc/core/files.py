"""Writing files so that no reader sees an incomplete one, and comparing a folder of results with what is asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; if the block succeeds, the file is renamed to `path`.

    Raises:
        InputError: the folder cannot be written.

    Example:
        >>> with replacing("out/config.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise InputError if `path` cannot be written; call it before a long computation. An existing file is kept."""
    _beside(Path(path)).unlink()


def check_same(folder: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any], advice: str) -> None:
    """Raise InputError if the settings of the run or sweep that a folder holds are not those of now.

    Args:
        what: what the folder holds, for the message.
        before: settings by name, as they were read from the folder.
        now: settings by name, as JSON can write them; one that is missing is None.
        advice: what to do where they differ.
    """
    now = json.loads(json.dumps(now))
    differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if differ:
        raise InputError(f"{folder} already holds a different {what} (other {', '.join(differ)}): {advice}")


def _beside(path: Path) -> Path:
    """Create an empty temporary file in the folder of `path`, and the folder if it does not exist."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise unwritable(path, error) from None
    return temporary


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that cannot be written."""
    return InputError(f"cannot write {path}: {error.strerror}; choose a folder you may write to")
