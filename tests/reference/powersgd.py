"""PowerSGD (1905.13727): low-rank averages of matrices, sides kept from step to step, both published variants.

A model is a vector made of `shapes`, (a, b) for a matrix, anything else for what is averaged dense. `side(l)` gives the
normal (a, r) and (b, r) of matrix l at the start. `grad(t, i, x)` is client i's gradient of step t.

Chosen, since no formula is given: dense steps at the start do not advance the alternating variant's counter c.
"""

from __future__ import annotations

import numpy as np

from .power_gossip import orth, parts

CHOICES = {"variant": ("paper", "alternating"), "errors": ("mean", "each")}
DEFAULTS = {
    "variant": "paper",
    "errors": "mean",
    "rank": 1,
    "iters": 1,
    "mom": 0.0,
    "wd": 0.0,
    "start_dense": 0,
    "min_rate": 0.0,
}


def mean(parts):
    return sum(parts) / len(parts)


def saving(hp, shape, rank):
    a, b = shape
    r = min(rank, a, b)
    cost = r * (a + b) if hp["variant"] == "paper" else r * (a + b) / 2.0 * hp["iters"]
    return a * b / cost


def compressed(hp, shapes):
    """Whether each is; hp["rank"] is one for all, or has one for each of the shapes."""
    ranks = hp["rank"] if isinstance(hp["rank"], tuple) else (hp["rank"],) * len(shapes)
    if len(ranks) != len(shapes):
        raise ValueError(f"rank: expected as many as shapes, {len(shapes)}, got {ranks}")
    return [
        len(shape) == 2 and saving(hp, shape, rank) > hp["min_rate"] for shape, rank in zip(shapes, ranks, strict=True)
    ]


def paper(hp, M, sides, c):
    """(out, what each M_i leaves, sides, floats sent)."""
    P, Q = sides
    P = orth(mean([m @ Q for m in M]))
    Q = mean([m.T @ P for m in M])
    out = P @ Q.T
    return out, [m - out for m in M], (P, Q), P.size + Q.size


def alternating(hp, M, sides, c):
    (P, Q), out, floats = sides, 0.0 * M[0], 0
    for _ in range(hp["iters"]):
        if c % 2 == 0:
            P = orth(P)
            Q_i = [m.T @ P for m in M]
            M = [m - P @ q.T for m, q in zip(M, Q_i, strict=True)]
            Q, floats = mean(Q_i), floats + Q.size
        else:
            Q = orth(Q)
            P_i = [m @ Q for m in M]
            M = [m - p @ Q.T for m, p in zip(M, P_i, strict=True)]
            P, floats = mean(P_i), floats + P.size
        out, c = out + P @ Q.T, c + 1
    return out, M, (P, Q), floats


def aggregate(hp, shapes, g, e, sides, c, t):
    """(out (d,), e, sides, c, floats each way) from the gradients g (n, d) and errors e of as many rows, or of one."""
    out, new, sides, floats = 0.0 * g[0], 0.0 * e, list(sides), 0
    rows = g if len(e) == len(g) else np.array([mean(list(g))])
    dense = t < hp["start_dense"]
    for place, (shape, small, (start, stop)) in enumerate(
        zip(shapes, compressed(hp, shapes), parts(shapes), strict=True)
    ):
        if dense or not small:
            out[start:stop], floats = mean(list(rows[:, start:stop])), floats + stop - start
            continue
        M = [(row[start:stop] + own[start:stop]).reshape(shape) for row, own in zip(rows, e, strict=True)]
        step = paper if hp["variant"] == "paper" else alternating
        value, left, sides[place], sent = step(hp, M, sides[place], c)
        out[start:stop], floats = value.ravel(), floats + sent
        for i, M_i in enumerate(left):
            new[i, start:stop] = M_i.ravel()
    return out, new, sides, c if dense else c + hp["iters"], floats


def init(hp, x0, n, shapes, side):
    x, count = np.array(x0, dtype=float), n if hp["errors"] == "each" else 1
    sides = [side(place) if small else None for place, small in enumerate(compressed(hp, shapes))]
    return {"t": 0, "c": 0, "x": x, "e": np.zeros((count, len(x))), "m": 0.0 * x, "sides": sides, "bits_up": 0.0}


def run(grad, n, hp, x0, steps, shapes, side, state=None):
    """States after each step; e has one row (the mean error) or n. `out` is what was applied, without weight decay."""
    hp = DEFAULTS | hp
    for field, values in CHOICES.items():
        if hp[field] not in values:
            raise ValueError(f"{field}: expected one of {values}, got {hp[field]!r}")
    state, states = init(hp, x0, n, shapes, side) if state is None else state, []
    for _ in range(steps):
        t, x = state["t"], state["x"]
        g = np.array([grad(t, i, x) for i in range(n)])
        out, e, sides, c, floats = aggregate(hp, shapes, g, state["e"], state["sides"], state["c"], t)
        u, m = out + hp["wd"] * x, state["m"]
        if hp["mom"]:
            m = u if t == 0 else hp["mom"] * m + u
            u = u + m
        bits = state["bits_up"] + 32.0 * floats
        state = {"t": t + 1, "c": c, "x": x - hp["gamma"] * u, "e": e, "m": m, "sides": sides, "bits_up": bits}
        state |= {"point": state["x"], "out": out, "bits_down": bits}
        states.append(state)
    return states
