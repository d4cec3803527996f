"""EF21-P (2209.15218), alone and with compressed uplinks, and 2Direction (2305.12379) in both of its forms.

`grad(t, i, x)` is client i's gradient in iteration t (0, 1, ..), t = -1 at the start. `up(t, i, slot, v)` is client i's
message, slot 0 or 2Direction's second, slot 1; `down(t, v)` the server's.
"""

from __future__ import annotations

import math

import numpy as np


def mean(rows):
    return sum(rows) / len(rows)


# EF21-P. `form`: "plain", "dcgd", "diana".


def ef21_p_init(hp, grad, n, x0):
    x = np.array(x0, dtype=float)
    if hp["form"] != "diana":
        return {"t": 0, "x": x, "w": x}
    h_i = np.array([grad(-1, i, x) if hp.get("start") == "dense" else 0.0 * x for i in range(n)])
    return {"t": 0, "x": x, "w": x, "h_i": h_i, "h": mean(h_i)}


def ef21_p_step(hp, grad, n, s, up, down):
    t, w, new = s["t"], s["w"], {}
    g = [grad(t, i, w) for i in range(n)]
    if hp["form"] == "dcgd":
        g = [up(t, i, 0, g[i]) for i in range(n)]
    if hp["form"] == "diana":
        m = [up(t, i, 0, g[i] - s["h_i"][i]) for i in range(n)]
        g = [s["h"] + m[i] for i in range(n)]
        new = {"h_i": s["h_i"] + hp["beta"] * np.array(m), "h": s["h"] + hp["beta"] * mean(m)}
    x = s["x"] - hp["gamma"] * mean(g)
    return s | new | {"t": t + 1, "x": x, "point": x, "w": w + down(t, x - w)}


def ef21_p(grad, n, hp, x0, steps, up, down, state=None):
    state, states = ef21_p_init(hp, grad, n, x0) if state is None else state, []
    for _ in range(steps):
        state = ef21_p_step(hp, grad, n, state, up, down)
        states.append(state)
    return states


def ef21_p_theory(form, n, delta, L, Lmax, mu, omega=0.0):
    """gamma, and beta of DIANA's memories; mu = 0 drops its bound."""
    if form == "plain":
        return {"gamma": delta / (16.0 * L)}
    bounds = [delta / (100.0 * L)]
    if omega:
        bounds.append(n / (160.0 * omega * Lmax))
    if form == "diana" and mu:
        bounds.append(1.0 / ((omega + 1.0) * mu))
    return {"gamma": min(bounds)} | ({"beta": 1.0 / (omega + 1.0)} if form == "diana" else {})


def ef21_p_left(hp, x, x_star, gap):
    """|x - x*|^2/(2 gamma) + f(x) - f*."""
    return float(np.sum((x - x_star) ** 2)) / (2.0 * hp["gamma"]) + gap


def ef21_p_start(hp, n, omega, x, x_star, gap, h_i, star_grads):
    """V_0 of EF21-P + DIANA."""
    weight = 8.0 * hp["gamma"] * omega * (omega + 1.0) / n**2
    return ef21_p_left(hp, x, x_star, gap) + weight * float(np.sum((h_i - star_grads) ** 2))


# 2Direction.


def two_direction_theory(n, delta, omega, L, Lmax, c0=1.0):
    beta = 1.0 / (omega + 1.0)
    p = min(1.0, max(beta, beta / math.sqrt(delta * omega))) if omega else 1.0
    tau = min(1.0, omega ** (-1.0 / 3.0) * (omega + 1.0) ** (-2.0 / 3.0)) if omega else 1.0
    terms = [
        L / delta,
        L * p / (delta * tau),
        math.sqrt(L * Lmax) * p * math.sqrt(omega * tau) / (delta * beta * math.sqrt(n)),
        math.sqrt(L * Lmax * p * omega * tau) / (delta * math.sqrt(beta * n)),
        Lmax * omega * p**2 / (beta**2 * n),
        Lmax * omega / n,
    ]
    return {"beta": beta, "p": p, "tau": tau, "Lbar": c0 * max(terms), "delta": delta}


