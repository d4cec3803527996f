"""Every method agrees with its slow reference, fed the same random draws, and so do its theory parameters."""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames.participation import sample
from fedjax_lc.compressors import parse
from tests.algorithms import shared
from tests.algorithms.shared import purposes, replay
from tests.reference import (
    adiana,
    agd,
    compressed_scaffnew,
    diana,
    ef21,
    fedcomgate,
    five_gcs_cc,
    gd,
    locodl,
    masks,
    scaffnew,
    tamuna,
)
from tests.reference import problems as ref_problems

STEPS = 50
walk = functools.partial(shared.walk, quick=False)  # a comparison of what users run
CHAIN = "rand_k:2|natural"


@pytest.fixture(scope="module")
def pair(problem, clients):
    """(our problem with a start away from 0, the reference of it)."""
    start = jnp.asarray(np.random.default_rng(1).normal(size=problem.dim))
    return problem.replace(x0=start), ref_problems.LogisticRegression(clients, float(problem.strong))


def theory(name, problem, **choices):
    hp = algorithms.get(name).theory(problem, **choices)
    return hp, {field.name: getattr(hp, field.name) for field in dataclasses.fields(hp)}


def constants(problem):
    return float(jnp.max(problem.smooth)), float(problem.strong)


def agree(ours, theirs, names):
    """`names` maps fields of our state to those of the reference's."""
    states, _, points = ours
    for field, other in {**names, None: "point"}.items():
        got = points if field is None else operator.attrgetter(field)(states)
        want = np.array([state[other] for state in theirs])
        assert np.ptp(want[1:] - want[:-1]) > 0
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max(), err_msg=str(field))


def same_numbers(mine, theirs, rename=()):
    for name, value in theirs.items():
        assert mine[dict(rename).get(name, name)] == pytest.approx(value, rel=1e-12), name


def coins(keys, p):
    heads = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, p))(keys))
    assert 0 < heads.sum() < len(heads)
    return lambda t: bool(heads[t])


def cohorts(keys, problem, size):
    """`cohort(t)` of the references: the clients' numbers."""
    ids = jax.vmap(lambda key: sample(problem, key, size)[0])(keys).ids
    chosen = np.broadcast_to(np.arange(problem.n), (len(keys), size)) if ids is None else np.asarray(ids)
    return lambda t: chosen[t]


def permutations(keys, n):
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, n))(keys))
    return lambda t: orders[t]


def test_gd(pair):
    problem, ref = pair
    hp, mine = theory("gd", problem)
    same_numbers(mine, gd.theory(*constants(problem)))
    agree(walk("gd", problem, hp, STEPS), gd.run(ref.grad, ref.n, mine, problem.x0, STEPS), {"x": "x"})


@pytest.mark.parametrize("smooth", ["max", "mean"])
def test_agd(pair, smooth):
    problem, ref = pair
    hp, mine = theory("agd", problem, smooth=smooth)
    L, mu = constants(problem)
    expected = agd.theory(L if smooth == "max" else ref.smooth_mean, mu)
    same_numbers(mine | {"L": 1 / mine["gamma"]}, expected)
    theirs = agd.run(ref.grad, ref.n, expected, np.asarray(problem.x0), STEPS)
    agree(walk("agd", problem, hp, STEPS), theirs, {"x": "x", "y": "y"})


@pytest.mark.parametrize("choice", ["theory", "balanced"])
@pytest.mark.parametrize("compressor", [CHAIN, "identity"])
def test_locodl(pair, compressor, choice):
    problem, ref = pair
    hp, mine = theory("locodl", problem, compressor=compressor, p=choice)
    omega = hp.compressor.omega(problem.dim)
    same_numbers(mine | {"omega": omega}, locodl.theory(*constants(problem), omega, omega / problem.n, choice))
    hp = dataclasses.replace(hp, p=0.4)  # both sides of the coin within 50 steps
    mine |= {"p": 0.4, "omega": omega}
    keys = purposes(STEPS, 2)
    theirs = locodl.run(
        ref.grad, ref.n, mine, ref.l2, np.asarray(problem.x0), STEPS,
        coins(keys[:, 0], 0.4), replay(hp.compressor, keys[:, 1:], ref.n),
    )  # fmt: skip
    agree(walk("locodl", problem, hp, STEPS), theirs, {"x": "X", "u": "U", "y": "y", "v": "v"})


@pytest.mark.parametrize("compressor", [CHAIN, "rand_k:1"])
def test_diana(pair, compressor):
    problem, ref = pair
    hp, mine = theory("diana", problem, compressor=compressor)
    L, _ = constants(problem)
    same_numbers(mine, diana.theory(L, hp.compressor.omega(problem.dim), ref.n))
    compress = replay(hp.compressor, purposes(STEPS, 4)[:, 1:], ref.n)
    theirs = diana.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, compress)
    agree(walk("diana", problem, hp, STEPS), theirs, {"w": "x", "up.h_i": "H", "up.h": "h"})


@pytest.mark.parametrize("compressor", [CHAIN, "natural", "identity"])
def test_adiana(pair, compressor):
    problem, ref = pair
    hp, mine = theory("adiana", problem, compressor=compressor)
    mine |= {"th1": hp.theta1, "th2": hp.theta2}
    same_numbers(mine, adiana.theory(*constants(problem), hp.compressor.omega(problem.dim), ref.n))
    keys = purposes(STEPS, 3)
    coin = coins(keys[:, 0], hp.p) if hp.p < 1 else lambda t: True
    compress = replay(hp.compressor, keys[:, 1:], ref.n)
    theirs = adiana.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, coin, compress)
    agree(walk("adiana", problem, hp, STEPS), theirs, {"y": "y", "z": "z", "w": "w", "h_i": "H", "h": "h"})


