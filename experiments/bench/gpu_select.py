"""Part `select` of `fedjax-lc bench gpu`: choosing the k smallest of d random keys, in every row of a matrix.

All ways give the same mask, ties to the lowest index, and take a k that is known only when they run, but `lax.top_k`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.gpu_common import AT_ONCE, CHOSEN, Given, Told, called, judged, missing, raced, us
from experiments.bench.harness import Contestant, Target, ratio
from fedjax_lc.compressors.select import smallest

Way = Callable[[jax.Array, Any], jax.Array]  #: keys (d,) uint32 and k >= 1 -> mask (d,)
BITS = 32
PAIRS_UP_TO = 1e10  #: comparisons, of all rows

OURS, TOP_K, FLOOR = "as the package chooses", "lax.top_k, static k", "one comparison"


def all_pairs(keys: jax.Array, k: Any) -> jax.Array:
    mine, other, index = keys[:, None], keys[None, :], jnp.arange(keys.shape[0])
    before = (other < mine) | ((other == mine) & (index[None, :] < index[:, None]))
    return jnp.sum(before, axis=1, dtype=jnp.int32) < k


def sort_then_compare(keys: jax.Array, k: Any) -> jax.Array:
    index = jnp.arange(keys.shape[0], dtype=jnp.int32)
    key, place = (row[k - 1] for row in jax.lax.sort((keys, index), num_keys=1, is_stable=True))
    return (keys < key) | ((keys == key) & (index <= place))


def by_argsort(keys: jax.Array, k: Any) -> jax.Array:
    d = keys.shape[0]
    return jnp.zeros(d, bool).at[jnp.argsort(keys, stable=True)].set(jnp.arange(d) < k, unique_indices=True)


def top_k(keys: jax.Array, k: int) -> jax.Array:
    return jnp.zeros(keys.shape[0], bool).at[jax.lax.top_k(~keys, k)[1]].set(True, unique_indices=True)


def by_digits(keys: jax.Array, k: Any, bits: int, unroll: bool) -> jax.Array:
    """The k-th smallest key, so many bits at a time from the top; then, among ties, its place in the same way."""
    index = jnp.arange(keys.shape[0], dtype=keys.dtype)
    key = _kth(keys, k, bits, BITS, unroll)
    less, tied = keys < key, keys == key
    spare = k - jnp.sum(less, dtype=jnp.int32)
    places = jnp.where(tied, index, jnp.uint32(keys.shape[0]))
    place = _kth(places, spare, bits, keys.shape[0].bit_length(), unroll)
    return less | (tied & (index <= place))


def _kth(keys: jax.Array, k: Any, bits: int, width: int, unroll: bool) -> jax.Array:
    """The largest number below 2^width with fewer than k keys below it."""
    turns = -(-width // bits)
    digits = jnp.arange(1, 2**bits, dtype=keys.dtype)

    def narrow(h: jax.Array, found: jax.Array) -> jax.Array:
        shift = (bits * (turns - 1 - h)).astype(keys.dtype)
        below = jnp.sum(keys[None, :] < (found + (digits << shift))[:, None], axis=1, dtype=jnp.int32)
        return found + (jnp.sum(below < k, dtype=keys.dtype) << shift)

    return jax.lax.fori_loop(np.int32(0), np.int32(turns), narrow, jnp.zeros((), keys.dtype), unroll=unroll)


WAYS: dict[str, Way] = {
    OURS: smallest,
    "all pairs": all_pairs,
    "sort, then compare": sort_then_compare,
    "argsort": by_argsort,
    TOP_K: top_k,
    "bisection, a loop": partial(by_digits, bits=1, unroll=False),
    "bisection, unrolled": partial(by_digits, bits=1, unroll=True),
    "radix, 8 x 4 bits": partial(by_digits, bits=4, unroll=True),
}


def ways(rows: int, d: int) -> dict[str, Way]:
    """Those that fit."""
    return {name: way for name, way in WAYS.items() if name != "all pairs" or rows * d**2 <= PAIRS_UP_TO}


@functools.cache
def over_rows(name: str, k: int) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """A way as a compiled function of keys (rows, d) and what follows them."""
    if name == TOP_K:
        return jax.jit(jax.vmap(lambda keys: WAYS[name](keys, k))), ()
    return jax.jit(jax.vmap(WAYS[name], (0, None))), (jnp.int32(k),)


def keys_of(rows: int, d: int, ties: int = BITS) -> jax.Array:
    """(rows, d) random keys of so many bits."""
    return jax.random.bits(jax.random.key(0), (rows, d), jnp.uint32) >> jnp.uint32(BITS - ties)


def select(given: Given) -> dict[str, Any]:
    """Per shape a race, and the ways whose mask is not ours."""
    found, calls = {}, given.sizes.calls
    for rows, d, k in given.sizes.selections:
        keys, masks = keys_of(rows, d), dict[str, jax.Array]()
        makers = {name: partial(_contestant, name, keys, k, calls, masks) for name in ways(rows, d)}
        makers[FLOOR] = partial(called, jax.jit(lambda keys: keys < keys[:, :1]), keys, calls=calls)
        race = raced(makers, given, f"select {rows} x {d}", AT_ONCE)
        found[f"{rows:,} x {d:,}, {k:,}"] = race | {"differ": differ(masks)}
    return found


def _contestant(name: str, keys: jax.Array, k: int, calls: int, masks: dict[str, jax.Array]) -> Contestant:
    """Calls of a way; its mask is kept in `masks`."""
    program, more = over_rows(name, k)
    masks[name] = jax.block_until_ready(program(keys, *more))  # here, as one that needs too much memory fails late
    return called(program, keys, *more, calls=calls)


def differ(masks: Mapping[str, jax.Array]) -> list[str]:
    """The ways whose mask is not ours."""
    return [name for name, mask in masks.items() if OURS in masks and not bool(jnp.array_equal(mask, masks[OURS]))]


def tell_select(found: Mapping[str, Any]) -> Told:
    rows, notes, targets = [], [], []
    for shape, race in found.items():
        target = _target(shape, race)
        targets += [target] if target else []
        rows.append(
            {
                "rows x d, k": shape,
                **{name: us(race, name, 0) for name in WAYS},
                FLOOR: us(race, FLOOR, 0),
                "ours / the fastest": f"{target.measured:.2f}" if target else "-",
                "same mask": ("no: " + "; ".join(race["differ"])) if race["differ"] else "yes",
                **judged(target),
            }
        )
        targets.append(Target(f"(select) {shape}: ways whose mask is not ours", 0, len(race["differ"])))
        notes += [f"{shape}: {note}" for note in missing(race)]
    about = f"us a call; the fastest with a traced k; a call takes what {FLOOR} does at least; all pairs up to "
    return Told([rows], [f"{about}{PAIRS_UP_TO:.0e} comparisons", *notes], targets)


def _target(shape: str, race: Mapping[str, Any]) -> Target | None:
    """Ours over the fastest way that takes a traced k, judged by medians of ratios."""
    traced = [name for name in race["rows"] if name not in (OURS, TOP_K, FLOOR)]
    if OURS not in race["rows"] or not traced:
        return None
    best = min(traced, key=lambda name: race["rows"][name]["ms"])
    return Target(f"(select) {shape}: ours / the fastest", CHOSEN, ratio(race["rows"], OURS, best).median)
