"""`bench mcm`: both contestants run the same methods, verdicts follow from the times, files are written."""

import json
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import SUITES, harness, mcm
from experiments.bench.mcm import METHODS, NUMPY, OURS, Sizes
from fedjax_lc import cli
from fedjax_lc.core.errors import InputError
from fedjax_lc.results.table import Table
from tests.reference import mcm as reference

SEEDS = 200
FLOORS = Sizes(clients=3, rows=8, dim=4, seeds=SEEDS, rounds=400, numpy_rounds=400)
TINY = Sizes(clients=3, rows=4, dim=4, seeds=2, rounds=8, numpy_rounds=4, passes=2)


def mean_and_error(gaps):
    return gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))


@pytest.fixture(scope="module")
def floors():
    """Per method and contestant F(w) - F* after the rounds, (seeds,)."""
    X, y = mcm.data(FLOORS)
    problem = mcm.problem_of(X, y)
    found = {}
    for method, entries in mcm.contests(FLOORS).items():
        table, w = entries[OURS].run(), entries[NUMPY].run()
        assert w.shape == (SEEDS, FLOORS.dim)
        assert table.records["step"].tolist() == [FLOORS.rounds] * SEEDS
        values = ((np.einsum("imd,sd->sim", X, w) - y) ** 2).mean(axis=(1, 2))
        found[method] = {OURS: table.gap, NUMPY: values - problem.f_star}
    return found


@pytest.mark.parametrize("method", METHODS)
def test_both_contestants_settle_at_the_same_floor(method, floors):
    (ours, error), (numpy, other) = (mean_and_error(gaps) for gaps in floors[method].values())
    assert max(error / ours, other / numpy) < 0.15
    assert abs(ours - numpy) < 5 * np.hypot(error, other)


def test_the_floors_tell_methods_apart(floors):
    for name in (OURS, NUMPY):
        sgd, diana, artemis = (mean_and_error(floors[method][name]) for method in ("sgd", "diana", "artemis"))
        for (low, error), (high, other) in ((sgd, diana), (diana, artemis)):
            assert high - low > 3 * np.hypot(error, other)


class Draws:
    """The random numbers of `stacked` with one seed, in its order, as the reference asks for them."""

    def __init__(self, n, m, d):
        self.rng, self.n, self.m, self.d = np.random.default_rng(0), n, m, d

    def batch(self, t, i):
        if i == 0:
            self.rows = self.rng.integers(self.m, size=(1, self.n))[0]
        return self.rows[i]

    def up(self, t, i, v):
        if i == 0:
            self.sent = self.rng.random((self.n, self.d))
        return reference.quantizer(v, 1 - self.sent[i], 1)

    def down(self, groups):
        def quantised(t, g, v):
            if g == 0:
                self.received = self.rng.random((groups, self.d))
            return reference.quantizer(v, 1 - self.received[g], 1)

        return quantised


@pytest.mark.parametrize("method", METHODS)
def test_the_numpy_loop_walks_the_path_of_the_reference(method):
    X, y = mcm.data(TINY)
    n, m, d = X.shape
    gamma, alpha, rounds, draws = 0.05, 0.3, 12, Draws(n, m, d)
    problem = SimpleNamespace(n=n, grad=lambda t, i, x, row: 2 * (X[i, row] @ x - y[i, row]) * X[i, row])
    hp = {"gamma": lambda t: gamma / np.sqrt(t + 1), "smart": True, "c_ef": gamma}
    hp |= {"alpha_up": alpha, "alpha_dwn": alpha}
    down = draws.down(n if method == "rand_mcm" else 1)
    states = reference.run(method, problem, hp, np.zeros(d), rounds, draws.up, down, draws.batch)
    w = mcm.stacked(method, X, y, 1, rounds, gamma, alpha)
    assert np.abs(w).max() > 1e-2
    np.testing.assert_allclose(w[0], states[-1]["w"], rtol=1e-10)


