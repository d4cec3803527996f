"""Losses of linear models as functions of the prediction z: value, slope (first derivative), bend (second derivative).

`Logistic` and `Squared` have one output per row (z and targets of equal shape), `Softmax` has C outputs (z (..., C),
whole targets (...)). `curvature` bounds the second derivative, so that the smoothness constant of a linear model is
`curvature * lambda_max(A^T A / m)`.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp


class Logistic:
    """log(1 + exp(-b z)) with labels b in {-1, +1}."""

    name: ClassVar[str] = "logistic"
    curvature: ClassVar[float] = 0.25

    @staticmethod
    def value(z: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.logaddexp(0, -b * z)

    @staticmethod
    def slope(z: jax.Array, b: jax.Array) -> jax.Array:
        return -b / (1 + jnp.exp(b * z))

    @staticmethod
    def bend(z: jax.Array, b: jax.Array) -> jax.Array:
        s = jax.nn.sigmoid(z)
        return s * (1 - s)


class Squared:
    """(z - b)^2 / 2 with real targets b."""

    name: ClassVar[str] = "squared"
    curvature: ClassVar[float] = 1.0

    @staticmethod
    def value(z: jax.Array, b: jax.Array) -> jax.Array:
        return (z - b) ** 2 / 2

    @staticmethod
    def slope(z: jax.Array, b: jax.Array) -> jax.Array:
        return z - b

    @staticmethod
    def bend(z: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.ones_like(z)


class Softmax:
    """log sum_c exp(z_c) - z_b with classes b in 0..C-1; its Hessian diag(p) - p p^T is at most 1/2 (Boehning 1992)."""

    name: ClassVar[str] = "softmax"
    curvature: ClassVar[float] = 0.5

    @staticmethod
    def value(z: jax.Array, b: jax.Array) -> jax.Array:
        picked = jnp.take_along_axis(z, b[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(z, axis=-1) - picked

    @staticmethod
    def slope(z: jax.Array, b: jax.Array) -> jax.Array:
        return jax.nn.softmax(z, axis=-1) - jax.nn.one_hot(b, z.shape[-1], dtype=z.dtype)

    @staticmethod
    def bend(z: jax.Array, b: jax.Array) -> jax.Array:
        """(..., C, C): the Hessian in z."""
        p = jax.nn.softmax(z, axis=-1)
        return jax.vmap(jnp.diag)(p.reshape(-1, p.shape[-1])).reshape(*p.shape, p.shape[-1]) - (
            p[..., :, None] * p[..., None, :]
        )
