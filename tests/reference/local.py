"""Local and adaptive federated methods: x is the server's model, y_i starts at x and takes K_i local steps.

Delta = sum_S w_i (y_i - x), the weights rescaled to sum 1 over the cohort S. Formulas recalled only: SCAFFOLD, FedAvgM,
FedAdagrad, FedAdam, FedNova, Local Adam, Local AdaAlter, the paper's form of FedAMS.

`problem.grad(t, i, h, x)` is client i's gradient on the batch of local step h, on all its data for h = None.
`cohort(t)` lists the clients of round t, None means all; `compress(t, i, v)` is FedCAMS's compressor.
"""

from __future__ import annotations

import numpy as np

FEDOPT = ("fedadagrad", "fedadam", "fedyogi")
MIME = ("mime", "mimelite")
AMS = ("fedams", "fedcams")
CHOICES = {
    "option": ("I", "II"),
    "opt": ("sgd", "adam"),
    "frozen": ("fedjax", "strict"),
    "moments": ("reset", "average", "keep"),
    "form": ("paper", "code"),
}
DEFAULTS = {
    "eta_g": 1.0,
    "mu": 0.0,
    "rho": 0.0,
    "b1": 0.9,
    "b2": 0.99,
    "tau": 1e-3,
    "eps": 1e-8,
    "v0": None,
    "weights": None,
    "option": "II",
    "opt": "sgd",
    "frozen": "fedjax",
    "moments": "reset",
    "form": "paper",
}


def rows(x, n):
    return np.array([x] * n)


def weighted(w, vectors):
    """sum_i w_i vectors_i over the clients of w, in order."""
    return sum(w[i] * vectors[i] for i in w)


def weights(hp, n, members):
    raw = np.ones(n) if hp["weights"] is None else np.asarray(hp["weights"], dtype=float)
    whole = sum(raw[i] for i in members)
    return {i: raw[i] / whole for i in members}


def steps(hp, i):
    """K is one number or one per client."""
    return int(hp["K"]) if np.ndim(hp["K"]) == 0 else int(hp["K"][i])


# Local work and plain averaging.


def trained(problem, hp, state, i, shift=0.0):
    """y_i after K_i steps: y -= eta_l buf, buf = rho buf + g(y) + mu (y - x) + shift, buf = 0 at the start."""
    x = y = state["x"]
    buf = 0.0 * x
    for h in range(steps(hp, i)):
        buf = hp["rho"] * buf + problem.grad(state["t"], i, h, y) + hp["mu"] * (y - x) + shift
        y = y - hp["eta_l"] * buf
    return y


def delta(problem, hp, state, w, prox=False):
    """The FedAvg pseudo-gradient; only FedProx has mu, only FedNova rho."""
    plain = hp | {"rho": 0.0, "mu": hp["mu"] if prox else 0.0}
    return weighted(w, {i: trained(problem, plain, state, i) - state["x"] for i in w})


def fedavg(problem, hp, state, w):
    return {"x": state["x"] + hp["eta_g"] * delta(problem, hp, state, w)}


def fedprox(problem, hp, state, w):
    return {"x": state["x"] + hp["eta_g"] * delta(problem, hp, state, w, prox=True)}


def scaffold(problem, hp, state, w):
    """1910.06378, recalled only; plain means over the cohort, not the weights. All c_i+ use the old c."""
    t, x, c, plain = state["t"], state["x"], state["c"], hp | {"rho": 0.0, "mu": 0.0}
    n, c_i, moves = problem.n, state["c_i"].copy(), []
    for i in w:
        y = trained(problem, plain, state, i, shift=c - c_i[i])
        moves.append(y - x)
        if hp["option"] == "II":
            c_i[i] = c_i[i] - c + (x - y) / (steps(hp, i) * hp["eta_l"])
        else:
            c_i[i] = problem.grad(t, i, None, x)
    change = sum(c_i[i] - state["c_i"][i] for i in w)
    return {"x": x + hp["eta_g"] * sum(moves) / len(moves), "c": c + change / n, "c_i": c_i}


# FedOpt: an optimiser on the server, no bias correction.


def fedavgm(problem, hp, state, w):
    m = hp["b1"] * state["m"] + delta(problem, hp, state, w)
    return {"x": state["x"] + hp["eta_g"] * m, "m": m}


def second_moment(method, hp, v, Delta):
    if method == "fedadagrad":
        return v + Delta**2
    if method == "fedadam":
        return hp["b2"] * v + (1.0 - hp["b2"]) * Delta**2
    return v - (1.0 - hp["b2"]) * Delta**2 * np.sign(v - Delta**2)


