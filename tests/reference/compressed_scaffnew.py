"""CompressedScaffnew (2210.13277): Scaffnew's local step, clients send masked vectors q_i * xhat_i.

`mask(t)` is the binary (d, n) mask of step t with s ones in every row; used only when the coin falls.
"""

from __future__ import annotations

import math

import numpy as np


def theory(L, mu, n, d):
    s = max(2, n // d)
    chi = n * (s - 1) / (s * (n - 1))
    return {"gamma": 2.0 / (L + mu), "s": s, "chi": chi, "p": min(1.0, math.sqrt(n / (s * L / mu)))}


def init(n, x0):
    return {"X": np.array([x0] * n), "H": np.zeros((n, len(x0))), "server": x0.copy()}


def step(grad, n, hp, state, coin, mask):
    """`mask()` is called only when the coin falls."""
    X, H, gamma = state["X"], state["H"], hp["gamma"]
    x_hat = [X[i] - gamma * (grad(i, X[i]) - H[i]) for i in range(n)]
    if not coin:
        return {"X": np.array(x_hat), "H": H, "server": state["server"]}
    q = mask()
    x_bar = 0.0 * X[0]
    for j in range(n):
        x_bar = x_bar + q[:, j] * x_hat[j] / hp["s"]
    c = hp["p"] * hp["chi"] / gamma
    H = np.array([H[i] + c * q[:, i] * (x_bar - x_hat[i]) for i in range(n)])
    return {"X": np.array([x_bar] * n), "H": H, "server": x_bar}


def run(grad, n, hp, x0, steps, coin, mask, state=None):
    """`point` is the server's model; `mean` the average of the clients' current x_i."""
    state = init(n, x0) if state is None else state
    states = []
    for t in range(steps):
        state = step(grad, n, hp, state, coin(t), lambda t=t: mask(t))
        mean = sum(state["X"][i] for i in range(n)) / n
        states.append(state | {"point": state["server"], "mean": mean})
    return states


def lyapunov(hp, state, x_star, star_grads):
    n = len(state["X"])
    weight = hp["gamma"] / (hp["p"] ** 2 * hp["chi"]) * (n - 1) / (hp["s"] - 1)
    total = 0.0
    for i in range(n):
        total += np.sum((state["X"][i] - x_star) ** 2) / hp["gamma"]
        total += weight * np.sum((state["H"][i] - star_grads[i]) ** 2)
    return total


def rate(hp, L, mu, n):
    dual = 1 - hp["p"] ** 2 * hp["chi"] * (hp["s"] - 1) / (n - 1)
    return max((1 - hp["gamma"] * mu) ** 2, (1 - hp["gamma"] * L) ** 2, dual)
