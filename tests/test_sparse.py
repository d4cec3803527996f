"""Sparse features give what dense ones give, from files to sweeps, and an rcv1-shaped run fits in memory."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import sklearn.datasets

import fedjax_lc as fl
from fedjax_lc.cli import main
from fedjax_lc.data import libsvm, sparse
from fedjax_lc.problems import norms, optimum
from fedjax_lc.problems.features import Dense, Sparse

SIZES, DIM = (3, 9, 1, 5), 60
MAKERS = {
    "logistic": (fl.problems.logistic_regression, (-1.0, 1.0)),
    "least_squares": (fl.problems.least_squares, (0.5, -1.5, 2.0)),
    "softmax": (fl.problems.softmax_regression, (0, 1, 2)),
}
TIGHT = {"rtol": 1e-12, "atol": 1e-13}


def tables(labels):
    """Ragged clients, whose rows have from no entries to several pieces of them."""
    rng = np.random.default_rng(0)
    clients = []
    for size in SIZES:
        A = rng.normal(size=(size, DIM)) * (rng.random((size, DIM)) < 0.2)
        clients.append((A, rng.choice(labels, size)))
    clients[0][0][-1] = rng.normal(size=DIM)  # the last row is the longest
    clients[1][0][[2, -1]] = 0
    clients[1][0][4] = rng.normal(size=DIM)
    return clients


def in_csr(clients):
    return [(scipy.sparse.csr_matrix(A), b) for A, b in clients]


def pair(kind="logistic", **options):
    make, labels = MAKERS[kind]
    options = {"l2": 0.1} | options
    dense, held = make(tables(labels), **options), make(in_csr(tables(labels)), **options)
    assert isinstance(dense.features, Dense)
    assert isinstance(held.features, Sparse)
    assert held.features.most > 2
    return dense, held


@pytest.fixture(scope="module", params=list(MAKERS))
def both(request):
    return pair(request.param)


def points(problem, lanes=()):
    return jnp.asarray(np.random.default_rng(1).normal(size=(*lanes, problem.n, problem.dim)), problem.dtype)


@jax.jit
def all_of(problem, x, v):
    return problem.values(x), problem.grads(x), problem.hvps(x, v)


def test_values_gradients_and_hessian_products(both):
    dense, held = both
    X, V = points(dense), points(dense)[::-1]
    for at in ((X[0], V[0]), (X, V)):
        for expected, found in zip(all_of(dense, *at), all_of(held, *at), strict=True):
            np.testing.assert_allclose(found, expected, **TIGHT)
    np.testing.assert_allclose(held.hessian(X[0]), dense.hessian(X[0]), **TIGHT)


def test_derivatives_of_the_value_are_the_gradient(both):
    dense, held = both
    x = points(held)[0]
    found = jax.jit(jax.grad(lambda x, problem: problem.value(x)))(x, held)
    np.testing.assert_allclose(found, jnp.mean(dense.grads(x), axis=0), **TIGHT)


@pytest.mark.parametrize(("batch", "replacement"), [(4, True), (1, False), (20, False)])
def test_batches(both, batch, replacement):
    @jax.jit
    def drawn(problem, X):
        draw = lambda x: problem.stochastic_grads(jax.random.key(2), x, batch, replacement=replacement)
        return draw(X[0]), draw(X)

    X = points(both[0])
    for expected, found in zip(*(drawn(problem, X) for problem in both), strict=True):
        np.testing.assert_allclose(found, expected, **TIGHT)


def test_every_row_alone(both):
    """A batch that is one row of each client, for all rows."""
    one = jax.jit(lambda p, picks, x: p.batch_grads(picks, jnp.ones(picks.shape), x, jax.random.key(0)))
    x = points(both[0])
    for row in range(max(SIZES)):
        picks = jnp.minimum(row, jnp.asarray(SIZES) - 1)[:, None].astype(jnp.int32)
        expected, found = (one(problem, picks, x) for problem in both)
        np.testing.assert_allclose(found, expected, **TIGHT)


def test_rows_of_rows_and_clients_of_clients(both):
    picks = jnp.array([[2, 0, 1], [4, 8, 4], [0, 0, 0], [3, 1, 4]], jnp.int32)
    again = jnp.array([[1, 0], [2, 1], [2, 2], [0, 2]], jnp.int32)
    chosen = jnp.array([3, 1])
    x = points(both[0])

    @jax.jit
    def parts(problem, x):
        rows = problem.features.take(picks).take(again).predict(x[..., :DIM])
        return rows, problem.cohort(chosen).stochastic_grads(jax.random.key(0), x[:2], 3)

    for expected, found in zip(*(parts(problem, x) for problem in both), strict=True):
        np.testing.assert_allclose(found, expected, **TIGHT)


@pytest.mark.parametrize("shared", [True, False])
def test_lanes(both, shared):
    """On a CPU's route, one after the other, and on an accelerator's, side by side."""
    dense, held = both
    X = points(dense, (3,))
    X = X[:, 0] if shared else X
    expected = jnp.stack([dense.grads(x) for x in X])
    many = jax.jit(lambda problem, X: jax.vmap(lambda x: (problem.grads(x), problem.values(x)))(X))
    grads, values = many(held.for_lanes(), X)
    np.testing.assert_allclose(grads, expected, **TIGHT)
    np.testing.assert_allclose(values, many(dense, X)[1], **TIGHT)
    if isinstance(held, fl.problems.LinearModel):
        np.testing.assert_allclose(jax.jit(type(held)._together)(held, X), expected, **TIGHT)


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
@pytest.mark.parametrize("gram_up_to", [0, norms.GRAM_UP_TO])
def test_constants(norm, gram_up_to, monkeypatch):
    """By Gram matrices and by Lanczos, kappa's l2 included."""
    monkeypatch.setattr(norms, "GRAM_UP_TO", gram_up_to)
    monkeypatch.setattr(norms, "BLOCK", 7)
    rng = np.random.default_rng(4)
    clients = [(rng.normal(size=(m, 30)) * (rng.random((m, 30)) < 0.3), rng.normal(size=m)) for m in (8, 50)]
    dense, held = (fl.problems.least_squares(given, kappa=50, norm=norm, weights="size")
                   for given in (clients, in_csr(clients)))  # fmt: skip
    for name in ("smooth", "smooth_mean", "strong"):
        np.testing.assert_allclose(getattr(held, name), getattr(dense, name), rtol=1e-12)


