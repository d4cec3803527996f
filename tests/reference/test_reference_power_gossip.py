"""The reference of PowerGossip: what it keeps, what it equals, how it converges, and its bits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from . import power_gossip
from .test_reference_gossip import KAPPA, STAR, X0, N, W, before, close, exact, floor, mean_gradient

SHAPES = [(4, 5), (3,), (2, 3)]
LONG = sum(int(np.prod(shape)) for shape in SHAPES)
MODELS = np.random.default_rng(4).normal(size=(N, LONG))


def power(rank=1, steps=20, grad=lambda t, i, x: 0.0 * x, shapes=SHAPES, x0=MODELS, fresh=False, W=W, **hp):
    def sides(*of):
        rng, (a, b) = np.random.default_rng([11, *of]), shapes[of[-1]]
        return rng.normal(size=(a, min(rank, a, b))), rng.normal(size=(b, min(rank, a, b)))

    hp = {"gamma": 0.1, "rank": rank} | hp
    return power_gossip.run(grad, W, hp, x0, steps, shapes, lambda *of: sides(*of), sides if fresh else None)


def consensus(state):
    return float(np.sum((state["x"] - np.mean(state["x"], axis=0)) ** 2))


def pull(t, i, x):
    return x - MODELS[i] * (i + 1)


@pytest.mark.parametrize("order", ["dgd", "atc"])
@pytest.mark.parametrize("fresh", [False, True])
def test_power_gossip_moves_the_mean_by_the_mean_gradient(order, fresh):
    states, x = power(2, grad=pull, order=order, fresh=fresh, inner=2), MODELS.mean(axis=0)
    for t, (X, state) in enumerate(zip(before(states, MODELS), states, strict=True)):
        x = x - 0.1 * mean_gradient(t, X, pull)
        close(state["point"], x, 1e-12)


def test_power_gossip_of_full_rank_is_dense_on_odd_iterations():
    """r = b where b is the smaller side."""
    states = power(9, shapes=[(5, 4), (3,), (3, 2)], steps=2)
    assert np.array_equal(states[0]["x"], MODELS)
    close(states[1]["x"], W @ MODELS, 1e-12)


def test_power_gossip_finds_the_best_approximation_of_a_fixed_difference():
    M = np.random.default_rng(5).normal(size=(4, 5))
    p, q = np.random.default_rng(6).normal(size=(2, 5, 2))
    p = p[:4]
    for c in range(1, 400):
        p, q, _ = power_gossip.power(M, p, q, c)
    left, singular, right = np.linalg.svd(M)
    close(p @ q.T, (left[:, :2] * singular[:2]) @ right[:2], 1e-9)


def test_power_gossip_reaches_consensus_linearly_and_sooner_when_warm():
    warm, cold = power(1, 120), power(1, 120, fresh=True)
    errors = [consensus(state) for state in warm]
    assert all(late <= early * (1 + 1e-12) for early, late in pairwise(errors))
    assert errors[-1] < 1e-7 * errors[0]
    assert errors[-1] < consensus(cold[-1])


def test_power_gossip_does_not_see_which_end_is_which():
    """The lower number is the first end; relabelling swaps them on an edge, and the sign of D with them."""
    order = np.arange(N)[::-1]
    hp, shapes = {"gamma": 0.1, "rank": 1}, [(4, 5), (3,), (2, 3)]
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N) if W[i, j]]
    side = lambda i, j, p: tuple(np.random.default_rng([i, j, p, s]).normal(size=(shapes[p][s], 1)) for s in (0, 1))
    left = power_gossip.run(pull, W, hp, MODELS, 15, shapes, lambda e, p: side(*pairs[e], p))
    there = lambda e, p: side(*sorted(order[list(pairs[e])].tolist()), p)
    right = power_gossip.run(
        lambda t, i, x: pull(t, order[i], x), W[np.ix_(order, order)], hp, MODELS[order], 15, shapes, there
    )
    for a, b in zip(left, right, strict=True):
        close(b["x"], a["x"][order])


def test_bits_of_power_gossip():
    """Two neighbours; odd iterations send a r floats of a matrix, even ones b r, and dense parameters whole."""
    states = power(2, 3, inner=2)
    assert [state["bits_up"] for state in states] == [
        0,
        2 * 32 * (8 + 3 + 4 + 10 + 3 + 6),
        2 * 2 * 32 * (8 + 3 + 4 + 10 + 3 + 6),
    ]


def test_floors_fall_with_the_rank():
    """And stay above that of DGD in the same order."""
    half = 0.5 / KAPPA
    ends = [power(rank, 800, exact, [(2, 2)], X0, gamma=half)[-1]["x"] for rank in (1, 2)]
    low, full = (np.mean(np.sum((X - STAR) ** 2, axis=1)) for X in ends)
    assert floor("dgd", gamma=half, order="dgd") < full * (1 + 1e-9)
    assert full < low
