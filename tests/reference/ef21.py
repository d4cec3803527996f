"""EF21 (2106.05203): x -= gamma g, c_i = C(grad f_i(x) - g_i) at the new x, g_i += c_i, g += mean c.

g_i^0 = grad f_i(x^0) is sent once, uncompressed.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np


def theory(L, smooth, mu, alpha):
    """`L` belongs to F, `smooth` lists the L_i, `alpha` is the contraction (k/d for top-k)."""
    mean_square = math.sqrt(sum(value**2 for value in smooth) / len(smooth))
    theta = 1.0 - math.sqrt(1.0 - alpha)
    beta = (1.0 - alpha) / theta
    return {"gamma": min(1.0 / (L + mean_square * math.sqrt(2.0 * beta / theta)), theta / (2.0 * mu))}


def init(grad, n, x0):
    G = np.array([grad(i, x0) for i in range(n)])
    g = 0.0 * x0
    for i in range(n):
        g = g + G[i] / n
    return {"x": x0.copy(), "G": G, "g": g}


def step(grad, n, hp, state, compress):
    x = state["x"] - hp["gamma"] * state["g"]
    G, g = [], state["g"]
    for i in range(n):
        c = compress(i, 0, grad(i, x) - state["G"][i])
        G.append(state["G"][i] + c)
        g = g + c / n
    return {"x": x, "G": np.array(G), "g": g}


def run(grad, n, hp, x0, steps, compress):
    state, states = init(grad, n, x0), []
    for t in range(steps):
        state = step(grad, n, hp, state, partial(compress, t))
        states.append(state | {"point": state["x"]})
    return states
