"""Problems against loops over ragged clients, their constants, their optima, and their error messages."""

import collections
import dataclasses
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems.draws import below, distinct
from tests.conftest import make_clients
from tests.reference import problems as reference

SIZES = np.array([3, 6, 4, 5])
SHARES = SIZES / SIZES.sum()


def regression_clients():
    return [(A, A @ np.arange(5.0) + b) for A, b in make_clients()]


def class_clients():
    return make_clients(labels=(0, 1, 2))


def symmetric():
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(4, 5, 5))
    return roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(5), rng.normal(size=(4, 5))


def pairs():
    """name -> (our problem, the reference)."""
    Q, b = symmetric()
    p, r = fl.problems, reference
    return {
        "logistic": (p.logistic_regression(make_clients(), l2=0.1), r.LogisticRegression(make_clients(), 0.1)),
        "weighted": (
            p.logistic_regression(make_clients(), l2=0.1, weights="size"),
            r.LogisticRegression(make_clients(), 0.1, SHARES),
        ),
        "least_squares": (p.least_squares(regression_clients(), l2=0.2), r.LeastSquares(regression_clients(), 0.2)),
        "softmax": (
            p.softmax_regression(class_clients(), l2=0.1, classes=3),
            r.SoftmaxRegression(class_clients(), 3, 0.1),
        ),
        "quadratic": (p.quadratic(Q, b), r.Quadratic(list(zip(Q, b, strict=True)))),
    }


PAIRS = pairs()


@pytest.fixture(params=list(PAIRS))
def pair(request):
    return PAIRS[request.param]


@pytest.fixture
def points(pair):
    return np.random.default_rng(1).normal(size=(4, pair[0].dim))


def scale(theirs, i):
    """A weighted client's f_i stands for n w_i times its data term; the l2 term is the same."""
    return theirs.n * theirs.weights[i]


def client_value(theirs, i, x):
    return scale(theirs, i) * theirs.client_value(i, x) + theirs.l2 / 2 * x @ x


def client_grad(theirs, i, x):
    return scale(theirs, i) * theirs.client_grad(i, x) + theirs.l2 * x


def client_hess(theirs, i, x):
    return scale(theirs, i) * theirs.client_hess(i, x) + theirs.l2 * np.eye(theirs.dim)


def test_values(pair, points):
    ours, theirs = pair
    expected = [client_value(theirs, i, points[i]) for i in range(4)]
    np.testing.assert_allclose(ours.values(jnp.asarray(points)), expected, rtol=1e-13)
    same = [client_value(theirs, i, points[0]) for i in range(4)]
    np.testing.assert_allclose(ours.values(jnp.asarray(points[0])), same, rtol=1e-13)
    assert float(ours.value(jnp.asarray(points[0]))) == pytest.approx(theirs.value(points[0]), rel=1e-13)


def test_gradients(pair, points):
    ours, theirs = pair
    expected = [client_grad(theirs, i, points[i]) for i in range(4)]
    np.testing.assert_allclose(ours.grads(jnp.asarray(points)), expected, rtol=1e-12, atol=1e-14)
    same = [client_grad(theirs, i, points[0]) for i in range(4)]
    np.testing.assert_allclose(ours.grads(jnp.asarray(points[0])), same, rtol=1e-12, atol=1e-14)


def test_hessian_products(pair, points):
    ours, theirs = pair
    directions = points[::-1].copy()
    expected = [client_hess(theirs, i, points[i]) @ directions[i] for i in range(4)]
    found = ours.hvps(jnp.asarray(points), jnp.asarray(directions))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(ours.hessian(points[0]), theirs.full_hess(points[0]), rtol=1e-11, atol=1e-13)


def test_constants(pair):
    ours, theirs = pair
    weighted = [scale(theirs, i) * (theirs.smooth[i] - theirs.l2) + theirs.l2 for i in range(4)]
    np.testing.assert_allclose(ours.smooth, weighted, rtol=1e-12)
    assert float(ours.smooth_mean) == pytest.approx(theirs.smooth_mean, rel=1e-12)


def test_optimum(pair):
    ours, theirs = pair
    x = ours.x_star
    assert isinstance(x, np.ndarray)
    assert x.dtype == np.float64
    assert np.linalg.norm(theirs.full_grad(x)) <= 1e-14 * (1 + np.linalg.norm(theirs.full_grad(0 * x)))
    np.testing.assert_allclose(x, theirs.optimum(), atol=1e-12)
    assert ours.f_star == pytest.approx(theirs.value(theirs.optimum()), rel=1e-14)


