"""Texts as character sequences by name: Shakespeare split by speaker, from the plain text or from LEAF's files."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.dataset import Dataset, from_sequences
from fedjax_lc.data.files import check_memory, decoded, read_bytes, refusing
from fedjax_lc.data.remote import Folder, Remote, called, note, read

SHAKESPEARE = Remote(
    "shakespeare",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    ("shakespeare", "tinyshakespeare"),
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
Ids = NDArray[np.int32]
_BYTES = 24  # of a character in the text, in speeches, as a code, as an id and in windows


def shakespeare(
    seq_len: int = 80,
    min_chars: int = 1000,
    test_share: float = 0.2,
    stride: int = 0,
    *,
    data_dir: Folder = None,
    download: bool = True,
) -> Dataset:
    """Tiny Shakespeare split by speaker; shakespeare:seq_len=80,min_chars=1000 says how.

    A client is a speaker with at least min_chars characters, in the order of the first speech; its text is its
    speeches joined by line breaks. Window k starts at character k * stride (0: seq_len, so that every character is
    a target once); its targets are its features one character later, and what is too short for a window is left
    out. The last round(test_share * windows) windows of each client are the test part, and earlier windows whose
    targets reach into it are left out; a client for which nothing would be left has no test part. Of 309 speakers
    141 have 1000 characters, 64 have 5000.

    Features and targets (N, seq_len) int32, groups: the speakers. Raises InputError for options out of range and as
    `load` does.

    Source: Karpathy, char-rnn (the text); the split by speaker follows McMahan et al., arXiv 1602.05629, section 3,
    on another edition.
    """
    _check(seq_len, test_share, stride)
    file, doubtful = read(SHAKESPEARE, data_dir, download)
    check_memory(file.where, _BYTES * len(file.content), "its characters and their ids")
    text = decoded(file.content, file.where).replace("\r\n", "\n")
    speeches = by_speaker(text)
    least = max(min_chars, seq_len + 1)
    chosen = [words for words in speeches.values() if len(words) >= least]
    if not chosen:
        most = max(map(len, speeches.values()), default=0)
        raise InputError(
            f"shakespeare: no speaker has {least} characters (the most are {most}); lower min_chars or seq_len"
        )
    characters = "".join(sorted(set(text)))
    cut = [_windows(encode(words, characters), seq_len, stride or seq_len, test_share) for words in chosen]
    line = f"{len(chosen)} of {len(speeches)} speakers are clients, those with {least} characters or more"
    return _by_client("shakespeare", cut, characters, (line, *note(doubtful)))


def by_speaker(text: str) -> dict[str, str]:
    """Each speaker's speeches joined by line breaks; a speech is a line "NAME:" after a blank line, up to the next.

    >>> by_speaker("A:\\nOne,\\ntwo.\\n\\nB:\\nNo.\\n\\nA:\\nYes.\\n")
    {'A': 'One,\\ntwo.\\nYes.', 'B': 'No.'}
    """
    speeches: dict[str, list[str]] = {}
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        head, _, speech = paragraph.partition("\n")
        if head.endswith(":"):
            speeches.setdefault(head[:-1], []).append(speech)
    return {speaker: "\n".join(parts) for speaker, parts in speeches.items()}


def encode(text: str, characters: str) -> Ids:
    """(len(text),) places of a text's characters among `characters`, which are sorted.

    Raises InputError for a character that is not among them.

    >>> encode("cab", "abc").tolist()
    [2, 0, 1]
    """
    known, codes = (np.frombuffer(word.encode("utf-32-le"), np.uint32) for word in (characters, text))
    ids = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    strange = np.flatnonzero(known[ids] != codes)
    if len(strange):
        raise InputError(f"character {text[strange[0]]!r} is not among the {len(known)} known ones; take it out")
    return ids.astype(np.int32)


# --- windows and clients ---

Cut = tuple[Ids, Ids]  # windows (N, T + 1) for training, and for testing


def _check(seq_len: int, test_share: float, stride: int) -> None:
    if seq_len < 1:
        raise InputError(f"shakespeare: seq_len must be at least 1, got {seq_len}")
    if not 0 <= test_share < 1:
        raise InputError(f"shakespeare: test_share must be in [0, 1), got {test_share}")
    if stride < 0:
        raise InputError(f"shakespeare: stride must be 0 (as seq_len) or more, got {stride}")


def _windows(ids: Ids, seq_len: int, stride: int, test_share: float) -> Cut:
    every = np.lib.stride_tricks.sliding_window_view(ids, seq_len + 1)[::stride]
    first = len(every) - min(round(test_share * len(every)), len(every) - 1)
    # Window k starts at character k stride, and its last target is character k stride + seq_len.
    train = first if first == len(every) else (first * stride - seq_len) // stride + 1
    return (every[:train], every[first:]) if train > 0 else (every, every[:0])


def _by_client(name: str, cut: Sequence[Cut], characters: str, notes: tuple[str, ...]) -> Dataset:
    """One data set of all clients' windows; the test part's groups are the training clients' numbers."""
    train, test = (_joined(name, [pair[part] for pair in cut], characters) for part in (0, 1))
    assert train is not None
    return dataclasses.replace(train, notes=notes, test=test)


