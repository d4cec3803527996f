"""What is proved or stated of the gossip methods: fixed points, step sizes, Lyapunov functions and their rates."""

from __future__ import annotations

import math

import numpy as np


def block_diagonal(blocks):
    n, d = len(blocks), len(blocks[0])
    result = np.zeros((n * d, n * d))
    for i, block in enumerate(blocks):
        result[i * d : (i + 1) * d, i * d : (i + 1) * d] = block
    return result


def atc_point(W, gamma, A, b):
    """(I - W + gamma W A) X = gamma W b, for f_i = x'A_i x/2 - b_i'x."""
    n, d = b.shape
    mixer = np.kron(W, np.eye(d))
    left = np.eye(n * d) - mixer + gamma * mixer @ block_diagonal(A)
    return np.linalg.solve(left, gamma * mixer @ b.ravel()).reshape(n, d)


def dgd_point(W, gamma, A, b):
    """(I - W) X = -gamma G(X)."""
    n, d = b.shape
    left = np.eye(n * d) - np.kron(W, np.eye(d)) + gamma * block_diagonal(A)
    return np.linalg.solve(left, gamma * b.ravel()).reshape(n, d)


def weakened(W, cg):
    """W_cg."""
    return (1.0 - cg) * np.eye(len(W)) + cg * W


def off_consensus(V):
    return V - np.mean(V, axis=0)


def dual_square(W, V):
    """<V, (I-W)^+ V>."""
    return float(np.sum(V * (np.linalg.pinv(np.eye(len(W)) - W) @ V)))


# CHOCO.


def choco_step(g, delta):
    """cg*, from the spectral numbers g."""
    rho, beta = g["rho"], g["beta"]
    return rho**2 * delta / (16 * rho + rho**2 + 4 * beta**2 + 2 * rho * beta**2 - 8 * rho * delta)


def choco_rate(g, delta):
    return 1.0 - g["rho"] ** 2 * delta / 82.0


def choco_lyapunov(state):
    """sum_i |x_i - xbar|^2 + |x_i - xh_i|^2."""
    return float(np.sum(off_consensus(state["x"]) ** 2) + np.sum((state["x"] - state["xh"]) ** 2))


# LEAD.


def lead_contraction(mu, eta):
    return mu * eta * (2.0 - mu * eta)


def lead_a1(g, omega, gamma):
    return 4.0 * (1.0 + omega) / (omega * g["beta"] * gamma + 2.0)


def lead_interval(g, mu, omega, eta, gamma):
    beta, m, a1 = g["beta"], lead_contraction(mu, eta), lead_a1(g, omega, gamma)
    low = omega * beta * gamma / (2.0 * (1.0 + omega))
    return low, min((2.0 - beta * gamma) / (4.0 - beta * gamma), m) / a1


def lead_gamma_bound(g, mu, omega, eta):
    beta, m = g["beta"], lead_contraction(mu, eta)
    second = 2.0 * m / ((2.0 - m) * omega * beta) if omega else math.inf
    return min(2.0 / ((3.0 * omega + 1.0) * beta), second)


def lead_theory(g, mu, L, omega):
    eta = 2.0 / (mu + L)
    gamma = lead_gamma_bound(g, mu, omega, eta) / 2.0
    m, a1 = lead_contraction(mu, eta), lead_a1(g, omega, gamma)
    root = ((1.0 + a1) - math.sqrt((1.0 + a1) ** 2 - 4.0 * a1 * m)) / (2.0 * a1)
    low, high = lead_interval(g, mu, omega, eta, gamma)
    return {"eta": eta, "gamma": gamma, "alpha": min(max(root, low), high)}


def lead_lyapunov(W, hp, omega, state, X_star, G_star):
    a1, alpha = lead_a1({"beta": 1.0 - np.linalg.eigvalsh(W)[0]}, omega, hp["gamma"]), hp["alpha"]
    near = (1.0 - a1 * alpha) * np.sum((state["x"] - X_star) ** 2) + a1 * np.sum((state["h"] - X_star) ** 2)
    return float(near) + 2.0 * hp["eta"] ** 2 / hp["gamma"] * dual_square(W, state["d"] + G_star)


def lead_rate(g, hp, mu, omega):
    m, a1, alpha = lead_contraction(mu, hp["eta"]), lead_a1(g, omega, hp["gamma"]), hp["alpha"]
    return max((1.0 - m) / (1.0 - a1 * alpha), 1.0 - hp["gamma"] * g["lmin"] / 2.0, 1.0 - alpha)


# COLD: the safe rule.


def cold_gamma(g, mu, eta, delta):
    c = 1.0 / delta - 1.0
    second = mu * eta / (c * g["beta"]) if c else math.inf
    return min(1.0, second, 1.0 / ((1.0 + 3.0 * c) * g["beta"]))


# LESSBIT.


def lessbit_theory(g, mu, omega):
    return {"alpha": 1.0 / (1.0 + omega), "theta": mu / (g["beta"] + 6.0 * g["a"] * omega)}


def lessbit_lyapunov(W, hp, omega, state, X_star, G_star):
    weight = 4.0 * float(np.max(1.0 - np.diag(W))) * omega / hp["alpha"] * hp["theta"] ** 2
    return dual_square(W, state["z"] - G_star) + weight * float(np.sum((state["h"] - X_star) ** 2))


def lessbit_rate(g, hp, L):
    return max(1.0 - hp["theta"] * g["lmin"] / L, 1.0 - hp["alpha"] / 2.0)
