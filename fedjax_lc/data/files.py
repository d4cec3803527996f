"""Reading files: packed ones, members of archives, text; with one-line errors, in memory that the files account for.

What a head claims is compared with the bytes that are there, and unpacking ends where no true file would go on. No file
of an archive is ever written anywhere.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fedjax_lc.core import memory
from fedjax_lc.core.errors import InputError

MOST_UNPACKED = 1032  #: times the packed size, which is the most that deflate can do; nothing unpacks to more
_LEAST_LIMIT = 1 << 20
_PIECE = 1 << 20
_XZ_MEMORY = 1 << 27  # bytes of a window that an .xz file may ask for; `xz -9` takes 2**26
_FIRST_FEED = 1 << 10  # of a stream, which may be a short one among many
_LONG_LINE = 1 << 20
_LOOKED_AT = 1 << 12  # bytes of a text whose encoding is guessed
_WORD = 60  # bytes for a word of one character as a Python string in a list
_WITHOUT_CONTENT = {
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_AGAIN = "copy or download it again"


Line = TypeVar("Line", str, bytes)


@contextlib.contextmanager
def refusing(message: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged content into an InputError of that message; others pass."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception:
        raise InputError(message) from None


def free_bytes() -> float:
    """Memory that this process can still take, where the system says it, else no limit."""
    free = memory.free_on_host()
    return float("inf") if free is None else float(free)


def check_memory(where: str | Path, need: float, what: str) -> None:
    """Raise InputError if `what`, which needs that many bytes, does not fit into the free memory."""
    memory.check(need, f"{where}: holding {what}", "keep fewer rows or columns", free_bytes())


# --- bytes ---


def read_bytes(path: Path) -> bytes:
    """The content of a file, uncompressed if its name ends in .bz2, .gz or .xz.

    Raises InputError for a missing, unreadable, truncated or corrupt file, and for one that unpacks to more than memory
    holds or than any true file does.
    """
    with opened(path) as file:
        return unpacked(file.read(), path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file to read bytes from. Raises InputError if it is missing or cannot be read; a pipe is never waited for."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: cannot be read (it is a device or a pipe)")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def unpacked(content: bytes, path: Path, where: str = "") -> bytes:
    """The content uncompressed if its path ends in .bz2, .gz or .xz.

    where: what messages call it; default: the path. Raises InputError as `read_bytes` does.
    """
    unpack = _UNPACK.get(path.suffix)
    if unpack is None:
        return content
    where = where or str(path)
    out, limit = io.BytesIO(), MOST_UNPACKED * len(content) + _LEAST_LIMIT
    free = free_bytes()
    with refusing(f"{where}: the {path.suffix} file is truncated or corrupt; {_AGAIN}"):
        for piece in unpack(content):
            if out.write(piece) and out.tell() > min(limit, free):
                most = f"{MOST_UNPACKED} times its size" if limit <= free else f"{memory.size(free)}, which are free"
                raise InputError(f"{where}: unpacks to more than {most}; {_AGAIN}")
    return out.getvalue()


def _gz_pieces(content: bytes) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while piece := file.read(_PIECE):
            yield piece


def _stream_pieces(make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> Callable[..., Iterator[bytes]]:
    def pieces(content: bytes) -> Iterator[bytes]:
        """What one stream after the other unpacks to; zeros after a stream are padding."""
        start = 0
        while start < len(content) and (start == 0 or content[start]):
            stream, size = make(), _FIRST_FEED
            while not stream.eof:
                feed = content[start : start + size] if stream.needs_input else b""
                start += len(feed)
                size = min(2 * size, _PIECE)
                if stream.needs_input and not feed:
                    raise EOFError
                yield stream.decompress(feed, _PIECE)
            start -= len(stream.unused_data)

    return pieces


_UNPACK: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    ".bz2": _stream_pieces(bz2.BZ2Decompressor),
    ".gz": _gz_pieces,
    ".xz": _stream_pieces(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
}
PACKED = frozenset(_UNPACK)  #: endings of packed files


def differ(kind: str, expected: str, got: str) -> str:
    """What to say of two checksums: nothing if they are equal."""
    return "" if got == expected else f"expected {kind} {expected[:12]}..., got {got[:12]}..."


# --- archives ---


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The content of files in a `.zip` or (packed) `.tar` archive, by their names without folders.

    Links, devices and files with holes are passed over, so that every byte comes from the archive. Raises InputError
    for an archive that cannot be read, and if it lacks one of the files.
    """
    read = _zip_members if path.suffix == ".zip" else _tar_members
    contents = read(path, names)
    for name in names:
        if name not in contents:
            raise InputError(f"{path}: the archive has no file {name}; {_AGAIN}")
    return contents


