"""The runner: records, chunks, stops, metrics, warm starts, and what a trace keeps."""

import dataclasses
import itertools
import json
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import ledger
from fedjax_lc.running import loop, programs

pytestmark = pytest.mark.optimised

METHOD = "locodl"


def quick(problem, **options):
    options = {"steps": 60, "every": 5, "progress": False} | options
    return fl.run(options.pop("method", METHOD), problem, options.pop("hp", None), options.pop("key", 0), **options)


def by_hand(problem, steps, every, key=0):
    """The same run as a Python loop over the public functions: gaps and cumulative costs."""
    algorithm = fl.algorithms.get(METHOD)
    hp, key = algorithm.theory(problem), jax.random.key(key)
    state = algorithm.init(problem, hp, jax.random.fold_in(key, 2**32 - 1))
    step = jax.jit(algorithm.step)
    rows, total = [], np.zeros(4)
    for t in range(steps):
        state, cost = step(problem, hp, state, jax.random.fold_in(key, t))
        total = total + np.array([float(part) for part in cost])
        if (t + 1) % every == 0:
            rows.append([float(problem.value(algorithm.point(problem, hp, state))), *total])
    return np.array(rows)


def test_run_is_the_loop_over_its_steps(problem):
    trace, rows = quick(problem), by_hand(problem, 60, 5)
    assert trace.status == "finished"
    np.testing.assert_array_equal(trace.step, np.arange(5, 61, 5))
    np.testing.assert_allclose(trace.value, rows[:, 0], rtol=1e-13)
    for column, name in enumerate(ledger.COSTS):
        np.testing.assert_array_equal(getattr(trace, name), rows[:, column + 1])


def test_records_do_not_depend_on_chunks_bitwise(problem, monkeypatch):
    sizes = itertools.cycle([1, 3, 2])
    whole = quick(problem)
    monkeypatch.setattr(loop, "next_count", lambda count, capacity, seconds: next(sizes))
    pieces = quick(problem)
    for name, series in whole.columns().items():
        np.testing.assert_array_equal(series, pieces.columns()[name], err_msg=name)
    np.testing.assert_array_equal(whole.state.x, pieces.state.x)


