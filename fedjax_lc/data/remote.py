"""Files of image and text sets, known by the checksum of their originals, alone or as members of an archive.

One rule: what comes from the web or lies in the cache must be the original, else it is an error; a copy in the
folder of local files is read all the same, and its name is handed back, so that the data set's notes can say so. A
folder is taken for a set's if it is called like it (`mnist/`, ...), be it in the data folder or that folder itself;
in folders of other names an original is known by its checksum only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from fedjax_lc.data.download import local_folder, locate, verify
from fedjax_lc.data.files import PACKED, differ, opened, read_bytes, read_members, unpacked

Folder = str | os.PathLike[str] | None


class File(NamedTuple):
    """The unpacked content of a file, and how messages call the file."""

    where: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Remote:
    """One file of the web.

    name: the data set, in messages; url: its address; folders: what its folder may be called, the first in the
    cache; sha256: of the file as it is served, or of its unpacked content.
    """

    name: str
    url: str
    folders: tuple[str, ...]
    sha256: str
    advice: ClassVar[str] = "or keep a copy of your own in another folder and give that as data_dir"

    @property
    def folder(self) -> str:
        return self.folders[0]

    def find(self, folder: Path) -> Path | None:
        """The file in a data folder, or None; see the module's first lines."""
        filename = self.url.rpartition("/")[2]
        for base in _called(folder, self.folders):
            if path := _spelled(base, filename):
                return path
        path = _spelled(folder, filename)
        return path if path and not self.mismatch(path) else None

    def mismatch(self, path: Path) -> str:
        """How the file differs from the original; empty if it does not, packed or not."""
        got = _digest(path, "sha256")
        if got != self.sha256 and path.suffix in PACKED:
            unpacked_as = hashlib.sha256(read_bytes(path)).hexdigest()
            got = unpacked_as if unpacked_as == self.sha256 else got
        return differ("sha256", self.sha256, got)


Doubtful = list[str]  # names of files that are not known to be the originals


def read(source: Remote, data_dir: Folder, download: bool) -> tuple[File, Doubtful]:
    """A file's content. Raises InputError if it is nowhere, unreadable, or a download with a wrong checksum."""
    path, doubtful = _path(source, data_dir, download)
    return File(str(path), read_bytes(path)), doubtful


def members(
    archive: Remote, checksums: Mapping[str, str], data_dir: Folder, download: bool
) -> tuple[dict[str, File], Doubtful]:
    """Files of an archive by name, from where they all lie unpacked in the local folder, else from the archive.

    checksums: md5 of each, empty if not known, for the note on files that lie there unpacked. Raises InputError as
    `read` does, and for a member that is missing.
    """
    loose = _loose(checksums, archive.folders, data_dir)
    if loose is None:
        path, doubtful = _path(archive, data_dir, download)
        inside = read_members(path, checksums)
        where = {name: f"{path}: {name}" for name in inside}
        return {n: File(where[n], unpacked(content, Path(n), where[n])) for n, content in inside.items()}, doubtful
    doubtful = [name for name, md5 in checksums.items() if md5 and _digest(loose[name], "md5") != md5]
    return {name: File(str(path), read_bytes(path)) for name, path in loose.items()}, doubtful


def note(doubtful: Sequence[str]) -> tuple[str, ...]:
    """The remark on files that are not known to be the originals, if there are any."""
    return (f"not the original files (other checksums): {', '.join(doubtful)}",) if doubtful else ()


def called(folders: Sequence[str], data_dir: Folder) -> list[Path]:
    """The folders in the folder of local files that are called so, and that folder itself last."""
    local = local_folder(data_dir)
    return [] if local is None else [path for path in (*_called(local, folders), local) if path.is_dir()]


def _path(source: Remote, data_dir: Folder, download: bool) -> tuple[Path, Doubtful]:
    path, local = locate(source, data_dir, download)
    if local:
        return path, [path.name] if source.mismatch(path) else []
    verify(path, source)
    return path, []


def _loose(names: Collection[str], folders: Sequence[str], data_dir: Folder) -> dict[str, Path] | None:
    for base in called(folders, data_dir):
        paths = {name: path for name in names if (path := _spelled(base, name))}
        if len(paths) == len(names):
            return paths
    return None


def _called(folder: Path, names: Sequence[str]) -> list[Path]:
    itself = any(folder.resolve().as_posix().endswith(f"/{name}") for name in names)
    return [folder / name for name in names] + ([folder] if itself else [])


def _spelled(folder: Path, filename: str) -> Path | None:
    """A file in a folder, packed or not, also with `.idx` for `-idx`."""
    plain = filename.removesuffix(".gz")
    places = (folder / (name + end) for name in (plain, plain.replace("-idx", ".idx")) for end in ("", ".gz"))
    return next((path for path in places if path.is_file()), None)


def _digest(path: Path, kind: str) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
