"""5GCS-CC (2212.14370, 2306.03240; the least certain of the set), one round per step.

F_m = (f_m - (mu/2)|.|^2)/n. Left open by the formulae, hence parameters here:
`inner_steps` K, `inner_lr`, `accelerate` (constant Nesterov momentum for the tau-strongly convex local
subproblem, whose smoothness is 1/inner_lr), `start` = "previous" (y_m of the client's previous round, x0 at
first) or "xhat", and the participating clients (`cohort(t)`, all by default).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np


def theory(L, mu, omega, n, inner_steps, accelerate=False, start="previous", safe=True, cohort_size=None):
    """`safe`: this project's slow choice for omega > 0; otherwise 5GCS's own constants (no compression)."""
    c = n if cohort_size is None else cohort_size
    if safe:
        gamma = 3.0 / 16.0 / math.sqrt(L * mu * (1 + omega) * (1 + omega / n))
        tau = 1.0 / (2.0 * gamma * n * (1 + omega / n))
    else:
        gamma = 3.0 / 16.0 * math.sqrt(c / (L * mu * n))
        tau = 1.0 / (2.0 * gamma * n)
    hp = {"gamma": gamma, "tau": tau, "mu": mu, "omega": omega, "inner_steps": inner_steps}
    return hp | {"inner_lr": 1.0 / ((L - mu) / n + tau), "accelerate": accelerate, "start": start}


def init(n, x0):
    return {"x": x0.copy(), "U": np.zeros((n, len(x0))), "v": 0.0 * x0, "Y": np.array([x0] * n)}


def solve_local(local_grad, hp, start):
    """K steps on phi(y) = F_m(y) + (tau/2)|y - (xhat + u_m/tau)|^2."""
    root = math.sqrt(1.0 / (hp["inner_lr"] * hp["tau"]))
    beta = (root - 1.0) / (root + 1.0) if hp["accelerate"] else 0.0
    y = ahead = start
    for _ in range(hp["inner_steps"]):
        y_new = ahead - hp["inner_lr"] * local_grad(ahead)
        ahead = y_new + beta * (y_new - y)
        y = y_new
    return y


def step(grad, n, hp, state, cohort, compress):
    gamma, tau, mu = hp["gamma"], hp["tau"], hp["mu"]
    U, Y = state["U"].copy(), state["Y"].copy()
    x_hat = (state["x"] - gamma * state["v"]) / (1 + gamma * mu)
    for m in cohort:

        def smooth_grad(y, m=m):
            return (grad(m, y) - mu * y) / n

        def local_grad(y, m=m, smooth_grad=smooth_grad):
            return smooth_grad(y) + tau * (y - (x_hat + state["U"][m] / tau))

        Y[m] = solve_local(local_grad, hp, Y[m] if hp["start"] == "previous" else x_hat)
        U[m] = U[m] + compress(m, 0, smooth_grad(Y[m]) - U[m]) / (1 + hp["omega"])
    v_new = 0.0 * x_hat
    for m in range(n):
        v_new = v_new + U[m]
    x = x_hat - gamma * (1 + hp["omega"]) * (n / len(cohort)) * (v_new - state["v"])
    return {"x": x, "U": U, "v": v_new, "Y": Y}


def run(grad, n, hp, x0, steps, compress, cohort=None):
    state, states = init(n, x0), []
    for t in range(steps):
        clients = range(n) if cohort is None else cohort(t)
        state = step(grad, n, hp, state, clients, partial(compress, t))
        states.append(state | {"point": state["x"]})
    return states