def test_seeds_differ_and_repeat(problem):
    first, again, other = (quick(problem, key=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.value, again.value)
    assert not np.array_equal(first.value, other.value)
    np.testing.assert_array_equal(first.value, quick(problem, key=jax.random.key(0)).value)


def test_equal_shapes_compile_once(problem):
    quick(problem)
    before = programs.compile_count()
    hp = fl.algorithms.get(METHOD).theory(problem)
    for gamma in np.linspace(0.01, 0.1, 5):
        quick(problem, hp=dataclasses.replace(hp, gamma=gamma), key=3)
    quick(problem, steps=35)
    assert programs.compile_count() == before
    quick(problem, every=4)
    assert programs.compile_count() == before + 1


def test_stops_at_the_first_record_that_meets_the_target(problem):
    full = quick(problem, steps=4000)
    trace = quick(problem, steps=4000, rel_gap=1e-6)
    first = int(np.flatnonzero(full.rel_gap <= 1e-6)[0])
    assert trace.status == "target"
    assert len(trace) == first + 1
    assert trace.rel_gap[-1] <= 1e-6 < trace.rel_gap[-2]
    assert trace.reach(1e-6)["step"] == trace.step[-1]
    assert trace.reach(1e-30) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_that_met_its_target_has_reached_it(dtype):
    """No rounding lies between the value that stops the loop and the gap that the trace reports."""
    rng = np.random.default_rng(0)
    for f_star, gap in zip(rng.normal(size=500), 10.0 ** rng.uniform(-14, 0, 500), strict=True):
        target = loop.at_most(f_star, gap, dtype)
        assert gap - 2 * np.spacing(abs(target)) <= float(target) - f_star <= gap


@pytest.mark.parametrize("name", ["rounds", "bits_up"])
def test_stops_at_the_first_record_that_spends_a_budget(problem, name):
    full = quick(problem, steps=400)
    limit = float(getattr(full, name)[20])
    trace = quick(problem, steps=400, budget={name: limit}, rel_gap=1e-14)
    assert trace.status == "finished"
    first = int(np.flatnonzero(getattr(full, name) >= limit)[0])
    assert len(trace) == first + 1


def test_a_diverging_run_is_reported_with_its_last_finite_gap(problem):
    hp = fl.algorithms.get("gd").Hparams(gamma=1e4)
    quadratic = fl.problems.quadratic(np.ones((3, 4)) * [1, 2, 3, 4], np.ones((3, 4)))
    trace = quick(quadratic, method="gd", hp=hp, every=1)
    assert trace.status == "diverged"
    assert np.all(np.isfinite(trace.value))
    assert len(trace) < 60


def test_reaches_1e14(problem):
    trace = quick(problem, steps=20_000, every=10, rel_gap=2e-14)
    assert trace.status == "target"
    assert np.linalg.norm(trace.x - problem.x_star) < 1e-6


def test_warm_start(problem):
    trace = quick(problem, x0=problem.x_star)
    assert abs(trace.initial["value"] - problem.f_star) < 1e-15
    with pytest.raises(InputError, match=r"^x0 must have shape \(5,\), got \(3,\)$"):
        quick(problem, x0=np.zeros(3))


def test_metrics_by_name_and_of_the_users_own(problem):
    trace = quick(problem, measure=["grad_norm", "distance", "lyapunov"])
    x = trace.x
    assert trace.metrics["distance"][-1] == pytest.approx(np.linalg.norm(x - problem.x_star), rel=1e-10)
    gradient = np.asarray(problem.grads(jnp.asarray(x))).mean(0)
    assert trace.metrics["grad_norm"][-1] == pytest.approx(np.linalg.norm(gradient), rel=1e-10)
    algorithm = fl.algorithms.get(METHOD)
    expected = float(algorithm.lyapunov(problem, algorithm.theory(problem), trace.state))
    assert trace.metrics["lyapunov"][-1] == pytest.approx(expected, rel=1e-10)
    own = quick(problem, measure={"drift": lambda problem, hp, state: jnp.linalg.norm(state.x - state.y[None])})
    drift = np.linalg.norm(own.state.x - own.state.y[None])
    assert own.metrics["drift"][-1] == pytest.approx(drift, rel=1e-12)
    with pytest.raises(InputError, match=r"^unknown metric 'gradnorm': did you mean 'grad_norm'"):
        quick(problem, measure=["gradnorm"])


def test_callback_sees_the_trace_and_may_stop(problem):
    lengths = []
    trace = quick(problem, steps=100_000, on_chunk=lambda so_far: lengths.append(len(so_far)) or len(lengths) == 3)
    assert trace.status == "interrupted"
    assert lengths == sorted(lengths)
    assert len(trace) == lengths[-1] < 20_000


def test_ctrl_c_keeps_what_was_computed(problem):
    pressed = []

    def press(trace):
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    trace = quick(problem, steps=1_000_000, on_chunk=press)
    assert trace.status == "interrupted"
    assert 0 < len(trace) < 200_000
    np.testing.assert_array_equal(trace.value, quick(problem, steps=int(trace.step[-1])).value)


def test_runs_outside_the_main_thread(problem):
    found = []
    thread = threading.Thread(target=lambda: found.append(quick(problem)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0].value, quick(problem).value)


def test_steps_are_cut_to_a_multiple_of_every(problem):
    trace = quick(problem, steps=63)
    assert trace.step[-1] == 60
    assert trace.notes == ["steps cut from 63 to 60, a multiple of every = 5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "steps must be a whole number >= every = 5 and < 2^32, got 3"),
        ({"every": 0}, "every must be a whole number >= 1 and < 2^32, got 0"),
        ({"method": "locdl"}, "unknown method 'locdl': did you mean 'locodl'?"),
        ({"budget": {"bits": 1}}, "unknown budget 'bits': did you mean 'bits_up'?"),
    ],
)
def test_bad_options_are_one_line(problem, options, message):
    with pytest.raises(InputError) as caught:
        quick(problem, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.5, float("nan")])
