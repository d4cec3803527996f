"""The lock of a folder: one process at a time writes it, and the lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import unwritable
from fedjax_lc.core.progress import say

NAME = ".lock"  #: the file that is locked; it names the process that holds the lock
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  #: errors that mean that another process has the lock

if sys.platform == "win32":
    import msvcrt

    FAR = 2**30  #: the byte that is locked: Windows lets nobody read a locked byte

    def _take(file: BinaryIO) -> None:
        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the lock of `folder` within the block; the folder is created if it does not exist.

    The lock ends with the process, however that ends. It holds between threads and between hosts that share a file
    system, unless that file system has no locks, which one line on stderr then says.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.

    Example:
        >>> with locked("out"):
        ...     Path("out/config.json").write_text("{}")
    """
    path = Path(folder) / NAME
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(_opened(path))
            if not _is_locked(file, path) or _is_at(file, path):
                break
            file.close()  # the process before removed this file after it was opened here
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                path.unlink()


def _opened(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    except OSError as error:
        raise unwritable(path.parent, error) from None


def _is_locked(file: BinaryIO, path: Path) -> bool:
    """Lock the file; False if the file system has no locks."""
    try:
        _take(file)
        return True
    except OSError as error:
        if error.errno in HELD:
            file.seek(0)
            owner = file.read(200).decode(errors="replace").strip() or "unknown"
            raise InputError(f"{path.parent} is in use by process {owner}: wait until it ends, or choose another "
                             "folder") from None  # fmt: skip
        say(f"note: the file system of {path.parent} has no locks: let one process at a time write it")
        return False


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the path still leads to this file."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
