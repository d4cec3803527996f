"""Numbers of entries that adapt: SIDCo's stages with error feedback, budget policies, EoRA's compensation.

`grad(t, i, x)` is client i's gradient in iteration t (0, 1, ..).
"""

from __future__ import annotations

import math

import numpy as np

from . import compressors

# SIDCo (2101.10761).

SIDCO = {
    "fit": "exponential",
    "first": 0.25,
    "mode": 0,
    "every": 5,
    "up": 0.2,
    "down": 0.2,
    "ec_grad": 1.0,
    "ec_mem": 0.0,
    "stages": 1,
}


def fresh_stage(stages=1):
    """`total` counts entries, so that equal counts are equal shares whatever their order."""
    return {"stages": stages, "total": 0, "calls": 0, "last": 0.0, "direction": 1}


def turned(hp, a, est):
    """The direction after a look at the last estimate."""
    last, low, high = a["last"], 1.0 - hp["down"], 1.0 + hp["up"]
    if last <= 0:
        return a["direction"]
    if hp["mode"] == -2 and abs(est - 1) > abs(last - 1):
        return -a["direction"]
    if hp["mode"] == -3 and not ((est > last and last < low) or (est < last and last > high)):
        return -a["direction"]
    return a["direction"]


def adapted(hp, a, kept, d):
    """The stage state after one message that kept so many of d entries; mode 0 never adapts."""
    if hp["mode"] == 0:
        return a
    a = a | {"total": a["total"] + kept, "calls": a["calls"] + 1}
    if a["calls"] < hp["every"]:
        return a
    est = a["total"] / (a["calls"] * (hp["ratio"] * d))
    direction = turned(hp, a, est)
    by = 1 if hp["mode"] == -1 else direction
    stages = a["stages"] - by if est > 1 + hp["up"] else a["stages"] + by if est < 1 - hp["down"] else a["stages"]
    most = math.ceil(math.log2(1.0 / hp["ratio"]))
    return {"stages": min(max(stages, 1), most), "total": 0, "calls": 0, "last": est, "direction": direction}


def sidco_message(hp, v, stages):
    tau = compressors.sidco_threshold(v, hp["ratio"], stages, hp["fit"], hp["first"])
    return compressors.threshold(v, tau)


def sidco(grad, n, hp, x0, steps, width=32 + 32):
    """States after each step; `width` is the bits of one entry kept with its index."""
    hp, x, bits = SIDCO | hp, np.array(x0, dtype=float), 0.0
    e, stage, states = np.zeros((n, len(x))), [fresh_stage((SIDCO | hp)["stages"])] * n, []
    for t in range(steps):
        v = np.array([grad(t, i, x) for i in range(n)]) + e
        m = np.array([sidco_message(hp, v[i], stage[i]["stages"]) for i in range(n)])
        e = np.where(m != 0, 0.0, hp["ec_grad"] * v + hp["ec_mem"] * e)
        kept = [int(np.sum(row != 0)) for row in m]
        stage = [adapted(hp, stage[i], kept[i], len(x)) for i in range(n)]
        x, bits = x - hp["gamma"] * sum(m) / n, bits + width * sum(kept) / n
        states.append({"t": t + 1, "x": x, "point": x, "e_i": e, "stage": stage, "kept": kept, "bits_up": bits})
    return states


# Policies: how many entries a message holds.


def squares(v):
    return np.sort(np.asarray(v, dtype=float) ** 2)[::-1]


def energy(v, share):
    """The least k whose k largest squares hold `share` of |v|^2."""
    sums, total = np.cumsum(squares(v)), float(np.sum(squares(v)))
    if total == 0.0:
        return 0
    return next(k for k in range(len(v) + 1) if (sums[k - 1] if k else 0.0) >= share * sums[-1])


def per_bit(v, header, each):
    """The k >= 1 of most energy per bit, the least among equals."""
    gains = np.cumsum(squares(v)) / (header + each * np.arange(1, len(v) + 1))
    return 1 + int(np.argmax(gains))


