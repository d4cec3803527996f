"""Compiled programs kept on disk from one start of the command line to the next: JAX's persistent compilation cache.

Importing the package changes nothing: only `kept`, within which the command line works, turns the cache on. Its folder
is xla/ in the cache folder (FEDJAX_LC_CACHE, else the user's own), unless JAX_COMPILATION_CACHE_DIR chose another one.

JAX could hold the folder to a size itself (jax_compilation_cache_max_size), but that needs a file lock for every
program, looks at all of them for each one that is written, and can write no more after a process that was killed
between the two files of a program. So `kept` removes what was not used for longest before it starts.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable
from fedjax_lc.data.download import CACHE_OFF, CACHE_VARIABLE, cache_folder

MOST_BYTES = 2 * 10**9  #: what the folder may hold when a command starts
LEFT = 0.8  #: share of that which is left where it held more
SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,  # all programs: most are small, and there are many
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
COMPILED = "/jax/core/compile/backend_compile_duration"  #: of every program, compiled or served
SERVED = "/jax/compilation_cache/cache_retrieval_time_sec"  #: of every program that the cache served
TROUBLE = r"Error (?P<what>reading|writing) persistent compilation cache entry for '(?P<name>[^']*)': (?P<why>.*)"


class Tally(NamedTuple):
    """Programs of this process: those made, those of them that the cache served, and the seconds both took."""

    programs: int
    served: int
    seconds: float
    loading: float

    def since(self, before: Tally) -> Tally:
        """What was added."""
        return Tally(
            self.programs - before.programs,
            self.served - before.served,
            self.seconds - before.seconds,
            self.loading - before.loading,
        )

    def tell(self, folder: Path | None) -> str:
        """In words; `folder` is the cache's, None where it is off.

        >>> Tally(14, 0, 6.2, 0.0).tell(None)
        'compiled 14 programs in 6.2 s'
        """
        compiled = self.programs - self.served
        if not self.programs:
            return "compiled nothing: no program was needed"
        if not compiled:
            return f"compiled nothing: all {_programs(self.served)} came from the cache in {self.loading:.1f} s"
        line = f"compiled {_programs(compiled)} in {self.seconds - self.loading:.1f} s"
        line += f", kept in {short(folder)}" if folder else ""
        return line + (f"; {_programs(self.served)} came from there" if self.served else "")


class _Session(NamedTuple):
    """One use of `kept`: the folder in use, the one that the settings name, and what had been compiled before."""

    folder: Path | None
    named: Path | None
    before: Tally


_SESSION: contextvars.ContextVar[_Session | None] = contextvars.ContextVar("session", default=None)
_EVENTS: Counter[str] = Counter()
_SECONDS: dict[str, float] = {COMPILED: 0.0, SERVED: 0.0}


def folder() -> Path | None:
    """Where compiled programs are kept; None if FEDJAX_LC_CACHE or JAX's own settings say that none are. Within `kept`
    too, whether it uses the folder or not."""
    session = _SESSION.get()
    if session is not None:
        return session.named
    if os.environ.get(CACHE_VARIABLE) == CACHE_OFF or not _setting("jax_enable_compilation_cache"):
        return None
    chosen = _setting("jax_compilation_cache_dir")
    return Path(chosen) if chosen else cache_folder() / "xla"


def size(folder: Path) -> tuple[int, int]:
    """Entries and bytes of a cache's folder; both 0 where there is none."""
    files = _entries(folder)
    return len(files), sum(found.st_size for _, found in files)


def tally() -> Tally:
    """What this process compiled since `kept` was first used."""
    _listen()
    return Tally(_EVENTS[COMPILED], _EVENTS[SERVED], _SECONDS[COMPILED], _SECONDS[SERVED])


def told() -> str:
    """What was compiled within `kept` so far, and whether the cache served, in words."""
    session = _SESSION.get()
    return tally().tell(None) if session is None else tally().since(session.before).tell(session.folder)


