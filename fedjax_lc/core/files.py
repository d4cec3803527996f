"""Writing a file under a temporary name and renaming it, so that no reader sees an incomplete file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

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


def _beside(path: Path) -> Path:
    """Create an empty temporary file in the folder of `path`, and the folder if it does not exist."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder you may write to") from None
    return temporary