def test_p_outside_its_range(problem, p):
    hp = dataclasses.replace(fl.algorithms.get(METHOD).theory(problem), p=p)
    with pytest.raises(InputError, match=rf"^locodl needs p in \(0, 1\], got {p:g}$"):
        quick(problem, hp=hp)


def test_a_target_that_float32_cannot_resolve(clients):
    problem = fl.problems.logistic_regression(clients, kappa=30, dtype="float32")
    with pytest.raises(InputError, match=r"^rel_gap 1e-12 is below what float32 resolves here: use float64"):
        quick(problem, rel_gap=1e-12)


def test_a_target_without_an_optimum():
    flat = fl.problems.quadratic(np.zeros((2, 3)), np.ones((2, 3)))
    assert np.isnan(flat.f_star)
    with pytest.raises(InputError, match=r"^rel_gap needs a known optimum"):
        quick(flat, method="gd", hp=fl.algorithms.get("gd").Hparams(gamma=1.0), rel_gap=1e-3)


def test_memory_is_estimated_before_the_start(problem, monkeypatch):
    trace = quick(problem)
    assert trace.config["memory_bytes"] >= sum(leaf.nbytes for leaf in jax.tree.leaves(problem))
    monkeypatch.setattr(programs, "free_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"^this run needs [\d.]+ [kM]?B and [\d.]+ k?B are free"):
        quick(problem)


def test_trace_round_trips_through_its_folder(problem, tmp_path):
    trace = quick(problem, measure=["grad_norm"])
    loaded = fl.Trace.load(trace.save(tmp_path / "run"))
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["config.json", "model.safetensors", "state.safetensors", "trace.parquet"]
    for name, series in trace.columns().items():
        np.testing.assert_array_equal(series, loaded.columns()[name], err_msg=name)
    np.testing.assert_array_equal(loaded.x, trace.x)
    assert loaded.state._fields == trace.state._fields
    for ours, theirs in zip(jax.tree.leaves(loaded.state), jax.tree.leaves(trace.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (loaded.status, loaded.f_star, loaded.initial) == (trace.status, trace.f_star, trace.initial)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["versions"]["jax"] == jax.__version__
    assert config["hyperparameters"]["compressor"] == "rand_k:2|natural"
    assert {"device", "command", "problem", "every"} <= set(config)


def test_tidy_frame(problem):
    frame = quick(problem).to_pandas()
    assert list(frame.columns) == [
        "method", "step", "bits_up", "bits_down", "grads", "rounds", "value", "gap", "rel_gap",
    ]  # fmt: skip
    assert (frame["method"] == METHOD).all()
    assert frame["gap"].to_numpy() == pytest.approx(frame["value"].to_numpy() - quick(problem).f_star)


@pytest.mark.parametrize("damage", ["missing", "config", "parquet", "foreign"])
def test_a_damaged_trace_is_one_line(problem, tmp_path, damage):
    folder = tmp_path / "run"
    if damage != "missing":
        quick(problem).save(folder)
        name = "trace.parquet" if damage == "parquet" else "config.json"
        (folder / name).write_text("{}" if damage == "foreign" else "{")
    with pytest.raises(InputError, match="holds no readable trace") as caught:
        fl.Trace.load(folder)
    assert "\n" not in str(caught.value)


def test_costs_add_up_beyond_float32(problem):
    """2^24 + 1 single bits: float32 would stop counting."""
    ones = np.ones((2**12 + 1, 2**12, 4), np.float32)
    assert ledger.accumulate(ones)[-1, 0] == 2.0**24 + 2**12


def test_simulated_time_and_total_bits(problem):
    trace = quick(problem)
    seconds = ledger.simulated_time(
        trace, latency=0.5, up_bandwidth=100, down_bandwidth=1000, seconds_per_gradient=0.25
    )
    expected = 0.5 * trace.rounds + trace.bits_up / 100 + trace.bits_down / 1000 + 0.25 * trace.grads
    np.testing.assert_allclose(seconds, expected, rtol=1e-15)
    np.testing.assert_array_equal(ledger.total_bits(trace, 0.1), trace.bits_up + 0.1 * trace.bits_down)