@pytest.mark.parametrize("compressor", ["top_k:2", CHAIN])
def test_ef21(pair, compressor):
    problem, ref = pair
    hp, mine = theory("ef21", problem, compressor=compressor)
    omega = parse(compressor).omega(problem.dim)
    delta = 2 / 5 if compressor == "top_k:2" else 1 / (1 + omega)
    same_numbers(mine, ef21.theory(ref.smooth_mean, ref.smooth, ref.l2, delta))
    # The reference moves first: its step t is our round t + 1 up to the move, and its start our round 0.
    compress = replay(hp.compressor, jnp.roll(purposes(STEPS, 4), -1, axis=0)[:, 1:], ref.n)
    theirs = ef21.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, compress)
    states, costs, points = walk("ef21", problem, hp, STEPS)
    agree((states, costs, points), theirs, {"w": "x"})
    for field, other in {"h_i": "G", "h": "g"}.items():
        want = np.array([state[other] for state in theirs[:-1]])
        np.testing.assert_allclose(getattr(states.up, field)[1:], want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


def test_scaffnew(pair):
    problem, ref = pair
    hp, mine = theory("scaffnew", problem)
    same_numbers(mine, scaffnew.theory(*constants(problem)))
    coin = coins(purposes(STEPS, 1)[:, 0], hp.p)
    theirs = scaffnew.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, coin)
    agree(walk("scaffnew", problem, hp, STEPS), theirs, {"x": "X", "h": "H", "xbar": "server"})


@pytest.mark.parametrize("s", [None, 3])
def test_compressed_scaffnew(pair, s):
    problem, ref = pair
    hp, mine = theory("compressed_scaffnew", problem, s=s)
    if s is None:
        same_numbers(mine, compressed_scaffnew.theory(*constants(problem), ref.n, ref.dim))
    keys = purposes(STEPS, 2)
    order = permutations(keys[:, 1], ref.n)
    theirs = compressed_scaffnew.run(
        ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS,
        coins(keys[:, 0], hp.p), lambda t: masks.mask(ref.dim, ref.n, mine["s"], order(t)),
    )  # fmt: skip
    agree(walk("compressed_scaffnew", problem, hp, STEPS), theirs, {"x": "X", "h": "H", "xbar": "server"})


@pytest.mark.parametrize("cohort_size", [3, None])
def test_tamuna(pair, cohort_size):
    problem, ref = pair
    c = cohort_size or ref.n
    hp, mine = theory("tamuna", problem, cohort_size=cohort_size)
    same_numbers(mine, tamuna.theory(*constants(problem), ref.n, ref.dim, c))
    keys = purposes(STEPS, 3)
    cohort = cohorts(keys[:, 0], problem, c)
    lengths = np.asarray(jax.vmap(lambda k: jax.random.geometric(k, hp.p, dtype=jnp.int32))(keys[:, 1]))
    assert lengths.min() == 1 < lengths.max()
    order = permutations(keys[:, 2], c)
    theirs = tamuna.run(
        ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS,
        cohort, lambda t: lengths[t], lambda t: masks.mask(ref.dim, c, mine["s"], order(t)),
    )  # fmt: skip
    ours = walk("tamuna", problem, hp, STEPS)
    agree(ours, theirs, {"xbar": "x", "h": "H"})
    np.testing.assert_allclose(ours[1].grads, lengths * c / ref.n)


@pytest.mark.parametrize("own", [False, True])
def test_fedcomgate(pair, own):
    problem, ref = pair
    hp, mine = theory("fedcomgate", problem, local_steps=3, own_delta=own)
    mine |= {"eta": hp.client_lr, "gam": hp.server_lr, "own": own}
    L, _ = constants(problem)
    same_numbers(mine, fedcomgate.theory(L, 1 / 8, ref.n, 3) | {"own": own})
    compress = replay(hp.compressor, purposes(STEPS, 1), ref.n)
    theirs = fedcomgate.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, compress)
    agree(walk("fedcomgate", problem, hp, STEPS), theirs, {"w": "w", "delta": "delta"})


@pytest.mark.parametrize(("compressor", "cohort_size"), [("natural", None), (CHAIN, None), (CHAIN, 2), ("identity", 2)])
def test_five_gcs_cc(pair, compressor, cohort_size):
    problem, ref = pair
    hp, mine = theory("five_gcs_cc", problem, compressor=compressor, cohort_size=cohort_size, local_steps=5)
    omega, (L, mu) = hp.compressor.omega(problem.dim), constants(problem)
    mine |= {"mu": mu, "omega": omega, "inner_steps": 5, "inner_lr": hp.client_lr, "accelerate": True, "start": "xhat"}
    if omega == 0 or cohort_size is None:
        known = five_gcs_cc.theory(L, mu, omega, ref.n, 5, True, "xhat", safe=omega > 0, cohort_size=cohort_size)
        same_numbers({k: v for k, v in mine.items() if k != "start"}, {k: v for k, v in known.items() if k != "start"})
    keys = purposes(STEPS, 2)
    cohort = cohorts(keys[:, 0], problem, cohort_size) if cohort_size else None
    compress = replay(hp.compressor, keys[:, 1:], ref.n)
    theirs = five_gcs_cc.run(ref.grad, ref.n, mine, np.asarray(problem.x0), STEPS, compress, cohort)
    agree(walk("five_gcs_cc", problem, hp, STEPS), theirs, {"x": "x", "u": "U", "v": "v"})
