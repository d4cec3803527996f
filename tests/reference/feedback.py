"""Error feedback both ways: who keeps which error, and when it is paid back (2402.11857 and its comparison set).

Every iteration gives a direction u at a base model, then OPT: buf = mom buf + u + wd base, x = base - gamma buf.
DORE is its paper's form without a regulariser. CSER's and LIEC-SGD's updates are those of LIEC-SGD's authors' code.

`grad(t, i, x)` is client i's gradient of iteration t (0, 1, ..); with `accumulate` it is `grad(t, i, x, r)`, r < R.
`compress(t, i, slot, v)` has slot "up" (CSER's C2), "down" (with i = 0) or "reset" (CSER's C1); the later messages of
NEOLITHIC's rounds 1, 2, .. are "up1", "up2", .., "down1", ... `bits(slot, d)` is the length of one message "up",
"down", "reset" or "dense".

Keys of a state: t iterations done, x the common model or the mean of the x_i, point the model to evaluate, error what
is still owed in gradient units (not for DORE), bits_up and bits_down per worker from the start, buf (buf_i with local
models), and what the method has of x_i, e_i, e, h_i, h. DORE's e is in units of the model, all other errors in those of
the gradient: with a gamma that changes, a virtual iterate x - gamma error jumps by (gamma_old - gamma_new) error.

Chosen, since no formula is given:
- DORE's u is -(beta/gamma) qh, so weight decay and momentum act after decompression there too.
- CSER's reset is part of u, E' - E + (mean C2 + r), so it passes the momentum buffer. Outside it the buffer would
  amplify each r_i by 1/(1 - mom) and the reset take it off once: the models would separate for ever.
- Weight decay acts on CSER's x_i, not on its E_i: x_i + gamma E_i is common to all i only without it.
- NEOLITHIC's accumulated gradient is the mean of R draws at the same model, g_i = mean_r grad(t, i, x, r).
- "sparse" counts CSER's downlink as long as its uplink.
"""

from __future__ import annotations

from functools import partial

import numpy as np

LOCAL = ("cser", "liec_sgd")
CHOICES = {"sync_vectors": (1, 2), "down": ("dense", "sparse")}
DEFAULTS = {
    "mom": 0.0,
    "wd": 0.0,
    "R": 2,
    "accumulate": False,
    "sync_vectors": 2,
    "down": "dense",
    "beta": 1.0,
    "eta": 1.0,
}


def rows(x, n):
    return np.array([x] * n)


def mean(vectors):
    return sum(vectors) / len(vectors)


def opt(hp, base, u, buf):
    """(model, buf); all models at once if they are rows."""
    buf = hp["mom"] * buf + u + hp["wd"] * base
    return base - hp["gamma"] * buf, buf


def float32(slot, d):
    return 32.0 * d


def cost(bits, messages, d):
    """`messages` maps a slot to how many are sent."""
    return sum(count * bits(slot, d) for slot, count in messages.items())


# One iteration from the gradients g (n, d): base, u, new memories, messages up, messages down.


def sgd(hp, s, g, C):
    """P-SGD."""
    return s["x"], mean(g), {}, {"dense": 1}, {"dense": 1}


def mem_sgd(hp, s, g, C):
    """1809.07599, 1901.09847."""
    v_i = g + s["e_i"]
    m_i = np.array([C(i, "up", v) for i, v in enumerate(v_i)])
    return s["x"], mean(m_i), {"e_i": v_i - m_i}, {"up": 1}, {"dense": 1}


def fcc(send, slot, R, z):
    """FCC_R: R messages, each of what the earlier ones left."""
    total = 0.0 * z
    for r in range(R):
        total = total + send(f"{slot}{r}" if r else slot, z - total)
    return total


def neolithic(hp, s, g, C):
    """2206.03665; the accumulation is recalled only."""
    v_i = g + s["e_i"]
    m_i = np.array([fcc(partial(C, i), "up", hp["R"], v) for i, v in enumerate(v_i)])
    v = mean(m_i) + s["e"]
    c = fcc(partial(C, 0), "down", hp["R"], v)
    return s["x"], c, {"e_i": v_i - m_i, "e": v - c}, {"up": hp["R"]}, {"down": hp["R"]}


def double_squeeze(hp, s, g, C):
    """1905.05957."""
    v_i = g + s["e_i"]
    m_i = np.array([C(i, "up", v) for i, v in enumerate(v_i)])
    v = mean(m_i) + s["e"]
    c = C(0, "down", v)
    return s["x"], c, {"e_i": v_i - m_i, "e": v - c}, {"up": 1}, {"down": 1}


def psync(C, slot, v_i):
    m_i = np.array([C(i, slot, v) for i, v in enumerate(v_i)])
    r_i = v_i - m_i
    return mean(m_i) + r_i, r_i


