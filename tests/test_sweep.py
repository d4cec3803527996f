"""Sweeps: lanes of one program, grouped, in blocks, over devices; what ends a lane; what a sweep refuses."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import ledger
from fedjax_lc.running import loop, programs
from fedjax_lc.sweeping import blocks

COMPILED = "/jax/core/compile/backend_compile_duration"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny(problem):
    """The shared shape, away from its symmetric start."""
    return problem.replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=problem.dim)))


@pytest.fixture(scope="module")
def gd(tiny):
    return fl.algorithms.get("gd").theory(tiny)


def sweep(problem, hp=None, method="gd", **options):
    options = {"steps": 40, "every": 10, "progress": False} | options
    return fl.sweep(method, problem, hp, **options)


def single(problem, hp, seed=0, method="gd", **options):
    options = {"steps": 40, "every": 10, "progress": False} | options
    return fl.run(method, problem, hp, seed, **options)


def same(ours, theirs, rtol=1e-10, lanes=None):
    """Two tables tell the same, costs exactly, values to rounding; `lanes`: those of `theirs` that `ours` has."""
    lanes = range(len(ours)) if lanes is None else lanes
    assert len(ours) == len(lanes)
    for mine, lane in enumerate(lanes):
        same_trace(ours.trace(mine), theirs.trace(lane), rtol)


def same_trace(ours, theirs, rtol=1e-10):
    assert ours.status == theirs.status
    for name in ("step", *ledger.COSTS):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_allclose(ours.value, theirs.value, rtol=rtol)
    for name, series in theirs.metrics.items():
        np.testing.assert_allclose(ours.metrics[name], series, rtol=1e-7, atol=1e-10)


def compilations(function):
    """(result, programs that XLA compiled meanwhile)."""
    seen = []
    listen = lambda name, seconds, **_: seen.append(name) if name == COMPILED else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return function(), len(seen)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# --- compiles ---


def test_a_numeric_grid_is_one_program(tiny, gd):
    """100 points; then as many others, at other numbers and seeds, and nothing is compiled any more."""
    grid = lambda low: fl.grid(gd, gamma=fl.times(np.linspace(low, 1, 100)))
    before = programs.compile_count()
    first, count = compilations(lambda: sweep(tiny, grid(0.1)))
    assert programs.compile_count() == before + 1
    assert count >= 2  # the start and the loop, seen by the listener
    assert len(first) == 100
    second, count = compilations(lambda: sweep(tiny, grid(0.5), seeds=[7]))
    assert (programs.compile_count(), count) == (before + 1, 0)
    for lane in (0, 57, 99):
        hp = dataclasses.replace(gd, gamma=gd.gamma * np.linspace(0.5, 1, 100)[lane])
        same_trace(second.trace(lane), single(tiny, hp, seed=7))


def test_the_number_of_points_does_not_change_the_number_of_compiles(tiny, gd):
    """In blocks of ten: 30 and 60 points are one program."""
    grid = lambda num: fl.grid(gd, gamma=fl.times(np.linspace(0.1, 1, num)))
    sweep(tiny, grid(30), block_size=10)
    _, count = compilations(lambda: sweep(tiny, grid(60), block_size=10))
    assert count == 0


def test_a_program_for_each_structure_and_k_in_one(tiny):
    """k of rand-k is a number; another compressor is another program."""
    base = fl.algorithms.get("diana").theory(tiny, compressor="rand_k:1")
    chosen = ["rand_k:1", "natural", "rand_k:3", "rand_k:2"]
    before = programs.compile_count()
    table = sweep(tiny, fl.grid(base, compressor=chosen), "diana", seeds=2)
    assert programs.compile_count() == before + 2
    assert list(table.lanes["compressor"]) == list(np.repeat(chosen, 2))
    hp = dataclasses.replace(base, compressor=fl.compressors.parse("rand_k:3"))
    same_trace(table.trace(5), single(tiny, hp, 1, "diana"))
    assert table.trace(4).bits_up[-1] > 2 * table.trace(0).bits_up[-1]


def test_local_steps_share_a_program_grouped_or_masked(tiny):
    """Unequal numbers of local steps: one after the other, or side by side, the same to rounding."""
    make = lambda k: fl.algorithms.get("fedcomgate").theory(tiny, local_steps=k)
    chosen = [make(k) for k in (2, 5, 2, 3)]
    before = programs.compile_count()
    grouped = sweep(tiny, chosen, "fedcomgate", steps=200, every=50, seeds=2)
    assert programs.compile_count() == before + 1
    masked = sweep(tiny, chosen, "fedcomgate", steps=200, every=50, seeds=2, masked=["local_steps"])
    assert programs.compile_count() == before + 2
    same(masked, grouped)
    for lane, steps in enumerate(np.repeat([2, 5, 2, 3], 2)):
        assert grouped.trace(lane).grads[-1] == 200 * steps


# --- blocks, seeds ---


@pytest.fixture(scope="module")
def whole(tiny):
    """LoCoDL, 2 step sizes x 2 p x 3 seeds, 200 steps, all 12 lanes in one block."""
    hp = fl.algorithms.get("locodl").theory(tiny, p=0.3)
    grid = fl.grid(hp, gamma=fl.times([0.5, 1.0]), p=[0.2, 0.5])
    return grid, sweep(tiny, grid, "locodl", seeds=3, steps=200, every=20)


def test_lanes_are_numbered_by_configuration_then_seed(whole):
    grid, table = whole
    assert list(table.lanes["config"]) == list(np.repeat(range(4), 3))
    assert list(table.lanes["seed"]) == [0, 1, 2] * 4
    assert list(table.lanes["gamma/theory"]) == [0.5] * 6 + [1.0] * 6
    assert list(table.lanes["p"]) == ([0.2] * 3 + [0.5] * 3) * 2
    assert list(table.lanes["gamma"]) == list(np.repeat([hp.gamma for hp in grid.hparams], 3))
    assert (table.lanes["status"] == "finished").all()
    assert (table.records.groupby("lane").size() == 10).all()
    assert (table.lanes["seconds"] > 0).all()


@pytest.mark.parametrize("size", [1, 3])
def test_results_do_not_depend_on_the_block(tiny, whole, size):
    grid, table = whole
    same(sweep(tiny, grid, "locodl", seeds=3, steps=200, every=20, block_size=size), table)


def test_lanes_of_one_seed_use_common_coins(whole):
    """The same p and seed communicate at the same steps, whatever gamma; other seeds do not."""
    _, table = whole
    rounds = {lane: table.trace(lane).rounds for lane in range(12)}
    for lane in range(6):
        np.testing.assert_array_equal(rounds[lane], rounds[lane + 6])
        assert not np.array_equal(table.trace(lane).value, table.trace(lane + 6).value)
    for first, second in ((0, 1), (0, 2), (1, 2), (3, 4)):
        assert not np.array_equal(rounds[first], rounds[second])


def test_one_seed_for_all_lanes_is_the_single_run(tiny, whole):
    """Then the key is shared, and where p is too, the coin is one branch for all lanes."""
    grid, table = whole
    chosen = [grid.hparams[0], grid.hparams[2]]
    same(sweep(tiny, chosen, "locodl", seeds=[2], steps=200, every=20), table, lanes=[2, 8])


def test_a_smaller_block_for_the_last_lanes_changes_nothing(tiny, gd, monkeypatch):
    """Lanes of 16 that end early leave a few, which go on in a block of four."""
    grid = fl.grid(gd, gamma=fl.times([0.05, *np.linspace(0.9, 1, 15)]))
    options = {"steps": 400, "rel_gap": 1e-6}
    plain = sweep(tiny, grid, **options)
    assert len(set(plain.records.groupby("lane").size())) > 1
    sizes = []
    monkeypatch.setattr(blocks, "WORTH_COMPILING", 0)
    packed = blocks.Block._packed
    monkeypatch.setattr(blocks.Block, "_packed", lambda block, size: sizes.append(size) or packed(block, size))
    same(sweep(tiny, grid, **options), plain)
    assert sizes[0] == 4


# --- lanes that end early ---


def test_a_diverging_lane_disturbs_no_other(tiny, gd, capfd):
    """Lane 1 of five diverges, in a block of two: its slot goes to the next lane, and it is named on stderr."""
    factors, options = [0.5, 1e4, 0.8, 0.2, 1.0], {"block_size": 2, "steps": 60, "every": 2}
    table = sweep(tiny, fl.grid(gd, gamma=fl.times(factors)), progress=True, **options)
    told = capfd.readouterr().err
    assert list(table.lanes["status"]) == ["finished", "diverged", "finished", "finished", "finished"]
    alone = single(tiny, dataclasses.replace(gd, gamma=1e4 * gd.gamma), steps=60, every=2)
    assert alone.status == "diverged"
    same_trace(table.trace(1), alone)
    assert np.all(np.isfinite(table.records["value"]))
    kept = [0, 2, 3, 4]
    without = sweep(tiny, fl.grid(gd, gamma=fl.times([factors[i] for i in kept])), **options)
    same(without, table, lanes=kept)
    (line,) = [line for line in told.splitlines() if "diverged" in line]
    assert line.startswith("1 of 5 lanes diverged: gamma/theory = 10000.0")
    assert list(table.diverged().index) == [1]


def test_a_slot_is_given_to_the_next_lane_in_order(tiny, gd, monkeypatch):
    """Of two slots, the one whose lane diverges takes lane 2, then 3, while the other's still runs."""
    began = []
    begin = blocks.Block._begin

    def note(block, slots):
        began.append([(int(slot), int(block.lane[slot])) for slot in slots])
        return begin(block, slots)

    monkeypatch.setattr(blocks.Block, "_begin", note)
    chosen = [dataclasses.replace(gd, gamma=c * gd.gamma) for c in (0.5, 1e4, 1e4, 1e4, 0.5)]
    sweep(tiny, chosen, block_size=2, steps=400, every=10)
    assert began[:4] == [[(0, 0), (1, 1)], [(1, 2)], [(1, 3)], [(1, 4)]]


