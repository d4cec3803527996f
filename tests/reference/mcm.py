"""MCM, Rand-MCM and their relatives (2102.12528): two-way compression, central model w, local models what_i.

Uplink: g_i = grad F_i(what_i), q_i = C_up(g_i - h_i), ghat = mean(h_i + q_i), the old h_i, then h_i += alpha_up q_i.
Downlink of MCM: w -= gamma ghat, Om = C_dwn(w - H), what = H + Om with the old H, then H += alpha_dwn Om.

`up(t, i, v)` and `down(t, g, v)` are the compressors with their randomness inside; `active(t)` is the mask S_t.
"""

from __future__ import annotations

import math

import numpy as np

MEMORYLESS = ("sgd", "qsgd", "biqsgd", "double_squeeze")
GRADIENT = ("artemis", "dore", "diana")
ONE_SERVER_MEMORY = ("rand_mcm_1mem", "rand_mcm_reset")
MODEL = ("mcm", "rand_mcm", "rand_mcm_g", *ONE_SERVER_MEMORY)
METHODS = (*MEMORYLESS, *GRADIENT, *MODEL, "mc", "artemis_nd", "ghost")
DEFAULTS = {"pp": None, "memories": "all", "reset_every": 4, "average_every": None}


def rows(x, n):
    return np.array([x] * n)


def total(vectors, x):
    """The sum in order, a zero of the shape of x if there is nothing to add."""
    result = np.zeros_like(x)
    for v in vectors:
        result = result + v
    return result