def test_stochastic_gradients_are_unbiased(pair, points):
    ours, _ = pair
    x = jnp.asarray(points)
    draws = jax.jit(jax.vmap(lambda key: ours.stochastic_grads(key, x, 2)))(jax.random.split(jax.random.key(0), 4000))
    error = np.asarray(draws.mean(0) - ours.grads(x))
    spread = np.asarray(draws.std(0)) / np.sqrt(4000)
    assert np.all(np.abs(error) <= 5 * spread + 1e-12)


def test_stochastic_gradients_without_replacement_are_unbiased(pair, points):
    """In each batch as many different rows as asked for, or all; their gradients average to the full ones."""
    ours, _ = pair
    x, batch = jnp.asarray(points), 4
    draw = lambda key: ours.stochastic_grads(key, x, batch, replacement=False)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000))
    error = np.asarray(draws.mean(0) - ours.grads(x))
    assert np.all(np.abs(error) <= 5 * np.asarray(draws.std(0)) / np.sqrt(4000) + 1e-12)
    if hasattr(ours, "sizes"):
        np.testing.assert_allclose(ours.passes(batch, replacement=False), np.minimum(batch / np.asarray(ours.sizes), 1))
        np.testing.assert_allclose(ours.passes(batch), batch / np.asarray(ours.sizes))


@pytest.mark.parametrize("batch", [6, 7, 10**9, 2**80])
def test_a_batch_above_all_rows_is_all_rows(problem, batch):
    """The largest client has 6 rows: nothing is drawn, or counted, beyond them."""
    x = jnp.linspace(-1, 1, problem.dim)
    picks, _ = problem.draw(jax.random.key(0), batch, False)
    assert picks.shape == (problem.n, 6)
    drawn = problem.stochastic_grads(jax.random.key(0), x, batch, replacement=False)
    np.testing.assert_array_equal(drawn, problem.grads(x))
    np.testing.assert_array_equal(problem.passes(batch, replacement=False), 1)
    assert np.all(np.asarray(problem.turns(batch)) == 1)
    orders = problem.orders(jax.random.key(1), 2)
    drawn = problem.batch_grads(*problem.turn(orders, jnp.int32(0), batch), x, jax.random.key(2))
    np.testing.assert_allclose(drawn, problem.grads(x), rtol=1e-12)


def test_a_batch_with_replacement_above_all_rows_is_refused(problem, refused):
    message = "a batch of 1000000000 rows with replacement is more than the 6 rows of the largest client: draw fewer"
    with pytest.raises(InputError, match=f"^{message}"):
        problem.stochastic_grads(jax.random.key(0), problem.x0, 10**9)
    hp = dataclasses.replace(fl.algorithms.get("sgd").theory(problem), batch_size=10**9, replacement=True)
    with pytest.raises(InputError, match=f"^{message}"):
        fl.run("sgd", problem, hp, steps=1, every=1, progress=False)
    line = refused("run", "sgd", "--batch-size", 10**9, "--replacement", "true", "--steps", 1, "--every", 1)
    assert "is more than the 56 rows of the largest client" in line


def test_whole_numbers_below_are_those_of_exact_arithmetic():
    key = jax.random.key(5)
    m = np.array([1, 2, 3, 50, 65535, 65536, 65537, 99_991, 2**30 + 7, 2**31 - 1] * 50, np.int32)
    u = np.asarray(jax.random.bits(key, m.shape, jnp.uint32)).astype(object)
    expected = [int(a) * int(b) >> 32 for a, b in zip(u, m, strict=True)]
    np.testing.assert_array_equal(below(key, jnp.asarray(m)), expected)


@pytest.mark.parametrize(("rows", "batch"), [(1, 1), (6, 1), (6, 3), (6, 5), (6, 6), (4, 6)])
def test_distinct_rows_are_uniform_over_subsets(rows, batch):
    draws = 12_000
    many = jax.jit(jax.vmap(lambda key: distinct(key, jnp.asarray(rows), batch)))
    picks, valid = map(np.asarray, many(jax.random.split(jax.random.key(3), draws)))
    assert valid.sum(axis=1).min() == valid.sum(axis=1).max() == min(rows, batch)
    sets = [frozenset(own[kept].tolist()) for own, kept in zip(picks, valid, strict=True)]
    assert all(len(chosen) == min(rows, batch) and chosen <= set(range(rows)) for chosen in sets)
    subsets = math.comb(rows, min(rows, batch))
    counts = np.array(list(collections.Counter(sets).values()))
    assert len(counts) == subsets
    assert np.sum((counts - draws / subsets) ** 2) / (draws / subsets) < subsets + 6 * math.sqrt(2 * subsets)