def test_lanes_that_diverge_at_once_have_no_records(tiny, gd):
    table = sweep(tiny, fl.grid(gd, gamma=fl.times([1e8, 1.0])), every=20)
    assert list(table.lanes["status"]) == ["diverged", "finished"]
    assert list(table.records["lane"]) == [1, 1]
    both = sweep(tiny, fl.grid(gd, gamma=fl.times([1e8, 2e8])), every=20)
    assert list(both.lanes["status"]) == ["diverged"] * 2
    assert len(both.records) == 0
    assert np.isfinite(both.lanes["initial"]).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 2), ("float64", None)])
def test_a_target_ends_each_lane_where_its_run_ends(clients, dtype, size):
    problem = fl.problems.logistic_regression(clients, kappa=30, dtype=dtype)
    hp = fl.algorithms.get("gd").theory(problem)
    grid, options = fl.grid(hp, gamma=fl.times([0.1, 1.0, 0.4, 0.003])), {"steps": 600, "every": 3, "rel_gap": 1e-3}
    table = sweep(problem, grid, block_size=size, **options)
    assert list(table.lanes["status"]) == ["target"] * 3 + ["finished"]
    hits = table.summary([1e-3])["step to 1e-03"]
    for lane, hp in enumerate(grid.hparams):
        alone = single(problem, hp, **options)
        same_trace(table.trace(lane), alone, rtol=1e-10 if dtype == "float64" else 1e-6)
        reached = alone.reach(1e-3)
        assert np.isnan(hits[lane]) if reached is None else hits[lane] == reached["step"] == alone.step[-1]


