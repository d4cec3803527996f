"""TAMUNA (2302.09832): one round per step, a cohort of c clients, local steps from the server's model.

`cohort(t)` lists the c clients of round t, `local_steps(t)` their number of steps, `mask(t)` the binary
(d, c) mask whose column j belongs to the j-th client of that list.
"""

from __future__ import annotations

import math

import numpy as np


def theory(L, mu, n, d, c):
    s = max(2, c // d)
    chi = n * (s - 1) / (s * (n - 1))
    return {"gamma": 2.0 / (L + mu), "s": s, "chi": chi, "p": min(1.0, math.sqrt(n / (s * L / mu)))}


def init(n, x0):
    return {"x": x0.copy(), "H": np.zeros((n, len(x0)))}


def step(grad, hp, state, cohort, local_steps, mask):
    gamma, H = hp["gamma"], state["H"].copy()
    x_hat = []
    for i in cohort:
        x = state["x"]
        for _ in range(local_steps):
            x = x - gamma * (grad(i, x) - H[i])
        x_hat.append(x)
    x_bar = 0.0 * state["x"]
    for j in range(len(cohort)):
        x_bar = x_bar + mask[:, j] * x_hat[j] / hp["s"]
    for j, i in enumerate(cohort):
        H[i] = H[i] + hp["p"] * hp["chi"] / gamma * mask[:, j] * (x_bar - x_hat[j])
    return {"x": x_bar, "H": H}


def run(grad, n, hp, x0, steps, cohort, local_steps, mask):
    state, states = init(n, x0), []
    for t in range(steps):
        state = step(grad, hp, state, cohort(t), local_steps(t), mask(t))
        states.append(state | {"point": state["x"]})
    return states
