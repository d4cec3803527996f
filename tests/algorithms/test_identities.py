"""Exact relations: invariants, fixed points, and methods that coincide."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors, problems
from fedjax_lc.algorithms.compressed_scaffnew import mask
from fedjax_lc.core import pytree
from tests.algorithms.shared import KEY, Prescribed, coin_keys, quadratic_pair, step_keys, walk
from tests.reference import locodl as ref_locodl
from tests.reference import masks

LOCODL = algorithms.get("locodl")


@pytest.fixture(scope="module")
def start(problem):
    return problem.replace(x0=jnp.asarray(np.random.default_rng(2).normal(size=problem.dim)))


def lossless(problem, **changes):
    """LoCoDL without compression, rho = chi = 1."""
    hp = LOCODL.theory(problem, compressor="identity")
    assert hp.rho == hp.chi == 1
    return dataclasses.replace(hp, **changes)


def test_locodl_without_compression_at_p_one_is_gd_of_half_the_step(start):
    hp = lossless(start, p=1.0)
    _, _, ours = walk("locodl", start, hp, 50)
    _, _, gd = walk("gd", start, algorithms.get("gd").Hparams(gamma=hp.gamma / 2), 50)
    np.testing.assert_allclose(ours, gd, rtol=0, atol=1e-12)


def test_locodl_without_compression_is_scaffnew_on_twice_the_clients():
    """f_1..f_n and n copies of g; both draw their coin from the first key of the step."""
    (problem, _), n = quadratic_pair(np.random.default_rng(3), 3, 4, 30.0), 3
    half, eye = float(problem.strong) / 2, np.eye(4)
    Q, b = np.asarray(problem.Q), np.asarray(problem.b)
    doubled = problems.quadratic(
        np.concatenate([Q - half * eye, np.tile(half * eye, (n, 1, 1))]), np.concatenate([b, 0 * b])
    )
    hp = lossless(problem, p=0.3)
    ours, _, _ = walk("locodl", problem, hp, 200)
    theirs, _, _ = walk("scaffnew", doubled, algorithms.get("scaffnew").Hparams(gamma=hp.gamma, p=0.3), 200)
    for mine, other in (("x", "x"), ("u", "h")):
        np.testing.assert_allclose(getattr(ours, mine), getattr(theirs, other)[:, :n], rtol=0, atol=1e-12)
    for j in range(n, 2 * n):
        np.testing.assert_allclose(ours.y, theirs.x[:, j], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.v, theirs.h[:, j], rtol=0, atol=1e-12)


def fixed_point(problem):
    x_star, mu = jnp.asarray(problem.x_star), problem.strong / 2
    x = jnp.tile(x_star, (problem.n, 1))
    start = LOCODL.init(problem, LOCODL.theory(problem), KEY)
    return start._replace(x=x, u=problem.grads(x) - mu * x, y=x_star, v=mu * x_star)


UNBIASED = ["identity", "rand_k:1", "rand_k:3", "natural", "rand_k:2|natural", "bernoulli:0.5"]
UNBIASED += [name for name in ("l1_select", "qsgd:2", "ternary", "natural_dithering:3") if name.split(":")[0] in
             compressors.names()]  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize("compressor", UNBIASED)
def test_locodl_stays_at_the_solution_and_keeps_its_invariant(start, compressor):
    """x_star is only as exact as its gradient: a step may move x by gamma |grad F(x_star)|, far below 1e-13."""
    hp = dataclasses.replace(LOCODL.theory(start, compressor=compressor), p=0.5)
    still, _, points = walk("locodl", start, hp, 50, state=fixed_point(start))
    np.testing.assert_allclose(points, np.tile(start.x_star, (50, 1)), rtol=0, atol=1e-13)
    moved = [still.x - start.x_star, still.y - start.x_star, still.u - np.asarray(fixed_point(start).u)]
    assert max(np.abs(part).max() for part in moved) <= 1e-13
    run, _, _ = walk("locodl", start, hp, 50)
    assert np.abs(run.u.mean(axis=1) + run.v).max() <= 1e-13
    assert np.abs(run.u).max() > 1e-2


def test_locodl_consensus_point_moves_only_by_the_compression_error():
    """z+ = zhat + rho (dbar - mean_i(xhat_i - yhat) / 2) for any state and any message."""
    rng = np.random.default_rng(6)
    problem, _ = quadratic_pair(rng, 3, 4, 20.0)
    for _ in range(20):
        sent, rho, chi = rng.normal(size=(3, 4)), rng.uniform(0.1, 1), rng.uniform(0.1, 1)
        hp = LOCODL.Hparams(0.03, rho, chi, 0.5, Prescribed(sent, 2.0))
        state = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), LOCODL.init(problem, hp, KEY))
        heads, tails = coin_keys(0.5)
        local, _, _ = walk("locodl", problem, hp, 1, keys=tails[None], state=state)
        _, _, z = walk("locodl", problem, hp, 1, keys=heads[None], state=state)
        xhat, yhat = local.x[0], local.y[0]
        zhat = (xhat.sum(axis=0) + 3 * yhat) / 6
        expected = zhat + rho * (sent.sum(axis=0) / 6 - (xhat - yhat).mean(axis=0) / 2)
        np.testing.assert_allclose(z[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("K", [1, 2, 7])
def test_locodl_coin_form_is_the_geometric_form(K):
    """K - 1 tails and one head equal one round of K local steps, with y in closed form."""
    rng = np.random.default_rng(8)
    problem, ref = quadratic_pair(rng, 3, 4, 20.0)
    hp = LOCODL.Hparams(0.04, 0.6, 0.5, 0.5, Prescribed(rng.normal(size=(3, 4)), 2.0))
    U = rng.normal(size=(3, 4))
    state = LOCODL.init(problem, hp, KEY)._replace(u=jnp.asarray(U), v=jnp.asarray(-U.mean(axis=0)))
    heads, tails = coin_keys(0.5)
    ours, _, _ = walk("locodl", problem, hp, K, keys=jnp.stack([tails] * (K - 1) + [heads]), state=state)
    before = {"X": np.asarray(state.x), "U": U, "y": np.asarray(state.y), "v": np.asarray(state.v)}
    numbers = {"gamma": 0.04, "rho": 0.6, "chi": 0.5, "p": 0.5, "omega": 2.0}
    send = lambda i, slot, v: hp.compressor.values[i]
    after = ref_locodl.geometric_round(ref.grad, 3, numbers, float(problem.strong), before, K, send)
    for field, other in {"x": "X", "u": "U", "y": "y", "v": "v"}.items():
        np.testing.assert_allclose(getattr(ours, field)[-1], after[other], rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(4, 5), (5, 2)])
def test_tamuna_with_all_clients_is_compressed_scaffnew(n, d):
    """The same permutations and numbers of local steps, through keys that draw them (s d >= n and s d < n)."""
    rounds, rng = 12, np.random.default_rng(9)
    problem = problems.quadratic(rng.uniform(1, 20, size=(n, d)), 5 * rng.normal(size=(n, d)))
    hp = pytree.cast(dataclasses.replace(algorithms.get("tamuna").theory(problem), p=0.4), jnp.float64)
    keys = step_keys(rounds)
    parts = jax.vmap(lambda k: jax.random.split(k, 3))(keys)
    lengths = np.asarray(jax.vmap(lambda k: jax.random.geometric(k, hp.p, dtype=jnp.int32))(parts[:, 1]))
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, n))(parts[:, 2]))
    assert lengths.max() > 1
    heads, silent = talking_keys(n, 0.4)
    scaffnew_keys = []
    for L, order in zip(lengths, orders, strict=True):
        scaffnew_keys += [silent] * (L - 1) + [heads[tuple(order)]]
    states, _, _ = walk("tamuna", problem, hp, rounds, keys=keys)
    compressed = algorithms.get("compressed_scaffnew")
    other = compressed.Hparams(gamma=hp.gamma, s=hp.s, chi=hp.chi, p=hp.p)
    theirs, _, _ = walk("compressed_scaffnew", problem, other, len(scaffnew_keys), keys=jnp.stack(scaffnew_keys))
    ends = np.cumsum(lengths) - 1
    np.testing.assert_allclose(states.xbar, theirs.xbar[ends], rtol=0, atol=1e-12)
    np.testing.assert_allclose(states.h, theirs.h[ends], rtol=0, atol=1e-12)


def talking_keys(n, p):
    """For CompressedScaffnew: a key that talks for every permutation, and a silent one."""
    pool = step_keys(6000, jax.random.key(3))
    both = jax.vmap(jax.random.split)(pool)
    heads = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, p))(both[:, 0]))
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, n))(both[:, 1]))
    talking = {tuple(int(i) for i in order): pool[t] for t, order in enumerate(orders) if heads[t]}
    assert set(talking) == set(permutations(range(n)))
    return talking, pool[int(np.argmin(heads))]


@pytest.mark.parametrize(("n", "d"), [(4, 3), (5, 2), (5, 1), (3, 7), (4, 4)])
def test_mask_is_the_papers_template(n, d):
    """Every permutation and every s, traced: s ones for each coordinate, and the columns of the paper's template."""
    shared = jax.jit(jax.vmap(mask, in_axes=(0, None, None)), static_argnums=1)
    orders = list(permutations(range(n)))
    for s in range(2, n + 1):
        q = np.asarray(shared(jnp.array(orders), d, s))
        assert q.shape == (len(orders), n, d)
        assert q.dtype == bool
        np.testing.assert_array_equal(q.sum(axis=1), s)
        np.testing.assert_array_equal(q, [masks.mask(d, n, s, order).T for order in orders])


def test_cohort_is_those_clients(start):
    chosen = jnp.array([2, 0])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(start.n, start.dim)))
    np.testing.assert_array_equal(start.cohort(chosen).grads(x[chosen]), start.grads(x)[chosen])
    np.testing.assert_array_equal(start.cohort(chosen).smooth, start.smooth[chosen])
    assert start.cohort(chosen).n == 2
