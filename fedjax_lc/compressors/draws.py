"""Random bits for compressors, 32 for each entry: those of `jax.random.bits`, in half the time on a CPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lc.core.typing import Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def random_bits(key: Key, d: int) -> jax.Array:
    """(d,) uint32, bit for bit `jax.random.bits(key, (d,), jnp.uint32)`.

    XLA's CPU backend executes jax's threefry as a loop; written out it becomes one fused kernel. (Keys are still split
    by jax, whose loop keeps XLA from fusing, and so repeating, the split for every number drawn.) For keys of another
    generator the bits are those of `jax.random.bits`.
    """
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) != "threefry2x32":
            return jax.random.bits(key, (d,), jnp.uint32)
        key = jax.random.key_data(key)
    high, low = _threefry(key[0], key[1], jnp.zeros((d,), jnp.uint32), jnp.arange(d, dtype=jnp.uint32))
    return high ^ low


def uniform(key: Key, d: int, dtype: Any) -> jax.Array:
    """(d,) uniforms strictly inside (0, 1) from 32 random bits each, centred in their cells."""
    bits = random_bits(key, d)
    if jnp.finfo(dtype).bits >= 64:
        return (bits.astype(dtype) + 0.5) * 2.0**-32
    return ((bits >> 9).astype(dtype) + jnp.asarray(0.5, dtype)) * jnp.asarray(2.0**-23, dtype)


def _threefry(k0: jax.Array, k1: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """threefry2x32 with 20 rounds (Salmon et al. 2011) of the counters (x0, x1)."""
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        x0, x1 = x0 + keys[(group + 1) % 3], x1 + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1
