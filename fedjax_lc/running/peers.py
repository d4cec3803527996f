"""Processes of one computation end together: where one fails, the others say so in a line and end within seconds.

Without it they would wait in a reduction until JAX misses the one that failed, which takes minutes. A process that is
killed outright tells nobody: the others end when a reduction with it fails, or when JAX misses it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from fedjax_lc.core.errors import InputError, one_line
from fedjax_lc.running.signals import Terminated

ENDED, GONE = "fedjax_lc/ended", "fedjax_lc/gone/"  #: keys: why a process failed; the processes that end
LOST = ("closed by peer", "reset by peer", "Broken pipe")  #: as a reduction with a process that has gone says
LOOKS = 0.3  #: seconds between two looks
WAITS = 6.0  #: seconds for which the first process, through which the others hear, waits for them

_watching = threading.Event()


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Within, an exception in one process ends all, unless all raise it; nothing is done where there is one process."""
    client = _client()
    if client is None or _watching.is_set():
        yield
        return
    done = threading.Event()
    _watching.set()
    threading.Thread(target=_watch, args=(client, done), daemon=True).start()
    try:
        yield
    except BaseException as error:
        done.set()
        if not _of_all(error):
            _follow(client, error)
            _tell(client, error)
        raise
    finally:
        done.set()
        _watching.clear()


def _client() -> Any:
    """JAX's connection to the other processes, or None."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return None
    from jax._src.distributed import global_state  # there is no public way to a key-value store

    return global_state.client


def _of_all(error: BaseException) -> bool:
    """Whether all processes end in order: by the same error, or by a signal that ended a run for all of them."""
    return (isinstance(error, InputError) and error.everywhere) or (isinstance(error, Terminated) and error.held)


def _tell(client: Any, error: BaseException) -> None:
    """Tell the others why this process fails, and end without waiting for them once the error was shown."""
    code = {InputError: 2, KeyboardInterrupt: 130, Terminated: 143}.get(type(error), 1)
    what = one_line(f"{type(error).__name__}: {error}" if code == 1 else error or type(error).__name__)
    with contextlib.suppress(Exception):  # another one was first
        client.key_value_set(ENDED, f"{code} process {jax.process_index()} ended: {what}")
    atexit.register(_leave, client, code)  # before JAX's own, which would wait for the others


def _watch(client: Any, done: threading.Event) -> None:
    while not done.wait(LOOKS):
        if reason := _reason(client):
            _say_and_leave(client, reason)


def _follow(client: Any, error: BaseException) -> None:
    """End this process with a line if another one failed before, or if it is gone."""
    gone = isinstance(error, jax.errors.JaxRuntimeError) and any(words in str(error) for words in LOST)
    reason = _reason(client)
    if gone and not reason:
        time.sleep(2 * LOOKS)  # it may be about to tell
        reason = _reason(client) or f"1 another process has gone ({error})"
    if reason:
        _say_and_leave(client, reason)


def _reason(client: Any) -> str:
    """Why a process failed, "" if none did."""
    with contextlib.suppress(Exception):  # there is no such key, or no connection any more
        return str(client.key_value_try_get(ENDED))
    return ""


def _say_and_leave(client: Any, reason: str) -> None:
    code, _, said = reason.partition(" ")
    with contextlib.suppress(Exception):
        print(f"fedjax-lc: {one_line(said)}", file=sys.__stderr__)
    _leave(client, int(code))


def _leave(client: Any, code: int) -> None:
    """End this process; the first one, through which the others hear, waits for them for a while."""
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    there = functools.partial(client.key_value_dir_get, GONE)
    with contextlib.suppress(Exception):
        client.key_value_set(f"{GONE}{jax.process_index()}", "")
        ends = time.monotonic() + WAITS
        while jax.process_index() == 0 and len(there()) < jax.process_count() and time.monotonic() < ends:
            time.sleep(LOOKS / 3)
    os._exit(code)
