"""DIANA (1905.11261): compressed gradient differences against learned shifts h_i."""

from __future__ import annotations

from functools import partial

import numpy as np


def theory(L, omega, n):
    return {"alpha": 1.0 / (1.0 + omega), "gamma": 1.0 / (L * (1.0 + 6.0 * omega / n))}


def init(n, x0):
    return {"x": x0.copy(), "H": np.zeros((n, len(x0))), "h": np.zeros_like(x0)}


def step(grad, n, hp, state, compress):
    x, H, h = state["x"], state["H"], state["h"]
    D, mean = [], 0.0 * x
    for i in range(n):
        D.append(compress(i, 0, grad(i, x) - H[i]))
        mean = mean + D[i] / n
    x = x - hp["gamma"] * (h + mean)
    H = np.array([H[i] + hp["alpha"] * D[i] for i in range(n)])
    return {"x": x, "H": H, "h": h + hp["alpha"] * mean}


def run(grad, n, hp, x0, steps, compress, state=None):
    state = init(n, x0) if state is None else state
    states = []
    for t in range(steps):
        state = step(grad, n, hp, state, partial(compress, t))
        states.append(state | {"point": state["x"]})
    return states


def lyapunov(hp, n, omega, state, x_star, star_grads):
    weight = 4.0 * omega / (n * hp["alpha"]) * hp["gamma"] ** 2
    drift = 0.0
    for i in range(n):
        drift += np.sum((state["H"][i] - star_grads[i]) ** 2) / n
    return np.sum((state["x"] - x_star) ** 2) + weight * drift


def rate(hp, mu):
    return max(1 - hp["gamma"] * mu, 1 - hp["alpha"] / 2)