def init(method, n, hp, x0):
    """Before the first round: w = what = H = x0 and h = e = 0, each only where the method has it; t counts rounds."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    hp, x0 = DEFAULTS | hp, np.array(x0, dtype=float)
    state = {"t": 0, "w": x0, "what": rows(x0, n)}
    if method not in MEMORYLESS:
        state["h_i"] = rows(0.0 * x0, n)
        if hp["pp"] is None or hp["memories"] == "one":
            state["h"] = 0.0 * x0
    if method in MODEL:
        state["H"] = rows(x0, n)
    if method in ONE_SERVER_MEMORY:
        state["H_server"] = x0
    if method in ("dore", "double_squeeze"):
        state["e"] = 0.0 * x0
    if method == "double_squeeze":
        state["e_i"] = rows(0.0 * x0, n)
    if hp["average_every"] is not None:
        state["w_bar"] = x0
    return state | {"point": x0}


def memory_uplink(hp, state, g, up, divisor):
    """Clients with memories h_i; g holds the gradients of the active clients only."""
    t, w, h_i = state["t"], state["w"], state["h_i"].copy()
    if hp["smart"] and t == 0 and hp["pp"] is None:
        for i in g:
            h_i[i] = g[i]
    q = {i: up(t, i, g[i] - h_i[i]) for i in g}
    old = h_i.copy()
    for i in g:
        h_i[i] = old[i] + hp["alpha_up"] * q[i]
    if hp["pp"] is not None and hp["memories"] == "one":
        mean = total(q.values(), w) / divisor
        return state["h"] + mean, {"h_i": h_i, "h": state["h"] + hp["alpha_up"] * mean}
    ghat = total((old[i] + q[i] for i in g), w) / divisor
    return ghat, {"h_i": h_i, "h": total(h_i, w) / len(h_i)} if hp["pp"] is None else {"h_i": h_i}


def uplink(method, hp, state, g, up, divisor):
    """(ghat, what the uplink changed in the state)."""
    t, w = state["t"], state["w"]
    if method == "sgd":
        return total(g.values(), w) / divisor, {}
    if method in ("qsgd", "biqsgd"):
        return total((up(t, i, g[i]) for i in g), w) / divisor, {}
    if method == "double_squeeze":
        e_i, q = state["e_i"].copy(), {}
        for i in g:
            v = g[i] + hp["c_ef"] * e_i[i]
            q[i] = up(t, i, v)
            e_i[i] = v - q[i]
        return total(q.values(), w) / divisor, {"e_i": e_i}
    return memory_uplink(hp, state, g, up, divisor)


def group_of(method, hp, i, n):
    return {"mcm": 0, "rand_mcm": i}[method] if method != "rand_mcm_g" else i * hp["groups"] // n


def group_downlink(method, hp, state, w, down, receivers):
    """MCM (one group), Rand-MCM-G, Rand-MCM (n groups): a group shares one message and one memory."""
    t, n = state["t"], len(state["what"])
    what, H = state["what"].copy(), state["H"].copy()
    groups = [group_of(method, hp, i, n) for i in range(n)]
    for g in sorted(set(groups)):
        members = [i for i in range(n) if groups[i] == g]
        if method != "mcm" and not any(receivers[i] for i in members):
            continue
        Om = down(t, g, w - H[members[0]])
        for i in members:
            what[i] = H[i] + Om
            H[i] = H[i] + hp["alpha_dwn"] * Om
    return {"w": w, "what": what, "H": H}


def one_memory_downlink(method, hp, state, w, down, receivers, divisor):
    """Worker i rebuilds from its own copy H_i, the server compresses against H_server."""
    t, n, server = state["t"], len(state["what"]), state["H_server"]
    what, H, sent = state["what"].copy(), state["H"].copy(), 0.0 * w
    for i in range(n):
        if receivers[i]:
            if method == "rand_mcm_reset" and t % hp["reset_every"] == 0:
                H[i] = server
            Om = down(t, i, w - server)
            what[i] = H[i] + Om
            H[i] = H[i] + hp["alpha_dwn"] * Om
            sent = sent + Om
    return {"w": w, "what": what, "H": H, "H_server": server + hp["alpha_dwn"] * sent / divisor}


def downlink(method, hp, state, gamma, ghat, down, receivers, divisor):
    """What the server step and its message change in the state."""
    t, w, n = state["t"], state["w"], len(state["what"])
    w_plus = w - gamma * ghat
    if method in ("sgd", "qsgd", "diana"):
        return {"w": w_plus, "what": rows(w_plus, n)}
    if method in ("biqsgd", "artemis"):
        w = w - gamma * down(t, 0, ghat)
        return {"w": w, "what": rows(w, n)}
    if method in ("dore", "double_squeeze"):
        v = ghat + hp["c_ef"] * state["e"]
        Om = down(t, 0, v)
        w = w - gamma * Om
        return {"w": w, "what": rows(w, n), "e": v - Om}
    if method == "ghost":
        return {"w": w_plus, "what": rows(w - gamma * down(t, 0, ghat), n)}
    if method == "artemis_nd":
        return {"w": w_plus, "what": rows(state["what"][0] - gamma * down(t, 0, ghat), n)}
    if method == "mc":
        return {"w": w_plus, "what": rows(down(t, 0, w_plus), n)}
    if method in ONE_SERVER_MEMORY:
        return one_memory_downlink(method, hp, state, w_plus, down, receivers, divisor)
    return group_downlink(method, hp, state, w_plus, down, receivers)


def average(hp, state):
    """w_bar += (w - w_bar)/(k+1) after every R-th round, k = rounds so far."""
    if hp["average_every"] is None:
        return state | {"point": state["w"]}
    w_bar, k = state["w_bar"], state["t"]
    if k % hp["average_every"] == 0:
        w_bar = w_bar + (state["w"] - w_bar) / (k + 1)
    return state | {"w_bar": w_bar, "point": w_bar}


def step(method, problem, hp, state, up, down, batch, active):
    t, n = state["t"], problem.n
    gamma = hp["gamma"](t) if callable(hp["gamma"]) else hp["gamma"]
    if hp["pp"] is None:
        senders, receivers, divisor = [True] * n, [True] * n, n
    else:
        senders, receivers, divisor = active(t), active(t + 1), hp["pp"] * n
    g = {}
    for i in range(n):
        if senders[i]:
            sample = () if batch is None else (batch(t, i),)
            g[i] = problem.grad(t, i, state["what"][i], *sample)
    ghat, sent = uplink(method, hp, state, g, up, divisor)
    received = downlink(method, hp, state, gamma, ghat, down, receivers, divisor)
    return average(hp, state | sent | received | {"t": t + 1})


def run(method, problem, hp, x0, steps, up, down, batch=None, active=None, state=None):
    """With `batch` the gradients are grad(t, i, x, batch(t, i)), else grad(t, i, x); `state` goes on from its own t."""
    state = init(method, problem.n, hp, x0) if state is None else state
    states = []
    for _ in range(steps):
        state = step(method, problem, DEFAULTS | hp, state, up, down, batch, active)
        states.append(state)
    return states


# Compressor, constants and bits.


def quantizer(x, u, s):
    """|x|_2 sign(x_j) floor(s |x_j|/|x|_2 + u_j)/s; s = 0 is the identity."""
    norm = math.sqrt(sum(float(value) ** 2 for value in x))
    if s == 0 or norm == 0.0:
        return x.copy()
    return np.array([norm * np.sign(x[j]) * math.floor(s * abs(x[j]) / norm + u[j]) / s for j in range(len(x))])


def quantizer_variance(x, s):
    """E|C(x) - x|^2 = (|x|^2/s^2) sum_j f_j (1 - f_j), f_j = frac(s |x_j|/|x|_2)."""
    norm = math.sqrt(sum(float(value) ** 2 for value in x))
    if s == 0 or norm == 0.0:
        return 0.0
    fractions = [math.modf(s * abs(value) / norm)[0] for value in x]
    return norm**2 / s**2 * sum(f * (1.0 - f) for f in fractions)


def alpha_repo(omega, c=2):
    return 1.0 / (c * (omega + 1.0))


def frobenius_smoothness(loss, clients):
    """The L_i from clients = [(X_i, y_i), ..]; the authors' L is their plain mean."""
    factor = {"lsr": 2.0, "logistic": 0.25}[loss]
    return [factor * math.sqrt(np.sum((X.T @ X) ** 2)) / len(X) for X, _ in clients]


def bits_repo(s, d, n):
    """One direction, all n workers, the repository's formula: natural log, and the 32 bits of the norm once."""
    if s == 0:
        return 32.0 * n * d
    nonzeros = s * (s + math.sqrt(d))
    return n * 4.5 * math.log(2.0 * (s**2 + d) / nonzeros) * nonzeros + 32.0


def qsgd_bits(s, d):
    """One vector, QSGD Theorem 3.2."""
    if s == 0:
        return 32.0 * d
    nonzeros = s * (s + math.sqrt(d))
    return (3.0 + 1.5 * math.log2(2.0 * (s**2 + d) / nonzeros)) * nonzeros + 32.0
