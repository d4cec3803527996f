"""Who keeps which error: identities between the methods with error feedback, what they cost, and how they compare.

Identities are those of LIEC-SGD (arXiv 2402.11857), I1 to I6, and of its comparison set, J1 to J6.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors, problems
from fedjax_lc.algorithms.frames.server import model
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import KEY, quadratic_pair, step_keys, walk
from tests.conftest import make_clients
from tests.quickly import QUICKLY

N, D, STEPS = 4, 5, 24
PROBLEM = problems.logistic_regression(make_clients(), kappa=30).replace(
    x0=jnp.asarray(np.random.default_rng(1).normal(size=D))
)
GAMMA = 0.2 / float(PROBLEM.smooth.max())
X0 = np.asarray(PROBLEM.x0)
SIGN, TOP = "sign", "top_k:2"
BATCHES = {"batch_size": 2}
WAYS = ("compressor", "downlink", "reset")


def hparams(name, up=SIGN, down=SIGN, **changes):
    """The same step size for all; compressors as given, however they contract."""
    method = algorithms.get(name)
    meter = {"down": changes.pop("meter")} if "meter" in changes else {}
    given = {"compressor": up, "downlink": down, "reset": changes.pop("reset", up), "gamma": GAMMA} | meter | changes
    fields = {field.name for field in dataclasses.fields(method.Hparams)}
    values = {field: compressors.parse(v) if field in WAYS else v for field, v in given.items() if field in fields}
    return method.theory(PROBLEM).__class__(**vars(method.theory(PROBLEM)) | values)


def states(name, problem=PROBLEM, steps=STEPS, **changes):
    return walk(name, problem, hparams(name, **changes), steps)


def points(name, **changes):
    return states(name, **changes)[2]


def close(a, b, scale=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=scale * max(1.0, np.abs(b).max()))


def apart(a, b):
    assert np.abs(np.asarray(a) - b).max() > 1e-3


def batch_gradients(models, problem=PROBLEM, **changes):
    """(steps, n, d) gradients on the batches of each step, at models (steps, d) or (steps, n, d)."""
    batch_keys = jax.vmap(lambda key: jax.random.split(key, 4)[0])(step_keys(len(models)))
    take = lambda key, x: problem.stochastic_grads(key, x, changes["batch_size"], replacement=False)
    return np.asarray(jax.vmap(take)(batch_keys, jnp.asarray(models)))


def before(rows, first):
    """What stood before each step, of what stands after it."""
    return np.concatenate([np.broadcast_to(first, rows[:1].shape), rows[:-1]])


# Limits in which methods coincide.


@pytest.mark.parametrize("changes", [{}, BATCHES], ids=["full", "batches"])
def test_i1_liec_of_period_one_is_sgd(changes):
    close(points("liec_sgd", period=1, **changes), points("sgd", **changes))
    apart(points("liec_sgd", period=2, **changes), points("sgd", **changes))


@pytest.mark.parametrize("period", [2, 5, 100])
def test_i2_liec_without_compression_is_sgd(period):
    free = {"up": "identity", "down": "identity", **BATCHES}
    close(points("liec_sgd", period=period, **free), points("sgd", **BATCHES))


@pytest.mark.parametrize("down", [SIGN, TOP, "identity"])
def test_i3_liec_without_an_uplink_is_local_sgd(down):
    """Averages after every third step: FedAvg of three local steps, whose gradients are full ones."""
    found = points("liec_sgd", up="zero", down=down, period=3)
    fedavg = algorithms.get("fedavg").theory(PROBLEM, local_steps=3)
    rounds = walk("fedavg", PROBLEM, dataclasses.replace(fedavg, client_lr=GAMMA, server_lr=1.0), STEPS // 3)[2]
    close(found[2::3], rounds)


@pytest.mark.parametrize("up", [SIGN, TOP])
def test_i4_liec_with_a_free_downlink_is_cser_with_free_resets(up):
    both = {"up": up, "period": 4, **BATCHES}
    close(points("liec_sgd", down="identity", **both), points("cser", reset="identity", **both))
    apart(points("liec_sgd", down="identity", **both), points("cser", reset=up, **both))


@pytest.mark.parametrize("period", [3, 7])
def test_i5_models_less_the_server_error_follow_sgd_on_the_same_gradients(period):
    found, _, xbar = states("liec_sgd", period=period, **BATCHES)
    y = xbar - GAMMA * found.down
    g = batch_gradients(before(found.w, X0), **BATCHES).mean(axis=1)
    close(y, before(y, X0) - GAMMA * g)
    assert np.abs(found.down).max() > 1e-3


def test_i6_models_differ_by_what_messages_left_out_since_the_last_synchronisation():
    found, _, xbar = states("liec_sgd", period=4)
    spread = found.w - xbar[:, None]
    close(spread[3::4], np.zeros_like(spread[3::4]))
    assert np.abs(spread[2::4]).max(axis=(1, 2)).min() > 1e-3
    g = np.asarray(jax.vmap(PROBLEM.grads)(jnp.asarray(before(found.w, X0))))
    r = g - np.abs(g).mean(axis=2, keepdims=True) * np.where(g < 0, -1, 1)
    r[3::4] = 0
    gathered = np.cumsum(r.reshape(-1, 4, N, D), axis=1).reshape(r.shape)
    gathered[3::4] = 0
    close(spread, -GAMMA * (gathered - gathered.mean(axis=1, keepdims=True)))


def test_j1_models_less_what_is_owed_follow_sgd():
    for name in ("mem_sgd", "double_squeeze", "neolithic"):
        found, _, x = states(name, **BATCHES)
        owed = found.up.mean(axis=1) + (0 if name == "mem_sgd" else found.down)
        y, g = x - GAMMA * owed, batch_gradients(before(x, X0), **BATCHES).mean(axis=1)
        close(y, before(y, X0) - GAMMA * g)
        assert np.abs(owed).max() > 1e-2


def test_j2_double_squeeze_lies_between_mem_sgd_and_neolithic():
    close(points("double_squeeze", down="identity", **BATCHES), points("mem_sgd", **BATCHES))
    once = {"up": "fcc(sign):1", "down": "fcc(sign):1"}
    close(points("neolithic", **once), points("double_squeeze"))
    apart(points("neolithic", up="fcc(sign):2", down="fcc(sign):2"), points("double_squeeze"))


def test_j3_errors_of_cser_are_how_models_differ():
    found, _, _ = states("cser", period=4, **BATCHES)
    common = found.w + GAMMA * found.down
    close(common, np.broadcast_to(common.mean(axis=1, keepdims=True), common.shape))
    apart(found.w[:, 0], found.w[:, 1])
    fedavg = algorithms.get("fedavg").theory(PROBLEM, local_steps=3)
    rounds = walk("fedavg", PROBLEM, dataclasses.replace(fedavg, client_lr=GAMMA, server_lr=1.0), STEPS // 3)[2]
    close(points("cser", up="zero", reset="identity", period=3)[2::3], rounds)


def test_j4_relatives_of_ef21():
    close(points("ef21_bc", down="identity"), points("ef21"))
    close(points("econtrol", eta=0.0), points("ef21"))
    close(points("ef21_sgdm", eta=1.0, **BATCHES), points("ef21", **BATCHES))
    close(points("ef21_sgdm", eta=1.0, double=True, **BATCHES), points("ef21", **BATCHES))
    for name, changes in {"ef21_bc": {}, "econtrol": {"eta": 0.1}, "ef21_sgdm": {"eta": 0.3}}.items():
        apart(points(name, **changes), points("ef21"))


@pytest.mark.parametrize("c_ef", [0.0, 0.7])
def test_j5_dore_with_a_free_downlink_is_diana(c_ef):
    same = {"up": "rand_k:2", "down": "identity", **BATCHES}
    found = states("dore", alpha_up=0.3, beta=1.0, c_ef=c_ef, **same)
    close(found[2], points("diana", alpha=0.3, **same))
    close(found[0].up.h, found[0].up.h_i.mean(axis=1))
    apart(points("dore", alpha_up=0.3, beta=1.0, c_ef=c_ef, up="rand_k:2", down="rand_k:2", **BATCHES), found[2])


@pytest.mark.slow
def test_j6_without_compression_every_method_is_gradient_descent():
    free = {"up": "identity", "down": "identity"}
    for name in ("mem_sgd", "double_squeeze", "neolithic", "cser", "liec_sgd", "ef21", "ef21_bc", "econtrol"):
        close(points(name, **free), points("sgd"))
    close(points("dore", beta=1.0, **free), points("sgd"))
    close(points("marina", p=0.3, **free), points("sgd"))
    close(points("marina", up="rand_k:2", p=1.0), points("sgd"))
    close(points("pp_marina", up="rand_k:2", p=1.0, cohort_size=2), points("sgd"))


# What they cost.

SIGN_BITS, DENSE = D + 32, 32 * D


@pytest.mark.parametrize("period", [3, 5])
@pytest.mark.parametrize("vectors", [1, 2])
def test_bits_of_liec(period, vectors):
    """(1 - 1/p)(d + 32 B) + 32 d vectors/p each way; floor(T/p) synchronisations in T iterations."""
    _, cost, _ = states("liec_sgd", period=period, sync_vectors=vectors)
    syncs = STEPS // period
    for bits in (cost.bits_up, cost.bits_down):
        assert bits.sum() == (STEPS - syncs) * SIGN_BITS + syncs * vectors * DENSE
        np.testing.assert_array_equal(bits[period - 1 :: period], vectors * DENSE)
    np.testing.assert_array_equal(cost.grads, 1)
    np.testing.assert_array_equal(cost.rounds, 1)


@pytest.mark.parametrize(("meter", "mean"), [("dense", DENSE), ("sparse", SIGN_BITS)])
def test_bits_of_cser(meter, mean):
    """(1 + 1/H)(d + 32 B) up and as many means down."""
    _, cost, _ = states("cser", period=8, meter=meter)
    assert cost.bits_up.sum() == STEPS * 9 / 8 * SIGN_BITS
    assert cost.bits_down.sum() == STEPS * 9 / 8 * mean


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        ("sgd", DENSE, DENSE),
        ("mem_sgd", SIGN_BITS, DENSE),
        ("double_squeeze", SIGN_BITS, SIGN_BITS),
        ("neolithic", 2 * SIGN_BITS, 2 * SIGN_BITS),
        ("dore", SIGN_BITS, SIGN_BITS),
        ("ef21", SIGN_BITS, DENSE),
        ("ef21_sgdm", SIGN_BITS, DENSE),
        ("econtrol", SIGN_BITS, DENSE),
    ],
)
def test_bits_of_the_others(name, up, down):
    twice = {"up": "fcc(sign):2", "down": "fcc(sign):2"} if name == "neolithic" else {}
    _, cost, _ = states(name, **twice)
    np.testing.assert_array_equal(cost.bits_up[1:], up)
    np.testing.assert_array_equal(cost.bits_down, down)
    assert cost.bits_up[0] == DENSE if name.startswith("ef21") or name == "econtrol" else up


def test_marina_pays_two_gradients_or_one():
    """And a dense message where the coin shows heads; cohorts pay for themselves."""
    for name, share in (("marina", 1.0), ("pp_marina", 0.5)):
        extra = {"cohort_size": 2} if share < 1 else {}
        _, cost, _ = states(name, up="rand_k:2", p=0.4, steps=60, **extra)
        heads = cost.bits_up[1:] == DENSE
        assert 10 < heads.sum() < 40
        message = float(compressors.parse("rand_k:2")(KEY, PROBLEM.x0).bits)
        np.testing.assert_array_equal(cost.bits_up[1:][~heads], share * message)
        np.testing.assert_array_equal(cost.grads[1:], np.where(heads, 1, 2 * share))
        assert (cost.bits_up[0], cost.grads[0]) == (DENSE, 1)


SCHEDULE = np.array([[0, 1, -1], [3, -1, -1], [2, 1, 0]])


@pytest.mark.parametrize(
    "changes",
    [{"participation": 0.5}, {"cohort_size": 2}, {"cohort_size": 2, "selection": "bernoulli"},
     {"selection": "schedule", "schedule": jnp.asarray(SCHEDULE)}],
    ids=["chance", "uniform", "bernoulli", "schedule"],
)  # fmt: skip
@pytest.mark.parametrize("init", ["dense", pytest.param("compressed", marks=pytest.mark.slow)])
def test_ef21_of_cohorts(init, changes):
    """Those who stay away keep their g_i, and the model goes along the mean of all (EF21-PP); the dense first message
    is everybody's."""
    hp = hparams("ef21", up=TOP, init=init, **changes)
    found, cost, points = walk("ef21", PROBLEM, hp, STEPS)
    began = algorithms.get("ef21").init(PROBLEM, hp, jax.random.fold_in(KEY, 2**32 - 1))
    active = np.concatenate([np.asarray(began.active)[None], found.active])[:STEPS]
    if init == "dense":
        assert active[0].all()
    if changes.get("selection") == "schedule":
        want = [[i in row for i in range(N)] for row in SCHEDULE]
        assert (active[1:7] == np.array((want * 3)[1:7])).all()
    elif changes.get("selection") != "bernoulli" and "cohort_size" in changes:
        assert (active[1:].sum(axis=1) == 2).all()
    message, x, g_i = float(compressors.parse(TOP)(KEY, PROBLEM.x0).bits), X0, np.zeros((N, D))
    for t in range(STEPS):
        g = np.asarray(PROBLEM.grads(jnp.asarray(x)))
        if t == 0 and init == "dense":
            g_i = g.copy()
        else:
            for i in np.flatnonzero(active[t]):
                left = g[i] - g_i[i]
                kept = np.argsort(-np.abs(left))[:2]
                g_i[i, kept] += left[kept]
        x = x - GAMMA * g_i.mean(axis=0)
        close(points[t], x)
        close(found.up.h_i[t], g_i)
        assert cost.bits_up[t] == pytest.approx(DENSE if t == 0 and init == "dense" else message * active[t].mean())
        assert cost.grads[t] == pytest.approx(active[t].mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ef21", "ef21_bc", "ef21_sgdm", "econtrol", "marina"])
def test_what_all_share_works_for_estimates_too(name):
    """Falling steps, averages and cohorts change where a method goes; the steps fall as they do for SGD."""
    free = {"up": "identity", "down": "identity", **({"eta": 1.0} if name == "ef21_sgdm" else {})}
    for changes in ({"gamma_schedule": "steps:5,0.5", "decay": 0.5}, {"average_every": 3}, {"momentum": 0.5}):
        close(points(name, **free, **changes), points("sgd", **changes))
    assert np.isfinite(points(name, cohort_size=2, up="rand_k:2" if name == "marina" else TOP)).all()


WITH_ERRORS = (
    "mem_sgd",
    "double_squeeze",
    "diana",
    "artemis",
    "mcm",
    "dore",
    "econtrol",
    "ef21",
    "ef21_bc",
    "ef21_sgdm",
)


@pytest.mark.parametrize("name", WITH_ERRORS)
def test_clients_that_stay_away_keep_their_errors_and_memories(name):
    """Bit for bit; those that come move theirs."""
    up = TOP if algorithms.get(name).theory(PROBLEM).compressor.omega(D) == np.inf else "rand_k:2"
    hp = hparams(name, up=up, down="rand_k:2", participation=0.5)
    found, _, _ = walk(name, PROBLEM, hp, STEPS)
    began = algorithms.get(name).init(PROBLEM, hp, jax.random.fold_in(KEY, 2**32 - 1))
    active = np.concatenate([np.asarray(began.active)[None], found.active])[1:STEPS]  # of the second step and on
    assert 0 < active.sum() < active.size
    rows = [leaf for leaf in jax.tree.leaves(found.up) if leaf.shape == (STEPS, N, D)]
    assert rows
    for leaf in rows:
        moved = (leaf[1:] != leaf[:-1]).any(axis=2)
        assert not moved[~active].any()
        assert moved[active].any()


def test_the_first_message_of_ef21_may_be_compressed():
    _, cost, _ = states("ef21", init="compressed")
    np.testing.assert_array_equal(cost.bits_up, SIGN_BITS)


@pytest.mark.parametrize(("init", "first"), [("dense", DENSE), ("compressed", SIGN_BITS)])
def test_ef21_bc_pays_for_its_first_messages_both_ways(init, first):
    _, cost, _ = states("ef21_bc", init=init)
    for bits in (cost.bits_up, cost.bits_down):
        np.testing.assert_array_equal(bits, [first] + [SIGN_BITS] * (STEPS - 1))


# State, options, bad input.


@pytest.mark.parametrize(
    ("name", "client_vectors", "server_vectors"),
    [
        ("sgd", 0, 1),
        ("mem_sgd", 1, 1),
        ("double_squeeze", 1, 2),
        ("neolithic", 1, 2),
        ("cser", 2, 0),
        ("liec_sgd", 1, 1),
        ("dore", 1, 3),
        ("ef21", 1, 2),
        ("ef21_bc", 1, 3),
        ("ef21_sgdm", 2, 2),
        ("econtrol", 2, 2),
        ("marina", 0, 3),
    ],
)
def test_states_hold_no_more_than_they_must(name, client_vectors, server_vectors):
    state = jax.eval_shape(algorithms.get(name).init, PROBLEM, hparams(name), KEY)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert (shapes.count((N, D)), shapes.count((D,))) == (client_vectors, server_vectors)


@pytest.mark.parametrize("name", ["sgd", "double_squeeze", "cser", "liec_sgd"])
def test_weight_decay_and_momentum_act_at_the_models(name):
    """Without compression: v = m v + g + wd x, x -= gamma v, the gradients' mean or each client's own."""
    hp = hparams(name, up="identity", down="identity", weight_decay=0.3, momentum=0.6, period=100)
    found = model(walk(name, PROBLEM, hp, 6)[0].w[-1])
    x, v = np.tile(X0, (N, 1)), 0.0
    for _ in range(6):
        g = np.asarray(PROBLEM.grads(jnp.asarray(x))).mean(axis=0)
        v = 0.6 * v + g + 0.3 * x
        x = x - GAMMA * v
    close(found, x.mean(axis=0))


def test_step_sizes_may_fall_by_a_schedule():
    hp = hparams("sgd", gamma_schedule="steps:2,0.1")
    found = walk("sgd", PROBLEM, hp, 5)[2]
    x = X0
    for t in range(5):
        x = x - GAMMA * 0.1 ** (t // 2) * np.asarray(jnp.mean(PROBLEM.grads(jnp.asarray(x)), axis=0))
        close(found[t], x)


def test_accumulated_batches_are_one_larger_batch():
    twice = {"up": "fcc(sign):2", "down": "fcc(sign):2"}
    _, cost, found = states("neolithic", batch_size=1, accumulate=True, **twice)
    _, plain, want = states("neolithic", batch_size=2, **twice)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(cost.grads, plain.grads)


def test_error_norms_are_those_of_what_is_owed():
    for name in ("mem_sgd", "double_squeeze", "liec_sgd", "cser", "econtrol"):
        method, hp = algorithms.get(name), pytree.cast(hparams(name), PROBLEM.dtype)
        state = jax.tree.map(lambda leaf: leaf[-1], states(name)[0])
        kept = state.up.e_i if name == "econtrol" else (state.up, state.down)
        parts = [np.asarray(leaf) for leaf in jax.tree.leaves(kept)]
        got = np.asarray(method.error(PROBLEM, hp, state))
        close(got, sum(part.mean(axis=0) if part.ndim == 2 else part for part in parts))
        assert np.abs(got).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("liec_sgd", {"participation": 0.5}, "liec_sgd needs all clients in every round: leave out participation"),
        ("cser", {"participation": 0.5}, "cser needs all clients in every round: leave out participation"),
        ("liec_sgd", {"period": 0}, "liec_sgd needs period whole and >= 1, got 0"),
        ("liec_sgd", {"sync_vectors": 3}, "liec_sgd needs sync_vectors 1 or 2, got 3"),
        ("liec_sgd", {"sync_vectors": 1, "momentum": 0.9}, "sync_vectors=1 sends one model"),
        ("cser", {"meter": "thin"}, "unknown down 'thin'"),
        ("neolithic", {"accumulate": True}, "accumulate takes R batches for a compressor fcc"),
        ("dore", {"form": "own"}, "unknown form 'own'"),
        ("ef21_sgdm", {"eta": 0.0}, "ef21_sgdm needs eta in"),
        ("sgd", {"weight_decay": -1.0}, "sgd needs weight_decay >= 0"),
        ("marina", {"p": 0.0}, "marina needs p in"),
    ],
)
def test_options_that_do_not_fit(name, changes, words):
    with pytest.raises(InputError, match=words):
        algorithms.get(name).check(PROBLEM, hparams(name, **changes))