def cser(hp, s, g, C):
    """2007.13221; E_i is the paper's -e_i/gamma."""
    sent = {"up": 1}
    u, r_i = psync(C, "up", g)
    E_i = s["e_i"] + r_i
    if (s["t"] + 1) % hp["H"] == 0:
        sent = {"up": 1, "reset": 1}
        kept, rest = psync(C, "reset", E_i)
        u, E_i = u - E_i + kept, rest
    return s["x_i"], u, {"e_i": E_i}, sent, sent if hp["down"] == "sparse" else {"dense": sum(sent.values())}


def liec_sgd(hp, s, g, C):
    """2402.11857: the worker's error is applied to its own model at once."""
    n, x_i = len(g), s["x_i"]
    if (s["t"] + 1) % hp["p"] == 0:
        dense = {"dense": hp["sync_vectors"]}
        return rows(mean(x_i), n), rows(mean(g) + s["e"], n), {"e": 0.0 * s["e"]}, dense, dense
    m_i = np.array([C(i, "up", v) for i, v in enumerate(g)])
    v = mean(m_i) + s["e"]
    c = C(0, "down", v)
    return x_i, c + (g - m_i), {"e": v - c}, {"up": 1}, {"down": 1}


def dore(hp, s, g, C):
    """1910.07561, smooth case; x is xh, the model of the workers."""
    D_i = np.array([C(i, "up", v) for i, v in enumerate(g - s["h_i"])])
    ghat = s["h"] + mean(D_i)
    memory = {"h_i": s["h_i"] + hp["alpha"] * D_i, "h": s["h"] + hp["alpha"] * mean(D_i)}
    q = -hp["gamma"] * ghat + hp["eta"] * s["e"]
    qh = C(0, "down", q)
    return s["x"], -hp["beta"] / hp["gamma"] * qh, memory | {"e": q - qh}, {"up": 1}, {"down": 1}


METHODS = {
    "sgd": sgd,
    "mem_sgd": mem_sgd,
    "double_squeeze": double_squeeze,
    "cser": cser,
    "neolithic": neolithic,
    "liec_sgd": liec_sgd,
    "dore": dore,
}


# Runs.


def with_summary(method, state):
    """x of local models, point, error: from the memories."""
    x = mean(state["x_i"]) if method in LOCAL else state["x"]
    state = state | {"x": x, "point": x}
    if method == "dore":
        return state
    return state | {"error": 0.0 * x + (mean(state["e_i"]) if "e_i" in state else 0.0) + state.get("e", 0.0)}


def init(method, n, x0):
    """Before the first iteration: all models x0, all memories zero."""
    x = np.array(x0, dtype=float)
    zero, zeros = 0.0 * x, rows(0.0 * x, n)
    state = {"t": 0, "x": x, "bits_up": 0.0, "bits_down": 0.0}
    state |= {"x_i": rows(x, n), "buf_i": zeros} if method in LOCAL else {"buf": zero}
    if method in ("mem_sgd", "double_squeeze", "neolithic", "cser"):
        state["e_i"] = zeros
    if method in ("double_squeeze", "neolithic", "liec_sgd", "dore"):
        state["e"] = zero
    if method == "dore":
        state |= {"h_i": zeros, "h": zero}
    return with_summary(method, state)


def gradients(method, grad, n, hp, state):
    t, models = state["t"], state["x_i"] if method in LOCAL else rows(state["x"], n)
    if method == "neolithic" and hp["accumulate"]:
        return np.array([mean([grad(t, i, models[i], r) for r in range(hp["R"])]) for i in range(n)])
    return np.array([grad(t, i, models[i]) for i in range(n)])


def step(method, grad, compress, n, hp, state, bits):
    t, local = state["t"], method in LOCAL
    hp = hp | {"gamma": hp["gamma"](t) if callable(hp["gamma"]) else hp["gamma"]}
    g = gradients(method, grad, n, hp, state)
    base, u, memory, up, down = METHODS[method](hp, state, g, partial(compress, t))
    x, buf = opt(hp, base, u, state["buf_i" if local else "buf"])
    d = len(state["x"])
    sent = {
        "bits_up": state["bits_up"] + cost(bits, up, d),
        "bits_down": state["bits_down"] + cost(bits, down, d),
    }
    models = {"x_i": x, "buf_i": buf} if local else {"x": x, "buf": buf}
    return with_summary(method, state | memory | models | sent | {"t": t + 1})


def run(method, grad, compress, n, hp, x0, steps, bits=float32, state=None):
    """States after each iteration; `state` goes on from its own t. gamma is a number or a function of t.

    hp: gamma; p of LIEC-SGD, H of CSER, alpha of DORE; the others have DEFAULTS.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {tuple(METHODS)}, got {method!r}")
    hp = DEFAULTS | hp
    for name, values in CHOICES.items():
        if hp[name] not in values:
            raise ValueError(f"{name}: expected one of {values}, got {hp[name]!r}")
    if method == "liec_sgd" and hp["sync_vectors"] == 1 and hp["mom"]:
        raise ValueError("sync_vectors: one vector suffices only without momentum")
    state, states = init(method, n, x0) if state is None else state, []
    for _ in range(steps):
        state = step(method, grad, compress, n, hp, state, bits)
        states.append(state)
    return states