def test_stochastic_gradients_use_real_rows_only():
    """With one real row everything drawn is that row, whatever the padding."""
    A, b = make_clients()[1]
    ours = fl.problems.logistic_regression([(A, b), (A[:1], b[:1])], l2=0.1)
    x = jnp.ones(5)
    drawn = ours.stochastic_grads(jax.random.key(0), x, 3)
    np.testing.assert_allclose(drawn[1], ours.grads(x)[1], rtol=1e-12)


def test_padding_changes_nothing():
    """A client's numbers do not depend on how long the others are."""
    clients = make_clients()
    alone = fl.problems.logistic_regression(clients[:1], l2=0.1)
    beside = fl.problems.logistic_regression([*clients[:1], *make_clients((50,), seed=9)], l2=0.1)
    x = jnp.linspace(-1, 1, 5)
    np.testing.assert_allclose(alone.grads(x)[0], beside.grads(x)[0], rtol=1e-14)
    np.testing.assert_allclose(alone.smooth[0], beside.smooth[0], rtol=1e-14)


@pytest.mark.parametrize(
    "dim", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow), 9]
)
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_zero_columns_that_fill_vectors_are_invisible(dim, dtype):
    """Features may be stored wider than d; every result is (.., d) and equals the loops."""
    clients = make_clients(dim=dim)
    ours, theirs = (
        fl.problems.logistic_regression(clients, l2=0.1, dtype=dtype),
        reference.LogisticRegression(clients, 0.1),
    )
    x = np.linspace(-1, 1, dim)
    tolerance = 1e-13 if dtype == "float64" else 2e-6
    expected = [theirs.grad(i, x) for i in range(4)]
    at = jnp.asarray(x, dtype)
    assert (ours.dim, ours.x_star.shape) == (dim, (dim,))
    np.testing.assert_allclose(ours.grads(at), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours.grads(jnp.tile(at, (4, 1))), expected, rtol=tolerance, atol=tolerance)
    assert ours.stochastic_grads(jax.random.key(0), at, 2).shape == (4, dim)


def test_kappa_sets_l2(clients):
    ours = fl.problems.logistic_regression(clients, kappa=1e4)
    data = fl.problems.logistic_regression(clients, l2=0.0)
    mu = float(jnp.max(data.smooth)) / (1e4 - 1)
    assert float(ours.strong) == pytest.approx(2 * mu, rel=1e-12)
    assert ours.kappa == pytest.approx(1e4, rel=1e-12)


def test_effective_kappa(pair):
    ours, theirs = pair
    eigenvalues = np.linalg.eigvalsh(theirs.full_hess(theirs.optimum()))
    assert ours.kappa_eff == pytest.approx(theirs.smooth_mean / eigenvalues[0], rel=1e-9)


def test_frobenius_constants(clients):
    ours = fl.problems.logistic_regression(clients, l2=0.1, norm="frobenius")
    expected = [np.sqrt(np.sum((A.T @ A) ** 2)) / (4 * len(b)) + 0.1 for A, b in clients]
    np.testing.assert_allclose(ours.smooth, expected, rtol=1e-13)
    assert np.all(np.asarray(ours.smooth) >= np.asarray(fl.problems.logistic_regression(clients, l2=0.1).smooth))


def test_f_star_can_be_given(clients):
    assert fl.problems.logistic_regression(clients, l2=0.1, f_star=0.25).f_star == 0.25


def test_no_optimum_is_nan():
    unbounded = fl.problems.quadratic(np.zeros((2, 3)), np.ones((2, 3)))
    assert np.isnan(unbounded.f_star)
    assert np.all(np.isnan(unbounded.x_star))


def test_least_squares_without_l2_has_an_optimum():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    ours = fl.problems.least_squares([(rows, np.array([1.0, 2.0]))], l2=0.0)
    assert ours.f_star == pytest.approx(0, abs=1e-28)


def test_optimum_of_float32_data_is_float64(clients):
    ours = fl.problems.logistic_regression(clients, l2=0.1, dtype="float32")
    assert ours.features.array.dtype == jnp.float32
    assert ours.x_star.dtype == np.float64
    exact = pytree.cast(ours, jnp.float64)
    assert np.linalg.norm(np.mean(exact.grads(jnp.asarray(ours.x_star)), axis=0)) < 1e-14


def test_large_dimensions_use_conjugate_gradients(monkeypatch):
    from fedjax_lc.problems import optimum

    monkeypatch.setattr(optimum, "DENSE_LIMIT", 2)
    ours = fl.problems.logistic_regression(make_clients(), l2=0.5)
    assert np.linalg.norm(np.mean(ours.grads(jnp.asarray(ours.x_star)), axis=0)) < 1e-14 * 2


