"""SAVIC (2406.00846, the shape of the algorithm recalled only): Local SGD with a diagonal scaling of the local steps.

x_i -= gamma u_i / Dhat, u_i = g_i or its moving average; D is refreshed from the first local gradients of a round.

`probe(p, i, j)` is the j-th +-1 vector of client i at refresh p = 1, 2, ..; a caller who shares probes ignores i.
`cohort(t)` lists the clients of round t; None means all.
"""

from __future__ import annotations

import numpy as np

FAMILIES = {"adam": "sq", "adahessian": "sq", "rmsprop": "sq", "oasis": "lin"}
RULES = (*FAMILIES, "adagrad", "none", "fixed")
HESSIAN = ("oasis", "adahessian")
CHOICES = {
    "rule": RULES,
    "scaling": ("global", "local_sync", "local"),
    "agg": ("grad", "sq"),
    "timing": ("fresh", "stale"),
    "clip": ("max", "add"),
}
DEFAULTS = {name: values[0] for name, values in CHOICES.items()} | {
    "alpha": 1e-2,
    "beta": 0.999,
    "b1": 0.0,
    "n_warm": 20,
    "lag": False,
}


def rows(x, n):
    return np.array([x] * n)


def mean(vectors):
    """The sum in order, over the number of vectors."""
    vectors = list(vectors)
    result = np.zeros_like(vectors[0])
    for v in vectors:
        result = result + v
    return result / len(vectors)


def check(hp, cohort):
    for name, values in CHOICES.items():
        if hp[name] not in values:
            raise ValueError(f"{name}: expected one of {values}, got {hp[name]!r}")
    if not hp["alpha"] > 0:
        raise ValueError(f"alpha: expected a positive number, got {hp['alpha']!r}")
    if hp["timing"] == "stale" and (cohort is not None or hp["lag"]):
        raise ValueError("timing: stale is defined with all clients and without lag")
    if hp["lag"] and hp["scaling"] == "local":
        raise ValueError("lag: defined for one refresh per round")


def init(problem, hp, x0):
    """Before the first round: D = 0 (ones for none, the supplied one for fixed); t counts rounds, p refreshes."""
    hp, n, x0 = DEFAULTS | hp, problem.n, np.array(x0, dtype=float)
    D = {"none": np.ones_like(x0), "fixed": hp.get("D")}.get(hp["rule"], np.zeros_like(x0))
    D, p = np.array(D, dtype=float), 0
    if hp["scaling"] != "global":
        D, p = np.array(np.broadcast_to(D, (n, len(x0)))), np.zeros(n, int)
    return {
        "t": 0,
        "x": x0,
        "x_i": rows(x0, n),
        "D": D,
        "Dhat": clipped(hp, D),
        "p": p,
        "mom": rows(0.0 * x0, n),
    }


def clipped(hp, D):
    if hp["rule"] == "none":
        return D
    return np.maximum(hp["alpha"], np.abs(D)) if hp["clip"] == "max" else hp["alpha"] + np.abs(D)


def beta_t(rule, beta, p):
    """The weight b_p of the old D at refresh p >= 1; 0 at the first."""
    if rule in ("adam", "adahessian"):
        return (beta - beta**p) / (1.0 - beta**p)
    if rule in ("rmsprop", "oasis"):
        return 0.0 if p == 1 else beta
    raise ValueError(f"rule: {rule!r} has no weight b_p")


def updated(hp, D, S, p):
    """The rule: sq D^2 = b D^2 + (1-b) S^2, lin D = b D + (1-b) S, AdaGrad D^2 = D^2 + S^2."""
    rule = hp["rule"]
    if rule in ("none", "fixed"):
        return D
    if rule == "adagrad":
        return np.sqrt(D**2 + S**2)
    b = beta_t(rule, hp["beta"], p)
    if FAMILIES[rule] == "sq":
        return np.sqrt(b * D**2 + (1.0 - b) * S**2)
    return b * D + (1.0 - b) * S


def statistic(problem, hp, t, i, h, x, g, p, probe):
    """The gradient, or v (.) (Hessian v), averaged over n_warm probes at the first refresh."""
    if hp["rule"] not in HESSIAN:
        return g
    probes = [np.asarray(probe(p, i, j), dtype=float) for j in range(hp["n_warm"] if p == 1 else 1)]
    return mean(v * problem.hvp(t, i, h, x, v) for v in probes)


def aggregated(hp, statistics):
    if hp["agg"] == "grad":
        return mean(statistics)
    return np.sqrt(mean(S**2 for S in statistics))


def refresh(problem, hp, state, h, g, probe):
    """One D from the mean statistic, or D_i of every client with a gradient from its own."""
    t, x_i = state["t"], state["x_i"]
    if hp["scaling"] == "global":
        p = state["p"] + 1
        S = aggregated(hp, [statistic(problem, hp, t, i, h, x_i[i], g[i], p, probe) for i in g])
        D = updated(hp, state["D"], S, p)
    else:
        p, D = state["p"].copy(), state["D"].copy()
        for i in g:
            p[i] = p[i] + 1
            D[i] = updated(hp, D[i], statistic(problem, hp, t, i, h, x_i[i], g[i], p[i], probe), p[i])
    return {"D": D, "Dhat": clipped(hp, D), "p": p}