def test_the_problem_is_the_mean_of_squares_with_frobenius_norms():
    X, y = mcm.data(TINY)
    assert (X.shape, y.shape) == ((3, 4, 4), (3, 4))
    np.testing.assert_array_equal(X[..., 0], 1.0)
    problem = mcm.problem_of(X, y)
    smooth = reference.frobenius_smoothness("lsr", list(zip(X, y, strict=True)))
    np.testing.assert_allclose(problem.smooth, smooth, rtol=1e-12)
    w = np.linspace(-1, 2, 4)
    assert float(problem.value(jnp.asarray(w))) == pytest.approx(((X @ w - y) ** 2).mean(), rel=1e-12)
    gamma, alpha = mcm.rate_of(problem)
    assert gamma == pytest.approx(1 / np.mean(smooth))
    assert alpha == pytest.approx(reference.alpha_repo(2.0))


@pytest.mark.parametrize("method", METHODS)
def test_both_contestants_have_the_same_rates(method):
    problem = mcm.problem_of(*mcm.data(TINY))
    gamma, alpha = mcm.rate_of(problem)
    hp = mcm.hparams(method, problem)
    assert (hp.gamma, hp.decay, hp.batch_size) == (pytest.approx(gamma), 0.5, 1)
    for name in ("alpha", "alpha_up", "alpha_dwn"):
        assert getattr(hp, name, alpha) == pytest.approx(alpha)
    assert getattr(hp, "c_ef", gamma) == pytest.approx(gamma)


def test_rounds_are_counted_per_seed():
    for method, entries in mcm.contests(TINY).items():
        assert list(entries) == [OURS, NUMPY], method
        assert [contestant.rounds for contestant in entries.values()] == [2 * 8, 2 * 4]


def child(task, monkeypatch, capsys):
    job = {"task": task, "sizes": TINY._replace(methods=("sgd",))._asdict(), "repeats": 3, "progress": False}
    monkeypatch.setattr(harness, "asked", lambda: job)
    monkeypatch.setattr(harness, "one_core", lambda: None)
    mcm.child()
    return json.loads(capsys.readouterr().out)


def test_a_child_measures_the_steady_state(monkeypatch, capsys):
    found = child("steady", monkeypatch, capsys)
    assert list(found) == ["sgd"]
    for entries in found.values():
        assert list(entries) == [OURS, NUMPY]
        for row in entries.values():
            assert len(row["turns_ms"]) == 3
            assert min(row["turns_ms"]) > 0


def test_a_child_measures_the_whole_figure_a_record_a_pass(monkeypatch, capsys):
    tables, sweep = [], mcm.sweep

    def spy(*arguments, **options):
        tables.append(sweep(*arguments, **options))
        return tables[-1]

    monkeypatch.setattr(mcm, "sweep", spy)
    found = child("whole", monkeypatch, capsys)
    assert 0 < found["inside_s"] < found["wall_s"]
    (table,) = tables
    assert isinstance(table, Table)
    assert table.records["step"].tolist() == [4, 8] * TINY.seeds


# --- the suite ---


def answers(monkeypatch, ours=1.0, numpy=2.5, inside=12.0):
    """Children that answer at once, in these times: each method's the same, ms and s."""
    jobs = []

    def ask(suite, job, environment):
        jobs.append((suite, job["task"], environment))
        if job["task"] == "whole":
            return {"wall_s": inside + 3.0, "inside_s": inside}
        times = {OURS: ours, NUMPY: numpy}
        row = {name: {"turns_ms": [ms] * job["repeats"]} for name, ms in times.items()}
        return dict.fromkeys(METHODS, row)

    monkeypatch.setattr(harness, "ask", ask)
    return jobs


