"""Gossip: n nodes on a graph, no server, one loop over nodes for every product with W.

`grad(t, i, x)` is node i's gradient in iteration t (0, 1, ..), t = -1 in the start of methods that need one there.
`compress(t, i, slot, v)`: slot 0 is the only message of an iteration, or BEER's H, and 1 is BEER's V.
`bits(slot, d)` is the length of one message, slot "dense" or "up". LESSBIT's A asks `argmin(i, z)`, the minimiser of
f_i(x) - <z, x>, its D asks `part(t, i, x)`, a stochastic gradient whose draw does not depend on x, and `coin(t, i)`.

Keys of a state: t iterations done, x (n, d), point their mean, bits_up and bits_down (means over nodes, from the
start), and the symbols of the spec in lower case: y, g, x_old, g_old, xh, xhw, e, h, gh, v, d, hw, z, phi, s.

Chosen, since no formula is given:
- LESSBIT's D keeps a point w_i and its full gradient; the coin moves w_i to the model after the step. (L-SVRG takes the
  one before it; what D takes is not known.)
- DeepSqueeze, DEF-ATC, CHOCO send from the first iteration on; NIDS's first iteration sends nothing.
"""

from __future__ import annotations

import numpy as np

CHOICES = {
    "order": {"dgd": ("atc", "dgd", "cta"), "diging": ("dgd", "atc"), "choco_sgd": ("new", "old")},
    "option": {"lessbit": ("A", "B", "C", "D")},
    "init": {"lead": ("local", "none"), "cold": ("local", "none"), "dyna_cold": ("local", "none")},
}


def mix(W, X):
    """W X, one sum over the nodes for each node."""
    result = np.zeros_like(X)
    for i in range(len(W)):
        for j in np.flatnonzero(W[i]):
            result[i] = result[i] + W[i, j] * X[j]
    return result


def push(W, X):
    """S X with S = W - I."""
    return mix(W, X) - X


# One iteration: new parts of the state, and how many messages were sent.


def dgd(hp, W, s, G, C):
    X, gamma = s["x"], hp["gamma"]
    if hp["order"] == "atc":
        return {"x": mix(W, X - gamma * G(X))}, {"dense": 1}
    if hp["order"] == "dgd":
        return {"x": mix(W, X) - gamma * G(X)}, {"dense": 1}
    Z = mix(W, X)
    return {"x": Z - gamma * G(Z)}, {"dense": 1}


def diging(hp, W, s, G, C):
    X, Y, gamma = s["x"], s["y"], hp["gamma"]
    if hp["order"] == "dgd":
        X = mix(W, X) - gamma * Y
        g = G(X)
        Y = mix(W, Y) + g - s["g"]
    else:
        X = mix(W, X - gamma * Y)
        g = G(X)
        Y = mix(W, Y + g - s["g"])
    return {"x": X, "y": Y, "g": g}, {"dense": 2}


def extra(hp, W, s, G, C):
    X, gamma, g = s["x"], hp["gamma"], G(s["x"])
    old = {"x_old": X, "g_old": g}
    if s["t"] == 0:
        return {"x": mix(W, X) - gamma * g} | old, {"dense": 1}
    half = (mix(W, s["x_old"]) + s["x_old"]) / 2.0
    return {"x": X + mix(W, X) - half - gamma * (g - s["g_old"])} | old, {"dense": 1}


def nids(hp, W, s, G, C):
    X, gamma, g = s["x"], hp["gamma"], G(s["x"])
    old = {"x_old": X, "g_old": g}
    if s["t"] == 0:
        return {"x": X - gamma * g} | old, {}
    inner = 2.0 * X - s["x_old"] - gamma * (g - s["g_old"])
    return {"x": (inner + mix(W, inner)) / 2.0} | old, {"dense": 1}


def choco_sgd(hp, W, s, G, C):
    """1902.00340."""
    Y = s["x"] - hp["gamma"] * G(s["x"])
    if hp["order"] == "new":
        Xh = s["xh"] + C(0, Y - s["xh"])
        return {"x": Y + hp["cg"] * push(W, Xh), "xh": Xh}, {"up": 1}
    X = Y + hp["cg"] * push(W, s["xh"])
    return {"x": X, "xh": s["xh"] + C(0, X - s["xh"])}, {"up": 1}


