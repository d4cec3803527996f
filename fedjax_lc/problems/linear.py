"""Losses of one linear prediction per row: logistic regression and least squares."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import by_platform
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.problems.base import arrays
from fedjax_lc.problems.losses import Logistic, Squared
from fedjax_lc.problems.stacking import Clients, RowsProblem, Stack, check_scale, constants, float_dtype, stack


@pytree.dataclass
class LinearModel(RowsProblem):
    """Logistic regression or least squares: f_i is a weighted sum of losses of one linear prediction per row."""

    loss: Any = pytree.static(default=Logistic)

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = self.features.sums(self.rows * self.loss.value(self.features.predict(x), self.targets))
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        products = self.features.gradients(x, self._slope, self.targets, self.rows)
        return products + self.strong * jnp.atleast_2d(x)

    def lane_grads(self, X: jax.Array) -> jax.Array:
        """One product for all lanes, in the layout that was fastest in both precisions; on a CPU one lane after the
        other where the features say that this is faster."""
        if self.features.together(X.shape[0], X.dtype):
            return self._together(X)
        one_by_one = lambda problem, X: jax.lax.map(problem.own_grads, X)
        return by_platform(cpu=one_by_one, accelerator=LinearModel._together)(self, X)

    def _together(self, X: jax.Array) -> jax.Array:
        products = self.features.lane_gradients(X, self._slope, self.targets, self.rows)
        return products + self.strong * (X[:, None] if X.ndim == 2 else X)

    def _slope(self, predictions: jax.Array, targets: jax.Array, rows: jax.Array) -> jax.Array:
        return rows * self.loss.slope(predictions, targets)

    def for_lanes(self) -> LinearModel:
        return self.replace(features=self.features.for_lanes())

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        A = self.features.take(picks)
        slopes = self.loss.slope(A.predict(x), self.features.picked(self.targets, picks))
        return A.pull_back(weights * slopes) + self.strong * jnp.atleast_2d(x)

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        bends = self.rows * self.loss.bend(self.features.predict(x), self.targets)
        return self.features.pull_back(bends * self.features.predict(v)) + self.strong * jnp.atleast_2d(v)


def logistic_regression(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
    features: str = "auto",
) -> LinearModel:
    """f_i(x) = (1/m_i) sum_s log(1 + exp(-b_s <a_s, x>)) + (l2/2) |x|^2.

    Args:
        clients: list of (features (m_i, d), labels +-1 (m_i,)); sizes may differ. Features may be SciPy sparse
            matrices.
        l2: the strong convexity mu of every f_i; or give `kappa` instead.
        kappa: sets l2 = 2 L_logistic / (kappa - 1), so that LoCoDL's split problem has this condition number.
        weights: client weights: None (all equal), "size" (m_i / N), or (n,) numbers, which are divided by their sum.
        norm: norm of A_i^T A_i in the smoothness constants: "spectral" (exact) or "frobenius" (an upper bound that some
            papers use).
        f_star: the optimal value, if known; it is then not computed.
        dtype: "float32" or "float64"; JAX's default float if None.
        features: how features are stored: "dense", "sparse", or "auto" (sparse if a client has a SciPy sparse matrix).

    Raises:
        InputError: shapes, labels or numbers do not fit.

    Example:
        >>> clients = [(np.eye(3), np.array([1.0, -1.0, 1.0])), (np.ones((2, 3)), np.array([1.0, -1.0]))]
        >>> problem = logistic_regression(clients, l2=0.1)
        >>> problem.n, problem.dim
        (2, 3)
    """

    def check(i: int, labels: Any) -> None:
        if not np.all(np.isin(np.asarray(labels), (-1, 1))):
            raise InputError(f"client {i} has labels other than -1 and +1: map them with fl.data.load or by hand")

    data = stack(clients, weights, features, check)
    return _linear(Logistic, data, l2, kappa, norm, f_star, dtype)


def least_squares(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
    features: str = "auto",
) -> LinearModel:
    """f_i(x) = (1/(2 m_i)) sum_s (<a_s, x> - b_s)^2 + (l2/2) |x|^2; arguments as in `logistic_regression`."""
    return _linear(Squared, stack(clients, weights, features), l2, kappa, norm, f_star, dtype)


def _linear(
    loss: Any, data: Stack, l2: float | None, kappa: float | None, norm: str, f_star: Any, dtype: Any
) -> LinearModel:
    dtype = float_dtype(dtype)
    check_scale(data, dtype)
    bounds = constants(data, loss.curvature, l2, kappa, norm)
    matrices = data.laid_out(dtype)
    return LinearModel(
        matrices,
        data.stored(data.targets, dtype),
        data.stored(data.rows, dtype),
        jnp.asarray(data.sizes),
        **arrays(bounds, dtype),
        x0=jnp.zeros(matrices.width, dtype),
        loss=loss,
        given_f_star=f_star,
        even=bool(np.ptp(data.sizes) == 0),
    )