@pytest.mark.parametrize("name", ["bits_up", "rounds", "grads"])
def test_a_budget_ends_each_lane_at_the_first_record_that_spends_it(tiny, whole, name):
    """Lanes with p of their own spend differently. A budget is a number: it compiles nothing."""
    grid, table = whole
    budget = {name: float(getattr(table.trace(0), name)[5]), "bits_down": 1e9}
    ours, count = compilations(lambda: sweep(tiny, grid, "locodl", seeds=3, steps=200, every=20, budget=budget))
    assert count == 0
    for lane in range(12):
        cut, full = ours.trace(lane), table.trace(lane)
        over = np.flatnonzero(getattr(full, name) >= budget[name])
        assert len(cut) == (over[0] + 1 if len(over) else 10)
        np.testing.assert_array_equal(getattr(cut, name), getattr(full, name)[: len(cut)])
        np.testing.assert_allclose(cut.value, full.value[: len(cut)], rtol=1e-10)
    assert len({len(ours.trace(lane)) for lane in range(12)}) > 1 or name == "grads"


def test_a_budget_ends_a_lane_where_its_run_ends(tiny, gd):
    table = sweep(tiny, gd, steps=100, budget={"rounds": 45, "bits_up": 1e9})
    alone = single(tiny, gd, steps=100, budget={"rounds": 45, "bits_up": 1e9})
    assert list(alone.rounds) == [10, 20, 30, 40, 50]
    same_trace(table.trace(0), alone)


