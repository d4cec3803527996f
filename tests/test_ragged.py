"""Clients of very different sizes: cut into blocks or pieces, every result is that of clients padded to the largest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

import fedjax_lc as fl
from fedjax_lc.core import pytree
from fedjax_lc.problems import layouts, ragged_sparse
from fedjax_lc.problems.features import Dense, Sparse
from fedjax_lc.problems.layouts import Cut
from fedjax_lc.problems.ragged import Ragged
from fedjax_lc.problems.ragged_sparse import RaggedSparse
from tests.conftest import make_clients
from tests.lowered import PLATFORMS, lowered, open_loops

SIZES = (128, 2, 1, 3, 62, 5, 9, 1)  # the first and the fifth lie in large blocks
KEY = jax.random.key(1)


def sparse_clients():
    """With rows of no entries to three pieces of them; the third client has none."""
    rng = np.random.default_rng(3)
    matrices = [rng.normal(size=(m, 40)) * (rng.random((m, 40)) < rng.random((m, 1))) for m in SIZES]
    matrices[0][0], matrices[2][:], matrices[3][-1] = 1, 0, 0
    return [(csr_array(A), rng.choice((-1.0, 1.0), m)) for A, m in zip(matrices, SIZES, strict=True)]


MAKERS = {
    "logistic": (fl.problems.logistic_regression, make_clients(SIZES, 6)),
    "softmax": (fl.problems.softmax_regression, make_clients(SIZES, 6, labels=(0, 1, 2))),
    "sparse": (fl.problems.logistic_regression, sparse_clients()),
}


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.fixture(scope="module", params=["logistic", "sparse", pytest.param("softmax", marks=pytest.mark.slow)])
def both(request):
    make, clients = MAKERS[request.param]
    padded = make(clients, l2=0.1, weights="size")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "SMALL", 0)
        ragged = make(clients, l2=0.1, weights="size")
    sparse = request.param == "sparse"
    assert isinstance(padded.features, Sparse if sparse else Dense)
    assert [rows for rows, _ in ragged.features.classes] == ([1] if sparse else [32, 4])
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
    np.testing.assert_array_equal(ragged.content()["data"], padded.content()["data"])
    assert ragged.content()["kind"] == padded.content()["kind"]


@jax.jit
def of_cohort(problem, clients, again, points):
    cohort = problem.cohort(clients)
    there = [cohort.grads(points[0]), *everything(cohort, points[clients]), cohort.scale]
    smaller = cohort.cohort(again)
    return [*there, smaller.grads(points[1]), *batches(smaller, points[1])]


@pytest.mark.parametrize("clients", [[5, 3, 0], pytest.param([6, 5, 4, 3, 2, 1, 7], marks=pytest.mark.slow)])
def test_cohorts_and_cohorts_of_cohorts(both, points, clients):
    ours, theirs = (of_cohort(each, jnp.array(clients), jnp.array([2, 0]), points) for each in both)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)


@pytest.mark.parametrize("lanes", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_lanes(both, lanes):
    ragged, padded = both
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(lanes, ragged.dim)), rng.normal(size=(lanes, ragged.n, ragged.dim))
    for X in map(jnp.asarray, (shared, own)):
        expected = padded.lane_grads(X)
        same(jax.jit(lambda p, X: p.lane_grads(X))(ragged.for_lanes(), X), expected)
        if isinstance(ragged, fl.problems.LinearModel):
            same(jax.jit(type(ragged)._together)(ragged, X), expected)


def test_accelerators_programs_hold_no_open_loops(both, points):
    traced = of_cohort.trace(both[0], jnp.array([5, 3, 0]), jnp.array([2, 0]), points)
    assert [open_loops(lowered(traced, platform)) for platform in PLATFORMS] == [0] * len(PLATFORMS)


def test_a_batch_of_a_cohort_gathers_no_blocks(both, points):
    """The rows of the batch alone: the cohort's matrices are not copied."""
    cohort = lambda problem: problem.cohort(jnp.array([0, 4]))
    batch = lambda problem: cohort(problem).stochastic_grads(KEY, points[0], 3, replacement=False)
    program = jax.jit(batch).lower(both[0]).compile().as_text()
    gathered = jax.eval_shape(lambda problem: pytree.replace(cohort(problem).features, whole=None), both[0])
    made = [f"= f64{list(leaf.shape)}".replace(" ", "").replace("=", "= ") for leaf in jax.tree.leaves(gathered)
            if leaf.dtype == jnp.float64]  # fmt: skip
    assert made
    for line in program.splitlines():
        assert "parameter(" in line or not any(shape in line for shape in made)


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


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_pieces_hold_all_entries_on_the_devices_of_their_clients(sizes, devices, others, seed):
    rng, sizes = np.random.default_rng(seed), np.array(sizes)
    parts = [csr_array(rng.normal(size=(m, 40)) * (rng.random((m, 40)) < rng.random((m, 1)))) for m in sizes]
    features = layouts.laid_out(parts, sizes, Cut.apart(sizes, (1,), devices), np.float64)
    for laid_out in (features, layouts.among(features, sizes, others)[0]):
        for part, found in zip(parts, ragged_sparse.matrices(laid_out, sizes), strict=True):
            assert (part != found).nnz == 0
        rows, count = np.asarray(laid_out.rows)[:, 0], laid_out.devices
        assert np.all(np.diff(rows) >= 0)
        device = np.repeat(np.arange(count), len(rows) // count)
        np.testing.assert_array_equal(rows // (len(laid_out.owners) // count), device)


def costs(problem):
    """Bytes of the problem; and of its gradient's program the bytes that it takes and touches, and its operations."""
    program = jax.jit(lambda problem, x: problem.grads(x)).lower(problem, problem.x0).compile()
    counted = program.cost_analysis()
    return np.array([pytree.nbytes(problem), program.memory_analysis().temp_size_in_bytes, counted["bytes accessed"],
                     counted["flops"]])  # fmt: skip


@pytest.mark.parametrize(("features", "form"), [("dense", Ragged), ("sparse", RaggedSparse)])
def test_a_partition_by_a_power_law_costs_what_an_even_one_does(features, form):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(8000, 40)) * (rng.random((8000, 40)) < rng.random((8000, 1)))
    table, options = fl.data.from_arrays(A, np.sign(rng.normal(size=8000))), {"l2": 0.1, "f_star": 0.0}
    even, ragged = (
        fl.problem(table, clients=50, partition=partition, features=features, **options)
        for partition in ("iid", "power_law:1.5")
    )
    assert isinstance(ragged.features, form)
    assert np.all(costs(ragged) <= 1.5 * costs(even))
