"""Random bits for compressors: 32 an entry, never 64; those of `jax.random`, in half the time on CPU.

XLA's CPU backend runs jax's threefry as a loop over rounds. Written out it is one fused kernel, which also compiles in
a fraction of the time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lc.typing import Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def random_bits(key: Key, d: int) -> jax.Array:
    """(d,) uint32, bit for bit `jax.random.bits(key, (d,), jnp.uint32)`."""
    words = _words(key, d)
    if words is None:
        return jax.random.bits(key, (d,), jnp.uint32)
    # Computed once whatever the number of consumers: XLA would repeat the arithmetic inside each of them.
    return jax.lax.optimization_barrier(words[0] ^ words[1])


def split(key: Key, number: int = 2) -> Key:
    """(number,) keys, bit for bit `jax.random.split(key, number)`."""
    words = _words(key, number)
    if words is None:
        return jax.random.split(key, number)
    keys = jnp.stack(words, axis=-1)
    return jax.random.wrap_key_data(keys) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else keys


def uniform(key: Key, d: int, dtype: Any) -> jax.Array:
    """(d,) uniforms strictly inside (0, 1) from 32 random bits each, centred in their cells."""
    bits = random_bits(key, d)
    if jnp.finfo(dtype).bits >= 64:
        return (bits.astype(dtype) + 0.5) * 2.0**-32
    return ((bits >> 9).astype(dtype) + jnp.asarray(0.5, dtype)) * jnp.asarray(2.0**-23, dtype)


def _words(key: Key, number: int) -> tuple[jax.Array, jax.Array] | None:
    """Two words (number,) for each counter 0, 1, ...; None for the keys of another generator than threefry."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) != "threefry2x32":
            return None
        key = jax.random.key_data(key)
    return _threefry(key[0], key[1], jnp.zeros((number,), jnp.uint32), jnp.arange(number, dtype=jnp.uint32))


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