# --- what may be asked ---


def test_theory_one_hp_and_a_list_mean_the_same(tiny, gd):
    table = sweep(tiny)
    same(sweep(tiny, gd), table)
    same(sweep(tiny, [gd]), table)
    same(sweep(tiny, fl.Grid.of(gd)), table)
    assert table.lanes["gamma"][0] == gd.gamma


def test_metrics_and_a_warm_start(tiny, gd):
    own = lambda problem, hp, state: jnp.sum(state.x**2) * hp.gamma
    for measure in (["grad_norm", "distance", "lyapunov"], {"size": own}):
        table = sweep(tiny, fl.grid(gd, gamma=fl.times([0.5, 1.0])), measure=measure, x0=np.ones(5))
        alone = single(tiny, gd, measure=measure, x0=np.ones(5))
        series = ["lane", "step", *ledger.COSTS, "value", *measure, "seconds"]
        assert list(table.records.columns) == series  # in the order asked for
        same_trace(table.trace(1), alone)
    assert table.lanes["initial"][0] == pytest.approx(float(tiny.value(jnp.ones(5))), rel=1e-12)


@pytest.mark.parametrize("name", ["rounds", "seconds", "seed", "step", "gamma"])
def test_a_metric_may_have_the_name_of_a_column(tiny, gd, name):
    """It gets another column; no series of the table's own is lost, and nothing after the work is done."""
    own = lambda problem, hp, state: 100 + jnp.sum(state.x**2)
    table = sweep(tiny, gd, measure={name: own})
    (metric,) = table.metrics
    assert (table.records[metric] > 99).all()
    assert list(table.records["step"]) == list(table.records["rounds"]) == [10, 20, 30, 40]
    assert (table.records["seconds"] < 50).all()
    assert table.lanes["seed"][0] == 0


def test_steps_that_are_cut_are_noted(tiny, gd, capfd):
    table = sweep(tiny, gd, steps=47, progress=True)
    assert table.records["step"].max() == 40
    assert "note: steps cut from 47 to 40, a multiple of every = 10" in capfd.readouterr().err.splitlines()


def test_the_plan_is_printed_and_silence_is_silent(tiny, gd, capfd):
    sweep(tiny, gd, seeds=3, progress=True, block_size=2)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "GD: 1 configurations x 3 seeds = 3 lanes in 1 program"
    assert lines[1].startswith("  3 lanes 2 side by side, saved in 1 part;")
    sweep(tiny, gd, seeds=3)
    assert capfd.readouterr().err == ""


def test_numpy_numbers_are_numbers(tiny, gd):
    kept = sweep(tiny, gd, seeds=2, rel_gap=1e-3, budget={"rounds": 30}, block_size=2)
    ours = sweep(
        tiny, gd, seeds=np.int64(2), rel_gap=np.float64(1e-3), budget={"rounds": np.int64(30)}, block_size=np.int64(2)
    )
    same(ours, kept)


def test_a_target_of_any_kind_of_number_is_found_at_once(monkeypatch):
    """A gap in float32 must not make the search for the target walk its rounding error in float64 steps."""
    steps, nextafter = [], np.nextafter
    monkeypatch.setattr(np, "nextafter", lambda x, y: steps.append(x) or (nextafter(x, y) if len(steps) < 10 else y))
    for f_star in (0.3, 0.7, 1.1):
        target = loop.at_most(f_star, np.float32(1e-3), np.float64)
        assert float(target) - f_star == pytest.approx(1e-3, rel=1e-6)


def test_the_config_says_what_was_asked(tiny, gd):
    table = sweep(tiny, fl.grid(gd, gamma=fl.times([0.5, 1.0])), seeds=[4, 2], rel_gap=1e-3, budget={"rounds": 30})
    config = table.config
    assert config["methods"]["gd"]["axes"] == {"gamma/theory": [0.5, 1.0]}
    assert (config["seeds"], config["rel_gap"], config["budget"]) == ([4, 2], 1e-3, {"rounds": 30})
    assert (config["steps"], config["every"]) == (40, 10)
    assert {"versions", "device", "command", "problem"} <= set(config)