def deep_squeeze(hp, W, s, G, C):
    Y = s["x"] - hp["gamma"] * G(s["x"])
    v = Y + s["e"]
    c = C(0, v)
    return {"x": Y + hp["cg"] * push(W, c), "e": v - c}, {"up": 1}


def beer(hp, W, s, G, C):
    X = s["x"] + hp["cg"] * push(W, s["h"]) - hp["eta"] * s["v"]
    H = s["h"] + C(0, X - s["h"])
    g = G(X)
    V = s["v"] + hp["cg"] * push(W, s["gh"]) + g - s["g"]
    return {"x": X, "h": H, "v": V, "gh": s["gh"] + C(1, V - s["gh"]), "g": g}, {"up": 2}


def lead(hp, W, s, G, C):
    """2007.00232."""
    X, D, H, Hw, eta, alpha = s["x"], s["d"], s["h"], s["hw"], hp["eta"], hp["alpha"]
    g = G(X)
    Y = X - eta * g - eta * D
    q = C(0, Y - H)
    Yh, Yw = H + q, Hw + mix(W, q)
    H, Hw = (1.0 - alpha) * H + alpha * Yh, (1.0 - alpha) * Hw + alpha * Yw
    D = D + hp["gamma"] / (2.0 * eta) * (Yh - Yw)
    return {"x": X - eta * g - eta * D, "d": D, "h": H, "hw": Hw}, {"up": 1}


def cold(hp, W, s, G, C):
    """2105.06697, derived; Dyna-COLD is the same with a scale s_t around the compressor."""
    X, D, Xh, Xhw, eta = s["x"], s["d"], s["xh"], s["xhw"], hp["eta"]
    g = G(X)
    Y = X - eta * g - eta * D
    scale = s.get("s", 1.0)
    q = scale * C(0, (Y - Xh) / scale)
    Xh, Xhw = Xh + q, Xhw + mix(W, q)
    D = D + hp["gamma"] / (2.0 * eta) * (Xh - Xhw)
    new = {"x": X - eta * g - eta * D, "d": D, "xh": Xh, "xhw": Xhw}
    if "s" in s:
        new |= {"s": max(hp["sigma"] * scale, hp["floor"]), "overload": float(np.max(np.abs(Y - s["xh"])) / scale)}
    return new, {"up": 1}


def lessbit(hp, W, s, G, C):
    """2011.01697, derived."""
    t, X, Z, H, Hw, new = s["t"], s["x"], s["z"], s["h"], s["hw"], {}
    if hp["option"] == "A":
        X = np.array([hp["argmin"](i, Z[i]) for i in range(len(Z))])
    elif hp["option"] == "D":
        full, part, w = hp["full"], hp["part"], s["w"]
        ghat = [part(t, i, X[i]) - part(t, i, w[i]) + full(i, w[i]) for i in range(len(X))]
        X = X - hp["eta"] * (np.array(ghat) - Z)
        new["w"] = np.array([X[i] if hp["coin"](t, i) else w[i] for i in range(len(X))])
    else:
        X = X - hp["eta"] * (G(X) - Z)
    q = C(0, X - H)
    Xh, Xhw = H + q, Hw + mix(W, q)
    new |= {"x": X, "z": Z - hp["theta"] * (Xh - Xhw), "h": H + hp["alpha"] * q, "hw": Hw + hp["alpha"] * mix(W, q)}
    return new, {"up": 1}


def def_atc(hp, W, s, G, C):
    """2406.18418; the step size is called mu there."""
    step = hp["gamma"] / hp["zeta"] if hp["scaled"] else hp["gamma"]
    psi = s["x"] - step * G(s["x"])
    inner = psi - s["phi"] + s["z"]
    delta = C(0, inner)
    phi = s["phi"] + hp["zeta"] * delta
    return {"x": (1.0 - hp["cg"]) * phi + hp["cg"] * mix(W, phi), "z": inner - delta, "phi": phi}, {"up": 1}


