"""JAX's persistent compilation cache, which keeps compiled programs on disk for later commands.

Importing the package does not turn the cache on; the context manager `kept` does, and the command line runs inside it.
The folder is xla/ in the cache folder (FEDJAX_LC_CACHE, else the user's default), unless JAX_COMPILATION_CACHE_DIR
names another one.

JAX can limit the size of the folder (jax_compilation_cache_max_size), but it then takes a file lock for every program,
scans all entries for each write, and cannot write any more after a process was killed between the two files of a
program. So `kept` removes the least recently used programs when it starts.
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

MOST_BYTES = 2 * 10**9  #: a larger folder is reduced when a command starts
LEFT = 0.8  #: share of MOST_BYTES that such a reduction leaves
SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,  # all programs: most are small, and there are many
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
COMPILED = "/jax/core/compile/backend_compile_duration"  #: JAX's event for every program, compiled or from the cache
SERVED = "/jax/compilation_cache/cache_retrieval_time_sec"  #: JAX's event for every program from the cache
TROUBLE = r"Error (?P<what>reading|writing) persistent compilation cache entry for '(?P<name>[^']*)': (?P<why>.*)"


class Tally(NamedTuple):
    """Counts of this process.

    Attributes:
        programs: programs made, compiled or from the cache.
        served: those of them that came from the cache.
        seconds: time for all programs.
        loading: time for those from the cache.
    """

    programs: int
    served: int
    seconds: float
    loading: float

    def since(self, before: Tally) -> Tally:
        """The difference to an earlier tally."""
        return Tally(
            self.programs - before.programs,
            self.served - before.served,
            self.seconds - before.seconds,
            self.loading - before.loading,
        )

    def tell(self, folder: Path | None) -> str:
        """The tally in words; `folder` is that of the cache, None if the cache is off.

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
    """One use of `kept`.

    Attributes:
        folder: the folder in use; None if the cache is off.
        named: the folder that the settings name.
        before: the tally when it began.
    """

    folder: Path | None
    named: Path | None
    before: Tally


_SESSION: contextvars.ContextVar[_Session | None] = contextvars.ContextVar("session", default=None)
_EVENTS: Counter[str] = Counter()
_SECONDS: dict[str, float] = {COMPILED: 0.0, SERVED: 0.0}


def folder() -> Path | None:
    """The cache's folder; None if FEDJAX_LC_CACHE or JAX's settings turn the cache off.

    The answer is the same within `kept`, whether or not the folder could be used.
    """
    session = _SESSION.get()
    if session is not None:
        return session.named
    if os.environ.get(CACHE_VARIABLE) == CACHE_OFF or not _setting("jax_enable_compilation_cache"):
        return None
    chosen = _setting("jax_compilation_cache_dir")
    return Path(chosen) if chosen else cache_folder() / "xla"


def size(folder: Path) -> tuple[int, int]:
    """The number of entries and of bytes in a cache folder; both 0 if the folder does not exist."""
    files = _entries(folder)
    return len(files), sum(stat.st_size for _, stat in files)


def tally() -> Tally:
    """What this process compiled since this function or `kept` was first called."""
    _listen()
    return Tally(_EVENTS[COMPILED], _EVENTS[SERVED], _SECONDS[COMPILED], _SECONDS[SERVED])


def summary() -> str:
    """A sentence on what was compiled within `kept` so far, and what came from the cache."""
    session = _SESSION.get()
    return tally().tell(None) if session is None else tally().since(session.before).tell(session.folder)


@contextlib.contextmanager
def kept(on: bool = True) -> Iterator[None]:
    """Within the block count compiled programs, and if `on` use the cache on disk; afterwards restore JAX's settings.

    If the folder cannot be used, a note on stderr says so and the programs are compiled.

    Example:
        >>> with kept():
        ...     trace = fl.run("gd", problem)
        ...     print(summary())
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
    """The folder, created and reduced to MOST_BYTES; None, with a note on stderr, if it cannot be written."""
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
    """Remove the least recently used entries of a folder that holds more than `most` bytes."""
    files = _entries(place)
    held = sum(stat.st_size for _, stat in files)
    if held <= most:
        return
    for path, stat in sorted(files, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if held <= LEFT * most:
            return
        path.unlink(missing_ok=True)
        held -= stat.st_size


def _entries(place: Path) -> list[tuple[Path, os.stat_result]]:
    entries = []
    for path in place.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may have removed it
            entries.append((path, path.stat()))
    return entries


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
    """Set these settings of JAX within the block."""
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
    """Within the block collect JAX's warnings on cache entries in `troubles`; JAX compiles such programs itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")
        usual = warnings.showwarning

        def show(message: Any, *rest: Any, **named: Any) -> None:
            trouble = re.match(TROUBLE, str(message), re.DOTALL)
            troubles.append(trouble) if trouble else usual(message, *rest, **named)

        warnings.showwarning = show
        yield


def _tell(troubles: list[re.Match[str]], place: Path) -> None:
    """Print one note on the troubles, and remove entries that a killed process left incomplete, which JAX would neither
    read nor replace."""
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