def test_unknown_start_of_ef21():
    with pytest.raises(InputError, match="unknown init 'cold'"):
        algorithms.get("ef21").check(PROBLEM, hparams("ef21", init="cold"))


# How they compare.


def heterogeneous(n=N, d=D, seed=4):
    """Quadratics whose minimisers are far apart, L_i = 10, mu_i = 1."""
    rng = np.random.default_rng(seed)
    return quadratic_pair(rng, n, d, 10.0)[0].replace(x0=jnp.asarray(rng.normal(size=d)))


APART = heterogeneous()
LONG = 20_000


def floor_of(name, gamma, problem=APART, **changes):
    """|grad F|^2 at the method's point, the mean of the last quarter of a long run with full gradients."""
    hp = pytree.cast(dataclasses.replace(hparams(name, **changes), gamma=gamma), problem.dtype)
    found = walk(name, problem, hp, LONG)[2][-LONG // 4 :]
    g = np.einsum("de,te->td", problem.Q.mean(axis=0), found) - np.asarray(problem.b).mean(axis=0)
    return float(np.mean(np.sum(g**2, axis=1)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ef21", {}),
        ("ef21_bc", {}),
        ("econtrol", {"eta": 0.1}),
        ("ef21_sgdm", {"eta": 0.5}),
        ("diana", {"up": "rand_k:2", "alpha": 0.4}),
        ("dore", {"up": "rand_k:2", "down": "rand_k:2", "alpha_up": 0.4, "c_ef": 0.4, "beta": 0.4}),
        ("marina", {"up": "rand_k:2", "p": 0.4}),
        ("pp_marina", {"up": "rand_k:2", "p": 0.4, "cohort_size": 2}),
    ],
)
@pytest.mark.slow
def test_o2_estimates_and_memories_go_down_to_rounding(name, changes):
    assert floor_of(name, 0.002, **({"up": TOP, "down": TOP} | changes)) < 1e-25


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mem_sgd", {}),
        ("double_squeeze", {}),
        ("neolithic", {"up": "fcc(sign):2", "down": "fcc(sign):2"}),
        ("cser", {"period": 8}),
        ("liec_sgd", {"period": 4}),
    ],
)
def test_o2_errors_paid_back_leave_a_floor_of_gamma_squared(name, changes):
    """A factor of 4 for each halving of gamma, 16 for two."""
    high, low = (floor_of(name, gamma, **changes) for gamma in (0.004, 0.001))
    assert low > 1e-8
    assert high / low == pytest.approx(16, rel=0.15)


