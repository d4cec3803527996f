"""One step shrinks the Lyapunov function by the proven rate in expectation, every outcome enumerated exactly."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames.links import Shifts
from fedjax_lc.core import pytree
from tests.algorithms.shared import KEY, Prescribed, coin_keys, quadratic_pair, step_keys, walk
from tests.reference import enumerate as outcomes_of

TOLERANCE = 1e-10
BATCH = 512  #: outcomes are padded to whole batches with weight 0, so that each shape compiles once


def compiled(name):
    """jit of Psi after a step from one state, for a batch of hyperparameters' `values` and of keys."""
    algorithm = algorithms.get(name)

    def after(problem, hp, state, values, key):
        if values is not None:
            hp = dataclasses.replace(hp, compressor=Prescribed(values, hp.compressor.w))
        return algorithm.lyapunov(problem, hp, algorithm.step(problem, hp, state, key)[0])

    return jax.jit(jax.vmap(after, in_axes=(None, None, None, 0, 0)))


PSI_AFTER = {name: compiled(name) for name in ("locodl", "scaffnew", "compressed_scaffnew", "diana", "marina")}
PSI = {name: jax.jit(algorithms.get(name).lyapunov) for name in PSI_AFTER}


def expected_psi(name, problem, hp, state, outcomes, key):
    """E Psi+ over `outcomes`, a list of (values (n, d), probability), at one key."""
    values = np.array([value for value, _ in outcomes])
    weights = np.array([q for _, q in outcomes])
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    pad = -len(weights) % BATCH
    values = np.concatenate([values, np.zeros((pad, *values.shape[1:]))])
    keys = jnp.broadcast_to(key, (BATCH,))
    psi = [PSI_AFTER[name](problem, hp, state, values[i : i + BATCH], keys) for i in range(0, len(values), BATCH)]
    return float(np.concatenate([np.asarray(p) for p in psi])[: len(weights)] @ weights)


def centred(rng, n, d, scale):
    H = rng.normal(size=(n, d)) * scale
    return jnp.asarray(H - H.mean(axis=0))


ENUMERATED = {
    "identity": (outcomes_of.identity, lambda d: 0.0),
    "rand_1": (lambda x: outcomes_of.rand_k(x, 1), lambda d: d - 1.0),
    "rand_2": (lambda x: outcomes_of.rand_k(x, 2), lambda d: d / 2 - 1.0),
    "natural": (outcomes_of.natural, lambda d: 1 / 8),
    "l1_select": (outcomes_of.l1_select, lambda d: d - 1.0),
    "rand_1_natural": (lambda x: outcomes_of.rand_k_natural(x, 1), lambda d: 9 * d / 8 - 1),
}


@pytest.mark.parametrize("name", ENUMERATED)
def test_locodl(name):
    """Any admissible rho, chi, p and gamma; any state with mean(u) + v = 0."""
    locodl, (enumerate_all, omega_of) = algorithms.get("locodl"), ENUMERATED[name]
    rng, ratios = np.random.default_rng(11), []
    for n, d in [(2, 5), (3, 3), (4, 3)] * 5:
        problem, _ = quadratic_pair(rng, n, d, rng.uniform(3, 60))
        omega, L = omega_of(d), float(problem.smooth.max() - problem.strong / 2)
        rho = rng.uniform(0.05, 0.999) * 2 / (1 + omega / n)
        chi = rng.uniform(0.2, 1) * (2 * rho - rho**2 * (1 + omega / n))
        hp = locodl.Hparams(
            rng.uniform(0.02, 0.999) * 2 / L, rho, chi, rng.uniform(0.1, 0.9), Prescribed(np.zeros((n, d)), omega)
        )
        hp = pytree.cast(hp, jnp.float64)
        state = locodl.init(problem, hp, KEY)
        U = jnp.asarray(rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 2))
        y = jnp.asarray(problem.attached + rng.normal(size=d))
        state = state._replace(x=y[None] + rng.normal(size=(n, d)), u=U, y=y, v=-U.mean(axis=0))
        heads, tails = coin_keys(hp.p)
        local = walk("locodl", problem, hp, 1, keys=tails[None], state=state)[0]
        sent = local.x[0] - local.y[0]
        outcomes = outcomes_of.joint([enumerate_all(row) for row in sent])
        talk = expected_psi("locodl", problem, hp, state, outcomes, heads)
        quiet = float(PSI["locodl"](problem, hp, jax.tree.map(lambda leaf: leaf[0], local)))
        expected = hp.p * talk + (1 - hp.p) * quiet
        ratios.append(float(expected / PSI["locodl"](problem, hp, state) / locodl.rate(problem, hp)))
    assert max(ratios) <= 1 + TOLERANCE
    assert max(ratios) > 0.5  # the bound is of the right size


