"""Methods with error feedback and those with estimates agree with their slow references, fed the same random draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors
from tests.algorithms.shared import KEY, purposes, replay, walk
from tests.algorithms.test_bidirectional import gradients
from tests.algorithms.test_feedback import BATCHES, DENSE, GAMMA, PROBLEM, X0, N, hparams
from tests.conftest import make_clients
from tests.reference import estimators, feedback
from tests.reference import problems as ref_problems

STEPS = 30
REF = ref_problems.LogisticRegression(make_clients(), float(PROBLEM.strong))
RANDOM = {"up": "rand_k_unscaled:2", "down": "rand_k_unscaled:3"}
OPT = {"momentum": 0.6, "weight_decay": 0.2}
VARIANTS = {
    "signs": {},
    "random, batches": RANDOM | BATCHES,
    "falling steps": {"gamma_schedule": "steps:7,0.5", "decay": 0.3},
    "weight decay, momentum": OPT | BATCHES,
}


def close(got, want, what=""):
    assert np.ptp(want[1:] - want[:-1]) > 0, what
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.abs(want).max(), err_msg=what)


def stacked(theirs, name):
    return np.array([state[name] for state in theirs])


def spent(costs, theirs):
    """What both sides counted, from the start."""
    for name in ("bits_up", "bits_down"):
        np.testing.assert_allclose(np.cumsum(getattr(costs, name), dtype=float), stacked(theirs, name), rtol=1e-6)


def lengths(hp):
    """bits(slot, d) of the references."""
    own = {
        slot: getattr(hp, way, None) for slot, way in (("up", "compressor"), ("down", "downlink"), ("reset", "reset"))
    }
    inner = {slot: getattr(c, "inner", c) for slot, c in own.items()}
    one = {slot: float(c(KEY, PROBLEM.x0).bits) for slot, c in inner.items() if c is not None}
    return lambda slot, d: one.get(slot, DENSE)


def messages(hp, up_keys, down_keys):
    """compress(t, i, slot, v) of the references: each message of a repeated compressor has a key of its own."""

    def sender(compressor, keys):
        if compressor is None:
            return None
        inner, rounds = getattr(compressor, "inner", compressor), getattr(compressor, "rounds", None)
        keys = keys[:, None] if rounds is None else jax.vmap(lambda key: jax.random.split(key, rounds))(keys)
        return replay(inner, keys, N)

    ways = {"up": ("compressor", up_keys), "down": ("downlink", down_keys), "reset": ("reset", down_keys)}
    ways = {slot: (getattr(hp, way, None), keys) for slot, (way, keys) in ways.items()}
    found = {slot: sender(*own) for slot, own in ways.items()}

    def compress(t, i, slot, v):
        name = slot.rstrip("0123456789")
        return found[name](t, i, int(slot[len(name) :] or 0), v)

    return compress


def of_rounds(name, **changes):
    """(ours, theirs) of the methods that keep errors."""
    hp = hparams(name, **changes)
    keys = purposes(STEPS, 4)
    grad = gradients(hp, PROBLEM, REF, keys[:, 0]).grad
    told = {"mom": hp.momentum or 0.0, "wd": hp.weight_decay or 0.0}
    for own, other in (("period", "p" if name == "liec_sgd" else "H"), ("alpha_up", "alpha"), ("c_ef", "eta")):
        told |= {other: getattr(hp, own)} if hasattr(hp, own) else {}
    told |= {field: getattr(hp, field) for field in ("beta", "down", "sync_vectors") if hasattr(hp, field)}
    drop = 0.5 if hp.gamma_schedule == "steps:7,0.5" else 1.0
    told["gamma"] = lambda t: GAMMA / (t + 1) ** float(hp.decay) * drop ** (t // 7)
    compress = messages(hp, keys[:, 1], keys[:, 2])
    theirs = feedback.run(name, grad, compress, N, told, X0, STEPS, bits=lengths(hp))
    return walk(name, PROBLEM, hp, STEPS), theirs


#: name -> (what it has besides x, hyperparameters)
ROUNDS = {
    "sgd": ({}, {}),
    "mem_sgd": ({"e_i": "up"}, {}),
    "double_squeeze": ({"e_i": "up", "e": "down"}, {}),
    "neolithic": ({"e_i": "up", "e": "down"}, {}),
    "cser": ({"x_i": "w", "e_i": "down"}, {"period": 4}),
    "liec_sgd": ({"x_i": "w", "e": "down"}, {"period": 4}),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ROUNDS)
def test_errors_that_are_paid_back(name, variant):
    fields, own = ROUNDS[name]
    changes = own | VARIANTS[variant]
    if name == "neolithic":
        changes |= {way: f"fcc({changes.get(way, 'sign')}):2" for way in ("up", "down")}
    (states, costs, points), theirs = of_rounds(name, **changes)
    close(points, stacked(theirs, "point"), "point")
    for other, field in fields.items():
        close(getattr(states, field), stacked(theirs, other), other)
    if algorithms.get(name).error:
        hp = hparams(name, **changes)
        owed = jax.vmap(lambda state: algorithms.get(name).error(PROBLEM, hp, state))(jax.tree.map(jnp.asarray, states))
        close(np.asarray(owed), stacked(theirs, "error"), "error")
    spent(costs, theirs)


@pytest.mark.parametrize("vectors", [1, 2])
def test_vectors_of_a_synchronisation(vectors):
    (_, costs, points), theirs = of_rounds("liec_sgd", period=7, sync_vectors=vectors)
    close(points, stacked(theirs, "point"))
    spent(costs, theirs)


def test_a_sparse_downlink_of_cser():
    (_, costs, points), theirs = of_rounds("cser", period=7, meter="sparse", reset="top_k:1", up="top_k:2")
    close(points, stacked(theirs, "point"))
    np.testing.assert_allclose(costs.bits_down, costs.bits_up)
    spent(costs, theirs)


@pytest.mark.parametrize("changes", [{}, BATCHES], ids=["full", "batches"])
def test_dore_of_its_paper(changes):
    own = {"alpha_up": 0.3, "beta": 0.4, "c_ef": 0.5, "up": "rand_k:2", "down": "natural"}
    (states, costs, points), theirs = of_rounds("dore", **own, **changes)
    close(points, stacked(theirs, "point"))
    for other, got in {"h_i": states.up.h_i, "h": states.up.h, "e": states.down}.items():
        close(got, stacked(theirs, other), other)
    spent(costs, theirs)


def test_neolithic_may_take_several_batches():
    hp = hparams("neolithic", up="fcc(sign):2", down="fcc(sign):2", batch_size=1, accumulate=True)
    keys = purposes(STEPS, 4)
    picks, _ = jax.vmap(lambda key: PROBLEM.draw(key, 2, False))(keys[:, 0])

    def grad(t, i, x, r):
        A, b = REF.clients[i]
        row = int(picks[t, i, r])
        return REF.l2 * x - b[row] * A[row] / (1 + np.exp(b[row] * (A[row] @ x)))

    theirs = feedback.run(
        "neolithic", grad, messages(hp, keys[:, 1], keys[:, 2]), N, {"gamma": GAMMA, "accumulate": True}, X0, STEPS
    )
    close(walk("neolithic", PROBLEM, hp, STEPS)[2], stacked(theirs, "point"))


# --- estimates ---


def of_estimates(name, **changes):
    """(ours, theirs). Our round t > 0 takes the draws of the reference's t - 1, and round 0 those of its start, t = -1;
    EControl's loop starts with gradients as ours does: there both have one t, and the start has the draws of 0."""
    hp = hparams(name, **changes)
    keys = purposes(STEPS, 4)
    keys = keys if name == "econtrol" else jnp.roll(keys, -1, axis=0)
    start = 0 if name == "econtrol" else -1
    some = gradients(hp, PROBLEM, REF, keys[:, 0]).grad
    grad = lambda t, i, x: some(t if t >= 0 else start, i, x)
    told = {name: getattr(hp, name) for name in ("eta", "init", "double") if hasattr(hp, name)}
    told |= {"gamma": GAMMA, "mom": hp.momentum or 0.0, "wd": hp.weight_decay or 0.0}
    compress, extra = messages(hp, keys[:, 1], keys[:, 2]), {}
    if name in ("marina", "pp_marina"):
        coin_keys, up_keys = np.moveaxis(jax.vmap(jax.random.split)(keys[:, 1]), 1, 0)
        heads = np.asarray(jax.vmap(lambda key: jax.random.bernoulli(key, hp.p))(coin_keys))
        assert 5 < heads.sum() < STEPS - 5
        grad = lambda t, i, x: REF.grad(i, x) if t < 0 or heads[t] else some(t, i, x)
        compress = messages(hp, up_keys, keys[:, 2])
        extra["coin"] = lambda t: bool(heads[t])
        active = walk(name, PROBLEM, hp, STEPS)[0].active
        extra["cohort"] = lambda t: np.flatnonzero(active[t]) if hp.cohort_size else np.arange(N)
    theirs = estimators.run(name, grad, compress, N, told, X0, STEPS, bits=lengths(hp), **extra)
    return walk(name, PROBLEM, hp, STEPS), theirs