def price(v, lam, w=1.0):
    return max(1, sum(w * value**2 > lam for value in v))


def next_price(lam, ks, kbar, rate):
    """lam_{t+1} from the k of all clients."""
    return lam * math.exp(rate * (sum(ks) / len(ks) - kbar) / kbar)


def weights(T, gamma, mu):
    """w_t = (1 - gamma mu)^(T-1-t)."""
    return [(1.0 - gamma * mu) ** (T - 1 - t) for t in range(T)]


def schedule_weights(etas, mu):
    """w_t = eta_t^2 prod_{j > t} (1 - mu eta_j)."""
    return [eta**2 * math.prod(1.0 - mu * later for later in etas[t + 1 :]) for t, eta in enumerate(etas)]


def allocate(V, w, K):
    """k_t, greedy by the marginal gain w_t v_(j)^2 over all t."""
    gains = sorted(
        ((w[t] * value, -t, -j) for t, v in enumerate(V) for j, value in enumerate(squares(v))), reverse=True
    )
    ks = [0] * len(V)
    for _, t, _ in gains[:K]:
        ks[-t] += 1
    return ks


def tails(V, w, ks):
    """sum_t w_t tail_t(k_t)."""
    return sum(w[t] * float(np.sum(squares(v)[ks[t] :])) for t, v in enumerate(V))


def power_law(E, w, s, K, kmin, kmax):
    """k_t = c (w_t E_t)^(1/(1+s)) clipped, c by bisection so that they sum to K; kmin T <= K <= kmax T."""
    shape = np.array([(w_t * E_t) ** (1.0 / (1.0 + s)) for w_t, E_t in zip(w, E, strict=True)])
    low, high = kmin / shape.max(), kmax / shape.min()
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if np.clip(middle * shape, kmin, kmax).sum() < K else (low, middle)
    return np.clip((low + high) / 2.0 * shape, kmin, kmax)


def mem_sgd(grad, n, hp, x0, steps, policy, state=None):
    """MEM-SGD whose client i sends its `policy(v, state)` largest entries, one state (a price, say) for all clients.

    `state` is (start, next(state, ks)), or None.
    """
    x, e, states = np.array(x0, dtype=float), np.zeros((n, len(x0))), []
    kept, following = state or (None, lambda kept, ks: kept)
    for t in range(steps):
        v = np.array([grad(t, i, x) for i in range(n)]) + e
        ks = [policy(v[i], kept) for i in range(n)]
        m = np.array([compressors.top_k(v[i], ks[i]) for i in range(n)])
        e, x, kept = v - m, x - hp["gamma"] * sum(m) / n, following(kept, ks)
        states.append({"t": t + 1, "x": x, "point": x, "e_i": e, "ks": ks, "state": kept})
    return states


# EoRA (2410.21271).


def metric(G, floor=1e-12):
    """S with S S' = G, and its inverse; eigenvalues floored at `floor` of the largest."""
    lam, V = np.linalg.eigh(G)
    root = np.sqrt(np.maximum(lam, floor * lam[-1]))
    return V * root, (V / root).T


def compensated(M, base, r, G=None):
    """(value, B (a, r), A (r, b)) with value = base + B A."""
    a, b = M.shape
    S, inverse = metric(np.eye(b) if G is None else G)
    left, singular, right = np.linalg.svd((M - base) @ S, full_matrices=False)
    r = min(r, a, b)
    B, A = left[:, :r] * np.sqrt(singular[:r]), (np.sqrt(singular[:r])[:, None] * right[:r]) @ inverse
    return base + B @ A, B, A


def compensated_delta(a, b, r, delta_base=0.0, multiple_of_identity=True):
    """The Euclidean contraction that is proved."""
    if not multiple_of_identity:
        return 0.0
    return 1.0 - (1.0 - min(r, a, b) / min(a, b)) * (1.0 - delta_base)