def local_step(hp, state, g):
    """mom_i = b1 mom_i + (1-b1) g_i, which is g_i at b1 = 0; x_i -= gamma mom_i / Dhat."""
    x_i, mom = state["x_i"].copy(), state["mom"].copy()
    for i in g:
        Dhat = state["Dhat"] if hp["scaling"] == "global" else state["Dhat"][i]
        mom[i] = hp["b1"] * mom[i] + (1.0 - hp["b1"]) * g[i]
        x_i[i] = x_i[i] - hp["gamma"] * mom[i] / Dhat
    return {"x_i": x_i, "mom": mom}


def synchronised(state, members):
    """Every client, absent ones too, gets the mean model and the mean momentum of the members."""
    n, x = len(state["x_i"]), mean(state["x_i"][i] for i in members)
    return {"x": x, "x_i": rows(x, n), "mom": rows(mean(state["mom"][i] for i in members), n)}


def step(problem, hp, state, members, probe):
    """H local steps. Fresh: averaged after the last. Stale (recalled only): averaged after the first.

    In a stale round the first gradients are at the un-averaged x_i, and x_i ends un-averaged.
    With `lag` the steps of a round divide by the Dhat of the round before.
    """
    t, late = state["t"], {}
    for h in range(hp["H"]):
        g = {i: problem.grad(t, i, h, state["x_i"][i]) for i in members}
        if h == 0 or hp["scaling"] == "local":
            new = refresh(problem, hp, state, h, g, probe)
            state, late = (state, new) if hp["lag"] else (state | new, {})
        state = state | local_step(hp, state, g)
        if h == 0 and hp["timing"] == "stale":
            state = state | synchronised(state, members)
    if hp["timing"] == "fresh":
        state = state | synchronised(state, members)
    return state | late | {"t": t + 1}


def run(problem, hp, x0, rounds, probe=None, cohort=None, state=None):
    """States after each round; the gradients are problem.grad(t, i, h, x), the products problem.hvp(t, i, h, x, v).

    p is a number for global scaling, else one per client (a client out of the cohort does not refresh).
    """
    hp = DEFAULTS | hp
    check(hp, cohort)
    state = init(problem, hp, x0) if state is None else state
    states = []
    for _ in range(rounds):
        members = range(problem.n) if cohort is None else [int(i) for i in cohort(state["t"])]
        state = step(problem, hp, state, members, probe)
        states.append(state)
    return states


# Closed forms, for f_m(x) = (x - c_m)' A_m (x - c_m)/2 where a problem is meant.


def corrected_moment(statistics, beta):
    """v_p/(1 - beta^p), v_p = beta v_{p-1} + (1-beta) S_p^2: equal to D_p^2 of the Adam rule."""
    v = 0.0
    for S in statistics:
        v = beta * v + (1.0 - beta) * S**2
    return v / (1.0 - beta ** len(statistics))


def weighted_centre(K, c):
    """The solution of sum_m K_m (x - c_m) = 0."""
    return np.linalg.solve(sum(K), sum(k @ v for k, v in zip(K, c, strict=True)))


def frozen_limit(A, c, Dhat, gamma, H):
    """F2: K_m = I - (I - gamma Dhat^-1 A_m)^H, without noise."""
    one = np.eye(len(Dhat))
    return weighted_centre([one - np.linalg.matrix_power(one - gamma * a / Dhat[:, None], H) for a in A], c)


def local_scaling_limit(A, c, Dhat):
    """F3: K_m = Dhat_m^-1 A_m, the limit of local scaling at H = 1."""
    return weighted_centre([a / D[:, None] for a, D in zip(A, Dhat, strict=True)], c)


def largest_step(A, Dhat):
    """F4: stable below 2/lmax(Dhat^-1 A)."""
    root = np.sqrt(Dhat)
    return 2.0 / np.linalg.eigvalsh(A / np.outer(root, root))[-1]


def hutchinson_variance(A, probes=1, shared=False):
    """Var of the mean over clients of v (.) (A_m v): (1/M^2) sum_m sum_{j!=i} (A_m)_ij^2/probes, or of the mean A."""
    matrices = [mean(A)] if shared else list(A)
    off = [np.sum(a**2, axis=1) - np.diag(a) ** 2 for a in matrices]
    return sum(off) / len(matrices) ** 2 / probes


def drift_constant(family, alpha, Gamma):
    """C in |x|^2_{Dhat+} <= (1 + (1-b) C) |x|^2_{Dhat}, for |D|, |S| <= Gamma and Dhat >= alpha."""
    return {"sq": Gamma**2 / (2.0 * alpha**2), "lin": 2.0 * Gamma / alpha}[family]
