"""The tiny heterogeneous problems and random draws that the tests of the reference loops share."""

from __future__ import annotations

import numpy as np

from . import compressors, masks, problems

N, D, KAPPA, MU = 5, 4, 30.0, 1.0


def heterogeneous_quadratic(n, d, kappa, seed):
    """Every client has smallest eigenvalue 1 (= l2) and largest kappa, in its own basis."""
    rng, clients = np.random.default_rng(seed), []
    for _ in range(n):
        basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
        spectrum = np.concatenate([[0.0, kappa - 1], rng.uniform(0, kappa - 1, d - 2)])
        clients.append((basis * spectrum @ basis.T, 5 * rng.normal(size=d)))
    return problems.Quadratic(clients, l2=MU)


def ragged_logistic(seed=0, d=3):
    rng = np.random.default_rng(seed)
    sizes = (4, 1, 7)
    clients = [(rng.normal(i, 1, size=(m, d)), rng.choice([-1.0, 1.0], m)) for i, m in enumerate(sizes)]
    return problems.LogisticRegression(clients, l2=0.2)


PROBLEM = heterogeneous_quadratic(N, D, KAPPA, seed=0)
X_STAR = PROBLEM.optimum()
STAR_GRADS = [PROBLEM.grad(i, X_STAR) for i in range(N)]
X0 = np.zeros(D)


def subset(rng, d, k):
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[:k]] = True
    return mask


def compress_with(name, seed=1):
    rng = np.random.default_rng(seed)
    table = {
        "identity": lambda t, i, slot, v: v,
        "rand_1": lambda t, i, slot, v: compressors.rand_k(v, subset(rng, len(v), 1)),
        "rand_2": lambda t, i, slot, v: compressors.rand_k(v, subset(rng, len(v), 2)),
        "natural": lambda t, i, slot, v: compressors.natural(v, rng.random(len(v))),
        "top_1": lambda t, i, slot, v: compressors.top_k(v, 1),
    }
    return table[name]


OMEGA = {"identity": 0.0, "rand_1": D - 1.0, "rand_2": D / 2 - 1.0, "natural": 1 / 8}


def coins(p, seed=2):
    rng = np.random.default_rng(seed)
    return lambda t: rng.random() < p


def random_masks(d, c, s, seed=3):
    rng = np.random.default_rng(seed)
    return lambda t: masks.mask(d, c, s, rng.permutation(c))


def assert_converged(states, tol=1e-8, x_star=X_STAR):
    assert np.linalg.norm(states[0]["point"] - x_star) > 1e-3
    assert np.linalg.norm(states[-1]["point"] - x_star) < tol
