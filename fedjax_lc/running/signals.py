"""Signals that ask a process to end: what runs is brought to a state that can be saved before they take effect."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM)  #: Ctrl-C, and what clusters send some seconds before they kill


class Terminated(BaseException):
    """SIGTERM came, within `raising`.

    Attributes:
        held: whether it came within `interruptible`, too, and takes effect only now.
    """

    def __init__(self, held: bool = False) -> None:
        super().__init__()
        self.held = held


class Held:
    """What `interruptible` yields; called, it returns whether a signal came.

    Attributes:
        signal: its number, or 0.

    The first signal is noted, and from then on a second one acts at once, as if nothing held it.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.before = {number: signal.getsignal(number) for number in HELD}

    def __call__(self) -> bool:
        return self.signal != 0

    def note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.restore()

    def restore(self) -> None:
        for number, handler in self.before.items():
            if getattr(signal.getsignal(number), "__self__", None) is self:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def interruptible() -> Iterator[Held]:
    """Within the block Ctrl-C and SIGTERM only set a flag, which what is yielded returns; a second one acts at once.

    After the block a SIGTERM takes effect: by default it ends the process, so whatever is worth keeping must be saved
    within. Ctrl-C has had its effect by then. Nested blocks share one flag. Outside the main thread it is never set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _Never()
        return
    outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(outer, Held):
        yield outer
        return
    held = Held()
    for number in HELD:
        signal.signal(number, held.note)
    try:
        yield held
    finally:
        held.restore()
    if held.signal == signal.SIGTERM:
        if signal.getsignal(signal.SIGTERM) is _raise:
            raise Terminated(held=True)
        signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated, so that temporary files are removed on the way out."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one acts at once
    raise Terminated


class _Never(Held):
    def __init__(self) -> None:
        self.signal, self.before = 0, {}
