"""Reading LIBSVM (svmlight) text: one row a line, `label index:value index:value ...`, indices from 1."""

from __future__ import annotations

import array
import hashlib
import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.asked import option
from fedjax_lc.data.files import check_memory, checked_lines, read_bytes, utf8
from fedjax_lc.data.sparse import as_csr, stays_sparse
from fedjax_lc.data.tables import Table

MOST_COLUMNS = 2**31 - 1  #: the places that JAX counts
_ENDINGS = ("", ".txt", ".bz2", ".gz", ".xz")


def find(name: str, folder: Path) -> Path | None:
    """The file NAME in a folder or in its `libsvm/`, plain or ending in .txt, .bz2, .gz or .xz; or None."""
    places = (base / (name + ending) for base in (folder, folder / "libsvm") for ending in _ENDINGS)
    return next((path for path in places if path.is_file()), None)


def content_sha256(content: bytes) -> str:
    """sha256 of a text without white space at line ends and without empty lines at its end."""
    lines = b"\n".join(line.rstrip() for line in content.split(b"\n"))
    return hashlib.sha256(lines.rstrip(b"\n")).hexdigest()


def columns(n_features: int | str | None, declared: int | None = None) -> int | None:
    """The number of columns that is asked for, None for the largest index; "file" leaves the declared one aside.

    Raises InputError for anything else.
    """
    if n_features is None or n_features == "file":
        return declared if n_features is None else None
    try:
        number = int(n_features)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_COLUMNS:
        raise InputError(f"n_features must be a number in 1..{MOST_COLUMNS} or 'file', got {n_features!r}")
    return number


def read(path: Path, n_features: int | None = None) -> Table:
    """The table of a LIBSVM file (plain, .bz2, .gz or .xz), as `parse` has it of its content."""
    return parse(read_bytes(path), path, n_features)


def parse(content: bytes, path: Path | str, n_features: int | None = None, allow: Collection[str] = ()) -> Table:
    """The table of LIBSVM text: features (N, d) float64, targets (N,) float64.

    Features are a SciPy CSR array where they are large and sparse (see `data.sparse`), else a dense array.

    n_features: the number of columns d; None takes the largest index in the file. Rows without entries are kept,
    text after `#` and blank lines are skipped.
    allow: irregularities that are read, as in `asked.Reading`: zero, unsorted, repeated, qid.
    Raises InputError with the line number for a label, index or value that is not a finite number, an index above
    n_features, a line cut off, and for an irregularity that is not allowed, which it names.

    Source: Chang & Lin, LIBSVM, README ("the format of training and testing data file").
    """
    from scipy.sparse import csr_array

    text = utf8(content, path)
    rows, entries_there = text.count(b"\n") + 1, text.count(b":")
    check_memory(path, 48 * entries_there + 64 * rows, f"its {rows} rows of float64")
    labels, counts, index, value, lines, queries = (np.array(column) for column in _entries(path, text, "qid" in allow))
    if not len(labels):
        raise InputError(f"{path}: the file has no rows")
    if len(queries) not in (0, len(labels)):
        raise InputError(f"{path}: some rows have a qid, others none; give one to each row, or to none")
    row = np.repeat(np.arange(len(labels)), counts)
    if n_features is None and len(index) == 0:
        raise InputError(f"{path}: no row has a feature")
    first = 0 if "zero" in allow else 1
    dim = int(index.max()) + 1 - first if n_features is None else n_features
    _check(path, labels, row, index, value, dim, lines, allow)
    shape = (len(labels), dim)
    entries = csr_array((value, index - first, np.concatenate([[0], np.cumsum(counts)])), shape=shape)
    features = as_csr(entries) if stays_sparse(entries) else _dense(path, entries)
    cut = () if text.endswith(b"\n") else ("the file does not end in a line break, so it may be cut off",)
    return Table(features, labels, cut, queries if len(queries) else None, said="read as LIBSVM")


Entries = tuple["array.array[Any]", ...]


