"""Nesterov's method with constant momentum: x+ = y - grad F(y)/L, y+ = x+ + beta (x+ - x)."""

from __future__ import annotations

import math


def theory(L, mu):
    root = math.sqrt(L / mu)
    return {"L": L, "beta": (root - 1.0) / (root + 1.0)}


def run(grad, n, hp, x0, steps):
    x, y, states = x0.copy(), x0.copy(), []
    for _ in range(steps):
        total = 0.0 * x
        for i in range(n):
            total = total + grad(i, y)
        x_new = y - total / n / hp["L"]
        y = x_new + hp["beta"] * (x_new - x)
        x = x_new
        states.append({"x": x, "y": y, "point": x})
    return states
