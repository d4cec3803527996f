"""The methods of arXiv 2102.12528 agree with their slow reference in every variant, fed the same random draws."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames.turns import participants
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import KEY, purposes, replay, walk
from tests.reference import mcm
from tests.reference import problems as ref_problems

STEPS = 30
UP, DOWN = "qsgd:1", "qsgd:2"
#: our name -> the reference's name, hyperparameters of ours
METHODS = {
    "sgd": ("sgd", {}),
    "qsgd": ("qsgd", {}),
    "diana": ("diana", {}),
    "biqsgd": ("biqsgd", {}),
    "artemis": ("artemis", {}),
    "dore": ("dore", {}),
    "double_squeeze": ("double_squeeze", {}),
    "mcm": ("mcm", {}),
    "rand_mcm": ("rand_mcm", {}),
    "rand_mcm_g": ("rand_mcm_g", {"groups": 3}),
    "rand_mcm_1mem": ("rand_mcm_1mem", {}),
    "rand_mcm_1mem, reset": ("rand_mcm_reset", {"reset_every": 4}),
    "mc": ("mc", {}),
    "artemis_nd": ("artemis_nd", {}),
    "ghost": ("ghost", {}),
}
ONE_MEMORY = ("diana", "artemis", "mcm", "rand_mcm", "rand_mcm_1mem")
VARIANTS = {
    "everyone": {"smart": True},  # where the method knows it
    "batches": {"batch_size": 3, "decay": 0.5, "average_every": 4},
    "half of the clients": {"participation": 0.5, "batch_size": 2, "replacement": True},
}


@pytest.fixture(scope="module")
def pair(problem, clients):
    """(our problem with a start away from 0, the reference of it)."""
    start = jnp.asarray(np.random.default_rng(1).normal(size=problem.dim))
    return problem.replace(x0=start), ref_problems.LogisticRegression(clients, float(problem.strong))


def hyperparameters(name, problem, **changes):
    algorithm = algorithms.get(name.partition(",")[0])
    fields = {field.name for field in dataclasses.fields(algorithm.Hparams)}
    choices = {"compressor": UP, "downlink": DOWN}
    changes = {field: value for field, value in changes.items() if field != "smart" or field in fields}
    chosen = {choice: value for choice, value in choices.items() if choice in fields}
    if name in ("dore", "double_squeeze"):
        chosen["form"] = "mcm_repo"
    hp = algorithm.theory(problem, **chosen)
    return dataclasses.replace(hp, gamma=4 * hp.gamma, **changes)


def theirs_of(hp, method, ref):
    """The reference's hyperparameters."""
    told = {field.name: getattr(hp, field.name) for field in dataclasses.fields(hp)}
    alpha = told.get("alpha_up", told.get("alpha"))
    gamma = lambda t: hp.gamma / (t + 1) ** hp.decay
    same = ("alpha_dwn", "c_ef", "smart", "memories", "groups", "reset_every", "average_every")
    kept = {name: told[name] for name in same if told.get(name) is not None}
    return kept | {"gamma": gamma, "alpha_up": alpha, "pp": hp.participation, "smart": told.get("smart", False)}


def gradients(hp, problem, ref, batch_keys):
    """The reference's problem: full gradients, or those of the rows that our sampler draws, by loops over rows."""
    if hp.batch_size is None:
        return SimpleNamespace(n=ref.n, grad=lambda t, i, x: ref.grad(i, x))
    draw = jax.jit(jax.vmap(lambda key: problem.draw(key, hp.batch_size, hp.replacement)))
    drawn = list(zip(*map(np.asarray, draw(batch_keys)), strict=True))

    def grad(t, i, x):
        (A, b), (picks, weights) = ref.clients[i], drawn[t]
        g = ref.l2 * x
        for row, weight in zip(picks[i], weights[i], strict=True):
            if weight:
                g = g - weight * b[row] * A[row] / (1 + np.exp(b[row] * (A[row] @ x)))
        return g

    return SimpleNamespace(n=ref.n, grad=grad)


def both(name, pair, steps=STEPS, **changes):
    """(ours, theirs): stacked states, costs and points; the list of the reference's states."""
    problem, ref = pair
    method, own = METHODS[name]
    hp = hyperparameters(name, problem, **own, **changes)
    keys = purposes(steps, 4)
    ours = walk(name.partition(",")[0], problem, hp, steps)
    started = algorithms.get(name.partition(",")[0]).init(problem, hp, jax.random.fold_in(KEY, 2**32 - 1))
    active = None
    if hp.participation is not None:
        sets = np.concatenate([started.active[None], ours[0].active])
        active = lambda t: sets[t]
    up, down = (replay(getattr(hp, field), keys[:, slot:], ref.n) if hasattr(hp, field) else None
                for slot, field in ((1, "compressor"), (2, "downlink")))  # fmt: skip
    theirs = mcm.run(
        method, gradients(hp, problem, ref, keys[:, 0]), theirs_of(hp, method, ref), np.asarray(problem.x0), steps,
        up=up and (lambda t, i, v: up(t, i, 0, v)), down=down and (lambda t, g, v: down(t, g, 0, v)), active=active,
    )  # fmt: skip
    return ours, theirs


