"""PowerGossip (2008.01425): low-rank differences along the edges, one loop over edges and matrices.

A model is a vector made of `shapes`, (a, b) for a matrix, (a,) for what is averaged dense; where it is shorter, the
last matrix has zeros at its end, of which nothing comes back.
`sides(e, l)` gives the normal (a, r) and (b, r) of edge e and matrix l at the start, `fresh(c, e, l)` those of inner
iteration c where sides are drawn anew. The order "dgd" takes the gradient at the model before gossip.
"""

from __future__ import annotations

import numpy as np

from . import graphs

DEFAULTS = {"order": "dgd", "inner": 1, "diffusion": 1.0, "rank": 1}


def orth(M):
    """Gram-Schmidt; a column that depends on the ones before it is zero."""
    result = np.zeros_like(M)
    for k in range(M.shape[1]):
        column = M[:, k].copy()
        for _ in range(2):
            for j in range(k):
                column = column - (result[:, j] @ column) * result[:, j]
        length = np.linalg.norm(column)
        if length > 1e-14 * np.linalg.norm(M[:, k]):
            result[:, k] = column / length
    return result


def parts(shapes):
    """(start, stop) of every parameter in the vector."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def power(D, p, q, c):
    """(new p, new q, floats sent by each end)."""
    if c % 2:
        q = orth(q)
        return D @ q, q, p.size
    p = orth(p)
    return p, D.T @ p, q.size


def gossip(hp, W, pairs, shapes, X, memory, c, fresh):
    """One inner iteration: (X, memory, floats that each node sends)."""
    new, memory, floats = X.copy(), dict(memory), np.zeros(len(X))
    for e, (i, j) in enumerate(pairs):
        for place, (shape, (start, stop)) in enumerate(zip(shapes, parts(shapes), strict=True)):
            D = X[j, start:stop] - X[i, start:stop]
            count = stop - start
            if len(shape) == 2:
                p, q = memory[e, place] if fresh is None else fresh(c, e, place)
                filled = np.pad(D, (0, count - len(D))).reshape(shape)
                p, q, count = power(filled, p, q, c)
                memory[e, place], D = (p, q), (p @ q.T).ravel()[: len(D)]
            move = hp["diffusion"] * W[i, j] * D
            new[i, start:stop] += move
            new[j, start:stop] -= move
            floats[i] += count
            floats[j] += count
    return new, memory, floats


def step(hp, W, pairs, shapes, grad, state, fresh):
    t, X, c, memory, floats = state["t"], state["x"], state["c"], state["sides"], 0.0
    g = np.array([grad(t, i, X[i]) for i in range(len(X))])
    if hp["order"] == "atc":
        X = X - hp["gamma"] * g
    if c == 0:
        c = 1
    else:
        for _ in range(hp["inner"]):
            X, memory, sent = gossip(hp, W, pairs, shapes, X, memory, c, fresh)
            c, floats = c + 1, floats + np.mean(sent)
    if hp["order"] == "dgd":
        X = X - hp["gamma"] * g
    sums = {way: state[way] + 32.0 * floats for way in ("bits_up", "bits_down")}
    return {"t": t + 1, "x": X, "point": np.mean(X, axis=0), "c": c, "sides": memory} | sums


def run(grad, W, hp, x0, steps, shapes, sides, fresh=None, state=None):
    """States after each iteration, as in `gossip.run`; sides maps (edge, place in `shapes`) to (p, q)."""
    hp, n = DEFAULTS | hp, len(W)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if W[i, j] != 0]
    assert n == 1 or graphs.connected(n, pairs)
    if state is None:
        X = np.array(x0, dtype=float)
        X = np.array([X] * n) if X.ndim == 1 else X
        matrices = [place for place, shape in enumerate(shapes) if len(shape) == 2]
        memory = {(e, place): sides(e, place) for e in range(len(pairs)) for place in matrices}
        state = {"t": 0, "x": X, "c": 0, "sides": memory, "bits_up": 0.0, "bits_down": 0.0}
    states = []
    for _ in range(steps):
        state = step(hp, W, pairs, shapes, grad, state, fresh)
        states.append(state)
    return states