@pytest.mark.parametrize("norm", [norms.spectral, norms.frobenius])
@pytest.mark.parametrize("gram_up_to", [0, norms.GRAM_UP_TO])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_norms_of_rows_that_processes_share(norm, gram_up_to, form, monkeypatch):
    """By sums over processes, here of one."""
    rng = np.random.default_rng(4)
    B = rng.normal(size=(20, 30)) * (rng.random((20, 30)) < 0.3)
    expected = norm(B)
    monkeypatch.setattr(norms, "several", lambda: True)
    monkeypatch.setattr(norms, "GRAM_UP_TO", gram_up_to)
    monkeypatch.setattr(norms, "BLOCK", 7)
    assert norms.of_all(form(B), norm) == pytest.approx(expected, rel=1e-12)
    assert norms.of_all(form(0 * B), norm) == 0


def test_no_entries_have_no_curvature(monkeypatch):
    monkeypatch.setattr(norms, "GRAM_UP_TO", 0)
    clients = [(scipy.sparse.csr_array((4, 30)), np.ones(4))] * 2
    held = fl.problems.least_squares(clients, l2=0.5)
    np.testing.assert_array_equal(held.smooth, 0.5)
    np.testing.assert_array_equal(held.grads(jnp.ones(30)), 0.5)


def test_optima(both):
    dense, held = both
    np.testing.assert_allclose(held.x_star, dense.x_star, atol=1e-12)
    assert held.f_star == pytest.approx(dense.f_star, rel=1e-12)
    assert held.kappa_eff == pytest.approx(dense.kappa_eff, rel=1e-10)


def test_optima_of_many_dimensions_need_products_alone(both, monkeypatch):
    dense, _ = both
    expected = dense.x_star, dense.kappa_eff
    monkeypatch.setattr(optimum, "DENSE_LIMIT", 2)
    held = both[1].replace(ids=None)
    held.__dict__.pop("_optimum", None)
    monkeypatch.setattr(type(held), "hessian", None)
    goal = 1e-14 * (1 + np.linalg.norm(np.mean(held.grads(held.x0), axis=0)))
    assert np.linalg.norm(np.mean(held.grads(jnp.asarray(held.x_star)), axis=0)) <= goal
    np.testing.assert_allclose(held.x_star, expected[0], atol=1e-11)
    assert held.kappa_eff == pytest.approx(expected[1], rel=2e-3)


