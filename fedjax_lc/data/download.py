"""Finding a known file on this machine, or fetching it once into a cache, checked and resumable for a day.

Where a file is looked for, in this order: the folder given by the caller, else by FEDJAX_LC_DATA; then the cache
folder (FEDJAX_LC_CACHE, else that of the user, ~/.cache/fedjax_lc or XDG_CACHE_HOME/fedjax_lc on Linux).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import platformdirs

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.paths import user_path
from fedjax_lc.core.progress import bar

DATA_VARIABLE = "FEDJAX_LC_DATA"
CACHE_VARIABLE = "FEDJAX_LC_CACHE"
CACHE_OFF = "off"  # its value for: keep no compiled programs; it names no folder
TIMEOUT = 30.0  # seconds without an answer
_CHUNK = 1 << 16
_PART = "part."  # begins the name of a file that is not whole yet
_STALE = 24 * 3600.0  # seconds after which such a file of another set was left by a process that was killed


class Source(Protocol):
    """A file of the web that is known by its content.

    name: the data set, in messages; url: its address; folder: where in the cache it is kept; advice: what may be
    done with another file of that name.
    """

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def advice(self) -> str: ...

    def find(self, folder: Path) -> Path | None:
        """The file in a data folder, or None."""

    def mismatch(self, path: Path) -> str:
        """How the file differs from the known one; empty if it does not. Raises InputError if it is unreadable."""


def cache_folder() -> Path:
    """The folder of downloads; see the module's first lines. It need not exist."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen and chosen != CACHE_OFF:
        return user_path(chosen, f"{CACHE_VARIABLE}: ")
    return platformdirs.user_cache_path("fedjax_lc", appauthor=False)


def local_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder of local files: `data_dir`, else FEDJAX_LC_DATA, else None. Raises InputError if it is no folder."""
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        return None
    source = "data_dir" if data_dir else DATA_VARIABLE
    folder = user_path(chosen, f"{source}: ")
    if not folder.is_dir():
        raise InputError(f"{source}: {folder} is not a folder")
    return folder


def locate(source: Source, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Path, bool]:
    """The file of a source, not checked, and whether it is from the folder of local files rather than the cache.

    Raises InputError when it is neither here nor can be fetched; that message says where to put it by hand.
    """
    local, cache = local_folder(data_dir), cache_folder()
    _sweep(cache)
    for folder in filter(None, (local, cache)):
        path = source.find(folder)
        if path is not None:
            return path, folder is local
    if download:
        return fetch(source), False
    looked = " or ".join(str(folder) for folder in (local, cache) if folder)
    raise InputError(f"{source.name!r} is not in {looked}, and downloading is off; {_by_hand(source)}")


def obtain(source: Source, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> Path:
    """The checked file of a source, downloaded if it is not on this machine.

    Raises InputError as `locate` does, and for a wrong checksum.
    """
    path, _ = locate(source, data_dir, download)
    verify(path, source)
    return path


def verify(path: Path, source: Source) -> None:
    """Raises InputError if the file cannot be unpacked or its content is not the known one."""
    wrong = source.mismatch(path)
    if wrong:
        raise InputError(
            f"{path}: wrong checksum for {source.name!r} ({wrong}); delete the file to fetch it again, {source.advice}"
        )


def fetch(source: Source) -> Path:
    """Downloads a set into the cache and returns its path; an interrupted download goes on where it stopped.

    Raises InputError if the server cannot be reached or refuses, and for a wrong checksum.
    """
    url, path = source.url, _destination(source)
    # The part keeps the packed ending, so that it can be unpacked for its checksum before it gets its final name.
    part = path.with_name(_PART + path.name)
    print(f"downloading {url} to {path}", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part)
    except urllib.error.HTTPError as error:
        with error:
            raise _failed(source, f"the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _failed(source, str(getattr(reason, "strerror", None) or reason)) from None
    _keep(part, path, source)
    return path


def _sweep(cache: Path) -> None:
    """Removes what killed downloads left: parts that nobody wrote for a day, after which they are begun anew."""
    for part in cache.glob(f"*/{_PART}*"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE:
                part.unlink()


def _keep(part: Path, path: Path, source: Source) -> None:
    """Gives a whole download its name; removes one that is damaged, so that the next try starts anew."""
    try:
        wrong = source.mismatch(part)
    except InputError:
        wrong = f"not a readable {part.suffix} file"
    if wrong:
        part.unlink()
        raise InputError(
            f"the download of {source.url} has a wrong checksum ({wrong}) and was removed; "
            f"try again, or put a good copy at {path}"
        )
    os.replace(part, path)


class _NeverLess(urllib.request.HTTPRedirectHandler):
    """Follows no redirection from https to what anybody on the way may change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, part: Path) -> None:
    """Appends the bytes that `part` lacks; starts again if the server does not answer with exactly those."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fedjax_lc"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(_NeverLess).open(request, timeout=TIMEOUT) as answer:
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
    have = part.stat().st_size if mode == "ab" else 0
    total = None if expected is None else have + expected
    got = 0
    with part.open(mode) as out, bar(total, unit="B", initial=have, unit_scale=True) as shown:
        while chunk := answer.read(_CHUNK):
            out.write(chunk)
            got += len(chunk)
            shown.update(len(chunk))
    if expected is not None and got < expected:
        raise OSError(f"the connection broke {expected - got} bytes before the end; run it again to go on from there")


def _destination(source: Source) -> Path:
    return cache_folder() / source.folder / _filename(source)


def _filename(source: Source) -> str:
    return source.url.rpartition("/")[2]


def _by_hand(source: Source) -> str:
    return (
        f"get {source.url} and put it at {_destination(source)}, "
        f"or set {DATA_VARIABLE} to a folder that holds {_filename(source)}"
    )


def _failed(source: Source, reason: str) -> InputError:
    return InputError(f"cannot download {source.name!r} ({reason}); {_by_hand(source)}")
