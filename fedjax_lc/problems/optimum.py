"""Minimise a smooth convex function in float64 on the host: damped Newton with a dense Hessian, or Newton-CG."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DENSE_LIMIT = 3000  #: largest d for which a dense Hessian is factorised
MOST_STEPS = 200

Vector = np.ndarray


class Optimum(NamedTuple):
    """The minimiser x (d,) float64, its value and gradient norm, and whether the norm met the tolerance."""

    x: Vector
    value: float
    grad_norm: float
    converged: bool


def minimise(
    value: Callable[[Vector], float],
    grad: Callable[[Vector], Vector],
    hess: Callable[[Vector], np.ndarray],
    hvp: Callable[[Vector, Vector], Vector],
    x0: Vector,
    tolerance: float = 1e-14,
) -> Optimum:
    """Minimise to |grad| <= tolerance * (1 + |grad(x0)|).

    Args:
        value, grad, hess: functions of x (d,) to (), (d,) and (d, d), NumPy float64; hess is used up to d = 3000.
        hvp: (x, v) -> (d,), the Hessian at x times v; used by conjugate gradients for larger d.
        x0: (d,) start.
        tolerance: relative tolerance of the gradient norm.

    Example:
        >>> minimise(lambda x: x @ x / 2, lambda x: x, lambda x: np.eye(2), lambda x, v: v, np.ones(2)).x
        array([0., 0.])
    """

    first = float(np.linalg.norm(grad(x0)))
    goal = tolerance * (1 + first)

    def direction(x: Vector, g: Vector) -> Vector:
        if x.size <= DENSE_LIMIT:
            return np.linalg.lstsq(hess(x), -g, rcond=1e-14)[0]
        # Inexact Newton: a loose tolerance far from the optimum, which tightens for superlinear convergence near it.
        share = min(0.1, float(np.linalg.norm(g) / first) ** 0.5)
        return _conjugate_gradients(lambda v: hvp(x, v), -g, share, goal / 4)

    x = _newton(value, grad, direction, x0, goal)
    norm = float(np.linalg.norm(grad(x)))
    return Optimum(x, float(value(x)), norm, bool(norm <= goal))


def _newton(
    value: Callable[[Vector], float],
    grad: Callable[[Vector], Vector],
    direction: Callable[[Vector, Vector], Vector],
    x: Vector,
    goal: float,
) -> Vector:
    """Newton steps, halved until the value decreases; stops at the goal or where rounding errors dominate."""
    g = grad(x)
    for _ in range(MOST_STEPS):
        norm = np.linalg.norm(g)
        if not norm > goal:
            break
        step = direction(x, g)
        x_next = x + _damping(value, x, step, float(g @ step)) * step
        g_next = grad(x_next)
        if np.linalg.norm(g_next) >= norm and np.linalg.norm(step) <= 1e-6 * (1 + np.linalg.norm(x)):
            break
        x, g = x_next, g_next
    return x


def _damping(value: Callable[[Vector], float], x: Vector, step: Vector, slope: float) -> float:
    """The first of 1, 1/2, 1/4, ... that meets Armijo's condition, up to rounding errors of the value."""
    here, damping = value(x), 1.0
    rounding = 1e-14 * (1 + abs(here))
    while value(x + damping * step) > here + 1e-4 * damping * slope + rounding and damping > 1e-10:
        damping /= 2
    return damping


def _conjugate_gradients(times: Callable[[Vector], Vector], b: Vector, share: float, goal: float) -> Vector:
    """v with |b - times(v)| at most `share` |b|, or `goal`."""
    from scipy.sparse.linalg import LinearOperator, cg

    operator = LinearOperator((b.size, b.size), matvec=times, dtype=np.float64)
    return np.asarray(cg(operator, b, rtol=share, atol=goal, maxiter=1000)[0])


def smallest_eigenvalue(hess: Callable[[], np.ndarray], times: Callable[[Vector], Vector], d: int) -> float:
    """The smallest eigenvalue of a symmetric (d, d) matrix.

    Up to d = 3000 it is that of `hess()`. Beyond that, Lanczos computes it from products with the matrix, to a relative
    error of about a thousandth; NaN if it does not converge.
    """
    if d <= DENSE_LIMIT:
        return float(np.linalg.eigvalsh(hess())[0])
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((d, d), matvec=times, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=d)
    try:
        return float(eigsh(operator, 1, which="SA", v0=start, tol=1e-2, maxiter=300, return_eigenvectors=False)[0])
    except ArpackNoConvergence:
        return float("nan")