# --- Ctrl-C ---


def interrupt_at(monkeypatch, chunk):
    """Press Ctrl-C after that many chunks."""
    told, advance = [], blocks.Block._advance

    def press(block, count):
        ran = advance(block, count)
        told.append(count)
        if len(told) == chunk:
            os.kill(os.getpid(), signal.SIGINT)
        return ran

    monkeypatch.setattr(blocks.Block, "_advance", press)
    monkeypatch.setattr(loop, "next_count", lambda count, capacity, seconds: 2)


def test_ctrl_c_keeps_what_is_done(tiny, gd, monkeypatch, tmp_path):
    """Six lanes in blocks of one and parts of four: stopped in the third lane, then continued from its folder."""
    grid = fl.grid(gd, gamma=fl.times([0.3, 0.5, 0.7, 0.8, 0.9, 1.0]))
    plain = sweep(tiny, grid, steps=80, block_size=1)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 12)
        table = sweep(tiny, grid, steps=80, block_size=1, out=tmp_path / "out")
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(table.lanes["status"]) == ["finished"] * 2 + ["interrupted"] * 4
    for lane in (0, 1):
        same_trace(table.trace(lane), plain.trace(lane))
    cut = table.trace(2)
    assert 0 < len(cut) < 8
    np.testing.assert_array_equal(cut.value, plain.trace(2).value[: len(cut)])
    assert not (tmp_path / "out" / "lanes.parquet").exists()
    same(sweep(tiny, grid, steps=80, block_size=1, out=tmp_path / "out"), plain)


def test_ctrl_c_between_parts_keeps_the_parts(tiny, gd, monkeypatch, tmp_path):
    grid = fl.grid(gd, gamma=fl.times(np.linspace(0.3, 1, 6)))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 21)
        table = sweep(tiny, grid, steps=80, block_size=1, out=tmp_path)
    assert list(table.lanes["status"][:4]) == ["finished"] * 4
    assert [path.name for path in tmp_path.glob("part-*.parquet")] == ["part-00000000.parquet"]