def _zip_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    with opened_zip(path, damage := _damaged(path)) as archive:
        inside = {PurePosixPath(name).name: name for name in archive.namelist()}
        return {name: zip_member(archive, inside[name], str(path), damage) for name in names if name in inside}


@contextlib.contextmanager
def opened_zip(path: Path, damage: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive; `damage` is the message if it is none, or if it fails while it is read."""
    with opened(path) as file, refusing(damage), zipfile.ZipFile(file) as archive:
        yield archive


def zip_member(archive: zipfile.ZipFile, name: str, where: str, damage: str) -> bytes:
    """The content of one file of a zip archive, whose size is checked before memory is taken.

    Raises InputError for one that is encrypted, packed by another method than deflate, or larger than it can be.
    """
    member = archive.getinfo(name)
    if member.flag_bits & 1:
        raise InputError(f"{where}: {name} is encrypted; save it without a password")
    if member.compress_type not in _METHODS:
        method = zipfile.compressor_names.get(member.compress_type, member.compress_type)  # type: ignore[attr-defined]
        raise InputError(f"{where}: {name} is packed by the zip method {method}; pack it by deflate, or not at all")
    if member.file_size > MOST_UNPACKED * member.compress_size + _LEAST_LIMIT:
        raise InputError(damage)
    check_memory(f"{where}: {name}", 2 * member.file_size, "its content and a copy")
    with archive.open(member) as file:
        content = file.read(member.file_size)
    if len(content) < member.file_size:
        raise InputError(damage)
    return content


def _tar_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    # Head by head: tarfile itself follows links and heads about heads, to any depth and of any size.
    content, contents, place = read_bytes(path), {}, 0
    with refusing(_damaged(path)):
        while block := content[place : place + tarfile.BLOCKSIZE].rstrip(b"\0"):
            member = tarfile.TarInfo.frombuf(block.ljust(tarfile.BLOCKSIZE, b"\0"), "utf-8", "surrogateescape")
            start = place + tarfile.BLOCKSIZE
            end = start + (0 if member.type in _WITHOUT_CONTENT else member.size)
            if not start <= end <= len(content):
                raise EOFError
            name = PurePosixPath(member.name).name
            if name in names and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                contents[name] = content[start:end]
            place = start + -(-(end - start) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return contents


def _damaged(path: Path) -> str:
    return f"{path}: the archive is truncated or corrupt; {_AGAIN}"


# --- text ---

# Those of 4 bytes begin with those of 2.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8-SIG",
}


def utf8(content: bytes, where: str | Path) -> bytes:
    """A text in UTF-8 without a byte order mark, of one in UTF-8, UTF-16 or UTF-32 (by its mark).

    Raises InputError for bytes that are no text of the encoding that the mark names, and for zeros.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            with refusing(f"{where}: not a text file in {encoding}, as its first bytes say; save it as UTF-8"):
                content = content.decode(encoding).encode()
            break
    if b"\0" in content:
        start = content[:_LOOKED_AT]
        halves = [start[k::2].count(0) * 2 for k in (0, 1)]  # of letters in UTF-16, every second byte is a zero
        if max(halves) > 0.8 * len(start) and min(halves) < 0.2 * len(start):
            raise InputError(f"{where}: is in UTF-16 without a byte order mark; save it as UTF-8")
        raise InputError(f"{where}: not a text file in UTF-8 (it holds zeros, as binary files do)")
    return content


def checked_lines(lines: Iterable[Line], where: str | Path) -> Iterator[Line]:
    """The lines; raises InputError for one so long that its words would not fit into memory."""
    for line in lines:
        if len(line) > _LONG_LINE:
            check_memory(where, _WORD * len(line), f"the words of a line of {len(line)} characters")
        yield line


def decoded(content: bytes, where: str | Path) -> str:
    """The text of a file; see `utf8`. Raises InputError for one that is not in UTF-8, with the first place."""
    content = utf8(content, where)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}: not a text file in UTF-8 (line {line} has the byte {content[error.start]:02x}); save it as UTF-8"
        ) from None