def fedopt(method):
    def round_(problem, hp, state, w):
        Delta = delta(problem, hp, state, w)
        m = hp["b1"] * state["m"] + (1.0 - hp["b1"]) * Delta
        v = second_moment(method, hp, state["v"], Delta)
        return {"x": state["x"] + hp["eta_g"] * m / (np.sqrt(v) + hp["tau"]), "m": m, "v": v}

    return round_


def ams(hp, state, Delta):
    """FedAMS's server step; the code's form has bias corrections, the paper's (recalled only) has eps in the max."""
    b1, b2, eps, t = hp["b1"], hp["b2"], hp["eps"], state["t"] + 1
    m = b1 * state["m"] + (1.0 - b1) * Delta
    v = b2 * state["v"] + (1.0 - b2) * Delta**2
    vmax = np.maximum(state["vmax"], v)
    if hp["form"] == "paper":
        vmax = np.maximum(vmax, eps)
        x = state["x"] + hp["eta_g"] * m / np.sqrt(vmax)
    else:
        x = state["x"] + hp["eta_g"] / (1.0 - b1**t) * m / (np.sqrt(vmax) / np.sqrt(1.0 - b2**t) + eps)
    return {"x": x, "m": m, "v": v, "vmax": vmax}


def fedams(problem, hp, state, w):
    return ams(hp, state, delta(problem, hp, state, w))


def fedcams(problem, hp, state, w, compress):
    """c_i = C(e_i + y_i - x), e_i = e_i + (y_i - x) - c_i for the cohort; the other errors wait."""
    e_i, sent = state["e_i"].copy(), {}
    for i in w:
        v = e_i[i] + (trained(problem, hp | {"rho": 0.0, "mu": 0.0}, state, i) - state["x"])
        sent[i] = compress(state["t"], i, v)
        e_i[i] = v - sent[i]
    return ams(hp, state, weighted(w, sent)) | {"e_i": e_i}


# FedNova.


def nova_norm(tau, rho=0.0, mu=0.0, eta=None):
    """The sum of the weights of the tau gradients in (x - y)/eta (2007.07481, recalled, re-derived)."""
    if rho and mu:
        raise ValueError("rho, mu: expected at most one nonzero, there is no formula for both")
    if rho:
        return (tau - rho * (1.0 - rho**tau) / (1.0 - rho)) / (1.0 - rho)
    if mu:
        return (1.0 - (1.0 - eta * mu) ** tau) / (eta * mu)
    return float(tau)


def fednova(problem, hp, state, w):
    x, eta = state["x"], hp["eta_l"]
    norm = {i: nova_norm(steps(hp, i), hp["rho"], hp["mu"], eta) for i in w}
    d = {i: (x - trained(problem, hp, state, i)) / (eta * norm[i]) for i in w}
    return {"x": x - weighted(w, norm) * eta * weighted(w, d)}


# MIME and MimeLite: the server's optimiser state, frozen during local training.


def sgd_update(hp, s, g):
    """(direction, new state), buf = g + rho buf."""
    buf = g + hp["rho"] * s["m"]
    return buf, {"m": buf}


def adam_update(hp, s, g):
    """(direction, new state), with bias correction, eps outside the root."""
    b1, b2, count = hp["b1"], hp["b2"], s["count"] + 1
    m, v = b1 * s["m"] + (1.0 - b1) * g, b2 * s["v"] + (1.0 - b2) * g**2
    direction = m / (1.0 - b1**count) / (np.sqrt(v / (1.0 - b2**count)) + hp["eps"])
    return direction, {"m": m, "v": v, "count": count}


def strict_adam_direction(hp, s, g):
    """As adam_update, but the denominator is the server's v alone; eps before the first state update."""
    m = (hp["b1"] * s["m"] + (1.0 - hp["b1"]) * g) / (1.0 - hp["b1"] ** (s["count"] + 1))
    v = s["v"] / (1.0 - hp["b2"] ** s["count"]) if s["count"] else s["v"]
    return m / (np.sqrt(v) + hp["eps"])


def frozen_direction(hp, s, g):
    if hp["opt"] == "adam" and hp["frozen"] == "strict":
        return strict_adam_direction(hp, s, g)
    return {"sgd": sgd_update, "adam": adam_update}[hp["opt"]](hp, s, g)[0]


def mime(lite):
    def round_(problem, hp, state, w):
        t, x, s = state["t"], state["x"], {key: state[key] for key in ("m", "v", "count") if key in state}
        G = weighted(w, {i: problem.grad(t, i, None, x) for i in w})
        y = {}
        for i in w:
            y[i] = x
            for h in range(steps(hp, i)):
                g = problem.grad(t, i, h, y[i])
                g = g if lite else g - problem.grad(t, i, h, x) + G
                y[i] = y[i] - hp["eta_l"] * frozen_direction(hp, s, g)
        update = {"sgd": sgd_update, "adam": adam_update}[hp["opt"]]
        return {"x": x - hp["eta_g"] * weighted(w, {i: x - y[i] for i in w})} | update(hp, s, G)[1]

    return round_


