"""SIDCo: keep the entries above a threshold, which is fitted so that about a given share of them is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import gammainc

from fedjax_lc.compressors.base import FLOAT_BITS, INDEX_BITS, Compressor, Message, check_index, count, index_cost
from fedjax_lc.compressors.levels import norm
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Scalar, Vec

MOST_STAGES = 64  #: each of them halves what is kept, or more
FITS = ("exponential", "pareto", "gamma")


@pytree.dataclass
class Threshold(Compressor):
    """Keep |x_j| > tau, with tau from a fitted tail so that about the share `ratio` of entries is kept.

    `fit` is exponential, pareto or gamma. With `stages` > 1 the first stage aims at the ratio `first`, and each later
    stage fits the exceedances minus their minimum (exponential, or Pareto for the other two fits); if ratio >= first
    there is one stage. The number of stages is not adapted over messages, as it is in `sidco`.

    Biased. A message with `kept` entries satisfies delta >= kept/d, but no worst-case delta exists (of equal moduli
    none may exceed tau), so delta = 0. Bits: kept (32 + index bits). On different platforms tau differs by rounding
    errors. fit="gamma" sums series until their terms are small, which is slow on a GPU.

    Source: SIDCo, arXiv 2101.10761, and the authors' code; the gamma quantile is exact here, in both variants.
    """

    ratio: Scalar
    fit: str = pytree.static(default="exponential")
    stages: int = pytree.static(default=1)
    first: Scalar = 0.25
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "threshold"
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = INDEX_BITS

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return self.above(x, self.tau, sent)

    def above(self, x: Vec, tau: Callable[[Vec, jax.Array], Scalar], sent: jax.Array | None = None) -> Message:
        """The message of the entries above tau(values, exist), for moduli relative to the largest."""
        largest = norm(x, jnp.inf)
        values = jnp.abs(x) / jnp.where(largest > 0, largest, 1)
        exist = jnp.ones(x.shape, bool) if sent is None else sent
        # Written as a negation, so that NaN (in x, hence in tau) is kept.
        keep = exist & ~(values <= tau(values, exist))
        kept = count(x, keep)
        value = jnp.where(keep, x, jnp.zeros_like(x))
        return Message(value, kept, FLOAT_BITS, index_cost(self.index, kept, x.shape[-1]), 0, keep)

    def tau(self, values: Vec, exist: jax.Array) -> Scalar:
        """The threshold () for the moduli `values` (d,) of the entries that `exist` (d,)."""
        ratio = jnp.asarray(self.ratio, values.dtype)
        if self.stages == 1:
            return quantile(self.fit, values, exist, ratio)
        first = jnp.asarray(self.first, values.dtype)
        start = tau = quantile(self.fit, values, exist, jnp.maximum(ratio, first))
        each = jnp.minimum(ratio / first, 1) ** (1 / (self.stages - 1))
        for _ in range(self.stages - 1):
            tau = self.further(values, exist, tau, each)
        return jnp.where(ratio >= first, start, tau)

    def further(self, values: Vec, exist: jax.Array, tau: Scalar, each: Scalar) -> Scalar:
        """The threshold of the stage after tau, which keeps the share `each` of what exceeds tau."""
        later = "exponential" if self.fit == "exponential" else "pareto"
        exceed = exist & (values > tau)
        least = jnp.min(jnp.where(exceed, values, jnp.inf))
        least = jnp.where(jnp.any(exceed), least, tau)
        return quantile(later, jnp.where(exceed, values - least, 0), exceed, each) + least

    def delta(self, d: Scalar) -> Scalar:
        return 0.0

    def validate(self, d: int) -> None:
        check_index(self)
        if not pytree.is_traced((self.ratio, self.first)) and not (0 < self.ratio <= 1 and 0 < self.first <= 1):
            raise InputError(
                f"{self.name} needs 0 < ratio <= 1, got {self.ratio} (first {self.first}): {self.name}:0.1"
            )
        if self.fit not in FITS:
            raise InputError(f"{self.name} fit must be one of {', '.join(FITS)}, got {self.fit!r}")
        if not isinstance(self.stages, int) or not 1 <= self.stages <= MOST_STAGES:
            raise InputError(f"{self.name} needs a whole number of stages of 1..{MOST_STAGES}, got {self.stages}")


def quantile(fit: str, values: Vec, exist: jax.Array, ratio: Scalar) -> Scalar:
    """The (1 - ratio) quantile of the law fitted to the values that exist; 0 if none is positive."""
    number = jnp.maximum(jnp.sum(exist, dtype=values.dtype), 1)
    mean = jnp.sum(jnp.where(exist, values, 0)) / number
    safe = jnp.where(mean > 0, mean, 1)
    if fit == "exponential":
        return -mean * jnp.log(ratio)
    if fit == "pareto":
        squares = jnp.sum(jnp.where(exist, (values - mean) ** 2, 0)) / jnp.maximum(number - 1, 1)
        return mean * _pareto(squares / safe**2, ratio)
    tiny = jnp.asarray(1e-20, values.dtype)  # log 0 of exact zeros
    log_mean = jnp.sum(jnp.where(exist, jnp.log(values + tiny), 0)) / number
    # s > 0 by Jensen; equal values would make the shape infinite.
    s = jnp.maximum(jnp.log(safe) - log_mean, 1e-4)
    shape = (3 - s + jnp.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    return _gamma_quantile(shape, safe / shape, 1 - ratio, jnp.max(jnp.where(exist, values, 0)))


def _pareto(variance: Scalar, ratio: Scalar) -> Scalar:
    """Quantile of the generalised Pareto law with mean 1 and this variance (k -> 0: -a log ratio)."""
    inverse = 1 / jnp.maximum(variance, jnp.finfo(jnp.result_type(variance)).eps)
    k, a = (inverse - 1) / 2, (inverse + 1) / 2
    log_ratio = jnp.log(ratio)
    flat = jnp.abs(k) < 1e-30
    return jnp.where(flat, -a * log_ratio, -a * jnp.expm1(k * log_ratio) / jnp.where(flat, 1, k))


def _gamma_quantile(shape: Scalar, scale: Scalar, share: Scalar, largest: Scalar) -> Scalar:
    """tau in [0, largest] with P(tau) = share, by bisection (beyond the largest value every tau keeps nothing)."""

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        above = gammainc(shape, middle / scale) > share
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    steps = jnp.finfo(largest.dtype).nmant + 8
    low, high = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(largest), largest))
    return jnp.where(jnp.isnan(largest), largest, jnp.where(high < largest, low, largest))
