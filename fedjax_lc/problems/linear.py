"""Losses of one linear prediction per row: logistic regression and least squares."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import FEW_LANES, by_platform, on_cpu, whole_vectors
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.problems.base import RowsProblem, arrays
from fedjax_lc.problems.losses import Logistic, Squared
from fedjax_lc.problems.stacking import Clients, constants, float_dtype, stack


@pytree.dataclass
class LinearModel(RowsProblem):
    """Losses of one linear prediction per row: logistic regression and least squares.

    The features' width d' >= d, with zeros beyond column d (`whole_vectors`).
    """

    turned: jax.Array | None = None  #: (n, d', m) features, their last axes exchanged; see `for_lanes`
    loss: Any = pytree.static(default=Logistic)

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = jnp.sum(self.rows * self.loss.value(_predict(self.features, x), self.targets), axis=-1)
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self.rows * self.loss.slope(_predict(self.features, x), self.targets)
        return _pull_back(self.features, slopes, self.dim) + self.strong * jnp.atleast_2d(x)

    def lane_grads(self, X: jax.Array) -> jax.Array:
        """Two matrix products per client with the lanes as rows, the fastest layout measured in both precisions; on a
        CPU a few lanes, whose products are slow there, one after the other."""
        if X.shape[0] >= FEW_LANES.get(X.dtype.itemsize, 2):
            return self._products(X)
        one_by_one = lambda problem, X: jax.lax.map(problem.own_grads, X)
        return by_platform(cpu=one_by_one, accelerator=LinearModel._products)(self, X)

    def _products(self, X: jax.Array) -> jax.Array:
        A, wide = self.features, _widen(X, self.features.shape[-1])
        if X.ndim == 2:  # one product for all clients
            z = jnp.swapaxes(products.einsum("nmd,ld->nml", A, wide), 1, 2)
        else:
            turned = jnp.swapaxes(A, 1, 2) if self.turned is None else self.turned
            z = products.einsum("lnd,ndm->nlm", wide, turned)
        slopes = self.rows[:, None] * self.loss.slope(z, self.targets[:, None])
        pulled = jnp.swapaxes(products.einsum("nlm,nmd->nld", slopes, A), 0, 1)[..., : self.dim]
        return pulled + self.strong * (X[:, None] if X.ndim == 2 else X)

    def for_lanes(self) -> LinearModel:
        """On a CPU with the features turned: XLA would turn them for each product, at the price of a few lanes."""
        return self.replace(turned=jnp.swapaxes(self.features, 1, 2)) if on_cpu() else self

    def cohort(self, clients: jax.Array) -> LinearModel:
        return dataclasses.replace(super().cohort(clients), turned=None)

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        A = jnp.take_along_axis(self.features, picks[..., None], axis=1)
        slopes = self.loss.slope(_predict(A, x), jnp.take_along_axis(self.targets, picks, axis=1))
        return _pull_back(A, weights * slopes, self.dim) + self.strong * jnp.atleast_2d(x)

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        bends = self.rows * self.loss.bend(_predict(self.features, x), self.targets)
        products = _pull_back(self.features, bends * _predict(self.features, v), self.dim)
        return products + self.strong * jnp.atleast_2d(v)


def _predict(A: jax.Array, x: Vec | ClientVecs) -> jax.Array:
    """(n, m) products A_i x or A_i x_i, where A (n, m, d') may be wider than x."""
    x = _widen(x, A.shape[-1])
    return products.matmul(A, x) if x.ndim == 1 else products.einsum("nmd,nd->nm", A, x)


def _widen(x: jax.Array, width: int) -> jax.Array:
    """x (..., d) with zeros up to (..., width)."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def _pull_back(A: jax.Array, s: jax.Array, d: int) -> ClientVecs:
    """(n, d) products A_i^T s_i, where A (n, m, d') may be wider than d."""
    return products.einsum("nmd,nm->nd", A, s)[:, :d]


def logistic_regression(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> LinearModel:
    """f_i(x) = (1/m_i) sum_s log(1 + exp(-b_s <a_s, x>)) + (l2/2) |x|^2.

    Args:
        clients: list of (features (m_i, d), labels +-1 (m_i,)); sizes may differ.
        l2: the strong convexity mu of every f_i; or give `kappa` instead.
        kappa: sets l2 = 2 L_logistic / (kappa - 1), so that LoCoDL's split problem has this condition number.
        weights: None (every client counts the same), "size" (m_i / N), or (n,) numbers; they are normalised to sum 1.
        norm: how the smoothness constants measure A_i^T A_i: "spectral" (exact) or "frobenius" (an upper bound that
            some papers use).
        f_star: overrides the computed optimal value.
        dtype: "float32" or "float64"; JAX's default float if None.

    Raises:
        InputError: shapes, labels or numbers that do not fit, in one line.

    Example:
        >>> clients = [(np.eye(3), np.array([1.0, -1.0, 1.0])), (np.ones((2, 3)), np.array([1.0, -1.0]))]
        >>> problem = logistic_regression(clients, l2=0.1)
        >>> problem.n, problem.dim
        (2, 3)
    """
    for i, (_, labels) in enumerate(clients):
        if not np.all(np.isin(np.asarray(labels), (-1, 1))):
            raise InputError(f"client {i} has labels other than -1 and +1: map them with fl.data.load or by hand")
    return _linear(Logistic, clients, l2, kappa, weights, norm, f_star, dtype)


def least_squares(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> LinearModel:
    """f_i(x) = (1/(2 m_i)) sum_s (<a_s, x> - b_s)^2 + (l2/2) |x|^2; arguments as in `logistic_regression`."""
    return _linear(Squared, clients, l2, kappa, weights, norm, f_star, dtype)


def _linear(
    loss: Any, clients: Clients, l2: float | None, kappa: float | None, weights: Any, norm: str, f_star: Any, dtype: Any
) -> LinearModel:
    A, b, rows, sizes = stack(clients, weights)
    found = constants(A, rows, loss.curvature, l2, kappa, norm)
    kind = float_dtype(dtype)
    return LinearModel(
        jnp.asarray(whole_vectors(A, kind), kind),
        jnp.asarray(b, kind),
        jnp.asarray(rows, kind),
        jnp.asarray(sizes),
        **arrays(found, kind),
        x0=jnp.zeros(A.shape[-1], kind),
        loss=loss,
        given_f_star=f_star,
        even=bool(np.ptp(sizes) == 0),
    )
