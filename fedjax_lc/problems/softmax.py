"""Multinomial regression."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.problems.base import RowsProblem, arrays
from fedjax_lc.problems.losses import Softmax
from fedjax_lc.problems.stacking import Clients, constants, float_dtype, stack


@pytree.dataclass
class SoftmaxModel(RowsProblem):
    """Multinomial regression: x is the matrix W (p, C) raveled row by row, z = a W.

    features (n, m, p), targets (n, m) whole numbers 0..C-1.
    """

    classes: int = pytree.static(default=2)
    loss: ClassVar[Any] = Softmax

    def _matrix(self, x: Vec | ClientVecs) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.features.shape[-1], self.classes)

    def _predict(self, x: Vec | ClientVecs) -> jax.Array:
        if x.ndim == 1:
            return products.matmul(self.features, self._matrix(x))
        return products.einsum("nmp,npc->nmc", self.features, self._matrix(x))

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = jnp.sum(self.rows * Softmax.value(self._predict(x), self.targets), axis=-1)
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self.rows[..., None] * Softmax.slope(self._predict(x), self.targets)
        blocks = products.einsum("nmp,nmc->npc", self.features, slopes)
        return blocks.reshape(self.n, self.dim) + self.strong * jnp.atleast_2d(x)

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        A = jnp.take_along_axis(self.features, picks[..., None], axis=1)
        W = self._matrix(x)
        z = products.matmul(A, W) if x.ndim == 1 else products.einsum("nbp,npc->nbc", A, W)
        slopes = Softmax.slope(z, jnp.take_along_axis(self.targets, picks, axis=1))
        blocks = products.einsum("nbp,nbc->npc", A, weights[..., None] * slopes)
        return blocks.reshape(self.n, self.dim) + self.strong * jnp.atleast_2d(x)


def softmax_regression(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    classes: int | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> SoftmaxModel:
    """f_i(W) = (1/m_i) sum_s [log sum_c exp(a_s W_c) - a_s W_{b_s}] + (l2/2) |W|^2.

    Targets are whole numbers 0..C-1; `classes` is C, or the largest target plus one over all clients if None. The
    vector x is W (p, C) raveled row by row, d = p C. Other arguments as in `logistic_regression`.
    """
    A, b, rows, sizes = stack(clients, weights)
    whole = b.astype(np.int32)
    if np.any(whole != b) or np.any(whole < 0):
        raise InputError("softmax targets must be whole numbers 0..C-1: map classes with fl.data.load or by hand")
    C = classes if classes is not None else int(whole.max()) + 1
    if whole.max() >= C:
        raise InputError(f"a target is {whole.max()} but classes={C}: targets must lie in 0..classes-1")
    found = constants(A, rows, Softmax.curvature, l2, kappa, norm)
    kind = float_dtype(dtype)
    return SoftmaxModel(
        jnp.asarray(A, kind),
        jnp.asarray(whole),
        jnp.asarray(rows, kind),
        jnp.asarray(sizes),
        **arrays(found, kind),
        x0=jnp.zeros(A.shape[-1] * C, kind),
        classes=C,
        given_f_star=f_star,
        even=bool(np.ptp(sizes) == 0),
    )