def test_o3_the_floor_of_liec_rises_with_the_period():
    """About as (p - 1)^2; it vanishes where clients agree on the solution."""
    floors = [floor_of("liec_sgd", 0.004, period=period, up=TOP, down=TOP) for period in (2, 4, 8)]
    assert floors == sorted(floors)
    assert floors[1] / floors[0] == pytest.approx(9, rel=0.2)
    assert floors[2] / floors[0] == pytest.approx(49, rel=0.2)
    agreed = jnp.einsum("nde,e->nd", APART.Q, jnp.ones(D))
    alike = APART.replace(b=agreed, attached=jnp.ones(D))
    assert floor_of("liec_sgd", 0.004, alike, period=8, up=TOP, down=TOP) < 1e-20


def test_o3_who_has_the_lower_floor():
    """NEOLITHIC(2) below DoubleSqueeze, LIEC(8) below CSER(8), and DoubleSqueeze below LIEC(8): heterogeneity is where
    LIEC is weak."""
    twice = {"up": "fcc(sign):2", "down": "fcc(sign):2"}
    squeeze, liec = floor_of("double_squeeze", 0.004), floor_of("liec_sgd", 0.004, period=8)
    assert floor_of("neolithic", 0.004, **twice) < 0.5 * squeeze
    assert squeeze < 0.75 * liec
    assert liec < 0.75 * floor_of("cser", 0.004, period=8)


