"""LoCoDL (2403.04348): one iteration per step, line numbers of the algorithm box in the comments.

The callback gives gradients of the full f~_i. With `strong` = mu~ its f_i = f~_i - (mu~/4)|.|^2 and
g = (mu~/4)|.|^2, so grad f_i(x) = grad f~_i(x) - (mu~/2) x and grad g(y) = (mu~/2) y.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np


def theory(smooth, strong, omega, omega_av, choice="theory"):
    """`smooth`, `strong` belong to f~_i; L = smooth - strong/2 and mu = strong/2 are the split functions'."""
    L, mu = smooth - strong / 2, strong / 2
    kappa = L / mu
    rho = chi = 1.0 / (1.0 + omega_av)
    if choice == "theory":
        p = min(math.sqrt((1 + omega_av) * (1 + omega) / kappa), 1.0)
    else:
        p = min(2 * math.sqrt((1 + omega_av) * (1 + 2 * omega) / kappa), 1.0)
    return {"gamma": 2.0 / (L + mu), "rho": rho, "chi": chi, "p": p, "omega": omega}


def init(n, x0):
    zero = np.zeros_like(x0)
    return {"X": np.array([x0] * n), "U": np.array([zero] * n), "y": x0.copy(), "v": zero}


def local(grad, n, hp, strong, state):
    """Lines 1 and 2."""
    gamma, X, U, y, v = hp["gamma"], state["X"], state["U"], state["y"], state["v"]
    x_hat = [X[i] - gamma * (grad(i, X[i]) - strong / 2 * X[i]) + gamma * U[i] for i in range(n)]  # 1
    y_hat = y - gamma * (strong / 2) * y + gamma * v  # 2
    return np.array(x_hat), y_hat


def talk(n, hp, x_hat, y_hat, U, v, compress):
    """Lines 4 to 9."""
    rho = hp["rho"]
    c = hp["p"] * hp["chi"] / (hp["gamma"] * (1 + 2 * hp["omega"]))
    D, d_bar = [], np.zeros_like(y_hat)
    for i in range(n):
        D.append(compress(i, 0, x_hat[i] - y_hat))  # 4
        d_bar = d_bar + D[i] / (2 * n)  # 5
    X_new, U_new = [], []
    for i in range(n):
        X_new.append((1 - rho) * x_hat[i] + rho * (y_hat + d_bar))  # 6
        U_new.append(U[i] + c * (d_bar - D[i]))  # 7
    y_new = y_hat + rho * d_bar  # 8
    v_new = v + c * d_bar  # 9
    return {"X": np.array(X_new), "U": np.array(U_new), "y": y_new, "v": v_new}


def step(grad, n, hp, strong, state, coin, compress):
    """One iteration; `compress(i, slot, vector)` has slot 0 only."""
    x_hat, y_hat = local(grad, n, hp, strong, state)
    if coin:  # 3
        return talk(n, hp, x_hat, y_hat, state["U"], state["v"], compress)
    return {"X": x_hat, "U": state["U"], "y": y_hat, "v": state["v"]}  # 10


def geometric_round(grad, n, hp, strong, state, local_steps, compress):
    """K = `local_steps` iterations of which the last communicates, y by its closed form.

    K steps y <- y - gamma m y + gamma v with m = strong/2 give a y + ((1-a)/m) v, a = (1 - gamma m)^K.
    """
    m = strong / 2
    a = (1 - hp["gamma"] * m) ** local_steps
    y_hat = a * state["y"] + (1 - a) / m * state["v"]
    inner = state
    for _ in range(local_steps):
        x_hat, _ = local(grad, n, hp, strong, inner)
        inner = inner | {"X": x_hat}
    return talk(n, hp, x_hat, y_hat, state["U"], state["v"], compress)


def point(state):
    n = len(state["X"])
    total = 0.0 * state["y"]
    for i in range(n):
        total = total + state["X"][i] / n
    return (total + state["y"]) / 2


def run(grad, n, hp, strong, x0, steps, coin, compress, state=None):
    state = init(n, x0) if state is None else state
    states = []
    for t in range(steps):
        state = step(grad, n, hp, strong, state, coin(t), partial(compress, t))
        states.append(state | {"point": point(state)})
    return states


def lyapunov(hp, state, x_star, star_grads, strong):
    """Psi; `star_grads[i]` is grad f~_i(x*)."""
    n = len(state["X"])
    primal, dual = n * sq(state["y"] - x_star), n * sq(state["v"] - strong / 2 * x_star)
    for i in range(n):
        primal += sq(state["X"][i] - x_star)
        dual += sq(state["U"][i] - (star_grads[i] - strong / 2 * x_star))
    weight = hp["gamma"] * (1 + 2 * hp["omega"]) / (hp["p"] ** 2 * hp["chi"])
    return primal / hp["gamma"] + weight * dual


def rate(hp, smooth, strong):
    L, mu, gamma = smooth - strong / 2, strong / 2, hp["gamma"]
    dual = 1 - hp["p"] ** 2 * hp["chi"] / (1 + 2 * hp["omega"])
    return max((1 - gamma * mu) ** 2, (1 - gamma * L) ** 2, dual)


def sq(x):
    return float(x @ x)
