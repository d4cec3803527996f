"""Sparsifiers, which send k of d entries: rand-k (scaled and unscaled), top-k, l1-selection."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import (
    FLOAT_BITS,
    INDEX_BITS,
    Compressor,
    Message,
    check_index,
    count,
    divisor,
    index_cost,
    real,
    smaller,
)
from fedjax_lc.compressors.draws import random_bits, uniform
from fedjax_lc.compressors.levels import norm
from fedjax_lc.compressors.select import smallest
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, Scalar, Vec


def choose(keys: jax.Array, k: Scalar, sent: jax.Array | None) -> jax.Array:
    """(d,) mask of the k smallest keys among the entries that exist."""
    if sent is None:
        return smallest(keys, k)
    top = jnp.asarray(jnp.iinfo(keys.dtype).max, keys.dtype)
    return smallest(jnp.where(sent, jnp.minimum(keys, top - 1), top), k) & sent


def largest(x: Vec, k: Scalar, sent: jax.Array | None = None) -> jax.Array:
    """(d,) mask of the k entries of largest modulus among those that exist; ties go to the lowest index."""
    # As whole numbers, the bits of |x| are ordered as |x|; subtracted from the top, the largest comes first.
    signed, unsigned = (jnp.int64, jnp.uint64) if x.dtype == jnp.float64 else (jnp.int32, jnp.uint32)
    top = jnp.asarray(jnp.iinfo(signed).max, unsigned)
    return choose(top - jax.lax.bitcast_convert_type(jnp.abs(x), unsigned), k, sent)


class Sparsifier(Compressor):
    """Base of sparsifiers: k as a number or as a percentage of d, and the bits of the indices."""

    k: Scalar
    unit: str
    index: str
    conventions: ClassVar[tuple[str, ...]] = INDEX_BITS

    def entries(self, d: Scalar) -> Scalar:
        """The number of entries sent: k, or k per cent of d (at least 1)."""
        if self.unit == "count":
            return self.k
        if isinstance(self.k, int | float) and isinstance(d, int):
            return max(1, round(self.k * d / 100))
        return jnp.maximum(1, jnp.round(jnp.asarray(self.k * d / 100.0))).astype(jnp.int32)

    def _message(self, value: Vec, keep: jax.Array, sent: jax.Array | None) -> Message:
        d = value.shape[-1]
        k = self.entries(d) if sent is None else smaller(self.entries(d), count(value, sent))
        return Message(value, k, FLOAT_BITS, index_cost(self.index, k, d), 0, keep)

    def validate(self, d: int) -> None:
        check_index(self)
        k = self.entries(d)
        if pytree.is_traced(k):
            return
        if not 1 <= k <= d:
            raise InputError(f"{self.name} needs 1 <= k <= d = {d}, got k = {k}")
        if k != int(k):
            raise InputError(f"{self.name} needs a whole k, got {k}: write {self.name}:{int(k)}, or a percentage")


@pytree.dataclass
class RandK(Sparsifier):
    """rand-k: k coordinates drawn uniformly without replacement, scaled by d/k; omega = d/k - 1, exact for every x.

    Bits: k (32 + index bits). `index` is the convention for index bits: log2, binom, int32, none (both sides know the
    seed), or seed (32 bits of seed in each message). `k` may be a percentage of d: rand_k:10%.
    """

    k: Scalar
    unit: str = pytree.static(default="count")
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "rand_k"
    conventions: ClassVar[tuple[str, ...]] = (*INDEX_BITS, "seed")

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return random_bits(key, d)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        """Send the entries with the k smallest draws u (d,) uint32; ties go to the lowest index."""
        keep = choose(u, self.entries(x.shape[-1]), sent)
        message = self._message(x, keep, sent)
        scale = jnp.asarray(count(x, sent), x.dtype) / jnp.maximum(divisor(message.entries, x.dtype), 1)
        return dataclasses.replace(message, value=jnp.where(keep, x * scale, jnp.zeros_like(x)))

    def omega(self, d: Scalar) -> Scalar:
        return d / real(self.entries(d)) - 1


@pytree.dataclass
class RandKUnscaled(Sparsifier):
    """rand-k without scaling, for error feedback; delta = k/d, exact for every x."""

    k: Scalar
    unit: str = pytree.static(default="count")
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "rand_k_unscaled"
    projects: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = (*INDEX_BITS, "seed")

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return random_bits(key, d)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        """Send the entries with the k smallest draws u (d,) uint32; ties go to the lowest index."""
        keep = choose(u, self.entries(x.shape[-1]), sent)
        return self._message(jnp.where(keep, x, jnp.zeros_like(x)), keep, sent)

    def delta(self, d: Scalar) -> Scalar:
        return real(self.entries(d)) / d


@pytree.dataclass
class TopK(Sparsifier):
    """top-k: the k entries of largest modulus, ties to the lowest index; delta >= k/d, tight if all moduli are equal.

    Bits: k (32 + index bits). NaN counts as larger than any number, so that it is sent and noticed.
    """

    k: Scalar
    unit: str = pytree.static(default="count")
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "top_k"
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        keep = largest(x, self.entries(x.shape[-1]), sent)
        return self._message(jnp.where(keep, x, jnp.zeros_like(x)), keep, sent)

    def delta(self, d: Scalar) -> Scalar:
        return real(self.entries(d)) / d


def _power_near_one(largest: Scalar) -> jax.Array:
    """A power of two whose product with a positive number is in [1, 4), or as near as representable."""
    kind = jnp.finfo(largest.dtype)
    unsigned = jnp.uint64 if kind.bits == 64 else jnp.uint32
    bias, exponent = kind.maxexp - 1, jax.lax.bitcast_convert_type(largest, unsigned) >> kind.nmant
    inverse = jnp.clip(2 * bias - exponent.astype(jnp.int32), 1, 2 * bias)
    return jax.lax.bitcast_convert_type(inverse.astype(unsigned) << kind.nmant, largest.dtype)


@pytree.dataclass
class L1Select(Compressor):
    """l1-selection: index i with probability |x_i| / |x|_1; sends |x|_1 sgn(x_i) e_i, or x_i e_i if form="biased".

    Unbiased form: omega = d - 1 (the variance is |x|_1^2 - |x|^2, so tight when all moduli are equal). Biased form:
    delta >= 1/d, tight there too. Bits: 32 + one index. The probabilities are exact to the resolution of the uniform
    draw and of the running sum (2^-23 of |x|_1 in float32).

    Source: biased compressors, arXiv 2002.12410; LoCoDL, arXiv 2403.04348, section on compressors.
    """

    form: str = pytree.static(default="unbiased")
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "l1_select"
    conventions: ClassVar[tuple[str, ...]] = INDEX_BITS

    @property
    def projects(self) -> bool:  # type: ignore[override]
        return self.form == "biased"

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return uniform(key, 1, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        """Send the first index at which the running sum of |x| exceeds u |x|_1, with u (1,) in (0, 1)."""
        # Exact scaling, and sums in one order: the same entry on every platform.
        running = jax.lax.associative_scan(jnp.add, jnp.abs(x) * _power_near_one(norm(x, jnp.inf)))
        # Zeros are never sent, even if the running sum has rounding errors.
        passed = (running > u * running[-1]) & (x != 0)
        chosen = jnp.arange(x.shape[-1]) == jnp.argmax(passed)
        total = norm(x, 1)
        # 0 * total is 0, or NaN where x holds a NaN that the draw would hide.
        entry = total * jnp.sign(x) if self.form == "unbiased" else x + 0 * total
        value = jnp.where(chosen, entry, jnp.zeros_like(x))
        return Message(value, 1, FLOAT_BITS, index_cost(self.index, 1, x.shape[-1]), 0, chosen)

    def omega(self, d: Scalar) -> Scalar:
        return d - 1.0 if self.form == "unbiased" else jnp.inf

    def delta(self, d: Scalar) -> Scalar:
        return 1 / d if self.form == "biased" else Compressor.delta(self, d)

    def entries(self, d: Scalar) -> Scalar:
        return 1

    def validate(self, d: int) -> None:
        check_index(self)
        if self.form not in ("unbiased", "biased"):
            raise InputError(f"l1_select form must be unbiased or biased, got {self.form!r}")
