"""Writing files so that no reader sees an incomplete one, and comparing a folder of results with what is asked."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.paths import check_name, is_there

TEMPORARY = re.compile(r"\..+\.(?P<process>[1-9]\d{0,9})(\.\w+)?")  #: the names of temporary files
FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG")}  #: errors that mean that no room is left


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; if the block succeeds, the file is renamed to `path`.

    The file is on disk before it gets its name, so that after a crash of the machine `path` is whole, new or old.

    Raises:
        InputError: the folder cannot be written, or the disk is full; a file that was there is kept.

    Example:
        >>> with replacing("out/config.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Raise InputError if `path` cannot be written; call it before a long computation. Nothing is left: neither a file
    nor a folder that was not there, and an existing file is kept."""
    path = Path(path)
    with no_empty_folders(path.parent):
        _beside(path).unlink()


@contextlib.contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """After the block, `folder` and those above it that it made and left empty are removed."""
    made = [each for each in (folder, *folder.parents) if not is_there(each)]
    try:
        yield
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # it holds something
                each.rmdir()


def check_same(folder: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any], advice: str) -> None:
    """Raise InputError if the settings of the run or sweep that a folder holds are not those of now.

    Args:
        what: what the folder holds, for the message.
        before: settings by name, as they were read from the folder.
        now: settings by name, as JSON can write them; one that is missing is None.
        advice: what to do where they differ.
    """
    now = json.loads(json.dumps(now, default=str))
    differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if differ:
        raise InputError(f"{folder} already holds a different {what} (other {', '.join(differ)}): {advice}")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; those of processes that run are kept."""
    for path in folder.glob(".*"):
        named = TEMPORARY.fullmatch(path.name)
        if named and not _runs(int(named["process"])):
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    """Whether a process of this number runs on this machine, or may do so."""
    if sys.platform == "win32":  # where such a question is a signal
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _beside(path: Path) -> Path:
    """Create an empty temporary file in the folder of `path`, and the folder if it does not exist."""
    check_name(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise unwritable(path, error) from None
    return temporary


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that cannot be written."""
    why = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
    full = error.errno in FULL
    cure = "make room, and repeat the command" if full else "choose a folder you may write to"
    return InputError(f"cannot write {path}: {why}; {cure}")
