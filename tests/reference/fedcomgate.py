"""FedCOMGATE (2007.01154): one round per step, `local_steps` gradient-tracking steps inside.

`own` = True takes the client's unquantised Delta_i in the update of delta_i (FedTorch's code),
otherwise Q(Delta_i).
"""

from __future__ import annotations

from functools import partial

import numpy as np


def theory(L, omega, n, local_steps, gam=1.0):
    eta = 1.0 / (2.0 * L * (1.0 + omega / n) * local_steps * gam)
    return {"eta": eta, "gam": gam, "local_steps": local_steps, "own": False}


def init(n, x0):
    return {"w": x0.copy(), "delta": np.zeros((n, len(x0)))}


def step(grad, n, hp, state, compress):
    w, delta, eta = state["w"], state["delta"], hp["eta"]
    Delta, Q, mean = [], [], 0.0 * w
    for i in range(n):
        w_i = w
        for _ in range(hp["local_steps"]):
            w_i = w_i - eta * (grad(i, w_i) - delta[i])
        Delta.append((w - w_i) / eta)
        Q.append(compress(i, 0, Delta[i]))
        mean = mean + Q[i] / n
    kept = Delta if hp["own"] else Q
    delta = np.array([delta[i] + (kept[i] - mean) / hp["local_steps"] for i in range(n)])
    return {"w": w - eta * hp["gam"] * mean, "delta": delta}


def run(grad, n, hp, x0, steps, compress):
    state, states = init(n, x0), []
    for t in range(steps):
        state = step(grad, n, hp, state, partial(compress, t))
        states.append(state | {"point": state["w"]})
    return states
