"""Identity, zero, natural compression, and the Bernoulli compressor."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import FLOAT_BITS, Compressor, Message, check_index, count, divisor, index_cost, real
from fedjax_lc.compressors.draws import uniform
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, Scalar, Vec


@pytree.dataclass
class Identity(Compressor):
    """C(x) = x: 32 bits an entry, omega = 0."""

    name: ClassVar[str] = "identity"
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return Message(x, count(x, sent), FLOAT_BITS, 0, 0, sent)

    def omega(self, d: Scalar) -> Scalar:
        return 0.0


@pytree.dataclass
class Zero(Compressor):
    """C(x) = 0 at no bits; not contractive (delta = 0). Useful for identities such as induced(zero; Q) = Q."""

    name: ClassVar[str] = "zero"
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return Message(jnp.zeros_like(x), 0, FLOAT_BITS, 0, 0, jnp.zeros(x.shape, bool))


@pytree.dataclass
class Natural(Compressor):
    """Natural compression: round each entry at random, without bias, to one of its two neighbouring powers of two.

    An entry with 2^e <= |x_j| < 2^(e+1) is rounded up with probability |x_j| / 2^e - 1; powers of two and zero are
    unchanged. Nine bits an entry (sign and 8-bit exponent); omega = 1/8, attained at |x_j| = (4/3) 2^e. The bits are
    exact for magnitudes from 2^-126 to 2^127; beyond that, values follow the input's dtype and bits are nominal.

    Source: Horvath et al., arXiv 1905.10988; LoCoDL, arXiv 2403.04348.
    """

    name: ClassVar[str] = "natural"

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return uniform(key, d, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return Message(round_to_power(x, u), count(x, sent), 9, 0, 0, sent)

    def omega(self, d: Scalar) -> Scalar:
        return 1 / 8


def round_to_power(x: Vec, u: Vec) -> Vec:
    """Round each entry to a neighbouring power of two, up iff u_j < |x_j| / 2^e - 1, by operations on its bits.

    Subnormal numbers are scaled into the normal range first; where the backend flushes them (XLA on CPU) they are zero.
    """
    kind = jnp.uint64 if x.dtype == jnp.float64 else jnp.uint32
    mantissa_bits = jnp.finfo(x.dtype).nmant
    fraction_mask = jnp.asarray((1 << mantissa_bits) - 1, kind)
    scale = jnp.asarray(2.0**-mantissa_bits, x.dtype)
    lift = jnp.asarray(2.0**mantissa_bits, x.dtype)
    small = jnp.abs(x) < jnp.finfo(x.dtype).smallest_normal
    bits = jax.lax.bitcast_convert_type(jnp.where(small, x * lift, x), kind)
    fraction = (bits & fraction_mask).astype(x.dtype) * scale
    down = jax.lax.bitcast_convert_type(bits & ~fraction_mask, x.dtype)
    rounded = jnp.where(u < fraction, 2 * down, down)
    return jnp.where(small, rounded / lift, jnp.where(jnp.isfinite(x), rounded, x))


@pytree.dataclass
class Bernoulli(Compressor):
    """x / p with probability p, else 0: one coin for the whole vector, or one for each entry (`per="entry"`).

    omega = 1/p - 1 in both cases, with equality. Bits with one coin: 32 d or 0. With one coin per entry: 32 for each
    entry sent, plus a mask of d bits (`index="mask"`), 32 bits for a seed (`index="seed"`), or nothing if both sides
    know the seed (`index="none"`).
    """

    p: Scalar
    per: str = pytree.static(default="vector")
    index: str = pytree.static(default="mask")
    name: ClassVar[str] = "bernoulli"
    conventions: ClassVar[tuple[str, ...]] = ("mask", "none", "seed")

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return uniform(key, d if self.per == "entry" else 1, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        p = divisor(self.p, x.dtype)
        keep = jnp.broadcast_to(u < p, x.shape)
        keep = keep if sent is None else keep & sent
        value = jnp.where(keep, x / p, jnp.zeros_like(x))
        kept = count(x, keep)
        index_bits = index_cost(self.index, kept, x.shape[-1]) if self.per == "entry" else 0
        return Message(value, kept, FLOAT_BITS, index_bits, 0, keep)

    def omega(self, d: Scalar) -> Scalar:
        return 1 / real(self.p) - 1

    def validate(self, d: int) -> None:
        check_index(self)
        if not pytree.is_traced(self.p) and not 0 < float(self.p) <= 1:
            raise InputError(f"bernoulli needs a probability p in (0, 1], got {self.p}: write bernoulli:0.5")
        if self.per not in ("vector", "entry"):
            raise InputError(f"bernoulli per must be vector or entry, got {self.per!r}")
