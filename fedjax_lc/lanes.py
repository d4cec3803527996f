"""Work that only some steps do: a coin decides, and a step pays for it only when the coin says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

T = TypeVar("T")


def rarely(coin: jax.Array, talk: Callable[[T], T], operand: T) -> T:
    """`talk(operand)` if `coin` is true, else `operand` itself.

    Args:
        coin: () boolean.
        talk: pure function whose result has the structure, shapes and dtypes of `operand`; it may close over arrays.
        operand: any pytree.

    Example:
        >>> rarely(jnp.array(True), lambda x: x + 1, jnp.array(2))  # Array(3)
    """
    return jax.lax.cond(coin, talk, lambda same: same, operand)
