"""Gradient descent on F = (1/n) sum_i f_i: x -= gamma grad F(x), gamma = 2/(L + mu)."""

from __future__ import annotations


def theory(L, mu):
    return {"gamma": 2.0 / (L + mu)}


def rate(hp, L, mu):
    """Factor of |x - x*|^2 in one step; with theory's gamma it is (1 - 2/(kappa + 1))^2."""
    return max((1 - hp["gamma"] * mu) ** 2, (1 - hp["gamma"] * L) ** 2)


def run(grad, n, hp, x0, steps):
    x, states = x0.copy(), []
    for _ in range(steps):
        total = 0.0 * x
        for i in range(n):
            total = total + grad(i, x)
        x = x - hp["gamma"] * total / n
        states.append({"x": x, "point": x})
    return states
