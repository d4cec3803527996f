"""ADIANA (2002.11364, Algorithm 2): accelerated DIANA, two messages per client and step.

Slot 0 carries C_i(grad f_i(x) - h_i), slot 1 carries C_i(grad f_i(w) - h_i); both use the old h_i.
`coin(t)` is True when w takes the old y.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np


def theory(L, mu, omega, n):
    alpha = 1.0 / (omega + 1.0)
    if omega == 0:
        p, eta = 1.0, 1.0 / (2.0 * L)
    else:
        p = min(1.0, max(1.0, math.sqrt(n / (32.0 * omega)) - 1.0) / (2.0 * (1.0 + omega)))
        eta = min(1.0 / (2.0 * L), n / (64.0 * omega * L * (2.0 * p * (omega + 1.0) + 1.0) ** 2))
    th1 = min(0.25, math.sqrt(eta * mu / p))
    gamma = eta / (2.0 * (th1 + eta * mu))
    return {
        "alpha": alpha,
        "p": p,
        "eta": eta,
        "th1": th1,
        "th2": 0.5,
        "gamma": gamma,
        "beta": 1.0 - gamma * mu,
    }


def init(n, x0):
    zero = np.zeros_like(x0)
    return {"y": x0, "z": x0, "w": x0, "H": np.zeros((n, len(x0))), "h": zero}


def step(grad, n, hp, state, coin, compress):
    y, z, w, H, h = state["y"], state["z"], state["w"], state["H"], state["h"]
    x = hp["th1"] * z + hp["th2"] * w + (1 - hp["th1"] - hp["th2"]) * y
    g, D, mean = h, [], 0.0 * x
    for i in range(n):
        g = g + compress(i, 0, grad(i, x) - H[i]) / n
        D.append(compress(i, 1, grad(i, w) - H[i]))
        mean = mean + D[i] / n
    y_new = x - hp["eta"] * g
    z_new = hp["beta"] * z + (1 - hp["beta"]) * x + hp["gamma"] / hp["eta"] * (y_new - x)
    w_new = y if coin else w
    H_new = np.array([H[i] + hp["alpha"] * D[i] for i in range(n)])
    return {"y": y_new, "z": z_new, "w": w_new, "H": H_new, "h": h + hp["alpha"] * mean}


def run(grad, n, hp, x0, steps, coin, compress):
    state, states = init(n, x0), []
    for t in range(steps):
        state = step(grad, n, hp, state, coin(t), partial(compress, t))
        states.append(state | {"point": state["y"]})
    return states
