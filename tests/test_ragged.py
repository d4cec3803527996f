"""Clients of very different sizes: cut into blocks of rows, every result is that of clients padded to the largest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedjax_lc as fl
from fedjax_lc.core import pytree
from fedjax_lc.problems import layouts
from fedjax_lc.problems.features import Dense
from fedjax_lc.problems.layouts import Cut
from fedjax_lc.problems.ragged import Ragged
from tests.conftest import make_clients

SIZES = (128, 2, 1, 3, 62, 5, 9, 1)  # the first and the fifth lie in large blocks
KEY = jax.random.key(1)
MAKERS = {
    "logistic": (fl.problems.logistic_regression, make_clients(SIZES, 6)),
    "softmax": (fl.problems.softmax_regression, make_clients(SIZES, 6, labels=(0, 1, 2))),
}


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.fixture(scope="module", params=["logistic", pytest.param("softmax", marks=pytest.mark.slow)])
def both(request):
    make, clients = MAKERS[request.param]
    padded = make(clients, l2=0.1, weights="size")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "SMALL", 0)
        ragged = make(clients, l2=0.1, weights="size")
    assert isinstance(padded.features, Dense)
    assert [blocks.longest for blocks in ragged.features.blocks] == [64, 4]
    return ragged, padded


@pytest.fixture
def points(both):
    """(n, d), one of each client."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(both[0].n, both[0].dim)))


def batches(problem, x):
    return [problem.stochastic_grads(KEY, x, 3, replacement=replacement) for replacement in (True, False)]


@jax.jit
def everything(problem, x):
    return [problem.values(x), problem.grads(x), problem.hvps(x, x), *batches(problem, x)]


def test_values_gradients_and_batches(both, points):
    for x in (points[0], points):
        for ours, theirs in zip(everything(both[0], x), everything(both[1], x), strict=True):
            same(ours, theirs)


def test_constants(both):
    ragged, padded = both
    for name in ("smooth", "smooth_mean", "strong", "scale", "sizes", "longest"):
        same(getattr(ragged, name), getattr(padded, name))
    same(ragged.x_star, padded.x_star)


@jax.jit
def of_cohort(problem, clients, again, points):
    cohort = problem.cohort(clients)
    there = [cohort.grads(points[0]), *everything(cohort, points[clients]), cohort.scale]
    smaller = cohort.cohort(again)
    return [*there, smaller.grads(points[1]), *batches(smaller, points[1])]


@pytest.mark.parametrize("clients", [[0, 3, 5], [6, 5, 4, 3, 2, 1, 7]])
def test_cohorts_and_cohorts_of_cohorts(both, points, clients):
    ours, theirs = (of_cohort(each, jnp.array(clients), jnp.array([2, 0]), points) for each in both)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)


@pytest.mark.parametrize("lanes", [2, 7])
def test_lanes(both, lanes):
    ragged, padded = both
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(lanes, ragged.dim)), rng.normal(size=(lanes, ragged.n, ragged.dim))
    for X in map(jnp.asarray, (shared, own)):
        same(jax.jit(lambda p, X: p.lane_grads(X))(ragged.for_lanes(), X), padded.lane_grads(X))


def test_a_batch_of_a_cohort_gathers_no_blocks(both, points):
    """The rows of the batch alone: the cohort's matrices are not copied."""
    batch = lambda problem: problem.cohort(jnp.array([0, 4])).stochastic_grads(KEY, points[0], 3, replacement=False)
    program = jax.jit(batch).lower(both[0]).compile().as_text()
    for count, rows, d in (blocks.array.shape for blocks in both[0].features.blocks):
        made = f"= f64[{min(count, 2 * -(-128 // rows))},{rows},{d}]"
        assert not [line for line in program.splitlines() if made in line and "parameter(" not in line]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_blocks_hold_all_rows_and_little_else(sizes):
    sizes = np.array(sizes)
    cut = Cut.of(sizes, 2**20)
    if cut is None:
        assert len(sizes) * sizes.max() <= 1.5 * sizes.sum()
        return
    assert len(cut.owners) * cut.rows <= 1.25 * sizes.sum()
    rows = cut.table([np.full(m, i + 1.0) for i, m in enumerate(sizes)])
    for i, m in enumerate(sizes):
        blocks = rows[cut.owners == i].ravel()
        assert np.all(blocks[:m] == i + 1)
        assert not np.any(blocks[m:])
        assert cut.owners[cut.first[i]] == i


def test_a_partition_by_a_power_law_takes_the_memory_of_an_even_one():
    rng = np.random.default_rng(0)
    table = fl.data.from_arrays(rng.normal(size=(8000, 40)), np.sign(rng.normal(size=8000)))
    even, ragged = (
        fl.problem(table, clients=50, partition=partition, l2=0.1, f_star=0.0) for partition in ("iid", "power_law:1.5")
    )
    assert isinstance(ragged.features, Ragged)
    assert pytree.nbytes(ragged) <= 1.5 * pytree.nbytes(even)
