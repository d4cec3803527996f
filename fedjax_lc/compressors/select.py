"""Select the k smallest of d keys, where k may be traced; the mask is the same by every route and on every platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lc.core.platforms import SORT_UP_TO, by_platform
from fedjax_lc.core.typing import Scalar

_FEW = 24  #: up to this many keys, all pairs are compared
_MARGIN = 2.0**-20  #: more than the rounding error of a key in float32, so that bounds remain bounds


def smallest(keys: jax.Array, k: Scalar) -> jax.Array:
    """(d,) mask of the min(k, d) smallest of the unsigned `keys` (d,); ties go to the lowest index.

    A CPU searches for a threshold (8 to 17 ns an entry; a sort takes 29 to 76). The length of that search depends on
    the keys, so an accelerator waits for the host at each iteration: it sorts up to 50,000 keys (100 x 123 keys: 19 us,
    search 295 us; 100 x 20,000: 173 and 538) and searches for more (10 x 10^6: 3566 and 411).

    Example:
        >>> smallest(jnp.array([3, 1, 2, 1], jnp.uint32), 2)  # Array([False, True, False, True])
    """
    # Keys computed from rounded numbers must be equal at all uses; fused into several uses, XLA may round differently.
    keys = jax.lax.optimization_barrier(keys)
    d, k = keys.shape[-1], jnp.asarray(k).astype(jnp.int32)
    if d <= _FEW:
        return _by_rank(keys, k)
    if d > SORT_UP_TO:
        return _by_threshold(keys, k)
    return by_platform(cpu=_by_threshold, accelerator=_by_sorting)(keys, k)


def _by_rank(keys: jax.Array, k: Scalar) -> jax.Array:
    """Compare all pairs of keys, in one kernel without a loop; fastest for few keys."""
    mine, other = keys[:, None], keys[None, :]
    index = jnp.arange(keys.shape[-1])
    # XLA's CPU backend drops the barrier above, and may round a key in its column otherwise than in its row: it is not
    # compared with itself.
    before = ((other < mine) & (index[None, :] != index[:, None])) | (
        (other == mine) & (index[None, :] < index[:, None])
    )
    return jnp.sum(before, axis=-1, dtype=jnp.float32) < k


def _by_sorting(keys: jax.Array, k: Scalar) -> jax.Array:
    """Compare every key and its index with those of the k-th smallest key."""
    d = keys.shape[-1]
    index = jnp.arange(d, dtype=jnp.int32)
    ordered, places = jax.lax.sort((keys, index), num_keys=1, is_stable=True)
    last = jnp.clip(k, 0, d) - 1
    key, place = (row[jnp.maximum(last, 0)] for row in (ordered, places))
    return ((keys < key) | ((keys == key) & (index <= place))) & (last >= 0)


def _by_threshold(keys: jax.Array, k: Scalar) -> jax.Array:
    """Search for a threshold with exactly k keys below it; ties at the k-th key are resolved by a search over indices.

    For uniform keys this takes about ten passes over the keys, independent of their type and of d.
    """
    d = keys.shape[-1]
    # Counts are float32 where that is exact: XLA's CPU backend sums floats twice as fast as integers.
    kind = jnp.float32 if d < 2**24 else jnp.int32
    k = jnp.minimum(jnp.asarray(k), d).astype(kind)

    def count(mask: jax.Array) -> jax.Array:
        return jnp.sum(mask, axis=-1, dtype=kind)

    low, high = _bracket(keys)
    none, all_ = jnp.zeros((), kind), jnp.full((), d, kind)
    below, counted, above = _search(lambda t: count(keys < t), low, high, none, all_, k)
    # No threshold has exactly k keys below it: `below` is then the tied key itself.
    enough, tied = keys < below, keys == below
    index = jnp.arange(d, dtype=jnp.int32)
    first, last = jnp.int32(0), jnp.int32(d)
    cut, _, _ = _search(lambda c: count(enough | (tied & (index < c))), first, last, counted, above, k)
    return enough | (tied & (index < cut))


def _bracket(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bounds of all keys, computed in float32 (XLA's CPU backend is slow at the minimum of integers)."""
    values, top = keys.astype(jnp.float32), jnp.iinfo(keys.dtype).max
    low = (jnp.min(values) * (1 - _MARGIN)).astype(keys.dtype)
    high = jnp.max(values) * (1 + _MARGIN)
    inside = float(top) * (1 - 2 * _MARGIN)
    return low, jnp.where(high < inside, jnp.minimum(high, inside).astype(keys.dtype), jnp.asarray(top, keys.dtype))


def _search(
    count_below: Callable[[jax.Array], jax.Array],
    low: jax.Array,
    high: jax.Array,
    at_low: jax.Array,
    above_high: jax.Array,
    k: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The point of [low, high] whose count is k, else the largest one whose count is at most k.

    `at_low` is the count at low, `above_high` a bound on counts above high. Eight steps of interpolation alternate with
    eight of bisection, so that no distribution of keys takes many passes. Returns the point, its count, and the last
    `above_high`.
    """

    def going(carry: Any) -> jax.Array:
        low, high, at_low, _, _ = carry
        return (at_low != k) & (low < high)

    def narrow(carry: Any) -> Any:
        low, high, at_low, above_high, step = carry
        share = ((k - at_low + 0.5) / (above_high - at_low + 1)).astype(jnp.float32)
        share = jnp.where(step & 8 > 0, 0.5, share)
        width = high - low
        guess = (share * (1 - _MARGIN) * width.astype(jnp.float32)).astype(width.dtype)
        middle = low + jnp.clip(guess, 1, width)
        counted = count_below(middle)
        fits = counted <= k
        return (
            jnp.where(fits, middle, low),
            jnp.where(fits, high, middle - 1),
            jnp.where(fits, counted, at_low),
            jnp.where(fits, above_high, counted),
            step + 1,
        )

    point, _, at_point, above, _ = jax.lax.while_loop(going, narrow, (low, high, at_low, above_high, jnp.int32(0)))
    return point, at_point, above