# Adaptive local steps.


def local_adam(problem, hp, state, w):
    """Adam on every client; at the end the moments are reset, averaged over the cohort, or kept by their client.

    2106.02305, recalled only. count_i, the number of Adam steps behind the moments, is reset with them.
    """
    n, m_i, v_i, count_i = problem.n, state["m_i"].copy(), state["v_i"].copy(), state["count_i"].copy()
    if hp["moments"] == "average" and len({steps(hp, i) for i in range(n)}) > 1:
        raise ValueError("K: averaged moments need equal local steps")
    y = {}
    for i in w:
        y[i], s = state["x"], {"m": m_i[i], "v": v_i[i], "count": count_i[i]}
        for h in range(steps(hp, i)):
            direction, s = adam_update(hp, s, problem.grad(state["t"], i, h, y[i]))
            y[i] = y[i] - hp["eta_l"] * direction
        m_i[i], v_i[i], count_i[i] = s["m"], s["v"], s["count"]
    if hp["moments"] == "reset":
        m_i, v_i, count_i = 0.0 * m_i, 0.0 * v_i, 0 * count_i
    if hp["moments"] == "average":
        m_i, v_i = rows(weighted(w, m_i), n), rows(weighted(w, v_i), n)
        count_i = np.full(n, max(count_i[i] for i in w))
    return {"x": weighted(w, y), "m_i": m_i, "v_i": v_i, "count_i": count_i}


def local_adaalter(problem, hp, state, w):
    """1911.09030, recalled only: y -= eta_l g/sqrt(B2 + t' eps^2), A2_i += g^2 from B2, then B2 = mean A2_i."""
    y, A2 = {}, {}
    for i in w:
        y[i], A2[i] = state["x"], state["B2"]
        for h in range(steps(hp, i)):
            g = problem.grad(state["t"], i, h, y[i])
            y[i] = y[i] - hp["eta_l"] * g / np.sqrt(state["B2"] + (h + 1) * hp["eps"] ** 2)
            A2[i] = A2[i] + g**2
    return {"x": weighted(w, y), "B2": weighted(w, A2)}


# Runs.

ROUNDS = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fedavgm": fedavgm,
    **{method: fedopt(method) for method in FEDOPT},
    "fednova": fednova,
    "mime": mime(lite=False),
    "mimelite": mime(lite=True),
    "local_adam": local_adam,
    "local_adaalter": local_adaalter,
    "fedams": fedams,
    "fedcams": fedcams,
}


def init(method, n, hp, x0):
    """Before the first round, only what the method has; v0 defaults to tau^2 for FedOpt, to 0 elsewhere."""
    hp, x = DEFAULTS | hp, np.array(x0, dtype=float)
    zero, state = 0.0 * x, {"t": 0, "x": x}
    v0 = hp["v0"] if hp["v0"] is not None else (hp["tau"] ** 2 if method in FEDOPT else 0.0)
    if method in ("fedavgm", *FEDOPT, *MIME, *AMS):
        state["m"] = zero
    if method in (*FEDOPT, *AMS):
        state["v"] = zero + v0
    if method in AMS:
        state["vmax"] = zero + (1e-3 if hp["form"] == "code" else 0.0)
    if method in MIME and hp["opt"] == "adam":
        state |= {"v": zero, "count": 0}
    if method == "scaffold":
        state |= {"c": zero, "c_i": rows(zero, n)}
    if method == "fedcams":
        state["e_i"] = rows(zero, n)
    if method == "local_adam":
        state |= {"m_i": rows(zero, n), "v_i": rows(zero, n), "count_i": np.zeros(n, int)}
    if method == "local_adaalter":
        state["B2"] = zero + v0
    return state


def run(method, problem, hp, x0, rounds, cohort=None, compress=None, state=None):
    """States after each round; `state` goes on from its own t."""
    if method not in ROUNDS:
        raise ValueError(f"method: expected one of {tuple(ROUNDS)}, got {method!r}")
    hp = DEFAULTS | hp
    for name, values in CHOICES.items():
        if hp[name] not in values:
            raise ValueError(f"{name}: expected one of {values}, got {hp[name]!r}")
    state, states = init(method, problem.n, hp, x0) if state is None else state, []
    for _ in range(rounds):
        members = range(problem.n) if cohort is None else [int(i) for i in cohort(state["t"])]
        extra = (compress,) if method == "fedcams" else ()
        changes = ROUNDS[method](problem, hp, state, weights(hp, problem.n, members), *extra)
        state = state | changes | {"t": state["t"] + 1}
        states.append(state)
    return states