def test_locodl_bound_breaks_for_a_wrong_omega():
    """The check has teeth: rand-1 that claims a tenth of its omega breaks the bound."""
    locodl, rng, broken = algorithms.get("locodl"), np.random.default_rng(3), []
    for _ in range(10):
        problem, _ = quadratic_pair(rng, 2, 3, 3.0)
        claimed = 0.2  # rand-1 has omega = 2
        rho = 1 / (1 + claimed / 2)
        hp = locodl.Hparams(0.3 / float(problem.smooth.max()), rho, rho, 0.9, Prescribed(np.zeros((2, 3)), claimed))
        hp = pytree.cast(hp, jnp.float64)
        state = locodl.init(problem, hp, KEY)
        x_star = problem.attached
        u = problem.grads(x_star) - problem.strong / 2 * x_star[None]
        state = state._replace(x=x_star[None] + rng.normal(size=(2, 3)), y=x_star, u=u, v=-u.mean(axis=0))
        heads, tails = coin_keys(hp.p)
        local = walk("locodl", problem, hp, 1, keys=tails[None], state=state)[0]
        outcomes = outcomes_of.joint([outcomes_of.rand_k(row, 1) for row in local.x[0] - local.y[0]])
        talk = expected_psi("locodl", problem, hp, state, outcomes, heads)
        quiet = float(PSI["locodl"](problem, hp, jax.tree.map(lambda leaf: leaf[0], local)))
        expected = hp.p * talk + (1 - hp.p) * quiet
        broken.append(expected / PSI["locodl"](problem, hp, state) > locodl.rate(problem, hp) * (1 + TOLERANCE))
    assert any(broken)


def test_scaffnew():
    scaffnew, rng = algorithms.get("scaffnew"), np.random.default_rng(12)
    for _ in range(20):
        problem, _ = quadratic_pair(rng, 3, 4, rng.uniform(3, 60))
        hp = scaffnew.Hparams(rng.uniform(0.02, 1) * 2 / float(problem.smooth.max()), rng.uniform(0.1, 0.9))
        hp = pytree.cast(hp, jnp.float64)
        state = scaffnew.init(problem, hp, KEY)
        state = state._replace(x=jnp.asarray(rng.normal(size=(3, 4))), h=centred(rng, 3, 4, 30))
        keys = jnp.stack(coin_keys(hp.p, count=1))
        talk, quiet = PSI_AFTER["scaffnew"](problem, hp, state, None, keys)
        bound = scaffnew.rate(problem, hp) * PSI["scaffnew"](problem, hp, state)
        assert hp.p * talk + (1 - hp.p) * quiet <= bound * (1 + TOLERANCE)


POOL = step_keys(4000)


@pytest.mark.parametrize(("n", "d", "s"), [(4, 3, 2), (4, 3, 3), (5, 2, 2), (5, 2, 4)])
def test_compressed_scaffnew(n, d, s):
    """Every one of the n! permutations, through a key that draws it; s d >= n and s d < n."""
    method, rng = algorithms.get("compressed_scaffnew"), np.random.default_rng(13)
    both = jax.vmap(jax.random.split)(POOL)
    uniforms = np.asarray(jax.vmap(jax.random.uniform)(both[:, 0]))
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, n))(both[:, 1]))
    for _ in range(3):
        problem, _ = quadratic_pair(rng, n, d, 20.0)
        chi, p = rng.uniform(0.3, 1) * n * (s - 1) / (s * (n - 1)), rng.uniform(0.4, 0.9)
        gamma = rng.uniform(0.02, 0.999) * 2 / float(problem.smooth.max())
        hp = pytree.cast(method.Hparams(gamma, s, chi, p), jnp.float64)
        # Uniforms away from p mean the same coin however the step draws it.
        talking = {tuple(order): i for i, order in enumerate(orders) if uniforms[i] < p - 0.01}
        silent = int(np.argmax(uniforms > p + 0.01))
        assert set(talking) == set(permutations(range(n)))
        state = method.init(problem, hp, KEY)
        state = state._replace(x=jnp.asarray(rng.normal(size=(n, d))), h=centred(rng, n, d, 20))
        keys = POOL[np.array([*talking.values(), silent])]
        psi = np.asarray(PSI_AFTER["compressed_scaffnew"](problem, hp, state, None, keys))
        expected = p * psi[:-1].mean() + (1 - p) * psi[-1]
        bound = method.rate(problem, hp) * PSI["compressed_scaffnew"](problem, hp, state)
        assert expected <= bound * (1 + TOLERANCE)