def theta_of(hp, c, scale):
    """The root of p Lbar theta^2 + p c theta - c = 0 (all times `scale`), and what bounds it."""
    p, L = hp["p"], hp["Lbar"] * scale
    root = 2.0 * c / (p * c + math.sqrt(p**2 * c**2 + 4.0 * p * L * c))
    return min(root, min(1.0, hp["delta"] / p, hp["tau"] / p, hp["beta"] / p) / 4.0)


def inverse_form(hp, i, y, mu):
    """(i, theta, prox) with i = 1/Gamma."""
    c, p = hp["Lbar"] * i + mu, hp["p"]
    theta = theta_of(hp, c, 1.0)
    i = (1.0 - p * theta) * i
    cn = hp["Lbar"] * i + mu
    return i, theta, lambda g, s: ((1.0 - p * theta) * c * s + p * theta * (mu * y(theta) - g)) / cn


def gamma_form(hp, big, y, mu):
    """(Gamma, theta, prox) as the authors' library has them."""
    p = hp["p"]
    theta = theta_of(hp, hp["Lbar"] + big * mu, big)
    gamma = p * theta * big / (1.0 - p * theta)
    now, after = hp["Lbar"] + big * mu, hp["Lbar"] + (big + gamma) * mu
    return big + gamma, theta, lambda g, s: (now * s + mu * gamma * y(theta) - gamma * g) / after


def two_direction_init(grad, n, x0, start=1.0):
    """`start` is Gamma_0."""
    x = np.array(x0, dtype=float)
    h_i = np.array([grad(-1, i, x) for i in range(n)])
    state = {"t": 0, "h_i": h_i, "h": mean(h_i), "k": mean(h_i), "v": mean(h_i), "i": 1.0 / start, "Gamma": start}
    return state | dict.fromkeys(("u", "w", "z", "x", "point"), x)


def two_direction_step(hp, grad, n, s, up, down, coin):
    """`form` "inverse" (default) or "gamma"; each keeps its own of i and Gamma."""
    t, w, z, tau, mu = s["t"], s["w"], s["z"], hp["tau"], hp["mu"]
    at = lambda theta: theta * w + (1.0 - theta) * z
    if hp.get("form") == "gamma":
        big, theta, prox = gamma_form(hp, s["Gamma"], at, mu)
        scale = {"Gamma": big}
    else:
        i, theta, prox = inverse_form(hp, s["i"], at, mu)
        scale = {"i": i}
    y = at(theta)
    g = s["h"] + mean([up(t, j, 0, grad(t, j, y) - s["h_i"][j]) for j in range(n)])
    u, q = prox(g, s["u"]), prox(s["k"], w)
    w = q + down(t, u - q)
    x = theta * u + (1.0 - theta) * z
    k = s["k"]
    if coin(t):
        z, k = x, s["v"]
    m = np.array([up(t, j, 1, grad(t, j, z) - s["h_i"][j]) for j in range(n)])
    v = (1.0 - tau) * s["v"] + tau * (s["h"] + mean(m))
    memory = {"h_i": s["h_i"] + hp["beta"] * m, "h": s["h"] + hp["beta"] * mean(m)}
    new = {"t": t + 1, "u": u, "w": w, "z": z, "k": k, "v": v, "x": x, "point": x, "theta": theta}
    return s | scale | memory | new


def two_direction(grad, n, hp, x0, steps, up, down, coin, state=None):
    state = two_direction_init(grad, n, x0, hp.get("start", 1.0)) if state is None else state
    states = []
    for _ in range(steps):
        state = two_direction_step(hp, grad, n, state, up, down, coin)
        states.append(state)
    return states
