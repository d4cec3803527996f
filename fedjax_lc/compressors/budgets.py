"""top-k whose k is chosen anew for every message, by a policy: derived here, not those of a paper.

Adaptive numbers of entries are proposed in arXiv 2210.13532 (top-k) and 2112.06694 (rates, for FedAvg); their formulas
were not available, so these are derived by us, from a bound. Of a step x+ = x - gamma c with gamma <= 1/L, c entries of
the gradient, F(x+) - F* <= (1 - gamma mu)(F(x) - F*) + (gamma/2) tail, the tail being the squares left out; so a run of
T steps is best with the numbers k_t that make sum_t w_t tail_t(k_t) smallest, w_t = (1 - gamma mu)^(T-1-t). Where
errors are fed back the bound is a heuristic. On quadratics, at equal numbers of entries, none of the policies beat the
best constant k (`top_k`), with error feedback or without (measured).

Policies compare moduli by sorting, which is slower than the search of `top_k` on large vectors.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.compressors.base import (
    FLOAT_BITS,
    INDEX_BITS,
    Compressor,
    Message,
    check_index,
    count,
    index_cost,
    real,
    smaller,
)
from fedjax_lc.compressors.levels import norm
from fedjax_lc.compressors.remembering import Remembering
from fedjax_lc.compressors.sparse import largest
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import each_device
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec


def selected(x: Vec, k: jax.Array, index: str, sent: jax.Array | None = None) -> Message:
    """The message of the k entries of x (d,) of largest modulus, k a traced whole number; ties to the lowest index."""
    keep = largest(x, k, sent)
    return Message(jnp.where(keep, x, jnp.zeros_like(x)), k, FLOAT_BITS, index_cost(index, k, x.shape[-1]), 0, keep)


def running_squares(x: Vec) -> jax.Array:
    """(d,) sums of the 1, 2, ..., d largest squares of x (d,), over the square of the largest entry."""
    most = norm(x, jnp.inf)
    moduli = jnp.sort(jnp.abs(x) / jnp.where(most > 0, most, 1), descending=True)
    return jnp.cumsum(moduli**2)


def _within(k: jax.Array, x: Vec, sent: jax.Array | None) -> jax.Array:
    """k as a whole number, at most the entries that exist."""
    return jnp.minimum(k, jnp.asarray(count(x, sent), k.dtype)).astype(jnp.int32)


class Budget(Compressor):
    """Base of the policies without a state; subclasses implement `number`."""

    index: str
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = INDEX_BITS

    def number(self, x: Vec) -> jax.Array:
        """k for x (d,), whole and traced."""
        raise NotImplementedError

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return selected(x, _within(self.number(x), x, sent), self.index, sent)

    def validate(self, d: int) -> None:
        check_index(self)


@pytree.dataclass
class TopEnergy(Budget):
    """The fewest entries that hold the share `share` of |x|^2, none of x = 0: delta = share, by construction.

    Derived by us. Bits: k (32 + index bits), k of each message.

    Example:
        >>> parse("top_energy:0.9")(key, jnp.array([3.0, 1.0, 0.0])).value  # 9 of 10: [3, 0, 0]
    """

    share: Scalar
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "top_energy"

    def number(self, x: Vec) -> jax.Array:
        sums = running_squares(x)
        enough = jnp.sum(sums < self.share * sums[-1], dtype=jnp.int32) + 1
        return jnp.where(sums[-1] == 0, 0, enough)

    def delta(self, d: Scalar) -> Scalar:
        return real(self.share)

    def validate(self, d: int) -> None:
        super().validate(d)
        if not pytree.is_traced(self.share) and not 0 < self.share <= 1:
            raise InputError(f"top_energy needs 0 < share <= 1, got {self.share}: write top_energy:0.9")


@pytree.dataclass
class TopPerBit(Budget):
    """The k with the most of |x|^2 for each bit of a message of `header` + k `each` bits; the least of several.

    Derived by us; delta >= 1/d. With header = 0 the answer is always k = 1. The header decides k and is not counted: it
    is the transport's, which no compressor counts. Bits: k (32 + index bits).
    """

    header: Scalar
    each: Scalar = float(FLOAT_BITS)
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "top_per_bit"

    def number(self, x: Vec) -> jax.Array:
        sums = running_squares(x)
        bits = self.header + self.each * jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        return jnp.argmax(sums / bits).astype(jnp.int32) + 1

    def delta(self, d: Scalar) -> Scalar:
        return 1 / d

    def validate(self, d: int) -> None:
        super().validate(d)
        if not pytree.is_traced((self.header, self.each)) and not (self.header >= 0 and self.each > 0):
            raise InputError(f"top_per_bit needs bits header >= 0 and each > 0, got {self.header} and {self.each}")


class Priced(NamedTuple):
    log_price: Scalar  # () log lam
    t: jax.Array  # () int32 messages so far


class Shared(Remembering):
    """Base of the policies whose state all clients share; subclasses implement `start` and `numbers`."""

    index: str
    deterministic: ClassVar[bool] = True
    projects: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = INDEX_BITS

    def numbers(self, X: ClientVecs, state: Any, present: jax.Array | None) -> tuple[jax.Array, Any]:
        """k (n,) of each client, whole and traced, and the state after these messages."""
        raise NotImplementedError

    def joint_with(
        self, key: Key | None, X: ClientVecs, state: Any, present: jax.Array | None = None
    ) -> tuple[Message, Any]:
        k, state = self.numbers(X, state, present)
        return each_device(lambda rows, _: jax.vmap(lambda x, k: selected(x, k, self.index))(*rows), (X, k)), state

    def validate(self, d: int) -> None:
        check_index(self)


@pytree.dataclass
class TopPrice(Shared):
    """The entries whose square is worth a price, w_t x_j^2 > lam_t, and one at least; the price brings the mean to k.

    lam_{t+1} = lam_t exp(rate (mean_i k_t - k)/k), the mean over those who send; one price for all clients, w_t =
    growth^t. Derived by us: for known vectors one price gives the best numbers of entries of all rounds. delta >= 1/d.

    Bits: k_t (32 + index bits), and 32 down for the price, which comes back to each client (`answer_bits`).

    Attributes:
        k: the mean number of entries that is aimed at.
        rate: how fast the price follows.
        price: lam_0.
        growth: w_{t+1}/w_t, as in 1/(1 - gamma mu); 1 without strong convexity.
    """

    k: Scalar
    rate: Scalar = 0.1
    price: Scalar = 1.0
    growth: Scalar = 1.0
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "top_price"
    answer_bits: ClassVar[int] = FLOAT_BITS

    def start(self, n: int, d: int, dtype: Any) -> Priced:
        return Priced(jnp.log(jnp.asarray(self.price, dtype)), jnp.zeros((), jnp.int32))

    def numbers(self, X: ClientVecs, state: Priced, present: jax.Array | None) -> tuple[jax.Array, Priced]:
        worth = jnp.exp((state.log_price - state.t * jnp.log(jnp.asarray(self.growth, X.dtype))) / 2)
        k = jnp.maximum(1, jnp.sum(jnp.abs(X) > worth, axis=1, dtype=jnp.int32))
        here = jnp.ones(k.shape, X.dtype) if present is None else present.astype(X.dtype)
        mean = jnp.sum(here * k.astype(X.dtype)) / jnp.maximum(jnp.sum(here), 1)
        log_price = state.log_price + self.rate * (mean - self.k) / self.k
        return k, Priced(log_price.astype(X.dtype), state.t + 1)

    def delta(self, d: Scalar) -> Scalar:
        return 1 / d

    def validate(self, d: int) -> None:
        super().validate(d)
        if pytree.is_traced((self.k, self.rate, self.price, self.growth)):
            return
        if not 1 <= self.k <= d:
            raise InputError(f"top_price needs a mean number of entries 1 <= k <= d = {d}, got {self.k}")
        if not (self.rate > 0 and self.price > 0 and self.growth > 0):
            raise InputError(f"top_price needs positive rate, price and growth, got {self.rate}, {self.price} and "
                             f"{self.growth}")  # fmt: skip


@pytree.dataclass
class TopPowerLaw(Shared):
    """k_t = c (w_t |x|^2)^(1/(1 + s)), rounded, from `least` to `most` entries: best where tails fall as k^(-s).

    w_t = growth^t. Derived by us; `water_filling` gives the c that spends a budget, delta >= least/d.
    Bits: k_t (32 + index bits).

    Attributes:
        c: entries for |x| = 1.
        s: power of the tail, > 0.
        least, most: bounds of k_t; most = None for d.
        growth: w_{t+1}/w_t, as in 1/(1 - gamma mu).
    """

    c: Scalar
    s: Scalar = 1.0
    least: Scalar = 1
    most: Scalar | None = None
    growth: Scalar = 1.0
    index: str = pytree.static(default="log2")
    name: ClassVar[str] = "top_power_law"

    def start(self, n: int, d: int, dtype: Any) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def numbers(self, X: ClientVecs, state: jax.Array, present: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        d, dtype = X.shape[1], X.dtype
        logs = 2 * jnp.log(jax.vmap(lambda x: norm(x, 2))(X)) + state * jnp.log(jnp.asarray(self.growth, dtype))
        k = jnp.round(self.c * jnp.exp(logs / (1 + jnp.asarray(self.s, dtype))))
        most = smaller(d, d if self.most is None else self.most)
        k = jnp.where(k >= self.least, jnp.minimum(k, most), self.least)  # of NaN too
        return k.astype(jnp.int32), state + 1

    def delta(self, d: Scalar) -> Scalar:
        return real(self.least) / d

    def validate(self, d: int) -> None:
        super().validate(d)
        most = d if self.most is None else self.most
        if pytree.is_traced((self.c, self.s, self.least, most, self.growth)):
            return
        if not (1 <= self.least <= most <= d and self.least == int(self.least) and most == int(most)):
            raise InputError(f"top_power_law needs whole 1 <= least <= most <= d = {d}, got {self.least} and {most}")
        if not (self.c > 0 and self.s > 0 and self.growth > 0):
            raise InputError(f"top_power_law needs positive c, s and growth, got {self.c}, {self.s} and {self.growth}")


# --- what is best when all vectors are known ---


def allocate(squares: Any, weights: Any, total: int) -> np.ndarray:
    """(T,) whole numbers k_t of sum `total` that make sum_t w_t tail_t(k_t) smallest, by greedy choice; exact.

    Args:
        squares: (T, d) squares of the entries of each round's vector.
        weights: (T,) w_t.
        total: entries of all rounds, 0..T d.

    Example:
        >>> allocate([[9, 1], [4, 2]], [1, 1], 3)
        array([1, 2])
    """
    gains = np.asarray(weights, float)[:, None] * -np.sort(-np.asarray(squares, float), axis=1)
    if not 0 <= total <= gains.size:
        raise InputError(f"allocate needs a total of 0..{gains.size} entries, got {total}")
    best = np.argsort(-gains, axis=None, kind="stable")[:total]
    return np.bincount(best // gains.shape[1], minlength=len(gains))


def water_filling(energies: Any, s: float, least: float, most: float, total: float) -> np.ndarray:
    """(T,) real k_t = c energies_t^(1/(1 + s)) within [least, most], of sum `total`: those that make the sum of
    energies_t k_t^(-s) smallest. energies (T,) are w_t E_t > 0.

    Raises:
        InputError: the budget is below `least`, or above `most`, for every round.

    Example:
        >>> water_filling([1.0, 16.0], 1.0, 1, 100, 10)
        array([2., 8.])
    """
    shape = np.asarray(energies, float) ** (1 / (1 + s))
    if not len(shape) * least <= total <= len(shape) * most:
        raise InputError(f"water_filling needs a total of {len(shape) * least:g}..{len(shape) * most:g}, got {total:g}")
    low, high = least / shape.max(), most / shape.min()
    for _ in range(200):
        c = np.sqrt(low * high)
        low, high = (c, high) if np.clip(c * shape, least, most).sum() < total else (low, c)
    return np.clip(high * shape, least, most)