SEEDS, NOISY = 16, 3000


@functools.cache
def alike():
    """Eight clients of one quadratic, d = 40, whose stochastic gradients are noisy; starts at the solution."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    matrix = basis * np.geomspace(1, 20, 40) @ basis.T
    b = rng.normal(size=40)
    x_star = jnp.asarray(np.linalg.solve(matrix, b))
    problem = problems.quadratic(np.array([(matrix + matrix.T) / 2] * 8), np.tile(b, (8, 1)), noise=1.0)
    return problem.replace(attached=x_star, x0=x_star)


@functools.cache
def noisy(name, k, **changes):
    """Mean and standard error over seeds: of F - F*, and of the error's norm, over the second half of a run."""
    problem, method = alike(), algorithms.get(name)
    top = f"top_k:{k}"
    given = {"up": top, "down": top} | ({"up": f"fcc({top}):2", "down": f"fcc({top}):2"} if name == "neolithic" else {})
    hp = pytree.cast(hparams(name, **given, **dict(changes)), problem.dtype)
    hp = dataclasses.replace(hp, gamma=jnp.asarray(0.015), batch_size=1)

    def one(key):
        def go(state, t):
            state, _ = method.step(problem, hp, state, jax.random.fold_in(key, t))
            error = jnp.linalg.norm(method.error(problem, hp, state)) if method.error else 0.0
            return state, jnp.stack([problem.value(method.point(problem, hp, state)), error])

        return jnp.mean(jax.lax.scan(go, method.init(problem, hp, key), jnp.arange(NOISY))[1][NOISY // 2 :], axis=0)

    found = np.array(jax.jit(jax.vmap(one), compiler_options=QUICKLY)(jax.random.split(KEY, SEEDS)))
    found[:, 0] -= float(problem.value(problem.x0))
    return found.mean(axis=0), found.std(axis=0, ddof=1) / SEEDS**0.5


def below(one, other, which, by=4):
    """Lower by more than so many standard errors of the difference."""
    (a, da), (b, db) = one, other
    return a[which] < b[which] - by * np.hypot(da[which], db[which])


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 2, 1])
def test_o4_o5_alike_clients_with_aggressive_compression(k):
    """delta = k/40. Loss: P-SGD < LIEC(32) < MEM-SGD < DoubleSqueeze; errors: LIEC < MEM-SGD < DoubleSqueeze."""
    sgd, liec = noisy("sgd", 1), noisy("liec_sgd", k, period=32)
    mem, squeeze = noisy("mem_sgd", k), noisy("double_squeeze", k)
    assert below(sgd, liec, 0)
    assert below(liec, mem, 0)
    assert below(mem, squeeze, 0)
    assert below(liec, mem, 1)
    assert below(mem, squeeze, 1)


@pytest.mark.slow
def test_o4_the_distance_of_double_squeeze_from_liec_widens_as_delta_falls():
    gaps = [noisy("double_squeeze", k)[0][0] - noisy("liec_sgd", k, period=32)[0][0] for k in (4, 2, 1)]
    assert gaps[0] > 0
    assert gaps[1] > 2 * gaps[0]
    assert gaps[2] > 2 * gaps[1]
