"""Where data come from: one file, or the files of a folder or a zip archive, each unpacked when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.files import PACKED, opened, opened_zip, read_bytes, unpacked, zip_member

_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz"}
_ASIDE = ("__macosx", "thumbs.db", "desktop.ini")
MOST_FILES = 2_000_000  #: of a folder
ZIP = (b"PK\x03\x04", b"PK\x05\x06")


class Source(NamedTuple):
    """A file: how messages call it, its path within a folder or an archive, and how its bytes are had.

    The bytes are unpacked, and the path has no ending of a packed file.
    """

    where: str
    path: PurePosixPath
    read: Callable[[], bytes]


def of_file(path: Path) -> Source:
    """A single file. Raises InputError (when it is read) as `files.read_bytes` does."""

    def read() -> bytes:
        content = read_bytes(path)
        ending = next((end for magic, end in _MAGIC.items() if content.startswith(magic)), None)
        # Packed by another name than its ending says.
        return content if ending is None or path.suffix in PACKED else unpacked(content, Path(f"a{ending}"), str(path))

    return Source(str(path), _plain(path.name), read)


def of_folder(folder: Path) -> list[Source]:
    """The files of a folder and of those in it, in the order of their paths; hidden ones and links to folders are not
    among them. Raises InputError for more than MOST_FILES."""
    files = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            inside = path.relative_to(folder).as_posix()
            if not _aside(inside):
                files.append(of_file(path)._replace(path=_plain(inside)))
        if len(files) > MOST_FILES:
            raise InputError(f"{folder}: holds more than {MOST_FILES} files; give the folder of the data alone")
    return sorted(files, key=lambda each: each.path)


def of_zip(path: Path, damage: str) -> list[Source]:
    """The files of a zip archive; `damage` is the message if it is none."""
    with opened_zip(path, damage) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not _aside(name)]

    def reader(name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            with opened_zip(path, damage) as archive:
                content = zip_member(archive, name, str(path), damage)
            return unpacked(content, Path(name), f"{path}: {name}")

        return read

    return [Source(f"{path}: {name}", _plain(name), reader(name)) for name in sorted(names)]


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does. Raises InputError if it cannot be read."""
    with opened(path) as file:
        return file.read(4) in ZIP


def listed(sources: list[Source], most: int = 4) -> str:
    """Some of their paths, for a message."""
    names = [str(source.path) for source in sources]
    return ", ".join(names[:most]) + (f", ... ({len(names)} files)" if len(names) > most else "")


def _plain(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    return path.with_suffix("") if path.suffix in PACKED and path.stem else path


def _aside(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in _ASIDE for part in PurePosixPath(name).parts if part != "..")
