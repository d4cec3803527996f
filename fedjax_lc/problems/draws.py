"""Random whole numbers, subsets and participants, drawn inside compiled code."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_lc.core.devices import shared
from fedjax_lc.core.platforms import by_platform
from fedjax_lc.core.typing import Key, Scalar

ALL_PAIRS_UP_TO = 256  #: numbers of a subset; all pairs of more are compared later than the numbers are sorted


def below(key: Key, m: jax.Array) -> jax.Array:
    """Uniform whole numbers in 0..m-1, one for each entry of m: floor(u m / 2^32) with a 32-bit draw u.

    Probabilities have a relative error of at most m / 2^32; `jax.random.randint` takes twice as many random bits.
    The draws are jax's, which XLA does not fuse: `compressors.draws.random_bits` would be computed again for every
    entry that is gathered by these numbers.
    """
    u, m = jax.random.bits(key, m.shape, jnp.uint32), m.astype(jnp.uint32)
    low = lambda number: number & 0xFFFF
    middle = (u >> 16) * low(m) + ((low(u) * low(m)) >> 16)
    carry = (low(u) * (m >> 16) + low(middle)) >> 16
    return ((u >> 16) * (m >> 16) + (middle >> 16) + carry).astype(jnp.int32)


def distinct(key: Key, m: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """A uniformly random subset of 0..m-1: (batch,) different numbers, and a mask of those that are valid.

    All are valid if m >= batch; otherwise m of them are, and the others repeat 0..m-1.

    Floyd's sampling: for j = m - batch, ..., m - 1 take a uniform t <= j, or j itself if t was taken before. All t are
    drawn at once; t was taken before if it equals an earlier t, or an earlier j that had to be taken. Small subsets
    compare all pairs for this, large ones sort t, so that a draw costs batch log(batch).
    """
    place = jnp.arange(batch)
    j = m - batch + place
    t = below(key, jnp.maximum(j + 1, 1))
    if batch == 1:
        return t, j >= 0  # of m >= 1 rows
    forced = _by_all_pairs(t, j) if batch <= ALL_PAIRS_UP_TO else _twice_as_far(_repeats(t, j), t, j)
    return jnp.where(j >= 0, jnp.where(forced, j, t), j % m), j >= 0


def _by_all_pairs(t: jax.Array, j: jax.Array) -> jax.Array:
    """(b,) whether each t was taken before.

    A CPU compares pairs until nothing changes, usually once or twice. On an accelerator the end of such a loop is
    expensive.
    """
    earlier = jnp.tri(len(t), k=-1, dtype=bool) & (j >= 0)[None]
    again = jnp.any(earlier & (t[:, None] == t[None]), axis=1)

    def until_nothing_changes(again: jax.Array, t: jax.Array, j: jax.Array) -> jax.Array:
        follows = earlier & (t[:, None] == j[None])

        def spread(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            _, forced = both
            return forced, again | jnp.any(follows & forced[None], axis=1)

        changing = lambda both: jnp.any(both[0] != both[1])
        return jax.lax.while_loop(changing, spread, spread((again, again)))[1]

    return by_platform(cpu=until_nothing_changes, accelerator=_twice_as_far)(again, t, j)


def _repeats(t: jax.Array, j: jax.Array) -> jax.Array:
    """(b,) whether each t equals an earlier one whose j is not negative: its neighbour when all t are sorted."""
    order = jnp.argsort(t, stable=True)
    in_order, before = t[order], order[:-1]
    repeated = (in_order[1:] == in_order[:-1]) & (j[before] >= 0)
    return jnp.zeros(len(t), bool).at[order[1:]].set(repeated, unique_indices=True)


def _twice_as_far(again: jax.Array, t: jax.Array, j: jax.Array) -> jax.Array:
    """(b,) whether each t was taken before, given which equal an earlier t: every place doubles the distance that it
    looks back, in each of log2(b) iterations."""
    place = jnp.arange(len(t))
    before = t - j[0]  # the place whose j this t is
    before, forced = jnp.where((before >= 0) & (before < place), before, place), again
    for _ in range((len(t) - 1).bit_length()):
        forced, before = forced | forced[before], before[before]
    return forced


def some_of(key: Key, share: Scalar, n: int) -> jax.Array:
    """(n,) booleans, independently true with probability `share` > 0, conditioned on at least one being true.

    If an unconditional draw is all false, it is replaced by a draw from the conditional law: the first true entry is i
    with probability (1 - share)^i share / (1 - (1 - share)^n), and each later entry is true with probability `share`.
    So no draw is repeated, however small the share.

    Example:
        >>> int(jnp.sum(some_of(jax.random.key(0), 1e-9, 100)))
        1
    """
    key, draw_key = jax.random.split(key)
    drawn = shared(jax.random.bernoulli(draw_key, share, (n,)))
    first_key, rest_key = jax.random.split(key)
    log_stay = jnp.log1p(-jnp.asarray(share))
    u = jax.random.uniform(first_key, (), log_stay.dtype)
    early = jnp.log1p(u * jnp.expm1(n * log_stay)) / log_stay
    uniform = -n * log_stay < jnp.finfo(log_stay.dtype).eps  # the law, to rounding
    first = jnp.floor(jnp.where(uniform, u * n, early))
    client = jnp.arange(n, dtype=log_stay.dtype)
    first = jnp.clip(first, 0, n - 1)
    instead = (client == first) | ((client > first) & jax.random.bernoulli(rest_key, share, (n,)))
    return shared(jnp.where(jnp.any(drawn), drawn, instead))
