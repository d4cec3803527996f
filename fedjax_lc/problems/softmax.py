"""Multinomial (softmax) regression."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.devices import stored
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.problems.base import arrays
from fedjax_lc.problems.losses import Softmax
from fedjax_lc.problems.stacking import Clients, RowsProblem, check_scale, constants, float_dtype, stack


@pytree.dataclass
class SoftmaxModel(RowsProblem):
    """Multinomial regression: x is the matrix W (p, C) raveled row by row, z = a W.

    features A_i (m, p), targets (n, m) whole numbers 0..C-1.
    """

    classes: int = pytree.static(default=2)
    loss: ClassVar[Any] = Softmax

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.features.width, self.classes),)

    def _matrix(self, x: Vec | ClientVecs) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.features.width, self.classes)

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        z = self.features.predict_classes(self._matrix(x))
        return self.features.sums(self.rows * Softmax.value(z, self.targets)) + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        z = self.features.predict_classes(self._matrix(x))
        blocks = self.features.pull_back_classes(self.rows[..., None] * Softmax.slope(z, self.targets))
        return blocks.reshape(self.n, self.dim) + self.strong * jnp.atleast_2d(x)

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        A = self.features.take(picks)
        z = A.predict_classes(self._matrix(x))
        slopes = Softmax.slope(z, self.features.picked(self.targets, picks))
        blocks = A.pull_back_classes(weights[..., None] * slopes)
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
    features: str = "auto",
) -> SoftmaxModel:
    """f_i(W) = (1/m_i) sum_s [log sum_c exp(a_s W_c) - a_s W_{b_s}] + (l2/2) |W|^2.

    Targets are whole numbers 0..C-1; `classes` is C, or the largest target plus one over all clients if None. The
    vector x is W (p, C) raveled row by row, d = p C. Other arguments as in `logistic_regression`.
    """
    data = stack(clients, weights, features)
    whole = data.targets.astype(np.int32)
    if np.any(whole != data.targets) or np.any(whole < 0):
        raise InputError("softmax targets must be whole numbers 0..C-1: map classes with fl.data.load or by hand")
    C = classes if classes is not None else int(whole.max()) + 1
    if whole.max() >= C:
        raise InputError(f"a target is {whole.max()} but classes={C}: targets must lie in 0..classes-1")
    dtype = float_dtype(dtype)
    check_scale(data, dtype)
    bounds = constants(data, Softmax.curvature, l2, kappa, norm)
    matrices = data.laid_out(dtype, vectors=False)
    return SoftmaxModel(
        matrices,
        stored(whole),
        stored(data.rows, dtype),
        jnp.asarray(data.sizes),
        **arrays(bounds, dtype),
        x0=jnp.zeros(matrices.width * C, dtype),
        classes=C,
        given_f_star=f_star,
        even=bool(np.ptp(data.sizes) == 0),
    )