METHODS = {
    "dgd": dgd,
    "diging": diging,
    "extra": extra,
    "nids": nids,
    "choco_sgd": choco_sgd,
    "deep_squeeze": deep_squeeze,
    "beer": beer,
    "lead": lead,
    "cold": cold,
    "dyna_cold": cold,
    "lessbit": lessbit,
    "def_atc": def_atc,
}
DEFAULTS = {
    "dgd": {"order": "atc"},
    "diging": {"order": "dgd"},
    "choco_sgd": {"order": "new", "xh": "zero"},
    "beer": {"start": "zero"},
    "lead": {"init": "local", "alpha": 0.5, "gamma": 1.0},
    "cold": {"init": "local"},
    "dyna_cold": {"init": "local", "floor": 0.0},
    "lessbit": {"option": "A"},
    "def_atc": {"scaled": True, "phi": "zero"},
}


# Runs.


def memories(name, hp, W, X, G):
    """What the method keeps besides x, and the x that it starts from."""
    zero = 0.0 * X
    if name == "diging":
        g = G(X)
        return {"x": X, "y": g, "g": g}
    if name == "beer":
        g = G(X)
        exact = hp["start"] == "exact"
        return {"x": X, "v": g, "g": g, "h": X if exact else zero, "gh": g if exact else zero}
    if name == "choco_sgd":
        return {"x": X, "xh": X if hp["xh"] == "x0" else zero}
    if name == "deep_squeeze":
        return {"x": X, "e": zero}
    if name == "def_atc":
        return {"x": X, "z": zero, "phi": X if hp["phi"] == "x0" else zero}
    if name in ("lead", "cold", "dyna_cold"):
        start = {"x": X - hp["eta"] * G(X) if hp["init"] == "local" else X, "d": zero}
        start |= dict.fromkeys(("h", "hw") if name == "lead" else ("xh", "xhw"), zero)
        return start | ({"s": hp["s0"]} if name == "dyna_cold" else {})
    if name == "lessbit":
        return {"x": X, "z": zero, "h": zero, "hw": zero} | ({"w": X} if hp["option"] == "D" else {})
    return {"x": X}


def init(name, grad, W, hp, x0):
    """x0 (d,), or (n, d) where nodes start apart."""
    n = len(W)
    X = np.array(x0, dtype=float)
    X = np.array([X] * n) if X.ndim == 1 else X
    G = lambda X: np.array([grad(-1, i, X[i]) for i in range(n)])
    state = {"t": 0, "bits_up": 0.0, "bits_down": 0.0} | memories(name, hp, W, X, G)
    return state | {"point": np.mean(state["x"], axis=0)}


def float32(slot, d):
    return 32.0 * d


def sent(W, lengths, count):
    """(up, down): means over nodes of what a node sends and receives, if its messages have `lengths` in all."""
    n = len(W)
    linked = [[j for j in range(n) if j != i and W[i, j] != 0] for i in range(n)]
    times = [len(linked[i]) if count == "per_edge" else min(1, len(linked[i])) for i in range(n)]
    return sum(times) * lengths / n, sum(len(linked[i]) for i in range(n)) * lengths / n


def run(name, grad, W, hp, x0, steps, compress=None, bits=float32, count="per_edge", state=None):
    """States after each iteration; `state` goes on from its own t. W is a matrix or a function of t."""
    hp = DEFAULTS.get(name, {}) | hp
    for field, methods in CHOICES.items():
        if name in methods and hp[field] not in methods[name]:
            raise ValueError(f"{field}: expected one of {methods[name]}, got {hp[field]!r}")
    of = W if callable(W) else lambda t: W
    state, states = init(name, grad, of(0), hp, x0) if state is None else state, []
    for _ in range(steps):
        t, n, now = state["t"], len(state["x"]), of(state["t"])
        G = lambda X, t=t, n=n: np.array([grad(t, i, X[i]) for i in range(n)])
        C = lambda slot, V, t=t, n=n: np.array([compress(t, i, slot, V[i]) for i in range(n)])
        new, messages = METHODS[name](hp, now, state, G, C)
        length = sum(times * bits(slot, state["x"].shape[1]) for slot, times in messages.items())
        up, down = sent(now, length, count)
        sums = {"bits_up": state["bits_up"] + up, "bits_down": state["bits_down"] + down}
        state = state | new | sums | {"t": t + 1, "point": np.mean(new["x"], axis=0)}
        states.append(state)
    return states
