"""Quantisers with a norm and, for each entry, a sign and a level: dithering, QSGD, ternary, natural dithering."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import FLOAT_BITS, Compressor, Message, count, divisor, real, smaller
from fedjax_lc.compressors.basic import round_to_power
from fedjax_lc.compressors.draws import uniform
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, Scalar, Vec


def norm(x: Vec, q: float) -> Scalar:
    """The l_q norm of x (d,), computed relative to the largest modulus, so that powers neither over- nor underflow."""
    largest = jnp.max(jnp.abs(x))
    if q == math.inf:
        return largest
    ratio = jnp.abs(x) / jnp.where(largest > 0, largest, 1)
    if q == 1:
        return largest * jnp.sum(ratio)
    if q == 2:
        return largest * jnp.sqrt(jnp.sum(ratio * ratio))
    return largest * jnp.sum(ratio**q) ** (1 / q)


def dither(x: Vec, u: Vec, s: Scalar, q: float) -> Vec:
    """nrm sgn(x) (floor(l) + [u < frac l]) / s with l = s |x| / nrm: unbiased rounding to s + 1 equidistant levels."""
    nrm, s = norm(x, q), divisor(s, x.dtype)
    # |x| / nrm can exceed one by a rounding error.
    level = jnp.minimum(jnp.abs(x) / jnp.where(nrm > 0, nrm, 1) * s, s)
    low = jnp.floor(level)
    return jnp.sign(x) * (nrm * ((low + (u < level - low)) / s))


class Levels(Compressor):
    """Base of the quantisers: one uniform draw for each entry."""

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return uniform(key, d, dtype)


def _message(value: Vec, s: Scalar, sent: jax.Array | None) -> Message:
    """The message: 32 bits for the norm, and a sign and ceil log2(s + 1) bits for each entry."""
    return Message(value, count(value, sent), 1 + _bit_length(s), 0, FLOAT_BITS, sent)


def _check_levels(c: Any, most: float) -> None:
    if not pytree.is_traced(c.s) and (not 1 <= c.s <= most or c.s != int(c.s)):
        raise InputError(f"{c.name} needs a whole number of levels s, 1 <= s <= {most}, got {c.s}")


def _bit_length(s: Scalar) -> Scalar:
    """ceil log2(s + 1) for a whole number s, traced or not."""
    if isinstance(s, int | float):
        return int(s).bit_length()
    return 32 - jax.lax.clz(jnp.asarray(s, jnp.int32))


@pytree.dataclass
class Dithering(Levels):
    """Standard dithering: round |x_j| / |x|_q at random, without bias, to s + 1 equidistant levels; q in {1, 2, inf}.

    omega: q = 2, min(d/s^2, sqrt(d)/s) (arXiv 1610.02132; sqrt(d) - 1 is the supremum at s = 1, so not tight);
    q = inf, min(d/(4 s^2), (1 + sqrt(d))/(2 s)) and q = 1, min((d - 1)/s, d^2/(4 s^2)) (both derived here; the latter
    tight at s = 1). Exact variance for every x: (|x|_q^2 / s^2) sum_j f_j (1 - f_j), f_j = frac(s |x_j| / |x|_q).

    Bits: code="fixed", 32 + d (1 + ceil log2(s + 1)); code="elias" (q = 2 only), the expected length
    (3 + 1.5 log2(2 (s^2 + d)/(s^2 + s sqrt d))) (s^2 + s sqrt d) + 32, recalled from memory, not of a single message.
    """

    s: Scalar
    norm: float = pytree.static(default=2)
    code: str = pytree.static(default="fixed")
    name: ClassVar[str] = "dithering"

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        value = dither(x, u, self.s, self.norm)
        if self.code == "elias":
            return Message(value, _elias_bits(real(self.s), count(x, sent)), 1, 0, FLOAT_BITS, sent)
        return _message(value, self.s, sent)

    def omega(self, d: Scalar) -> Scalar:
        s, root = real(self.s), d**0.5
        if self.norm == 2:
            return smaller(d / s**2, root / s)
        if self.norm == 1:
            return smaller((d - 1) / s, d**2 / (4 * s**2))
        return smaller(d / (4 * s**2), (1 + root) / (2 * s))

    def validate(self, d: int) -> None:
        _check_levels(self, most=2**24)
        if self.norm not in (1, 2, math.inf):
            raise InputError(f"{self.name} norm must be 1, 2 or inf, got {self.norm}")
        if self.code not in ("fixed", "elias") or (self.code == "elias" and self.norm != 2):
            raise InputError(f"{self.name} code must be fixed, or elias with norm=2, got {self.code!r}")


def _elias_bits(s: Scalar, d: Scalar) -> Scalar:
    sparse = s**2 + s * d**0.5
    ratio = 2 * (s**2 + d) / sparse
    return (3 + 1.5 * (math.log2(ratio) if isinstance(ratio, float) else jnp.log2(ratio))) * sparse


@pytree.dataclass
class QSGD(Dithering):
    """QSGD: dithering with s levels of the l2 norm; omega = min(d/s^2, sqrt(d)/s).

    The same as `Dithering`, under the name in its paper. Source: Alistarh et al., arXiv 1610.02132.
    """

    name: ClassVar[str] = "qsgd"


@pytree.dataclass
class Ternary(Levels):
    """TernGrad without clipping: round each entry at random, without bias, to {-m, 0, m} with m = max|x|.

    Dithering with s = 1 and the max norm. omega = (sqrt(d) - 1)/2, tight at one entry 1 and the others
    1/(1 + sqrt d) (derived here). Bits: 32 + 2 d, or 32 + ceil(d log2 3) with code="base3".

    Source: Wen et al., arXiv 1705.07878.
    """

    code: str = pytree.static(default="fixed")
    name: ClassVar[str] = "ternary"

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        value = dither(x, u, 1, math.inf)
        if self.code == "base3":
            trits = count(x, sent) * math.log2(3)
            bits = math.ceil(trits) if isinstance(trits, float) else jnp.ceil(trits)
            return Message(value, bits, 1, 0, FLOAT_BITS, sent)
        return _message(value, 1, sent)

    def omega(self, d: Scalar) -> Scalar:
        return (d**0.5 - 1) / 2

    def validate(self, d: int) -> None:
        if self.code not in ("fixed", "base3"):
            raise InputError(f"ternary code must be fixed or base3, got {self.code!r}")


@pytree.dataclass
class NaturalDithering(Levels):
    """Natural dithering: round |x_j| / |x|_q at random, without bias, to a neighbour among 0, 2^(1-s), ..., 1/2, 1.

    omega = 1/8 + a min(1, a) with a = d^(1/r) / 2^(s-1), r = min(q, 2). Bits: 32 + d (1 + ceil log2(s + 1)).

    Source: Horvath et al., arXiv 1905.10988; omega from burlachenkok/flpytorch's code.
    """

    s: Scalar
    q: float = pytree.static(default=2)
    name: ClassVar[str] = "natural_dithering"

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        nrm = norm(x, self.q)
        part = jnp.minimum(jnp.abs(x) / jnp.where(nrm > 0, nrm, 1), 1)
        lowest = jnp.ldexp(jnp.ones((), x.dtype), 1 - self.s)
        least = jnp.where(u * lowest < part, lowest, 0)
        value = jnp.sign(x) * (nrm * jnp.where(part < lowest, least, round_to_power(part, u)))
        return _message(value, self.s, sent)

    def omega(self, d: Scalar) -> Scalar:
        a = d ** (1 / min(self.q, 2)) / 2.0 ** (real(self.s) - 1)
        return 1 / 8 + a * smaller(1.0, a)

    def validate(self, d: int) -> None:
        _check_levels(self, most=120)  # 2^(1-s) must stay a normal float32
        if not self.q >= 1:
            raise InputError(f"natural_dithering needs a norm q >= 1 (inf for the largest entry), got {self.q}")