@pytest.mark.parametrize(
    ("numpy", "inside", "met"), [(2.0, 20.0, [True, True]), (1.9, 20.5, [False, False]), (2.5, 30.0, [True, False])]
)
def test_targets_stand_beside_their_measurements(numpy, inside, met, monkeypatch, tmp_path, capsys):
    answers(monkeypatch, numpy=numpy, inside=inside)
    out = tmp_path / "new" / "bench.json"
    results = mcm.run_mcm(sizes=TINY, repeats=3, out=out, progress=False)
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert {path.name for path in out.parent.iterdir()} == {"bench.json", "bench.txt"}
    assert out.with_suffix(".txt").read_text() == printed == mcm.text(found)
    assert found == json.loads(json.dumps(results))
    assert [target["met"] for target in found["targets"]] == met
    assert [target["measured"] for target in found["targets"]] == pytest.approx([numpy, inside])
    lines = printed.splitlines()[-2:]
    for line, wanted, told in zip(lines, (">= 2.00", "<= 20.00"), met, strict=True):
        assert wanted in line
        assert line.endswith("  met") == told
        assert line.endswith("  not met") != told
    assert f"all six: NumPy / ours {numpy:.2f} [{numpy:.2f}, {numpy:.2f}]" in printed
    assert f"{inside:.1f} s in the loops, 3.0 s tracing" in printed
    assert Sizes(**found["sizes"] | {"methods": METHODS}) == TINY


def test_the_steady_state_is_measured_on_one_thread_and_the_figure_on_all(monkeypatch, capsys):
    jobs = answers(monkeypatch)
    mcm.run_mcm(repeats=1, progress=False)
    capsys.readouterr()
    (_, first, pinned), (_, second, free) = jobs
    assert (first, second) == ("steady", "whole")
    assert {suite for suite, _, _ in jobs} == {"mcm"}
    assert harness.PINNED.items() <= (pinned | {"JAX_ENABLE_X64": "0"}).items()
    assert "OMP_NUM_THREADS" not in free
    assert pinned["JAX_ENABLE_X64"] == free["JAX_ENABLE_X64"] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted where Linux lists them")
def test_a_pinned_process_computes_on_one_thread():
    count = """
import glob, jax, jax.numpy as jnp
jax.jit(lambda a: a @ a)(jnp.ones((500, 500))).block_until_ready()
print(sum("XLAEigen" in open(name).read() for name in glob.glob("/proc/self/task/*/comm")))
"""
    assert harness.python(count).strip() == "1"


def test_all_methods_are_summed_turn_by_turn():
    turns = {"sgd": ([1.0, 2.0], [3.0, 4.0]), "mcm": ([3.0, 2.0], [5.0, 2.0])}
    steady = {m: {OURS: {"turns_ms": a}, NUMPY: {"turns_ms": b}} for m, (a, b) in turns.items()}
    assert mcm.overall({"steady": steady}).turns == (2.0, 1.5)


def test_bad_requests_are_refused(monkeypatch):
    monkeypatch.setattr(harness, "ask", lambda *_: pytest.fail("worked before it checked"))
    with pytest.raises(InputError, match=r"^bench needs repeats >= 1, got 0$"):
        mcm.run_mcm(repeats=0)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ask", lambda *_: pytest.fail("worked before it checked"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        mcm.run_mcm(out=tmp_path / "file" / "bench.json")


def test_the_command_line_passes_its_options_on(monkeypatch):
    calls = []
    monkeypatch.setattr(mcm, "run_mcm", lambda **options: calls.append(options))
    assert cli.main(["bench", "mcm", "--repeats", "2", "--out", "bench.json"]) == 0
    assert calls == [{"repeats": 2, "out": "bench.json"}]
    assert SUITES["mcm"] is mcm


def test_bench_runs_end_to_end(tmp_path, capsys):
    out = tmp_path / "bench.json"
    few = ("sgd", "mcm")  # children compile: all six are measured in this process above
    mcm.run_mcm(sizes=TINY._replace(methods=few), repeats=1, out=out, progress=False)
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed == mcm.text(found)
    assert list(found["steady"]) == list(few)
    for target in found["targets"]:
        assert target["what"] in printed
        assert np.isfinite(target["measured"])
