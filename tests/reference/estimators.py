"""Gradient estimators that follow the gradients by compressed differences: EF21 and its kin, EControl, MARINA.

`grad(t, i, x)` is client i's gradient on the batch of iteration t; t = -1 is the batch of the start, where x0 is known
to all. `compress(t, i, slot, v)` has slot "up", or "down" with i = 0. `coin(t)` is MARINA's shared coin, true for a
dense round; `cohort(t)` lists the r clients that send in PP-MARINA's other rounds. `bits(slot, d)` is the length of one
message "up", "down" or "dense".

Keys of a state: t, x, point = x, g the direction of the next step (not EControl), buf of OPT (see feedback.py),
bits_up and bits_down per worker with the start's messages, and what the method has of g_i (the compressed memory, G_i
of EF21-SGDM), v_i, u_i, h_i, e_i, error (EControl's mean e_i).

Chosen, since no formula is given:
- EF21-SGDM loops as EF21: x moves first, then the gradients at the new x; it starts at v_i = u_i = g_i(x0), and `init`
  is that of G_i. EControl loops as listed: gradients at x, then x moves.
- EF21-BC starts at g = mean g_i, sent dense, with dense `init`, else at g = C_down(mean g_i).
- MARINA's dense rounds take the batch of their iteration, as the others do. PP-MARINA's dense rounds have all clients.
- bits_up of PP-MARINA is the mean over all clients, r/n of a message. All downlinks but EF21-BC's are dense.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .feedback import cost, float32, mean, opt

CHOICES = {"init": ("dense", "compressed")}
DEFAULTS = {"mom": 0.0, "wd": 0.0, "init": "dense", "double": False}
MARINAS = ("marina", "pp_marina")


def moved(hp, s, g):
    x, buf = opt(hp, s["x"], g, s["buf"])
    return {"x": x, "buf": buf}


def sent(C, vectors):
    """C_up of each client's vector."""
    return np.array([C(i, "up", v) for i, v in enumerate(vectors)])


# One iteration: changes of the state, messages up, messages down. G(x) is (n, d), the gradients on this batch.


def ef21(hp, s, G, C):
    """2106.05203."""
    new = moved(hp, s, s["g"])
    c_i = sent(C, G(new["x"]) - s["g_i"])
    return new | {"g_i": s["g_i"] + c_i, "g": s["g"] + mean(c_i)}, {"up": 1}, {"dense": 1}


def ef21_bc(hp, s, G, C):
    """2110.03294."""
    new = moved(hp, s, s["g"])
    g_i = s["g_i"] + sent(C, G(new["x"]) - s["g_i"])
    b = C(0, "down", mean(g_i) - s["g"])
    return new | {"g_i": g_i, "g": s["g"] + b}, {"up": 1}, {"down": 1}


def ef21_sgdm(hp, s, G, C):
    """2305.15155; with `double`, momentum is taken twice."""
    new, eta = moved(hp, s, s["g"]), hp["eta"]
    new["v_i"] = target = (1.0 - eta) * s["v_i"] + eta * G(new["x"])
    if hp["double"]:
        new["u_i"] = target = (1.0 - eta) * s["u_i"] + eta * target
    g_i = s["g_i"] + sent(C, target - s["g_i"])
    return new | {"g_i": g_i, "g": mean(g_i)}, {"up": 1}, {"dense": 1}


def econtrol(hp, s, G, C):
    """2311.05645."""
    g = G(s["x"])
    h_i = s["h_i"] + sent(C, hp["eta"] * s["e_i"] + g - s["h_i"])
    e_i = s["e_i"] + g - h_i
    return moved(hp, s, mean(h_i)) | {"h_i": h_i, "e_i": e_i, "error": mean(e_i)}, {"up": 1}, {"dense": 1}


def marina(hp, s, G, C, c, S):
    """2102.07845 (with partial participation recalled only); c the coin, S the clients that send if it is false."""
    new = moved(hp, s, s["g"])
    g = G(new["x"])
    if c:
        return new | {"g": mean(g)}, {"dense": 1}, {"dense": 1}
    old = G(s["x"])
    change = mean([C(i, "up", g[i] - old[i]) for i in S])
    return new | {"g": s["g"] + change}, {"up": len(S) / len(g)}, {"dense": 1}


METHODS = {
    "ef21": ef21,
    "ef21_bc": ef21_bc,
    "ef21_sgdm": ef21_sgdm,
    "econtrol": econtrol,
    "marina": marina,
    "pp_marina": marina,
}


# Runs.


def start(method, hp, g, C):
    """(memories, messages up, messages down) from the gradients g (n, d) at x0."""
    if method in MARINAS:
        return {"g": mean(g)}, {"dense": 1}, {}
    if method == "econtrol":
        return {"h_i": g, "e_i": 0.0 * g, "error": 0.0 * g[0]}, {"dense": 1}, {}
    dense = hp["init"] == "dense"
    g_i = g if dense else sent(C, g)
    memory, up, down = {"g_i": g_i, "g": mean(g_i)}, {"dense" if dense else "up": 1}, {}
    if method == "ef21_bc":
        down = {"dense" if dense else "down": 1}
        memory["g"] = mean(g_i) if dense else C(0, "down", mean(g_i))
    if method == "ef21_sgdm":
        memory |= {"v_i": g, "u_i": g} if hp["double"] else {"v_i": g}
    return memory, up, down


def init(method, grad, compress, n, hp, x0, bits=float32):
    """Before the first iteration; all compressor calls and gradients have t = -1."""
    x = np.array(x0, dtype=float)
    g = np.array([grad(-1, i, x) for i in range(n)])
    memory, up, down = start(method, DEFAULTS | hp, g, partial(compress, -1))
    sums = {"bits_up": float(cost(bits, up, len(x))), "bits_down": float(cost(bits, down, len(x)))}
    return {"t": 0, "x": x, "point": x, "buf": 0.0 * x} | sums | memory


def step(method, grad, compress, n, hp, state, bits, coin, cohort):
    t, d = state["t"], len(state["x"])
    hp = hp | {"gamma": hp["gamma"](t) if callable(hp["gamma"]) else hp["gamma"]}
    extra = ()
    if method in MARINAS:
        extra = (coin(t), range(n) if method == "marina" else [int(i) for i in cohort(t)])

    def G(x):
        return np.array([grad(t, i, x) for i in range(n)])

    changes, up, down = METHODS[method](hp, state, G, partial(compress, t), *extra)
    sums = {
        "bits_up": state["bits_up"] + cost(bits, up, d),
        "bits_down": state["bits_down"] + cost(bits, down, d),
    }
    return state | changes | sums | {"t": t + 1, "point": changes["x"]}


def run(method, grad, compress, n, hp, x0, steps, bits=float32, coin=None, cohort=None, state=None):
    """States after each iteration; `state` goes on from its own t. gamma is a number or a function of t.

    hp: gamma; eta of EF21-SGDM and EControl; the others have DEFAULTS.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {tuple(METHODS)}, got {method!r}")
    hp = DEFAULTS | hp
    for name, values in CHOICES.items():
        if hp[name] not in values:
            raise ValueError(f"{name}: expected one of {values}, got {hp[name]!r}")
    state, states = init(method, grad, compress, n, hp, x0, bits) if state is None else state, []
    for _ in range(steps):
        state = step(method, grad, compress, n, hp, state, bits, coin, cohort)
        states.append(state)
    return states
