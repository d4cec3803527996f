"""Graphs as lists of edges (i < j, in lexicographic order), mixing matrices W, and what is read off their spectrum."""

from __future__ import annotations

import numpy as np

GRAPHS = ("ring", "path", "star", "torus", "complete", "exponential", "hypercube")
WEIGHTS = ("metropolis", "uniform", "max_degree", "laplacian")


def sides_of_torus(n):
    a = max(a for a in range(1, n + 1) if n % a == 0 and a * a <= n)
    return a, n // a


def neighbours(name, n, i):
    """With doubles and loops, that `edges` removes."""
    if name == "ring":
        return [(i + 1) % n, (i - 1) % n]
    if name == "path":
        return [j for j in (i - 1, i + 1) if 0 <= j < n]
    if name == "star":
        return list(range(1, n)) if i == 0 else [0]
    if name == "complete":
        return list(range(n))
    if name == "torus":
        a, b = sides_of_torus(n)
        r, c = divmod(i, b)
        return [(r + 1) % a * b + c, (r - 1) % a * b + c, r * b + (c + 1) % b, r * b + (c - 1) % b]
    powers = [2**j for j in range(n) if 2**j < n]
    if name == "exponential":
        return [(i + sign * step) % n for step in powers for sign in (1, -1)]
    if name == "hypercube":
        if n & (n - 1):
            raise ValueError(f"hypercube: n is a power of two, got {n}")
        return [i ^ step for step in powers]
    raise ValueError(f"graph: expected one of {GRAPHS}, got {name!r}")


def edges(name, n):
    return sorted({(min(i, j), max(i, j)) for i in range(n) for j in neighbours(name, n, i) if i != j})


def connected(n, pairs):
    reached, waiting = {0}, [0]
    while waiting:
        i = waiting.pop()
        for a, b in pairs:
            for near, far in ((a, b), (b, a)):
                if near == i and far not in reached:
                    reached.add(far)
                    waiting.append(far)
    return len(reached) == n


def erdos(n, p, uniforms):
    """`uniforms(attempt)` has one number for every pair in lexicographic order; redrawn until connected."""
    pairs, attempt = [(i, j) for i in range(n) for j in range(i + 1, n)], 0
    while True:
        chosen = [pair for pair, u in zip(pairs, uniforms(attempt), strict=True) if u < p]
        if connected(n, chosen):
            return chosen
        attempt += 1


def degrees(n, pairs):
    return [sum(i in pair for pair in pairs) for i in range(n)]


def laplacian(n, pairs):
    result = np.diag(np.array(degrees(n, pairs), dtype=float))
    for i, j in pairs:
        result[i, j] -= 1.0
        result[j, i] -= 1.0
    return result


def mixing(n, pairs, weights="metropolis", lazy=False):
    deg, W = degrees(n, pairs), np.zeros((n, n))
    if weights == "uniform" and len(set(deg)) > 1:
        raise ValueError("uniform: regular graphs only")
    if weights == "laplacian":
        spectrum = np.linalg.eigvalsh(laplacian(n, pairs)) if n > 1 else [1.0, 1.0]
    for i, j in pairs:
        w = {
            "metropolis": lambda i, j: 1.0 / (1.0 + max(deg[i], deg[j])),
            "uniform": lambda i, j: 1.0 / (1.0 + deg[i]),
            "max_degree": lambda i, j: 1.0 / (1.0 + max(deg)),
            "laplacian": lambda i, j: 2.0 / (spectrum[-1] + spectrum[1]),
        }[weights](i, j)
        W[i, j] = W[j, i] = w
    for i in range(n):
        W[i, i] = 1.0 - sum(W[i, j] for j in range(n) if j != i)
    return (np.eye(n) + W) / 2.0 if lazy else W


def graph(name, n, weights="metropolis", lazy=False):
    return mixing(n, edges(name, n), weights, lazy)


def spectrum(W):
    """rho, beta, lmin, kappa_g, and the largest 1 - w_ii, of n >= 2 nodes."""
    lam = np.linalg.eigvalsh(W)[::-1]
    beta, lmin = 1.0 - lam[-1], 1.0 - lam[1]
    rho = 1.0 - max(abs(lam[1]), abs(lam[-1]))
    return {"rho": rho, "beta": beta, "lmin": lmin, "kappa_g": beta / lmin, "a": float(np.max(1.0 - np.diag(W)))}


def one_peer(name, n, t):
    """W_t of the one-peer hypercube, and of the directed one-peer exponential graph; n a power of two."""
    step, W = 2 ** (t % (n.bit_length() - 1)), np.eye(n) / 2.0
    for i in range(n):
        W[i, i ^ step if name == "hypercube" else (i + step) % n] += 0.5
    return W
