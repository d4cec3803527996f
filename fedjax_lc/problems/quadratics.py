"""Quadratic problems, with any symmetric Hessian for each client."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.shares import stored
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.data.sparse import real
from fedjax_lc.problems.base import Problem, arrays
from fedjax_lc.problems.stacking import float_dtype


@pytree.dataclass
class Quadratic(Problem):
    """f_i(x) = x^T Q_i x / 2 - <b_i, x>, with Q (n, d, d) symmetric and b (n, d).

    noise (): the standard deviation of every entry of a stochastic gradient of one row.
    """

    Q: jax.Array
    b: jax.Array
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    noise: Any = 0.0
    attached: Vec | None = None
    ids: jax.Array | None = None
    given_f_star: float | None = pytree.static(default=None)
    per_client: ClassVar[tuple[str, ...]] = ("Q", "b", "smooth")

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        return jnp.sum((self._times(x) / 2 - self.b) * jnp.atleast_2d(x), axis=-1)

    def _times(self, x: Vec | ClientVecs) -> ClientVecs:
        return products.matmul(self.Q, x) if x.ndim == 1 else products.einsum("nde,ne->nd", self.Q, x)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        return self._times(x) - self.b

    def lane_grads(self, X: jax.Array) -> jax.Array:
        X = jnp.broadcast_to(X[:, None], (X.shape[0], *self.b.shape)) if X.ndim == 2 else X
        return jnp.swapaxes(products.einsum("lne,ned->nld", X, self.Q), 0, 1) - self.b[None]  # Q_i is symmetric

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        """The full gradients plus normal noise of deviation noise / sqrt(batch): a quadratic has no rows to draw."""
        draws = jax.vmap(lambda k: jax.random.normal(k, (self.dim,), self.dtype))(self.client_keys(key))
        return self.grads(x) + self.noise / batch**0.5 * draws

    def passes(self, batch: int, *, replacement: bool = True) -> jax.Array:
        return jnp.ones(self.n, self.dtype)

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        return self._times(v)


def quadratic(Q: Any, b: Any, *, noise: float = 0.0, f_star: float | None = None, dtype: Any = None) -> Quadratic:
    """f_i(x) = x^T Q_i x / 2 - <b_i, x>.

    Args:
        Q: (n, d, d) symmetric matrices, or (n, d) diagonals.
        b: (n, d).
        noise: standard deviation of every entry of a stochastic gradient of batch size 1.
        f_star: the optimal value, if known; it is then not computed.
        dtype: "float32" or "float64"; None for JAX's default float.

    The constant `strong` is the smallest eigenvalue of all Q_i, and `smooth` (n,) the largest of each.

    Example:
        >>> float(quadratic(np.ones((2, 3)), np.zeros((2, 3))).smooth_mean)
        1.0
    """
    Q, b = (real(array, name).astype(np.float64) for array, name in ((Q, "Q"), (b, "b")))
    if Q.ndim == 2:
        Q = np.stack([np.diag(diagonal) for diagonal in Q])
    if Q.ndim != 3 or b.shape != Q.shape[:2] or Q.shape[1] != Q.shape[2]:
        raise InputError(f"quadratic needs Q (n, d, d) and b (n, d), got {Q.shape} and {b.shape}")
    if not (np.all(np.isfinite(Q)) and np.all(np.isfinite(b))):
        raise InputError("quadratic has entries that are not finite: clean Q and b first")
    if not np.allclose(Q, Q.transpose(0, 2, 1), rtol=1e-12, atol=1e-12 * np.abs(Q).max()):
        raise InputError("quadratic needs symmetric Q_i: pass (Q + Q.transpose(0, 2, 1)) / 2")
    eigenvalues = np.linalg.eigvalsh(Q)
    mean_smooth = np.linalg.eigvalsh(Q.mean(0))[-1]
    bounds = {"strong": max(eigenvalues.min(), 0.0), "smooth": eigenvalues[:, -1], "smooth_mean": mean_smooth}
    dtype = float_dtype(dtype)
    return Quadratic(
        stored(Q, dtype),
        stored(b, dtype),
        **arrays(bounds, dtype),
        x0=jnp.zeros(Q.shape[1], dtype),
        noise=jnp.asarray(noise, dtype),
        given_f_star=f_star,
    )