#: case -> (their name and ours of what a method has besides x, hyperparameters)
ESTIMATES = {
    "ef21": ({"g_i": "up.h_i", "g": "up.h"}, {}),
    "ef21, compressed start": ({"g_i": "up.h_i", "g": "up.h"}, {"init": "compressed"}),
    "ef21_bc": ({"g_i": "up.h_i", "g": "down"}, {}),
    "ef21_bc, compressed start": ({"g_i": "up.h_i", "g": "down"}, {"init": "compressed"}),
    "ef21_sgdm": ({"g_i": "up.shifts.h_i", "v_i": "up.v_i", "g": "up.shifts.h"}, {"eta": 0.3}),
    "ef21_sgdm, double": (
        {"g_i": "up.shifts.h_i", "u_i": "up.u_i", "v_i": "up.v_i"}, {"eta": 0.3, "double": True}
    ),
    "econtrol": ({"h_i": "up.shifts.h_i", "e_i": "up.e_i"}, {"eta": 0.2}),
    "marina": ({"g": "up.g"}, {"p": 0.4}),
    "pp_marina": ({"g": "up.g"}, {"p": 0.4, "cohort_size": 2}),
}  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "variant", [{}, RANDOM | BATCHES, OPT | BATCHES], ids=["signs", "random, batches", "weight decay, momentum"]
)
@pytest.mark.parametrize("case", ESTIMATES)
def test_estimates(case, variant):
    """The reference moves first: its memories after step t are ours after round t + 1, where x is one move behind."""
    fields, own = ESTIMATES[case]
    name = case.partition(",")[0]
    if "marina" in name:
        own = own | {"up": "rand_k:2"}
        variant = {field: value for field, value in variant.items() if field not in ("up", "down")}
    (states, costs, points), theirs = of_estimates(name, **(variant | own))
    close(points, stacked(theirs, "point"), "point")
    ahead = 0 if name == "econtrol" else 1
    for other, path in fields.items():
        got = states
        for part in path.split("."):
            got = getattr(got, part)
        close(got[ahead:], stacked(theirs, other)[: STEPS - ahead], other)
    up, down = (np.cumsum(bits, dtype=float) for bits in (costs.bits_up, costs.bits_down))
    if name == "econtrol":  # it sends its first gradients in place of a message, the reference before it
        one = theirs[0]["bits_up"] - DENSE
        np.testing.assert_allclose(up, stacked(theirs, "bits_up") - one)
    else:
        np.testing.assert_allclose(up[1:], stacked(theirs, "bits_up")[:-1])
    if name == "ef21_bc":
        np.testing.assert_allclose(down[1:], stacked(theirs, "bits_down")[:-1])
    else:
        np.testing.assert_allclose(down, stacked(theirs, "bits_down"))


def test_compressors_here_contract_or_are_random():
    assert compressors.parse(RANDOM["up"]).delta(5) == pytest.approx(0.4)
    assert not compressors.parse(RANDOM["up"]).deterministic