@pytest.mark.parametrize("name", ["rand_1", "natural", "identity"])
def test_diana(name):
    diana, (enumerate_all, omega_of) = algorithms.get("diana"), ENUMERATED[name]
    rng = np.random.default_rng(14)
    for n, d in [(2, 3), (3, 3)] * 6:
        problem, _ = quadratic_pair(rng, n, d, rng.uniform(3, 60))
        hp = diana.theory(problem, compressor=Prescribed(np.zeros((n, d)), omega_of(d)))
        hp = pytree.cast(hp, jnp.float64)
        h_i = jnp.asarray(rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 2))
        w, state = jnp.asarray(problem.attached + rng.normal(size=d)), diana.init(problem, hp, KEY)
        state = state._replace(w=w, up=Shifts(h_i, h_i.mean(axis=0)))
        sent = np.asarray(problem.grads(w) - h_i)
        outcomes = outcomes_of.joint([enumerate_all(row) for row in sent])
        bound = diana.rate(problem, hp) * PSI["diana"](problem, hp, state)
        assert expected_psi("diana", problem, hp, state, outcomes, KEY) <= bound * (1 + TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["rand_k:2|natural", "natural"])
def test_locodl_trajectory(compressor):
    """Mean over 200 seeds of Psi^t / Psi^0 <= tau^t at kappa = 100, for 1500 iterations."""
    locodl, (problem, _) = algorithms.get("locodl"), quadratic_pair(np.random.default_rng(5), 6, 8, 50.5)
    assert problem.kappa == pytest.approx(100, rel=1e-6)
    hp = locodl.theory(problem, compressor=compressor)

    def psi_path(problem, hp, key):
        def one(state, key):
            state, _ = locodl.step(problem, hp, state, key)
            return state, locodl.lyapunov(problem, hp, state)

        return jax.lax.scan(one, locodl.init(problem, hp, key), step_keys(1500, key))[1]

    paths = jax.jit(jax.vmap(psi_path, in_axes=(None, None, 0)))(problem, hp, jax.random.split(jax.random.key(1), 200))
    first = PSI["locodl"](problem, hp, locodl.init(problem, hp, KEY))
    bound = float(locodl.rate(problem, hp)) ** np.arange(1, 1501)
    assert np.all(np.mean(np.asarray(paths), axis=0) <= float(first) * bound)


def coin_keys_of_marina(p):
    """A step key whose coin shows heads, and one with tails."""
    keys = POOL[:512]
    coin = lambda key: jax.random.bernoulli(jax.random.split(jax.random.split(key, 4)[1])[0], p)
    heads = np.asarray(jax.vmap(coin)(keys))
    assert 0 < heads.sum() < len(heads)
    return keys[int(np.argmax(heads))], keys[int(np.argmin(heads))]


@pytest.mark.parametrize("name", ["rand_1", "natural", "rand_2"])
def test_marina(name):
    """Any p, and gamma up to theory's for it; any estimate g."""
    marina, (enumerate_all, omega_of) = algorithms.get("marina"), ENUMERATED[name]
    rng, ratios = np.random.default_rng(15), []
    for n, d in [(2, 3), (3, 3)] * 6:
        problem, _ = quadratic_pair(rng, n, d, rng.uniform(3, 60))
        omega, p = omega_of(d), rng.uniform(0.1, 0.9)
        Lt, mu = float(np.sqrt(np.mean(np.asarray(problem.smooth) ** 2))), float(problem.strong)
        most = min(1 / (Lt * (1 + np.sqrt(2 * (1 - p) * omega / (p * n)))), p / (2 * mu))
        hp = marina.Hparams(Prescribed(np.zeros((n, d)), omega), rng.uniform(0.2, 1) * most, p)
        hp = pytree.cast(hp, jnp.float64)
        x = jnp.asarray(problem.attached + rng.normal(size=d))
        g = jnp.mean(problem.grads(x), axis=0) + rng.normal(size=d) * 10 ** rng.uniform(-1, 1)
        state = marina.init(problem, hp, KEY)
        state = state._replace(w=x - hp.gamma * g, up=state.up._replace(g=g, x=x), k=state.k + 1)
        heads, tails = coin_keys_of_marina(p)
        change = np.asarray(problem.grads(x - hp.gamma * g) - problem.grads(x))
        compressed = expected_psi(
            "marina", problem, hp, state, outcomes_of.joint([enumerate_all(v) for v in change]), tails
        )
        exact = expected_psi("marina", problem, hp, state, [(np.zeros((n, d)), 1.0)], heads)
        expected = p * exact + (1 - p) * compressed
        ratios.append(expected / float(PSI["marina"](problem, hp, state)) / float(marina.rate(problem, hp)))
    assert max(ratios) <= 1 + TOLERANCE