@contextlib.contextmanager
def kept(on: bool = True) -> Iterator[None]:
    """Within the block compiled programs are counted and, if `on`, kept on disk and taken from there, else neither;
    after it JAX's settings are what they were. A folder that cannot be used is a note on stderr.

    Example:
        >>> with kept():
        ...     trace = fl.run("gd", problem)
        ...     print(told())
    """
    named = folder()
    place = _usable(named) if on else None
    mark = _SESSION.set(_Session(place, named, tally()))
    try:
        with _turned_off() if place is None else _turned_on(place):
            yield
    finally:
        _SESSION.reset(mark)


def short(path: Path) -> str:
    """A path for people, with ~ for the home folder."""
    with contextlib.suppress(ValueError, RuntimeError):
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)


def _usable(place: Path | None) -> Path | None:
    """The folder, made and held to its size; None and a note if that cannot be."""
    if place is None:
        return None
    try:
        check_writable(place / "entry")
    except InputError as error:
        print(f"note: compiled programs are not kept: {str(error).partition(';')[0]}", file=sys.stderr)
        return None
    if place == cache_folder() / "xla":
        _prune(place, MOST_BYTES)
    return place


def _prune(place: Path, most: int) -> None:
    """Remove what was not used for longest where a folder holds more than `most` bytes."""
    files = _entries(place)
    held = sum(found.st_size for _, found in files)
    if held <= most:
        return
    for path, found in sorted(files, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if held <= LEFT * most:
            return
        path.unlink(missing_ok=True)
        held -= found.st_size


def _entries(place: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in place.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may have removed it
            found.append((path, path.stat()))
    return found


@contextlib.contextmanager
def _turned_on(place: Path) -> Iterator[None]:
    troubles: list[re.Match[str]] = []
    try:
        with _settings({"jax_compilation_cache_dir": str(place)} | SETTINGS), _noting(troubles):
            yield
    finally:
        _tell(troubles, place)


def _turned_off() -> contextlib.AbstractContextManager[None]:
    return _settings({"jax_enable_compilation_cache": False})


@contextlib.contextmanager
def _settings(chosen: dict[str, Any]) -> Iterator[None]:
    """JAX's settings within the block."""
    before = {name: _setting(name) for name in chosen}

    def use(settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it looks at its settings once

    use(chosen)
    try:
        yield
    finally:
        use(before)


def _setting(name: str) -> Any:
    return getattr(jax.config, name)


@contextlib.contextmanager
def _noting(troubles: list[re.Match[str]]) -> Iterator[None]:
    """Within the block what JAX warns of an entry of the cache goes to `troubles`: such a program is compiled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")
        usual = warnings.showwarning

        def show(message: Any, *rest: Any, **named: Any) -> None:
            trouble = re.match(TROUBLE, str(message), re.DOTALL)
            troubles.append(trouble) if trouble else usual(message, *rest, **named)

        warnings.showwarning = show
        yield


def _tell(troubles: list[re.Match[str]], place: Path) -> None:
    """Say once what went wrong with entries, and remove those that a killed process left half written: JAX would
    neither read nor replace them."""
    damaged = {trouble["name"] for trouble in troubles if trouble["what"] == "reading"}
    for name in damaged:
        for path in place.glob(f"{name}-*-cache"):
            path.unlink(missing_ok=True)
    if damaged:
        print(f"note: {_programs(len(damaged))} in {short(place)} could not be read, and will be kept anew the next "
              "time", file=sys.stderr)  # fmt: skip
    unwritten = [trouble for trouble in troubles if trouble["what"] == "writing"]
    if unwritten:
        why = unwritten[0]["why"].partition("\n")[0]
        print(f"note: {_programs(len(unwritten))} could not be kept in {short(place)}: {why}", file=sys.stderr)


def _programs(count: int) -> str:
    return f"{count} program{'s' * (count != 1)}"


@functools.cache
def _listen() -> None:
    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _SECONDS:
            _EVENTS[event] += 1
            _SECONDS[event] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(note)