def _entries(path: Path | str, text: bytes, queries: bool) -> Entries:
    """Per row: label, number of entries; for all rows in turn, indices and values; per row line number, and number of
    the query where there are `queries`."""
    labels, values = array.array("d"), array.array("d")
    counts, indices, lines, qids = array.array("q"), array.array("q"), array.array("q"), array.array("q")
    comments = b"#" in text
    for number, line in enumerate(checked_lines(io.BytesIO(text), path), 1):
        tokens = (line.partition(b"#")[0] if comments else line).split()
        if not tokens:
            continue
        try:
            labels.append(float(tokens[0]))
            if queries and len(tokens) > 1 and tokens[1].startswith(b"qid:"):
                qids.append(int(tokens.pop(1)[4:]))
            for token in tokens[1:]:
                index, value = token.split(b":")
                indices.append(int(index))
                values.append(float(value))
        except (ValueError, OverflowError):
            raise _malformed(path, number, tokens) from None
        counts.append(len(tokens) - 1)
        lines.append(number)
    return labels, counts, indices, values, lines, qids


def _malformed(path: Path | str, number: int, tokens: list[bytes]) -> InputError:
    """Says which word of a line that could not be read is wrong."""
    label, *pairs = (token.decode("ascii", "backslashreplace") for token in tokens)
    where = f"{path}, line {number}"
    if not _reads(float, label):
        return InputError(f"{where}: label {label[:40]!r} is not a number")
    for pair in pairs:
        index, colon, value = pair.partition(":")
        if index == "qid" and _reads(int, value):
            return InputError(f"{where}: {pair[:40]!r} numbers a query; {option('allow', 'qid')} makes it a client")
        if colon and not value:
            return InputError(f"{where}: {pair[:40]!r} has no value; the line may be cut off")
        if not colon or not _reads(int, index) or not _reads(float, value):
            return InputError(f"{where}: {pair[:40]!r} is not index:value")
        if abs(int(index)) > MOST_COLUMNS:
            return InputError(f"{where}: index {index[:40]} is beyond {MOST_COLUMNS}, the most columns there can be")
    raise AssertionError("unreachable: some word is malformed")


def _reads(kind: Callable[[str], object], word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _check(
    path: Path | str,
    labels: NDArray[np.float64],
    row: NDArray[np.int64],
    index: NDArray[np.int64],
    value: NDArray[np.float64],
    dim: int,
    lines: NDArray[np.int64],
    allow: Collection[str],
) -> None:
    """Raises at the first entry (in file order, by kind of fault) that is well formed but not allowed."""

    def fault(bad: NDArray[np.bool_], say: Callable[[int], str], rows: NDArray[np.int64] = row) -> None:
        if bad.any():
            at = int(np.argmax(bad))
            raise InputError(f"{path}, line {lines[rows[at]]}: {say(at)}")

    fault(~np.isfinite(labels), lambda e: f"label {labels[e]} is not finite", np.arange(len(labels)))
    fault(
        ~np.isfinite(value),
        lambda e: f"value of index {index[e]} is {value[e]}; features must be finite numbers",
    )
    fault(index > MOST_COLUMNS, lambda e: f"index {index[e]} is beyond {MOST_COLUMNS}, the most columns there can be")
    first = 0 if "zero" in allow else 1
    cure = f"; {option('allow', 'zero')} counts them from 0" if index.min(initial=1) == 0 else ""
    counted = f"LIBSVM counts features from 1{cure}" if first else "no feature has such an index"
    fault(index < first, lambda e: f"index {index[e]} is below {first}; {counted}")
    same = np.concatenate([[False], row[1:] == row[:-1]])[: len(index)]
    before = np.concatenate([[0], index[:-1]])[: len(index)]
    if "unsorted" not in allow:
        cure = f"{option('allow', 'unsorted')} sorts them"
        fault(
            same & (index < before),
            lambda e: f"index {index[e]} comes after index {before[e]}; indices must increase, {cure}",
        )
    if "repeated" not in allow:
        cure = f"{option('allow', 'repeated')} sums their values"
        order = np.lexsort((index, row)) if "unsorted" in allow else np.arange(len(index))
        twice = np.zeros(len(index), dtype=bool)
        twice[order[1:]] = (row[order[1:]] == row[order[:-1]]) & (index[order[1:]] == index[order[:-1]])
        fault(twice, lambda e: f"index {index[e]} comes twice; {cure}")
    largest = int(index.max(initial=0)) + 1 - first
    advice = f"pass n_features={largest} or n_features='file'"
    fault(index - first >= dim, lambda e: f"index {index[e]} is above n_features={dim}; {advice}")


def _dense(path: Path | str, entries: Any) -> NDArray[np.float64]:
    rows, dim = entries.shape
    check_memory(path, 2 * 8 * rows * dim, f"{rows} x {dim} float64 features and a working copy")
    return entries.toarray()
