"""Scaffnew / ProxSkip (2202.09357): one iteration per step, a round only when the coin falls.

The state keeps `server`, the last average sent by the server (x0 before the first round).
"""

from __future__ import annotations

import math

import numpy as np


def theory(L, mu):
    return {"gamma": 2.0 / (L + mu), "p": math.sqrt(mu / L)}


def init(n, x0):
    return {"X": np.array([x0] * n), "H": np.zeros((n, len(x0))), "server": x0.copy()}


def step(grad, n, hp, state, coin):
    X, H, gamma = state["X"], state["H"], hp["gamma"]
    x_hat = [X[i] - gamma * (grad(i, X[i]) - H[i]) for i in range(n)]
    if not coin:
        return {"X": np.array(x_hat), "H": H, "server": state["server"]}
    x_bar = 0.0 * X[0]
    for i in range(n):
        x_bar = x_bar + x_hat[i] / n
    H = np.array([H[i] + hp["p"] / gamma * (x_bar - x_hat[i]) for i in range(n)])
    return {"X": np.array([x_bar] * n), "H": H, "server": x_bar}


def run(grad, n, hp, x0, steps, coin, state=None):
    """`point` is the server's model; `mean` the average of the clients' current x_i."""
    state = init(n, x0) if state is None else state
    states = []
    for t in range(steps):
        state = step(grad, n, hp, state, coin(t))
        mean = sum(state["X"][i] for i in range(n)) / n
        states.append(state | {"point": state["server"], "mean": mean})
    return states


def lyapunov(hp, state, x_star, star_grads):
    total = 0.0
    for i in range(len(state["X"])):
        total += np.sum((state["X"][i] - x_star) ** 2)
        total += (hp["gamma"] / hp["p"]) ** 2 * np.sum((state["H"][i] - star_grads[i]) ** 2)
    return total


def rate(hp, L, mu):
    return max((1 - hp["gamma"] * mu) ** 2, (1 - hp["gamma"] * L) ** 2, 1 - hp["p"] ** 2)
