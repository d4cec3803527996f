"""Joint compressors: all clients share one random draw, so that their errors are not independent."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import FLOAT_BITS, Compressor, Message, check_whole, count, divisor, index_cost, real
from fedjax_lc.compressors.draws import random_bits
from fedjax_lc.compressors.select import smallest
from fedjax_lc.compressors.sparse import Sparsifier
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, Scalar, Vec


@pytree.dataclass
class SharedRandK(Sparsifier):
    """rand-k with one mask for all clients, from a seed they share: linear, mean_i Q(x_i) = Q(mean_i x_i).

    omega = d/k - 1 for one client. The error of the mean is omega |mean x|^2, not divided by n, so that
    omega_av = omega, attained when all clients send the same. Bits: 32 k (no indices), plus 32 with index="seed".
    """

    k: Scalar
    unit: str = pytree.static(default="count")
    index: str = pytree.static(default="none")
    name: ClassVar[str] = "shared_rand_k"
    shares: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = ("none", "seed")

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        """(d,) mask of the entries sent."""
        return smallest(random_bits(key, d), self.entries(d))

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        return jnp.broadcast_to(self.draw(key, d, dtype), (n, d))

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        check_whole(self, sent)
        scale = jnp.asarray(x.shape[-1], x.dtype) / divisor(self.entries(x.shape[-1]), x.dtype)
        return self._message(jnp.where(u, x * scale, jnp.zeros_like(x)), u, None)

    def omega(self, d: Scalar) -> Scalar:
        return d / real(self.entries(d)) - 1

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        return self.omega(d)


@pytree.dataclass
class PermK(Compressor):
    """PermK: a random permutation that n clients share assigns each coordinate to one client, which sends n times it.

    omega = n - 1 for one client (n <= d), and the mean over clients is exact when all send the same: the error of the
    mean is mean_i |x_i|^2 - |mean x|^2, hence omega_av = 1. n need not divide d: coordinates are padded to a multiple.
    If n > d each client sends one coordinate times d, clients padded to a multiple of d, and omega = d - 1,
    omega_av = m (d - 1)/(n (m - 1)) with m the padded number. Bits: 32 an entry, no indices (a shared seed).

    On one client's vector it has the marginal law of that client. With a cohort, n is the cohort's size. Source:
    Szlendak et al., arXiv 2110.03300; the case n > d is recalled from memory, its omega_av derived here.
    """

    n: int = pytree.static()
    index: str = pytree.static(default="none")
    name: ClassVar[str] = "perm_k"
    shares: ClassVar[bool] = True
    conventions: ClassVar[tuple[str, ...]] = ("none", "seed")

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        """(d,) mask of the entries that the first client sends."""
        return self.draws(key, self.n, d, dtype)[0]

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        """(n, d) masks; row i marks the entries that client i sends."""
        if n != self.n:
            raise InputError(f"perm_k:{self.n} is for {self.n} clients, got {n}: write perm_k:{n}")
        parts = min(n, d)
        dealt = jax.random.permutation(key, _padded(n, d)) % parts
        if n <= d:
            return dealt[None, :d] == jnp.arange(n)[:, None]
        return dealt[:n, None] == jnp.arange(d)[None, :]

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        check_whole(self, sent)
        d = x.shape[-1]
        kept = count(x, u) if d % self.n else d // self.n
        value = jnp.where(u, x * min(self.n, d), jnp.zeros_like(x))
        return Message(value, kept, FLOAT_BITS, index_cost(self.index, kept, d), 0, u)

    def omega(self, d: Scalar) -> Scalar:
        return min(self.n, d) - 1.0

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        if self.n == 1 or d == 1:
            return 0.0
        padded = _padded(self.n, d)
        return 1.0 if self.n <= d else padded * (d - 1) / (self.n * (padded - 1))

    def entries(self, d: Scalar) -> Scalar:
        return -(-d // self.n)

    def validate(self, d: int) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"perm_k needs the number of clients n >= 1, got {self.n}: write perm_k:10")
        if self.index not in self.conventions:
            raise InputError(f"perm_k index must be one of {', '.join(self.conventions)}, got {self.index!r}")


def _padded(n: int, d: int) -> int:
    """The larger of n and d, rounded up to a multiple of the smaller."""
    few, many = min(n, d), max(n, d)
    return -(-many // few) * few
