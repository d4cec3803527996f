"""What programs hold on accelerators, read from their text: no loop whose end depends on data but those named here, and
float32 products of convex problems exact. Nothing here needs an accelerator."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.core import lanes, platforms
from fedjax_lc.core.platforms import by_platform, repeat
from fedjax_lc.running import loop
from tests.conftest import make_clients
from tests.lowered import PLATFORMS, lowered, open_branches, open_loops, rounded_products, trace_step

#: loops of a method's step whose end depends on data, where the mathematics asks for it
OPEN_LOOPS = {"tamuna": 1}  # a random number of local steps
#: branches of one run's step under a coin: two gradients are worth the question
OPEN_BRANCHES = {"marina": 1, "pp_marina": 1}
LANES = 3


def clients(sizes=(6, 9, 4, 7)):
    return make_clients(sizes, dim=40)


@pytest.fixture(scope="module")
def wide():
    """Enough coordinates for a selection to be a search or a sort; float32."""
    return fl.problems.logistic_regression(clients(), kappa=30, dtype="float32")


def check(traced, loops=0, rounded=0, branches=0):
    for platform in PLATFORMS:
        module = lowered(traced, platform)
        assert open_loops(module) == loops, platform
        assert open_branches(module) == branches, platform
        assert len(rounded_products(module)) == rounded, platform


# --- the reading itself ---


@pytest.mark.parametrize(
    ("step", "loops"),
    [
        (lambda x, n: jax.lax.fori_loop(0, 5, lambda i, x: 2 * x, x), 0),
        (lambda x, n: jax.lax.scan(lambda x, _: (2 * x, None), x, length=3)[0], 0),
        (lambda x, n: jax.lax.fori_loop(0, n, lambda i, x: 2 * x, x), 1),
        (lambda x, n: jax.lax.while_loop(lambda x: x[0] < 5, lambda x: 2 * x, x), 1),
        (lambda x, n: jax.lax.map(lambda y: jax.lax.while_loop(lambda z: z < n, lambda z: 2 * z, y), x), 1),
    ],
)
def test_loops_are_told_apart(step, loops):
    check(jax.jit(step).trace(jnp.ones(3), jnp.int32(4)), loops)


def test_rounded_products_are_seen():
    a, kernel = jnp.ones((3, 3), jnp.float32), jnp.ones((1, 1, 3, 3), jnp.float32)
    check(jax.jit(lambda a: a @ a).trace(a), rounded=1)
    check(jax.jit(lambda a: jnp.matmul(a, a, precision="high")).trace(a), rounded=1)
    check(jax.jit(lambda a: jnp.matmul(a, a, precision="highest")).trace(a))
    check(jax.jit(lambda a: a @ a).trace(a.astype(jnp.float64)))
    check(jax.jit(lambda k: jax.lax.conv(k, k, (1, 1), "SAME")).trace(kernel), rounded=1)


def test_search_is_a_loop_on_a_cpu(wide):
    ef21 = algorithms.get("ef21")
    assert open_loops(lowered(trace_step(ef21, wide, ef21.theory(wide)), "cpu")) == 2


# --- every method ---


#: methods of each frame, and those with steps that no other has
FRAMES = [
    "adiana",
    "cser",
    "ef21_p",
    "fedavg",
    "lead",
    "locodl",
    "marina",
    "mcm",
    "power_gossip",
    "powersgd",
    "savic",
    "sidco",
    "two_direction",
]
OTHERS = [name for name in algorithms.names() if name not in FRAMES]


@pytest.mark.parametrize("over", [0, pytest.param(LANES, marks=pytest.mark.slow)], ids=["run", "lanes"])
@pytest.mark.parametrize("name", [*FRAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_steps_hold_no_open_loops_and_round_no_products(name, over, wide):
    algorithm = algorithms.get(name)
    branches = 0 if over else OPEN_BRANCHES.get(name, 0)
    check(trace_step(algorithm, wide, algorithm.theory(wide), over), OPEN_LOOPS.get(name, 0), branches=branches)


VARIANTS = {
    "batches": ("fedavg", {"batch_size": 3, "replacement": False}, 0),
    "epochs of clients of one size": ("scaffold", {"batch_size": 3, "local_epochs": 2}, 0),
    "a cohort": ("fedadam", {"cohort_size": 2}, 0),
    "who comes by chance": ("fedavg", {"cohort_size": 2, "selection": "bernoulli"}, 0),
    "who comes by size": ("fedavg", {"cohort_size": 2, "selection": "size"}, 0),
    "participation": ("artemis", {"participation": 0.3, "batch_size": 2}, 0),
    "many local steps": ("mime", {"local_steps": 100}, 0),
    "local steps that differ by client": ("fednova", {"local_steps": jnp.array([1, 2, 3, 4])}, 1),
    "local steps of a sweep's axis": ("fedavg", {"local_steps": jnp.array(4)}, 1),
    "probes of the first refresh": ("savic", {"rule": "oasis"}, 1),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_choices_hold_no_open_loops_but_those_of_unequal_work(variant):
    name, changes, loops = VARIANTS[variant]
    even = fl.problems.logistic_regression(clients((6, 6, 6, 6)), kappa=30, dtype="float32")
    algorithm = algorithms.get(name)
    check(trace_step(algorithm, even, dataclasses.replace(algorithm.theory(even), **changes)), loops)


SPECS = [
    "rand_k:12", "top_k:12", "rand_k:30%", "rand_k:12|natural", "top_k:12|qsgd:4", "shared_rand_k:12", "perm_k:4",
    "threshold:0.2", "threshold:0.2,fit=pareto", "l1_select", "fcc(top_k:3):2", "induced(top_k:3;rand_k:5)",
    "per_block(rand_k:2):10", "bernoulli:0.3", "block_sign:8", "top_energy:0.5",
    "top_per_bit:40",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_compressors_hold_no_open_loops(spec):
    compressor, rows = fl.compressors.parse(spec), jnp.ones((4, 40), jnp.float32)
    check(jax.jit(lambda key, rows: compressor.joint(key, rows).value).trace(jax.random.key(0), rows))


def test_low_rank_products_are_exact_and_its_svd_is_the_platforms():
    compressor, x = fl.compressors.parse("low_rank:2,rows=5"), jnp.ones(40, jnp.float32)
    traced = jax.jit(lambda key, x: compressor(key, x).value).trace(jax.random.key(0), x)
    assert {p: open_loops(lowered(traced, p)) > 0 for p in PLATFORMS} == {"cuda": False, "rocm": False, "tpu": True}
    assert not rounded_products(lowered(traced, "cuda"))


def test_a_gamma_law_is_fitted_by_jaxs_own_series():
    """Its incomplete gamma function goes on until its terms are small."""
    compressor = fl.compressors.parse("threshold:0.2,fit=gamma")
    traced = jax.jit(compressor).trace(jax.random.key(0), jnp.ones(40, jnp.float32))
    assert all(open_loops(lowered(traced, platform)) > 0 for platform in PLATFORMS)


@pytest.mark.parametrize("kind", ["least_squares", "softmax", "quadratic"])
@pytest.mark.parametrize("over", [0, LANES], ids=["run", "lanes"])
def test_products_of_other_problems_are_exact(kind, over):
    if kind == "quadratic":
        problem = fl.problems.quadratic(np.stack([np.eye(30)] * 4), np.ones((4, 30)), noise=1.0, dtype="float32")
    elif kind == "softmax":
        labelled = make_clients((6, 9, 4, 7), dim=10, labels=(0.0, 1.0, 2.0))
        problem = fl.problems.softmax_regression(labelled, l2=0.1, dtype="float32")
    else:
        problem = fl.problems.least_squares(clients(), l2=0.1, dtype="float32")
    sgd = algorithms.get("sgd")
    for hp in (sgd.theory(problem), dataclasses.replace(sgd.theory(problem), batch_size=2)):
        check(trace_step(sgd, problem, hp, over))


def test_a_whole_run_has_one_open_loop_and_exact_products(wide):
    """That of the records, which ends at a target; F and what is measured beside it included."""
    algorithm = algorithms.get("locodl")
    hp, key = algorithm.theory(wide), jax.random.key(0)
    metrics = loop.choose_metrics(algorithm, wide, ["grad_norm"])
    at, values = loop.start(algorithm, wide, hp, key, metrics)
    limits = loop.make_limits(wide, float(values["value"]))
    chunk = loop.chunk(algorithm, 5, 7, metrics)
    check(jax.jit(chunk).trace(wide, hp, at, key, np.uint32(0), np.uint32(1), limits), loops=1)


# --- networks ---


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_precision_of_a_network_is_its_own_choice(precision):
    """Forward and backward products follow the problem; means of what clients send are exact."""
    images = [(np.random.default_rng(i).random((6, 8, 8, 1), np.float32), np.arange(6) % 3) for i in range(2)]
    problem = fl.problems.neural("cnn", images, precision=precision, smooth=1.0)
    assert problem.facts["precision"] == precision
    fedavg = algorithms.get("fedavg")
    hp = dataclasses.replace(fedavg.theory(problem), compressor=fl.compressors.parse("rand_k:10"), local_steps=2)
    for platform in PLATFORMS:
        module = lowered(trace_step(fedavg, problem, hp), platform)
        rounded = rounded_products(module)
        assert len(rounded) == 0 if precision == "highest" else len(rounded) > 8
        assert all(precision.upper() in line for line in rounded)
        assert not any(str(problem.dim) in line for line in rounded)  # means of messages (n, d)
        assert open_loops(module) == 0


@pytest.mark.slow
def test_epochs_of_a_text_network_hold_no_open_loops():
    rows = np.random.default_rng(0).integers(0, 20, (2, 8, 10))
    problem = fl.problems.neural("char_lstm", [(r, r) for r in rows], classes=20, smooth=1.0)
    fedavg = algorithms.get("fedavg")
    hp = dataclasses.replace(fedavg.theory(problem), local_epochs=1, batch_size=3)
    for platform in PLATFORMS:
        module = lowered(trace_step(fedavg, problem, hp), platform)
        assert open_loops(module) == 0
        assert all("HIGH" in line for line in rounded_products(module))


# --- rarely ---


def rare(coin, x):
    return lanes.rarely(coin, lambda x: 2 * x, x)


def test_a_small_branch_is_computed_on_both_sides():
    x = jnp.ones(10)
    one = jax.jit(rare).trace(True, x)
    check(one)
    check(jax.jit(jax.vmap(rare)).trace(jnp.ones(8, bool), jnp.ones((8, 10))))
    assert open_branches(lowered(one, "cpu")) == 1


def test_a_large_branch_asks_and_many_lanes_take_turns(monkeypatch):
    monkeypatch.setattr(lanes, "BOTH_SIDES_UP_TO", 79)
    monkeypatch.setattr(lanes, "BOTH_SIDES_OF_LANES_UP_TO", 79)
    check(jax.jit(rare).trace(True, jnp.ones(80)), branches=1)
    check(jax.jit(jax.vmap(rare)).trace(jnp.ones(8, bool), jnp.ones((8, 10))), loops=1)


@pytest.mark.parametrize("limit", [0, 2**19])
@pytest.mark.parametrize("shared", [False, True])
def test_an_accelerators_branches_are_the_cpus(limit, shared, monkeypatch):
    """The accelerator's forms, run here."""
    rng = np.random.default_rng(0)
    coins, x = jnp.asarray(rng.random(40) < 0.3), jnp.asarray(rng.normal(size=(40, 3)))
    args, axes = ((coins[0], x), (None, 0)) if shared else ((coins, x), (0, 0))
    step = lambda coin, x: lanes.rarely(coin, lambda x: jnp.cumsum(x) + 1, x)
    here = jax.vmap(step, axes)(*args)
    monkeypatch.setattr(lanes, "by_platform", lambda cpu, accelerator: accelerator)
    monkeypatch.setattr(lanes, "BOTH_SIDES_UP_TO", limit)
    monkeypatch.setattr(lanes, "BOTH_SIDES_OF_LANES_UP_TO", limit)
    np.testing.assert_array_equal(jax.vmap(step, axes)(*args), here)


# --- loops ---


@pytest.mark.parametrize("count", [1, 2, 7, 16, 40])
def test_repeat_is_the_loop(count, monkeypatch):
    one = lambda h, both: (both[0] * 0.9 + h, h)
    usual = jax.jit(lambda x: repeat(count, one, (x, jnp.int32(0)), first=1))(1.0)
    traced = jax.jit(lambda count, x: repeat(count, one, (x, jnp.int32(0)), first=1))(count, 1.0)
    monkeypatch.setattr(platforms, "by_platform", lambda cpu, accelerator: accelerator)
    unrolled = jax.jit(lambda x: repeat(count, one, (x, jnp.int32(0)), first=1))(1.0)
    assert int(unrolled[1]) == int(traced[1]) == int(usual[1]) == (count - 1 if count > 1 else 0)
    np.testing.assert_allclose([unrolled[0], traced[0]], usual[0], rtol=1e-14)


def test_by_platform_is_the_cpus_here():
    assert int(jax.jit(by_platform(cpu=lambda x: x + 1, accelerator=lambda x: x + 2))(1)) == 2
