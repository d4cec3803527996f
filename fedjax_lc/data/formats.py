"""What a file holds: by its first bytes, then by its ending, then by its first lines."""

from __future__ import annotations

import re

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.axes import ENDINGS as PICTURES
from fedjax_lc.data.delimited import SEPARATORS
from fedjax_lc.data.files import utf8
from fedjax_lc.data.sources import Source

# What is read: name -> (endings, what it holds), as `fedjax-lc list data` shows them.
KNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "CSV": ((".csv", ".tsv", ".tab"), "cells between commas, semicolons or tabs, with or without a header line"),
    "Parquet": ((".parquet", ".pq"), "columns with names"),
    "Arrow": ((".arrow", ".feather", ".ipc"), "columns with names, as a file or a stream"),
    "LIBSVM": ((".libsvm", ".svm", ".svmlight"), "one row a line: label index:value ..."),
    "NumPy": ((".npz", ".npy"), "X and y, x_train and y_test, images and labels, groups; X.npy beside y.npy"),
    "MATLAB": ((".mat",), "matrices X and y, of version 7 or older"),
    "LEAF": ((".json",), "users and user_data, one client a user; or its folder with train/ and test/"),
    "pictures": (PICTURES, "a folder (or .zip) with one folder a class, perhaps within train/ and test/"),
}
PACKED = "each also as .gz, .bz2, .xz or in a .zip"

# First bytes of what is not read -> (its name, what to do).
_AS_NPZ = "save the arrays by numpy.savez(path, X=..., y=...)"
_AS_CSV = "save the table as CSV or Parquet"
_FOREIGN: dict[bytes, tuple[str, str]] = {
    b"\x89HDF\r\n\x1a\n": ("HDF5 (or MATLAB 7.3)", f"{_AS_NPZ}; MATLAB: save -v7"),
    b"\x28\xb5\x2f\xfd": ("a .zst file", "unpack it first"),
    b"7z\xbc\xaf\x27\x1c": ("a .7z archive", "unpack it first"),
    b"Rar!": ("a .rar archive", "unpack it first"),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", _AS_CSV),
    b"SQLite format 3": ("an SQLite database", _AS_CSV),
    b"RDX": ("R's data", _AS_CSV),
    b"RDA": ("R's data", _AS_CSV),
    b"FEA1": ("Feather of version 1", "save it as Parquet"),
    b"Obj\x01": ("Avro", _AS_CSV),
    b"ORC": ("ORC", "save it as Parquet"),
    b"%PDF": ("PDF", _AS_CSV),
    b"\x7fELF": ("a program", "give a file of data"),
}
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp\d|\(lp\d|ccopy_reg\n")
_PICTURE = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_MATLAB = b"MATLAB 5.0 MAT-file"
_PAIR = re.compile(r"\S*\s+(qid:\d+\s+)?[+-]?\d+:\S")
_LOOKED_AT = 1 << 14


def recognised(source: Source, content: bytes) -> str:
    """The name in KNOWN of what a file holds. Raises InputError for what is not read, and says what it is."""
    for magic, (what, cure) in _FOREIGN.items():
        if content.startswith(magic):
            raise _refused(source, what, cure)
    ending = source.path.suffix.lower()
    if content.startswith(b"PAR1"):
        return "Parquet"
    if content.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "Arrow"
    if content.startswith(b"\x93NUMPY") or ending == ".npy":
        return "NumPy"
    if content.startswith(_MATLAB):
        return "MATLAB"
    if _PICTURE.match(content):
        raise _refused(source, "one picture", "give the folder that holds a folder of pictures for each class")
    if _PICKLE.match(content):
        raise _refused(source, "a pickle, which could run any program", _AS_NPZ)
    if content[257:262] == b"ustar" or ending == ".tar":
        raise _refused(source, "a .tar archive", "unpack it and give the folder")
    for name, (endings, _) in KNOWN.items():
        if ending in endings and name not in ("NumPy", "pictures"):
            return name
    return _of_text(source, content)


def _of_text(source: Source, content: bytes) -> str:
    """What text of an ending that says nothing holds, by its first lines."""
    start = utf8(content, source.where)[:_LOOKED_AT].decode("utf-8", "replace")
    lines = [line for line in start.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))]
    head = lines[0].strip() if lines else ""
    if re.match(r"(?i)<!doctype html|<html", head):
        raise _refused(source, "a web page", "download the file itself")
    if re.match(r"(?i)@relation\b", head):
        raise _refused(source, "ARFF", _AS_CSV)
    if head.startswith(("{", "[")):
        return "LEAF"
    if not lines or any(_PAIR.match(line.strip()) for line in lines[:20]):
        return "LIBSVM"
    if any(head.count(separator) for separator in SEPARATORS):
        return "CSV"
    words = head.split()
    if len(words) == 1 or ":" in head or any(":" in line for line in lines[:20]):
        return "LIBSVM"
    raise _refused(source, f"text (its first line is {head[:40]!r})", "put commas or tabs between the cells")


def zipped(sources: list[Source], where: str) -> None:
    """Raise InputError for a zip archive of files that make another format, and say which."""
    names = {str(source.path) for source in sources}
    if any(name.endswith("data.pkl") for name in names):
        raise InputError(f"{where}: is a file of PyTorch, a pickle that could run any program; {_AS_NPZ}")
    if "xl/workbook.xml" in names:
        raise InputError(f"{where}: is an Excel file; {_AS_CSV}")


def known() -> str:
    """The formats that are read, in one line."""
    return ", ".join(KNOWN)


def _refused(source: Source, what: str, cure: str) -> InputError:
    return InputError(f"{source.where}: is {what}, which is not read; {cure} (read are {known()})")