def _joined(name: str, parts: Sequence[Ids], characters: str) -> Dataset | None:
    rows = np.concatenate(parts)
    if not len(rows):
        return None
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return dataclasses.replace(from_sequences(rows[:, :-1], rows[:, 1:], characters, name=name), groups=owners)


# --- LEAF ---

# The 80 characters of LEAF's models/utils/language_utils.py, in order.
LEAF_CHARACTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
_LEAF_FOLDERS = ("leaf_shakespeare", "leaf/data/shakespeare/data", "data/shakespeare/data", "shakespeare/data")


def leaf_shakespeare(*, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Shakespeare as LEAF writes it (train/*.json and test/*.json); never downloaded.

    A folder of JSON files {"users": [...], "user_data": {user: {"x": [strings of T characters], "y": [the character
    after each]}}}. Features are x, targets x one character later, (N, T) int32; groups: the users in the order of
    "users", those of the test part alone last. Raises InputError for files that are missing or of another form.

    Source: Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    """
    folders = [path for path in called(_LEAF_FOLDERS, data_dir) if list(path.glob("train/*.json"))]
    if not folders:
        raise InputError(
            "leaf_shakespeare: no folder with train/*.json; make it with preprocess.sh in data/shakespeare of "
            "https://github.com/TalwalkarLab/leaf, then give its data folder as data_dir or by FEDJAX_LC_DATA"
        )
    parts = [[_leaf_file(path) for path in sorted(folders[0].glob(f"{part}/*.json"))] for part in ("train", "test")]
    return leaf_windows(parts, "leaf_shakespeare", str(folders[0]))


LeafUsers = dict[str, Ids]  # user -> windows (N, T + 1)


def leaf_windows(parts: Sequence[Sequence[LeafUsers]], name: str, where: str = "") -> Dataset:
    """The data set of LEAF's texts: the users of each file of the training part, and of the test part.

    where: what messages call the files; default: the name. Raises InputError for windows of several lengths, and for a
    training part without windows.
    """
    where = where or name
    users: dict[str, list[list[Ids]]] = {}  # user -> windows for training, for testing
    for place, files in enumerate(parts):
        for user, rows in ((user, rows) for file in files for user, rows in file.items()):
            users.setdefault(user, [[], []])[place].append(rows)
    lengths = sorted({rows.shape[1] for train, test in users.values() for rows in (*train, *test)})
    if len(lengths) != 1:
        got = ", ".join(str(length - 1) for length in lengths) or "none"
        raise InputError(f"{where}: needs windows of one length, got {got}; make the files again")
    if not any(train for train, _ in users.values()):
        raise InputError(f"{where}: no user has windows in train/*.json; make the files again")
    none = np.empty((0, *lengths), np.int32)
    cut = [(np.concatenate([none, *train]), np.concatenate([none, *test])) for train, test in users.values()]
    return _by_client(name, cut, LEAF_CHARACTERS, ())


def _leaf_file(path: Path) -> LeafUsers:
    """The windows (N, T + 1) of each user of one file."""
    content = read_bytes(path)
    try:
        with refusing("it is cut off, or has another form"):
            return leaf_users(leaf_rows(json.loads(content)))
    except InputError as error:
        raise InputError(f"{path}: not a JSON file of LEAF's Shakespeare ({error}); make it again") from None


def leaf_rows(content: Any) -> dict[str, dict[str, list[Any]]]:
    """The lists x and y of each user that has some, of what a JSON file holds. Raises InputError for other forms."""
    users, rows = content["users"], content["user_data"]
    if sorted(users) != sorted(rows):
        raise InputError("'users' and the keys of 'user_data' differ")
    held = {user: rows[user] for user in users if rows[user]["x"] or rows[user]["y"]}
    if not all(isinstance(of[part], list) for of in held.values() for part in ("x", "y")):
        raise InputError("a user's x or y is no list")
    return held


def leaf_users(users: Mapping[str, Any]) -> LeafUsers:
    """The windows (N, T + 1) of each user {"x": [strings], "y": [characters]}. Raises InputError for another form."""
    return {user: _windows_of(rows) for user, rows in users.items()}


def _windows_of(rows: Mapping[str, list[Any]]) -> Ids:
    pairs = list(zip(rows["x"], rows["y"], strict=True))
    if not all(isinstance(word, str) for pair in pairs for word in pair):
        raise InputError("a user's x or y holds what is no text")
    if {(len(x), len(y)) for x, y in pairs} != {(len(pairs[0][0]), 1)}:
        raise InputError("a user with windows of different lengths, or more than one character after a window")
    return encode("".join(x + y for x, y in pairs), LEAF_CHARACTERS).reshape(len(pairs), -1)


TEXTS: dict[str, Callable[..., Dataset]] = {"shakespeare": shakespeare, "leaf_shakespeare": leaf_shakespeare}