def test_ctrl_c_before_anything_runs(tiny, gd, monkeypatch):
    """Pressed while the program compiles: a table of the first record, not an error."""
    build = blocks.Block.__init__

    def press(*arguments):
        build(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(blocks.Block, "__init__", press)
    table = sweep(tiny, gd, seeds=2)
    assert list(table.lanes["status"]) == ["interrupted"] * 2
    assert list(table.records["step"]) == [10, 10]


def test_sweeps_outside_the_main_thread(tiny, gd):
    found = []
    thread = threading.Thread(target=lambda: found.append(sweep(tiny, gd)))
    thread.start()
    thread.join()
    same(found[0], sweep(tiny, gd))


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be a number >= 1 or different whole numbers >= 0, 1,000,000 at most, got 0"),
        ({"seeds": -2}, "seeds must be a number >= 1 or different whole numbers >= 0, 1,000,000 at most, got -2"),
        (
            {"seeds": [1, 1]},
            "seeds must be a number >= 1 or different whole numbers >= 0, 1,000,000 at most, got [1, 1]",
        ),
        (
            {"seeds": [0, -1]},
            "seeds must be a number >= 1 or different whole numbers >= 0, 1,000,000 at most, got [0, -1]",
        ),
        ({"seeds": 2.5}, "seeds must be"),
        ({"seeds": [1.5]}, "seeds must be"),
        ({"masked": ["gamma"]}, "unknown field to mask 'gamma': did you mean 'local_steps'?"),
        ({"devices": 99}, "devices must be 1..1 local devices, got 99"),
        ({"devices": 0}, "devices must be 1..1 local devices, got 0"),
        ({"devices": -1}, "devices must be 1..1 local devices, got -1"),
        ({"block_size": 0}, "block_size must be"),
        ({"block_size": -1}, "block_size must be"),
        ({"seeds": 64, "block_size": 64, "memory": 1000}, "64 lanes side by side need "),
        ({"memory": 1000}, "1 lanes side by side need "),
        ({"budget": {"bits": 1}}, "unknown budget 'bits': did you mean 'bits_up'?"),
        ({"measure": ["gradnorm"]}, "unknown metric 'gradnorm': did you mean 'grad_norm'"),
        ({"rel_gap": 1e-40}, "rel_gap 1e-40 is below what float64 resolves here"),
        ({"rel_gap": float("nan")}, "rel_gap"),
        ({"budget": {"rounds": float("nan")}}, "budget"),
        ({"steps": 3}, "steps must be a whole number >= every = 10 and < 2^32, got 3"),
        ({"every": 0}, "every must be a whole number >= 1 and < 2^32, got 0"),
        ({"x0": np.zeros(3)}, "x0 must have shape (5,), got (3,)"),
        ({"method": "gdd"}, "unknown method 'gdd': did you mean 'gd'?"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(tiny, options, message):
    with pytest.raises(InputError) as caught:
        sweep(tiny, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_bad_configurations_are_one_line(tiny, gd):
    with pytest.raises(InputError, match=r"^gd needs gamma > 0, got -1$"):
        sweep(tiny, [gd, dataclasses.replace(gd, gamma=-1.0)])
    with pytest.raises(InputError, match=r"^a sweep needs at least one configuration"):
        sweep(tiny, [])


def test_targets_that_have_no_meaning(clients):
    flat = fl.problems.quadratic(np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(InputError, match=r"^rel_gap needs a known optimum"):
        sweep(flat, fl.algorithms.get("gd").Hparams(gamma=1.0), rel_gap=1e-3)
    coarse = fl.problems.logistic_regression(clients, kappa=30, dtype="float32")
    with pytest.raises(InputError, match=r"^rel_gap 1e-12 is below what float32 resolves here: use float64"):
        sweep(coarse, rel_gap=1e-12)


# --- devices ---

SPREAD = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import fedjax_lc as fl
from fedjax_lc.results import ledger
from fedjax_lc.sweeping import blocks
from fedjax_lc.core.errors import InputError
from tests.conftest import make_clients

assert len(jax.devices()) == 8
problem = fl.problems.logistic_regression(make_clients(), kappa=30)
built, build = [], blocks.Block.__init__

def note(self, *arguments):
    build(self, *arguments)
    built.append(self)

blocks.Block.__init__ = note
words = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")

def same(ours, theirs):
    frames = (ours.records, theirs.records)
    np.testing.assert_array_equal(*(frame[["lane", "step", *ledger.COSTS]] for frame in frames))
    np.testing.assert_allclose(*(frame["value"] for frame in frames), rtol=1e-10)
    assert list(ours.lanes["status"]) == list(theirs.lanes["status"])

def check(method, grid, **options):
    one = fl.sweep(method, problem, grid, devices=1, progress=False, **options)
    for size in (None, 8):
        built.clear()
        same(fl.sweep(method, problem, grid, block_size=size, progress=False, **options), one)
        text = built[0].compiled.as_text()
        assert not [word for word in words if word in text]
        lanes = built[0].size
        assert lanes % 8 == 0 and lanes == (8 if size else -(-len(one) // 8) * 8)
        for leaf in jax.tree.leaves(built[0].at):
            assert len(leaf.sharding.device_set) == 8
            assert {shard.data.shape for shard in leaf.addressable_shards} == {(lanes // 8, *leaf.shape[1:])}
    return one

gd = fl.algorithms.get("gd").theory(problem)
steps = {"steps": 100, "every": 5}
one = check("gd", fl.grid(gd, gamma=fl.times(np.linspace(0.1, 1, 13))), **steps)
ends = check("gd", fl.grid(gd, gamma=fl.times([*np.linspace(0.05, 1, 20), 1e4])), rel_gap=1e-4, **steps)
assert set(ends.lanes["status"]) == {"finished", "target", "diverged"}
check("locodl", fl.algorithms.get("locodl").theory(problem, p=0.3), seeds=11, **steps)

# stopped after three chunks, then gone on with on all devices and on two
import os, shutil, signal, tempfile
from fedjax_lc.running import loop
grid, out = fl.grid(gd, gamma=fl.times([*np.linspace(0.05, 1, 20), 1e4])), tempfile.mkdtemp()
options = {"rel_gap": 1e-4, "block_size": 8, "progress": False, **steps}
whole = fl.sweep("gd", problem, grid, **options)
loop.next_count = lambda count, capacity, seconds: 1
made, advance = [0], blocks.Block._advance

def press(block, count):
    made[0] += 1
    if made[0] == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return advance(block, count)

blocks.Block._advance = press
assert (fl.sweep("gd", problem, grid, out=f"{out}/8", **options).lanes["status"] == "interrupted").any()
shutil.copytree(f"{out}/8", f"{out}/2")
for devices in (8, 2):
    again = fl.sweep("gd", problem, grid, out=f"{out}/{devices}", devices=devices, **options)
    same(again, whole)
    assert devices == 2 or again.records["value"].to_numpy().tobytes() == whole.records["value"].to_numpy().tobytes()
shutil.rmtree(out)

for devices in (9, 0, -1):
    try:
        fl.sweep("gd", problem, gd, devices=devices)
    except InputError as error:
        assert str(error) == f"devices must be 1..8 local devices, got {devices}", error
    else:
        raise AssertionError(devices)
print("all the same")
"""


@pytest.mark.slow
def test_eight_devices_are_one():
    """Lanes not a multiple of eight, refilled slots, early ends; no word between devices in the compiled text."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    settings = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SPREAD)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "all the same", ran.stderr[-3000:]


# --- a device without room ---


@pytest.fixture
def room(monkeypatch):
    """A device that holds so many lanes: more are refused after their first chunk, as XLA refuses an allocation."""
    usual, limit = blocks.Block._advance, {"lanes": 3}

    def advance(block, count):
        ran = usual(block, count)
        if block.size > limit["lanes"]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return ran

    monkeypatch.setattr(blocks.Block, "_advance", advance)
    return limit


def test_out_of_memory_goes_on_with_fewer_lanes(tiny, gd, room, tmp_path, capsys):
    """Told in one line each time; every lane is there once, saved in the parts that the folder began with."""
    hp = fl.grid(gd, gamma=fl.times(list(np.linspace(0.2, 1, 20))))
    found = sweep(tiny, hp, block_size=10, out=tmp_path / "out", progress=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    assert told == [f"  out of memory with {a} lanes side by side: going on with {b}" for a, b in ((10, 5), (5, 2))]
    room["lanes"] = 10
    same(found, sweep(tiny, hp, block_size=10))
    same(sweep(tiny, hp, block_size=10, out=tmp_path / "out"), found, rtol=0)


def test_a_folder_goes_on_with_less_memory(tiny, tmp_path, monkeypatch):
    """In blocks as they fit now, and the parts that it began with."""
    hp = fl.grid(fl.algorithms.get("diana").theory(tiny), gamma=fl.times(list(np.linspace(0.2, 1, 20))))
    options = {"method": "diana", "out": tmp_path / "out"}
    with monkeypatch.context() as patch:
        patch.setattr(blocks.Block, "run", lambda *a: (_ for _ in ()).throw(KeyError("stopped")))
        with pytest.raises(KeyError):
            sweep(tiny, hp, **options)
    same(sweep(tiny, hp, memory=3_000_000, **options), sweep(tiny, hp, method="diana"))


def test_out_of_memory_with_one_lane_is_one_line(tiny, gd, room):
    room["lanes"] = 0
    with pytest.raises(InputError, match=r"^1 lanes side by side do not fit into the device's memory: use float32"):
        sweep(tiny, gd, block_size=1)


def test_other_failures_of_a_device_are_not_taken_for_it(tiny, gd, monkeypatch):
    def advance(block, count):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(blocks.Block, "_advance", advance)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        sweep(tiny, gd)


def test_a_sweep_of_one_trip_count_knows_its_length(tiny):
    """Its program is another than that of several, and its lanes the same."""
    make = lambda k: fl.algorithms.get("fedavg").theory(tiny, local_steps=k)
    chosen = [make(4), dataclasses.replace(make(4), client_lr=0.01)]
    before = programs.compile_count()
    alone = sweep(tiny, chosen, "fedavg")
    both = sweep(tiny, [*chosen, make(2)], "fedavg")
    assert programs.compile_count() == before + 2
    same(alone, both, lanes=[0, 1])