def agree(ours, theirs, steps=STEPS):
    states, _, points = ours
    n = theirs[0]["what"].shape[0]
    seen = states.w if states.seen is None else states.seen
    seen = seen if seen.ndim == 3 else np.repeat(seen[:, None], n, axis=1)
    pairs = {"point": points, "w": states.w, "what": seen}
    if hasattr(states.up, "h_i"):
        pairs["h_i"] = states.up.h_i
        if "h" in theirs[0]:
            pairs["h"] = states.up.h
    for field, got in pairs.items():
        want = np.array([state[field] for state in theirs])
        assert np.ptp(want[1:] - want[:-1]) > 0
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max(), err_msg=field)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", METHODS)
def test_agreement(name, variant, pair):
    agree(*both(name, pair, **VARIANTS[variant]))


@pytest.mark.parametrize("name", ONE_MEMORY)
def test_agreement_with_one_memory_at_the_server(name, pair):
    agree(*both(name, pair, participation=0.5, memories="one"))


def test_agreement_of_single_rows(pair):
    agree(*both("sgd", pair, batch_size=1))


def test_participants_are_independent_and_never_nobody(problem):
    """Each with its probability, given that somebody takes part."""
    hp = dataclasses.replace(hyperparameters("sgd", problem), participation=0.3)
    sets = np.asarray(jax.jit(jax.vmap(lambda key: participants(problem, hp, 0, key)))(jax.random.split(KEY, 20_000)))
    assert sets.any(axis=1).all()
    somebody = 1 - 0.7**problem.n
    spread = np.sqrt(0.3 / somebody / len(sets))
    np.testing.assert_allclose(sets.mean(axis=0), 0.3 / somebody, atol=5 * spread)
    pairs = np.mean(sets[:, 0] & sets[:, 1])
    assert pairs == pytest.approx(0.09 / somebody, abs=5 * spread)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cohort_size": 2, "participation": 0.5}, "participation and cohort_size or schedule all say who takes part"),
        ({"memories": "two"}, "unknown memories 'two'"),
    ],
)
def test_options_that_do_not_fit(changes, words, problem):
    method, hp = algorithms.get("mcm"), hyperparameters("mcm", problem, **changes)
    with pytest.raises(InputError, match=words):
        method.check(problem, hp), method.init(problem, hp, KEY)


@pytest.mark.parametrize(("up", "down"), [("qsgd:1", "identity"), ("identity", "qsgd:1"), ("rand_k:1", "rand_k:1")])
def test_the_step_size_of_mcm_is_the_least_of_three(up, down, problem):
    d, n, L = problem.dim, problem.n, float(problem.smooth.max())
    omega = {"identity": 0.0, "qsgd:1": d**0.5, "rand_k:1": d - 1}
    u, w = omega[up], omega[down]
    bounds = [2 * (1 + u / n), 8 * w, 16 * w * np.sqrt(2 * (1 + w) + u / n)]
    hp = algorithms.get("mcm").theory(problem, up, down)
    assert hp.gamma == pytest.approx(1 / (L * max(bounds)))
    assert (hp.alpha_up, hp.alpha_dwn) == pytest.approx((1 / (2 * (1 + u)), 1 / (2 * (1 + w))))


def test_conventions_and_forms(problem):
    smooth = np.asarray(problem.smooth)
    for name in ("sgd", "qsgd", "diana", "artemis", "dore", "double_squeeze", "mcm", "ghost", "rand_mcm_g"):
        assert float(algorithms.get(name).theory(problem, convention="mcm_repo").gamma) == pytest.approx(
            1 / smooth.mean()
        )
    hp = algorithms.get("mcm").theory(problem, compressor="qsgd:1", downlink="qsgd:2", convention="mcm_repo")
    d = problem.dim
    assert (hp.smart, hp.alpha_up) == (True, pytest.approx(mcm.alpha_repo(d**0.5)))
    assert hp.alpha_dwn == pytest.approx(mcm.alpha_repo(min(d / 4, d**0.5 / 2)))
    careful = algorithms.get("mcm").theory(problem, downlink="qsgd:1", rates="paper")
    assert careful.alpha_dwn == pytest.approx(1 / (8 * d**0.5))
    with pytest.raises(InputError, match="convention"):
        algorithms.get("sgd").theory(problem, convention="authors")
    for name in ("dore", "double_squeeze"):
        with pytest.raises(InputError, match="unknown form 'own'"):
            algorithms.get(name).theory(problem, form="own")


def test_momentum_at_the_server(problem):
    """v = m v + ghat, w -= gamma v: the heavy ball of the mean gradient; none of it at m = 0."""
    hp = dataclasses.replace(algorithms.get("sgd").theory(problem), gamma=0.1, momentum=0.7)
    states, _, _ = walk("sgd", problem, hp, 8)
    w, v = np.asarray(problem.x0), 0.0
    for k in range(8):
        v = 0.7 * v + np.asarray(jnp.mean(problem.grads(jnp.asarray(w)), axis=0))
        w = w - 0.1 * v
        np.testing.assert_allclose(states.w[k], w, rtol=0, atol=1e-13)
    for name in ("mcm", "dore"):
        hp = hyperparameters(name, problem)
        plain, still = (walk(name, problem, dataclasses.replace(hp, momentum=m), 8)[2] for m in (None, 0.0))
        np.testing.assert_allclose(still, plain, rtol=0, atol=1e-13)