def test_float32():
    dense, held = pair(dtype="float32")
    x = points(dense)
    assert held.features.values.dtype == held.grads(x).dtype == jnp.float32
    np.testing.assert_allclose(held.grads(x), dense.grads(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(held.x_star, dense.x_star, atol=1e-6)


@pytest.mark.slow
def test_a_locodl_trace_and_a_sweep():
    dense, held = pair(l2=None, kappa=50)
    hp = fl.algorithms.get("locodl").theory(dense, "rand_k:7")
    one, other = (fl.run("locodl", p, hp, 3, steps=200, every=10, progress=False) for p in (dense, held))
    np.testing.assert_allclose(other.value, one.value, rtol=1e-12)
    np.testing.assert_array_equal(other.bits_up, one.bits_up)
    grid = fl.grid(hp, gamma=fl.times([0.5, 1]))
    sweep = lambda p: fl.sweep("locodl", p, grid, seeds=2, steps=100, every=20, progress=False).records
    one, other = sweep(dense), sweep(held)
    np.testing.assert_allclose(other["value"], one["value"], rtol=1e-12)
    np.testing.assert_array_equal(other["bits_up"], one["bits_up"])


def test_features_can_be_asked_for():
    clients = tables((-1.0, 1.0))
    dense, held = pair()
    mixed = fl.problems.logistic_regression([clients[0], *in_csr(clients)[1:]], l2=0.1)
    for given, form, like in ((clients, "sparse", held), (in_csr(clients), "dense", dense), (None, "", held)):
        found = mixed if given is None else fl.problems.logistic_regression(given, l2=0.1, features=form)
        assert jax.tree.structure(found) == jax.tree.structure(like)
        jax.tree.map(np.testing.assert_array_equal, found, like)
    with pytest.raises(fl.InputError, match="features must be 'auto', 'dense' or 'sparse', got 'csr'"):
        fl.problems.logistic_regression(clients, l2=0.1, features="csr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda A: A * np.nan, "client 0 has features or targets that are not finite"),
        (
            lambda A: A[:, :4],
            r"client 1 must be \(features \(m, 4\), targets \(m,\)\), got shapes \(9, 60\)",
        ),
        (lambda A: A.astype(complex), "sparse features must be a .* table of real numbers, got complex128"),
    ],
)
def test_bad_matrices_are_one_line(change, message):
    clients = in_csr(tables((-1.0, 1.0)))
    clients[0] = change(clients[0][0]), clients[0][1]
    with pytest.raises(fl.InputError, match=message) as caught:
        fl.problems.logistic_regression(clients, l2=0.1)
    assert "\n" not in str(caught.value)


# --- data ---


@pytest.fixture
def always_sparse(monkeypatch):
    monkeypatch.setattr(sparse, "DENSE_UP_TO", 0)
    monkeypatch.setattr(sparse, "FILLED", 1.0)


def test_the_rule():
    wide = scipy.sparse.csr_array((2, sparse.DENSE_UP_TO))
    assert sparse.stays_sparse(wide)
    assert not sparse.stays_sparse(wide[:, : sparse.DENSE_UP_TO // 2])
    full = scipy.sparse.csr_array((np.ones(8), np.arange(8), [0, 8]), shape=(1, 9))
    assert not sparse.stays_sparse(full)
    large = [entry.name for entry in fl.data.loading.CATALOGUE.values() if
             entry.rows * entry.features > sparse.DENSE_UP_TO]  # fmt: skip
    assert large == ["rcv1_train.binary", "real-sim", "news20", "YearPredictionMSD"]  # the last is full


def shape_table():
    A = np.concatenate([A for A, _ in tables((0, 1))])
    return A, np.arange(len(A)) % 2


def test_a_file_stays_sparse_from_the_reader_to_the_problem(tmp_path, always_sparse):
    A, y = shape_table()
    path = tmp_path / "wide.libsvm"
    sklearn.datasets.dump_svmlight_file(A, y, str(path), zero_based=False)
    read = libsvm.read(path, DIM + 2).features
    np.testing.assert_allclose(read.toarray(), np.pad(A, ((0, 0), (0, 2))), rtol=1e-14)
    data = fl.data.load(path)
    assert repr(data) == "Dataset('wide.libsvm', binary, 18 x 60, sparse, classes=(0, 1))"
    found = fl.problem(path, 3, "sorted", kappa=20)
    assert isinstance(found.features, Sparse)
    dense = fl.problem(path, 3, "sorted", kappa=20, features="dense")
    assert isinstance(dense.features, Dense)
    np.testing.assert_allclose(found.grads(found.x0), dense.grads(found.x0), **TIGHT)


def test_the_command_line_runs_on_a_sparse_file(tmp_path, always_sparse, capsys):
    A, y = shape_table()
    sklearn.datasets.dump_svmlight_file(A, y, str(tmp_path / "wide.libsvm"), zero_based=False)
    run = [
        "run",
        "gd",
        "--data",
        str(tmp_path / "wide.libsvm"),
        "--clients",
        "3",
        "--steps",
        "50",
        "--no-cache",
        "--quiet",
    ]
    assert main([*run, "--out", str(tmp_path / "out")]) == 0
    assert "n = 3, d = 60" in capsys.readouterr().out
    trace = fl.Trace.load(tmp_path / "out")
    dense = fl.run("gd", fl.problem((A, y), 3), steps=50, progress=False)
    np.testing.assert_allclose(trace.value, dense.value, rtol=1e-12)


@pytest.mark.slow
def test_the_example_of_the_guide():
    page = (Path(__file__).parents[1] / "docs" / "guide" / "compare.md").read_text()
    space = {"fl": fl}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", page, flags=re.S) if "scipy" in block), space)
    assert isinstance(space["sparse"].features, Sparse)
    assert space["sparse"].features.width == 40_000


def test_data_sets_keep_sparse_features(always_sparse):
    A, y = shape_table()
    A[:, 3], A[:, 5] = 0, 2
    data, dense = fl.data.from_arrays(scipy.sparse.coo_matrix(A), y), fl.data.from_arrays(A, y)
    assert data.notes == dense.notes == ("2 columns are constant (counted from 1): 4, 6",)
    for scale in ("maxabs", "unit", "none"):
        np.testing.assert_allclose(data.scaled(scale).features.toarray(), dense.scaled(scale).features, rtol=1e-14)
    parts, expected = data.split(0.3, seed=1).scaled("maxabs"), dense.split(0.3, seed=1).scaled("maxabs")
    np.testing.assert_allclose(parts.features.toarray(), expected.features, rtol=1e-14)
    np.testing.assert_allclose(parts.test.features.toarray(), expected.test.features, rtol=1e-14)


def test_what_needs_dense_features_says_so(always_sparse):
    A, y = shape_table()
    table = scipy.sparse.csr_matrix(A)
    for scale in ("standard", "minmax"):
        with pytest.raises(fl.InputError, match=f"^scale '{scale}' would make sparse features dense: take maxabs or"):
            fl.problem((table, y), scale=scale)
    with pytest.raises(fl.InputError, match=r"^features of a .* are a sparse matrix, but networks take dense ones"):
        fl.problem((table, y), 2, model="mlp:hidden=4")
    table[2, 7] = np.inf
    with pytest.raises(fl.InputError, match=r"feature in row 3, column 8 .* is inf; features must be finite"):
        fl.problem((table, y))


# --- an rcv1-shaped run ---

RUN = """
import json, time
import jax, numpy as np, scipy.sparse
import fedjax_lc as fl

jax.config.update("jax_enable_x64", True)
rng, rows, dim = np.random.default_rng(0), 20_242, 47_236
X = scipy.sparse.random_array((rows, dim), density=0.0016, rng=rng, format="csr")
y = np.where(X @ rng.normal(size=dim) > 0, 1.0, -1.0)
problem = fl.problem((X, y), clients=10, kappa=1e4, f_star=0.0, dtype="float64")
hp = fl.algorithms.get("locodl").theory(problem)
times = []
for _ in range(2):
    start = time.perf_counter()
    trace = fl.run("locodl", problem, hp, steps=30, every=10, progress=False)
    times.append(time.perf_counter() - start)
with open("/proc/self/status") as lines:  # of this process alone: getrusage counts the parent's before it
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"dim": problem.dim, "form": type(problem.features).__name__, "value": trace.value.tolist(),
                  "peak_gb": peak * 1024 / 1e9, "ms_a_step": times[1] / 30 * 1e3}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from Linux's /proc")
def test_locodl_on_data_of_the_shape_of_rcv1_takes_less_than_two_gigabytes():
    """Dense features alone would take 7.6 GB. On two busy cores 0.7 GB and 20 ms a step."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert (found["dim"], found["form"]) == (47_236, "Sparse")
    assert found["peak_gb"] < 2
    assert np.all(np.diff(found["value"]) < 0)
