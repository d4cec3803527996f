"""Compressors that keep numbers between their messages, such as a price or a number of stages.

A method that has a place for them asks for `start(n, d, dtype)` before its first round and calls
`joint_with(key, X, state, present)` in each; a compressor without a state takes part in that and pays nothing
(`Compressor`). Other methods, and other compressors around it, refuse one that has a state.
"""

from __future__ import annotations

from typing import Any

import jax

from fedjax_lc.compressors.base import Compressor, Message, check_whole, inner_fields
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Vec


class Remembering(Compressor):
    """Base of compressors with a state; subclasses implement `start` and `joint_with`.

    Called with one vector, it compresses that as the first message of a run.
    """

    def start(self, n: int, d: int, dtype: Any) -> PyTree:
        raise NotImplementedError

    def joint_with(
        self, key: Key | None, X: ClientVecs, state: PyTree, present: jax.Array | None = None
    ) -> tuple[Message, PyTree]:
        raise NotImplementedError

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        check_whole(self, sent)
        messages, _ = self.joint_with(None, x[None], self.start(1, x.shape[-1], x.dtype))
        return jax.tree.map(lambda leaf: leaf[0], messages)

    def joint(self, key: Key, X: ClientVecs, sent: jax.Array | None = None) -> Message:
        raise InputError(f"{self.name} keeps numbers between rounds, for which there is no place here: use it for the "
                         "uplink of a method with error feedback, such as mem_sgd or ef21")  # fmt: skip


def check(c: Compressor, d: int) -> None:
    """Raise InputError, on the host, where a compressor does not fit dimension d, or has one with a state within it."""
    _check_within(c)
    c.validate(d)


def _check_within(c: Compressor) -> None:
    for inner in (getattr(c, name) for name in inner_fields(type(c))):
        if isinstance(inner, Remembering):
            raise InputError(f"{inner.name} keeps numbers between rounds and cannot be part of {c}: use it by itself")
        _check_within(inner)