@pytest.mark.slow
def test_wide_data_take_memory_of_their_own_size(tmp_path):
    """40 rows of 200,000 features, 64 MB: no array of d x d, which would be 320 GB, from the data to the last line."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "wide.npz", X=rng.normal(size=(40, 200_000)) / 500, y=np.sign(rng.normal(size=40)))
    code = """
import resource, sys
from fedjax_lc.cli import main
from fedjax_lc import data, problems, running, sweeping
import jax, matplotlib.pyplot, pandas, scipy.sparse.linalg
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
assert main(["run", "gd", "--data", "wide.npz", "--clients", "4", "--steps", "20", "--out", "out"]) == 0
print((peak() - before) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "effective kappa = " in ran.stdout
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["config.json", "model.safetensors", "plot.png", "state.safetensors", "trace.parquet"]
    assert int(ran.stdout.splitlines()[-1]) < 6 * 64


def test_x_star_inside_jit_needs_solved(problem):
    distance = jax.jit(lambda problem, x: jnp.linalg.norm(x - problem.x_star))
    with pytest.raises(InputError, match=r"^x_star inside jit needs problem\.solved\(\)"):
        distance(problem, jnp.zeros(5))
    assert float(distance(problem.solved(), jnp.zeros(5))) == pytest.approx(np.linalg.norm(problem.x_star))


def test_replacing_the_start_keeps_the_optimum(problem):
    moved = problem.replace(x0=jnp.ones(5))
    assert problem.f_star == moved.f_star
    assert moved.x_star is problem.x_star


GOOD = make_clients()
A0, B0 = GOOD[0]
WITH_NAN = A0.copy()
WITH_NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.logistic_regression([], l2=1), "a problem needs at least one client, got an empty list"),
        (lambda p: p.logistic_regression(GOOD), "give one of l2 and kappa: l2=0.01 sets mu itself, kappa=1e4 the "
                                                "condition number"),
        (lambda p: p.logistic_regression(GOOD, l2=-1), "l2 must be a number >= 0, got -1"),
        (lambda p: p.logistic_regression(GOOD, kappa=0.5), "kappa must be greater than 1, got 0.5"),
        (lambda p: p.logistic_regression([(A0, B0 + 5)], l2=1),
         "client 0 has labels other than -1 and +1: map them with fl.data.load or by hand"),
        (lambda p: p.logistic_regression([(WITH_NAN, B0)], l2=1),
         "client 0 has features or targets that are not finite: drop or impute those rows first"),
        (lambda p: p.logistic_regression([GOOD[0], (A0[:0], B0[:0])], l2=1),
         "client 1 has no rows: drop it, or use fewer clients"),
        (lambda p: p.logistic_regression([GOOD[0], (A0[:, :2], B0)], l2=1),
         "client 1 must be (features (m, 5), targets (m,)), got shapes (3, 2) and (3,)"),
        (lambda p: p.logistic_regression(GOOD, l2=1, weights=[1, 2]),
         "weights must be 4 positive numbers, one per client, got shape (2,)"),
        (lambda p: p.logistic_regression(GOOD, l2=1, weights="sizes"),
         "weights must be None, \"size\" or one number per client, got 'sizes'"),
        (lambda p: p.logistic_regression(GOOD, l2=1, norm="max"), "norm must be 'spectral' or 'frobenius', got 'max'"),
        (lambda p: p.logistic_regression(GOOD, l2=1, dtype="float16"), "dtype must be float32 or float64, got float16"),
        (lambda p: p.softmax_regression([(A0, B0)], l2=1),
         "softmax targets must be whole numbers 0..C-1: map classes with fl.data.load or by hand"),
        (lambda p: p.softmax_regression([(A0, np.array([0, 1, 4]))], l2=1, classes=3),
         "a target is 4 but classes=3: targets must lie in 0..classes-1"),
        (lambda p: p.quadratic(np.ones((2, 3, 4)), np.ones((2, 3))),
         "quadratic needs Q (n, d, d) and b (n, d), got (2, 3, 4) and (2, 3)"),
        (lambda p: p.quadratic(np.triu(np.ones((1, 3, 3))), np.ones((1, 3))),
         "quadratic needs symmetric Q_i: pass (Q + Q.transpose(0, 2, 1)) / 2"),
        (lambda p: p.quadratic(np.full((1, 3), np.inf), np.ones((1, 3))),
         "quadratic has entries that are not finite: clean Q and b first"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, message):
    with pytest.raises(InputError) as caught:
        make(fl.problems)
    assert str(caught.value) == message


def test_float64_without_the_flag_names_the_line_to_write(clients):
    with jax.enable_x64(False), pytest.raises(InputError) as caught:
        fl.problems.logistic_regression(clients, l2=1, dtype="float64")
    assert 'jax.config.update("jax_enable_x64", True)' in str(caught.value)
