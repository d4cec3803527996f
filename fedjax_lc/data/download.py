"""Finding a LIBSVM data set on this machine, or fetching it once into a cache, checked and resumable.

Where a set is looked for, in this order: the folder given by the caller, else by FEDJAX_LC_DATA; then the cache
folder (FEDJAX_LC_CACHE, else XDG_CACHE_HOME/fedjax_lc, else ~/.cache/fedjax_lc). In each of them NAME is looked
for directly and under `libsvm/`, plain or ending in .txt, .bz2, .gz or .xz.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from fedjax_lc.data.catalogue import Entry
from fedjax_lc.data.files import read_bytes
from fedjax_lc.errors import InputError

SITE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets"
DATA_VARIABLE = "FEDJAX_LC_DATA"
CACHE_VARIABLE = "FEDJAX_LC_CACHE"
TIMEOUT = 30.0  # seconds without an answer
_CHUNK = 1 << 16
_ENDINGS = ("", ".txt", ".bz2", ".gz", ".xz")


def cache_folder() -> Path:
    """The folder of downloads; see the module's first lines. It need not exist."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fedjax_lc"


def local_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The user's own data folder: `data_dir`, else FEDJAX_LC_DATA, else None. Raises InputError if it is no folder."""
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        source = "data_dir" if data_dir else DATA_VARIABLE
        raise InputError(f"{source}: {folder} is not a folder")
    return folder


def find(name: str, folder: Path) -> Path | None:
    """The file of a set in a folder or in its `libsvm/`, or None."""
    places = (base / (name + ending) for base in (folder, folder / "libsvm") for ending in _ENDINGS)
    return next((path for path in places if path.is_file()), None)


def obtain(entry: Entry, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> Path:
    """The checked file of a known set, downloaded if it is not on this machine.

    Raises InputError for a wrong checksum, and when the file is neither here nor can be fetched; that message
    says where to put it by hand.
    """
    folders = [folder for folder in (local_folder(data_dir), cache_folder()) if folder is not None]
    for folder in folders:
        path = find(entry.name, folder)
        if path is not None:
            verify(path, entry)
            return path
    if download:
        return fetch(entry)
    looked = " or ".join(map(str, folders))
    raise InputError(f"{entry.name!r} is not in {looked}, and downloading is off; {_by_hand(entry)}")


def content_sha256(content: bytes) -> str:
    """sha256 of a text without white space at line ends and without empty lines at its end."""
    lines = b"\n".join(line.rstrip() for line in content.split(b"\n"))
    return hashlib.sha256(lines.rstrip(b"\n")).hexdigest()


def verify(path: Path, entry: Entry) -> None:
    """Raises InputError if the file cannot be unpacked or its content is not the known one."""
    wrong = _mismatch(read_bytes(path), entry)
    if wrong:
        raise InputError(
            f"{path}: wrong checksum for {entry.name!r} ({wrong}); "
            "delete the file to fetch it again, or give its path to load it as your own data"
        )


def _mismatch(content: bytes, entry: Entry) -> str:
    found = content_sha256(content) if entry.sha256 else ""
    return "" if found == entry.sha256 else f"expected sha256 {entry.sha256[:12]}..., got {found[:12]}..."


def fetch(entry: Entry) -> Path:
    """Downloads a set into the cache and returns its path; an interrupted download goes on where it stopped.

    Raises InputError if the server cannot be reached or refuses, and for a wrong checksum.
    """
    url = _url(entry)
    path = _destination(entry)
    # The part keeps the packed ending, so that it can be unpacked for its checksum before it gets its final name.
    part = path.with_name("part." + path.name)
    print(f"downloading {url} to {path}", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part)
    except urllib.error.HTTPError as error:
        with error:
            raise _failed(entry, f"the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _failed(entry, str(getattr(reason, "strerror", None) or reason)) from None
    _keep(part, path, entry)
    return path


def _keep(part: Path, path: Path, entry: Entry) -> None:
    """Gives a whole download its name; removes one that is damaged, so that the next try starts anew."""
    try:
        wrong = _mismatch(read_bytes(part), entry)
    except InputError:
        wrong = f"not a readable {part.suffix} file"
    if wrong:
        part.unlink()
        raise InputError(
            f"the download of {_url(entry)} has a wrong checksum ({wrong}) and was removed; "
            f"try again, or put a good copy at {path}"
        )
    os.replace(part, path)


def _download(url: str, part: Path) -> None:
    """Appends the bytes that `part` lacks; starts again if the server does not answer with exactly those."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            _copy(answer, part, "ab" if resumed else "wb")
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing is left to send: the part is whole (or foreign); fetching it anew is right in both cases.
        error.close()
        part.unlink()
        _download(url, part)


def _copy(answer: http.client.HTTPResponse, part: Path, mode: str) -> None:
    expected = answer.length
    got = 0
    with part.open(mode) as out:
        while chunk := answer.read(_CHUNK):
            out.write(chunk)
            got += len(chunk)
    if expected is not None and got < expected:
        raise OSError(f"the connection broke {expected - got} bytes before the end; run it again to go on from there")


def _url(entry: Entry) -> str:
    return f"{SITE}/{entry.folder}/{entry.filename}"


def _destination(entry: Entry) -> Path:
    return cache_folder() / "libsvm" / entry.filename


def _by_hand(entry: Entry) -> str:
    return (
        f"get {_url(entry)} and put it at {_destination(entry)}, "
        f"or set {DATA_VARIABLE} to a folder that holds {entry.filename}"
    )


def _failed(entry: Entry, reason: str) -> InputError:
    return InputError(f"cannot download {entry.name!r} ({reason}); {_by_hand(entry)}")
