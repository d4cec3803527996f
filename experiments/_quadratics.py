"""Quadratics of known condition whose clients differ, for recipes."""

from __future__ import annotations

import jax
import numpy as np

from fedjax_lc import problems
from fedjax_lc.problems import Problem


def quadratics(n: int, dim: int, kappa: float, spread: float = 0.1, apart: float = 1.0) -> Problem:
    """f_i(x) = (x - c_i)^T Q_i (x - c_i)/2 less a constant: Q_i of condition kappa, its axes near common ones up to the
    spread, c_i near a common point up to `apart`."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(np.eye(dim) + spread * rng.normal(size=(n, dim, dim)))[0]
    Q = axes * np.geomspace(1, 1 / kappa, dim) @ axes.transpose(0, 2, 1)
    c = rng.normal(size=dim) + apart * rng.normal(size=(n, dim))
    return problems.quadratic((Q + Q.transpose(0, 2, 1)) / 2, np.einsum("nij,nj->ni", Q, c), dtype="float64")
