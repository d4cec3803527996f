"""`bench sweep`: rivals do the same maths, verdicts follow from the times, every part runs at a tiny size."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.bench import harness, rivals, sweep, sweep_parts, sweep_tuned
from experiments.bench.harness import Contestant, Target
from experiments.bench.sweep_parts import COPY, GRADIENT, LOCODL, PLAIN_COND, PLAIN_GRADIENT, Sizes
from experiments.bench.workloads import FEDAVG, Size, w1, with_plain_branches
from experiments.kit.contender import Contender
from experiments.kit.tuned import Tuned
from fedjax_lc import cli
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError

TINY = Sizes(
    w1=Size(clients=4, rows=6, dim=20, local_steps=3),
    configurations=5,
    rounds=4,
    few=2,
    few_rounds=3,
    numpy_rounds=2,
    lanes=(3,),
    scaling=(1, 3),
    lane_steps=12,
    least_steps=4,
    memory_lanes=3,
)
PRECISION = pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])


def probe(problem, hp, state):
    """A metric that tells points apart."""
    return jnp.cos(jnp.arange(problem.dim, dtype=state.dtype)) @ state


@PRECISION
def test_sweeps_of_rivals_walk_the_path_of_ours(dtype, rtol):
    work, rounds = w1(TINY.w1, dtype), TINY.rounds
    rates = sweep_parts.step_sizes(TINY, work)
    assert rates.dtype == dtype
    assert len(rates) == TINY.configurations == len(set(rates))
    hp = FEDAVG.theory(work.problem, local_steps=TINY.w1.local_steps)
    grid = fl.grid(hp, client_lr=[float(lr) for lr in rates])
    table = fl.sweep(FEDAVG, work.problem, grid, steps=rounds, every=rounds, measure={"probe": probe}, progress=False)
    ours = table.records["probe"].to_numpy()
    assert np.ptp(ours) > 1e-3
    for rival in (rivals.fedavg_columns, rivals.fedavg_blocked, rivals.fedavg_jax_sweep):
        x = rival(work.A, work.b, work.l2, rates, TINY.w1.local_steps, rounds)
        assert x.shape == (TINY.configurations, TINY.w1.dim)
        assert x.dtype == dtype
        found = np.asarray(x, np.float64) @ np.cos(np.arange(TINY.w1.dim))
        np.testing.assert_allclose(found, ours, rtol=0, atol=rtol * np.abs(ours).max(), err_msg=str(rival))


def locodl_picks(hp, problem, key, steps):
    """Per step None or, per client, the coordinates that LoCoDL's message keeps in a run of ours."""
    for t in range(steps):
        coin_key, uplink_key = jax.random.split(jax.random.fold_in(key, t))
        kept = hp.compressor.joint(uplink_key, jnp.ones((problem.n, problem.dim))).value
        yield [np.flatnonzero(row) for row in np.asarray(kept)] if jax.random.bernoulli(coin_key, hp.p) else None


def test_the_locodl_loop_walks_the_path_of_ours():
    work, steps = w1(TINY.w1, "float64"), 20
    hp = fl.algorithms.get("locodl").theory(work.problem, compressor="rand_k:3", p=0.3)
    picks = list(locodl_picks(hp, work.problem, jax.random.key(0), steps))
    assert 0 < sum(kept is not None for kept in picks) < steps
    c = hp.p * hp.chi / (hp.gamma * (1 + 2 * hp.compressor.omega(TINY.w1.dim)))
    x = rivals.locodl_loop(work.A, work.b, work.l2, hp.gamma, hp.rho, c, picks)
    ours = fl.run("locodl", work.problem, hp, 0, steps=steps, every=steps, progress=False).x
    assert np.abs(ours).max() > 1e-3
    np.testing.assert_allclose(x, ours, rtol=0, atol=1e-12 * np.abs(ours).max())


def test_plain_branches_change_the_program_and_not_its_numbers():
    work, locodl = w1(TINY.w1, "float64"), fl.algorithms.get("locodl")
    hp = locodl.theory(work.problem, compressor="rand_k:3", p=0.3)
    plain = with_plain_branches(locodl)
    options = {"seeds": 3, "steps": 12, "every": 4, "progress": False}
    tables = [fl.sweep(method, work.problem, hp, **options).records for method in (locodl, plain)]
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=1e-12)
    hp = pytree.cast(hp, jnp.float64)
    for method, turns in ((locodl, True), (plain, False)):
        one = lambda key, method=method: method.step(work.problem, hp, method.init(work.problem, hp, key), key)[0]
        text = str(jax.make_jaxpr(jax.vmap(one))(jax.random.split(jax.random.key(0), 3)))
        assert ("argsort" in text or "sort[" in text) == turns


def test_every_contestant_runs():
    work = w1(TINY.w1)
    averaging = sweep_parts.averaging_contests(TINY, work)
    assert next(iter(averaging)) == sweep_parts.SWEEP
    assert {sweep_parts.COLUMNS, sweep_parts.BLOCKED, *sweep_parts.PRODUCTS} < set(averaging)
    for name, contestant in averaging.items():
        result = contestant.run()
        assert contestant.rounds > 0, name
        if not isinstance(result, fl.Table | fl.Trace | list | None):
            assert np.all(np.isfinite(result)), name
    table = averaging[sweep_parts.SWEEP].run()
    assert len(table) == TINY.configurations
    assert averaging[sweep_parts.SWEEP].rounds == TINY.configurations * TINY.rounds
    assert (table.records["rounds"] == TINY.rounds).all()
    assert (table.records["grads"] == TINY.rounds * TINY.w1.local_steps).all()
    assert averaging[sweep_parts.RUNS].rounds == TINY.few * TINY.few_rounds


def test_lanes_of_the_branch_race_have_coins_of_their_own():
    entries = sweep_parts.branch_contests(TINY._replace(lane_steps=60), w1(TINY.w1), 3)
    table = entries[LOCODL(0.3)].run()
    assert entries[LOCODL(0.3)].rounds == 60 == table.records["step"].sum()
    assert table.records["rounds"].nunique() > 1
    assert entries[GRADIENT].run().records["rounds"].sum() == 0


def test_the_clock_takes_the_loop_alone(monkeypatch):
    work = w1(TINY.w1)
    trace = fl.run("gd", work.problem, steps=4, every=4, progress=False)
    trace.config["seconds"] = 0.25
    table = fl.sweep("gd", work.problem, seeds=2, steps=4, every=4, progress=False)
    table.lanes["seconds"] = [0.125, 0.25]
    monkeypatch.setattr(harness.time, "perf_counter", iter([10.0, 11.0] * 3).__next__)
    clock = harness.Clock()
    assert [clock(lambda result=result: result) for result in (trace, table, None)] == [0.25, 0.375, 1.0]
    assert clock.outside == [0.75, 0.625, 0.0]


def test_a_race_reports_programs_that_are_compiled_late():
    problem, every = w1(TINY.w1).problem, iter(range(5, 20))

    def changing():
        steps = next(every)
        return fl.run("gd", problem, steps=steps, every=steps, progress=False)

    steady = Contestant(4, lambda: fl.run("gd", problem, steps=4, every=4, progress=False))
    found = harness.raced({"steady": steady}, 3, "", False)
    assert found["compiled_late"] == 0
    row = found["rows"]["steady"]
    assert len(row["turns_ms"]) == 3
    assert sorted(row["turns_ms"])[1] == row["ms"] > 0
    entries = {"steady": steady, "changing": Contestant(1, changing)}
    assert harness.raced(entries, 3, "", False)["compiled_late"] == 3


def rows(**ms):
    return {name: {"turns_ms": [value] * 3, "ms": value, "outside_s": 0.1} for name, value in ms.items()}


def averaging_facts(one_by_one, numpy=None):
    ms = {sweep_parts.SWEEP: 1.0, sweep_parts.RUNS: one_by_one, sweep_parts.PLAIN: one_by_one + 1}
    ms |= {sweep_parts.PRODUCTS[1]: 0.5}
    if numpy is not None:
        ms |= {sweep_parts.COLUMNS: numpy + 1, sweep_parts.BLOCKED: numpy, sweep_parts.PRODUCTS[0]: 0.4}
    return {"rows": rows(**ms), "compiled_late": 0, "flops": 8e6}


@pytest.mark.parametrize(
    ("one_by_one", "numpy", "met"), [(2.0, 1.2, [True, True]), (1.9, 1.1, [False, False]), (2.5, None, [True])]
)
def test_step_sizes_are_judged_against_the_faster_rival(one_by_one, numpy, met):
    told = sweep_parts.tell_averaging(averaging_facts(one_by_one, numpy))
    assert [target.measured for target in told.targets] == [one_by_one, numpy][: len(met)]
    assert [target.met for target in told.targets] == met
    assert told.rows[0]["GFLOP/s"] == "8.0"
    assert told.rows[1]["it / ours [turns]"].startswith(f"{one_by_one:.2f} [")
    assert (" 0.40 " if numpy else " 0.50 ") in told.notes[0]
    assert not any("no ceiling" in note or "turns meet" in note for note in told.notes)


def test_ratios_are_taken_within_a_turn_so_that_drift_cancels():
    # The machine halves its speed after the first turn; b is always 1.5 times as slow as a.
    drifting = {"a": {"turns_ms": [1.0, 2.0, 2.0]}, "b": {"turns_ms": [1.5, 3.0, 3.0]}}
    assert sweep_parts.ratio(drifting, "b", "a").turns == (1.5, 1.5, 1.5)
    found = sweep_parts.Ratio((1.0, 1.3, 1.4))
    target, unsure = found.target("it", None, 1.2)
    assert (target.measured, target.met) == (1.3, True)
    assert unsure == ["it: 2 of 3 turns meet it, 1.30 [1.00, 1.40]"]
    assert found.target("it", None, 0.9)[1] == found.target("it", 2.0)[1] == []


def test_a_share_above_one_is_called_out():
    facts = averaging_facts(2.5, 1.5)
    facts["rows"] |= rows(**dict.fromkeys(sweep_parts.PRODUCTS, 1.1))
    assert any("no ceiling" in note for note in sweep_parts.tell_averaging(facts).notes)


def branch_facts(at_0_1, at_0_3):
    ms = {GRADIENT: 2.0, LOCODL(0.01): 2.0, LOCODL(0.03): 2.2, LOCODL(0.1): 2 * at_0_1, LOCODL(0.3): 2 * at_0_3}
    ms |= {PLAIN_GRADIENT: 4.0, PLAIN_COND: 10.0, COPY: 1.0}
    return {"32": {"rows": rows(**ms), "compiled_late": 0, "step_bytes": 4e6, "copy_bytes": 8e6}}


@pytest.mark.parametrize(("at_0_1", "at_0_3", "met"), [(1.4, 2.0, [True, True]), (1.41, 2.01, [False, False])])
def test_branches_are_judged_by_the_gradient(at_0_1, at_0_3, met):
    told = sweep_parts.tell_branches(branch_facts(at_0_1, at_0_3))
    assert [target.measured for target in told.targets] == pytest.approx([1.0, 1.1, at_0_1, at_0_3])
    assert [target.most for target in told.targets] == [1.4, 1.4, 1.4, 2.0]
    assert [target.met for target in told.targets[2:]] == met
    ratios = {row["per lane-step"]: row["over gradient only [turns]"] for row in told.rows}
    assert ratios[PLAIN_COND] == "5.00 [5.00, 5.00]"
    assert COPY not in ratios
    assert "takes 2.50 [2.50, 2.50] of its own gradient" in told.notes[0]
    assert "at 0.25 [0.25, 0.25] times a large copy's" in told.notes[1]
    assert "cache" not in told.notes[1]


@pytest.mark.parametrize(("last", "worst", "met"), [(0.9, 64, True), (1.2, 256, False)])
def test_scaling_is_flat_or_falling(last, worst, met):
    facts = {"rows": rows(**{"1": 3.0, "16": 1.0, "64": 1.05, "256": last}), "compiled_late": 0}
    facts |= {"plans": dict.fromkeys(facts["rows"], "a plan"), "memory": None}
    told = sweep_parts.tell_scaling(facts)
    (target,) = told.targets
    assert f"of {worst} lanes" in target.what
    assert target.measured == pytest.approx(max(1.05, last))
    assert target.met == met
    assert [row["us per lane-step"] for row in told.rows[:3]] == ["3000.0", "1000.0", "1050.0"]


def test_programs_compiled_late_are_told():
    facts = averaging_facts(2.0)
    assert not any("steady" in note for note in sweep_parts.tell_averaging(facts).notes)
    assert any("2 programs" in note for note in sweep_parts.tell_averaging(facts | {"compiled_late": 2}).notes)


@pytest.mark.parametrize(
    ("plan", "found"),
    [("7 lanes in one block; 281 kB a lane, 2 MB of 11 GB", 281e3), ("1 lanes in one block; 1.2 GB a lane", 1.2e9)],
)
def test_bytes_of_a_lane_are_read_off_its_plan(plan, found):
    assert sweep_parts.lane_bytes(plan) == found


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own counters")
def test_growth_is_that_of_the_work_alone():
    held = []
    assert sweep_parts._growth_mib(lambda: held.append(np.ones(2**23))) == pytest.approx(64, abs=16)
    assert sweep_parts._growth_mib(lambda: held.append(np.ones(2**22))) == pytest.approx(32, abs=16)


def test_scaling_and_memory_run_with_the_plans_own_words():
    found = json.loads(json.dumps(sweep_parts.scaling(TINY, "float32", 2, False)))
    assert set(found["plans"]) == {"1", "3"}
    assert found["compiled_late"] == 0
    found["memory"] = sweep_parts.memory(TINY, "float32")
    assert 0.1 < found["memory"]["predicted_mib"] < 10
    told = sweep_parts.tell_scaling(found)
    assert "3 lanes in one block" in told.rows[1]["plan"]
    assert "3 lanes side by side" in told.notes[0]


# --- tuned comparisons ---


def small_tuned():
    return Tuned(
        title="tiny",
        problem=lambda: dataclasses.replace(w1(TINY.w1, "float64").problem, given_f_star=None),
        curves=(Contender("locodl", tune={"compressor": ("natural",)}), Contender("gd")),
        step_sizes=(1.0, 2.0),
        rel_gap=1e-1,
    )


def test_a_tuned_comparison_counts_its_work():
    found = json.loads(json.dumps(sweep_tuned.tuned(small_tuned(), False, max_steps=5000)))
    assert list(found["methods"]) == ["locodl", "gd"]
    for own in found["methods"].values():
        assert own["lanes"] == 4 == own["target"] + own["finished"] + own["diverged"]
        assert own["step"] == own["grads"] > 0
    assert found["methods"]["locodl"]["rounds"] < found["methods"]["locodl"]["step"]
    assert found["methods"]["gd"]["rounds"] == found["methods"]["gd"]["step"]
    assert found["xla_s"] > 0
    assert found["numpy"]["local_s"] > 0
    assert found["wall_s"] > found["xla_s"] + sum(own["seconds"] for own in found["methods"].values())
    assert "5,000 steps" in sweep_tuned.tell_tuned(found).notes[0]


def test_the_numpy_loop_is_extrapolated_by_gradients_and_rounds():
    own = {"lanes": 2, "target": 2, "finished": 0, "diverged": 0}
    own |= {"step": 3e6, "grads": 3e6, "rounds": 1e6, "seconds": 60.0}
    found = {"title": "t", "rel_gap": 1e-4, "max_steps": 10, "budget": 1e6, "wall_s": 100.0, "xla_s": 15.0}
    found |= {"methods": {"locodl": own}, "numpy": {"local_s": 2e-3, "message_s": 1.2e-3}}
    told = sweep_tuned.tell_tuned(found)
    assert told.rows[0]["NumPy loop, h"] == "2.00"
    assert "60.0 s in the loops, 15.0 s in XLA's compiler, 25.0 s tracing" in told.notes[1]
    assert "2.00 h, 72 times as long" in told.notes[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thousand_configurations_at_a_tiny_size(dtype):
    found = json.loads(json.dumps(sweep_tuned.thousand(small_tuned(), dtype, False, (2, 3), steps=20)))
    assert (found["lanes"], found["step"], found["finished"]) == (6, 120.0, 6)
    row = sweep_tuned.tell_thousand(found).rows[0]
    assert row["problem"] == f"tiny, {dtype}"
    assert float(row["us per lane-step"]) == pytest.approx(1e6 * found["seconds"] / 120, abs=0.01)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    for name in ("FEDJAX_LC_DATA", "FEDJAX_LC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


def test_without_data_the_tuned_part_is_skipped_in_one_line(no_data, monkeypatch, capsys):
    job = {"task": "iv", "pinned": False, "dtype": "float64", "progress": False}
    monkeypatch.setattr(harness, "asked", lambda: job)
    sweep.child()
    facts = json.loads(capsys.readouterr().out)
    told = sweep.told({"part": "iv", "facts": facts})
    assert told.rows == told.targets == []
    assert told.notes[0].startswith("skipped: 'a5a' is not in")


# --- the suite ---


def results():
    found = {
        "i, float32": {"part": "i", "dtype": "float32", "facts": averaging_facts(2.5, 1.1)},
        "ii, float32": {"part": "ii", "dtype": "float32", "facts": branch_facts(1.2, 2.2)},
        "v, float32": {"part": "v", "dtype": "float32", "facts": {"skipped": "it needs a GPU"}},
    }
    made = {"cpu": "a CPU", "load": (0.5,), "written": "today", "versions": {"jax": "0.10"}}
    made |= {"command": "fedjax-lc bench sweep", "device": "cpu: cpu"}
    targets = [t.facts() for each in found.values() for t in sweep.told(each).targets]
    return {"sizes": Sizes()._asdict(), "repeats": 3, "backend": "cpu", "parts": found, "targets": targets, **made}


def test_targets_stand_beside_their_measurements():
    printed = sweep.text(results())
    assert printed == sweep.text(json.loads(json.dumps(results())))
    verdicts = printed.splitlines()[-6:]
    wanted = [(">= 2.00", "2.50", True), (">= 1.20", "1.10", False), ("<= 1.40", "1.00", True)]
    wanted += [("<= 1.40", "1.10", True), ("<= 1.40", "1.20", True), ("<= 2.00", "2.20", False)]
    for line, (limit, measured, met) in zip(verdicts, wanted, strict=True):
        assert f"{limit} " in line
        assert f" {measured}  " in line
        assert line.endswith("  met") == met
    assert "skipped: it needs a GPU" in printed


@pytest.mark.parametrize(
    ("most", "least", "measured", "met"),
    [
        (1.0, None, 1.0, True),
        (1.0, None, 1.1, False),
        (None, 2.0, 2.0, True),
        (None, 2.0, 1.9, False),
        (1.0, None, float("nan"), False),
        (None, 2.0, float("nan"), False),
    ],
)
def test_a_target_is_met_within_its_bound(most, least, measured, met):
    assert Target("", most, measured, least).met is met


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"repeats": 0}, "repeats >= 1, got 0"), ({"parts": ["i", "vi"]}, "parts are i, ii, iii, iv, v, got i, vi")],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        sweep.run_sweep(**arguments)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_measured", lambda *_: pytest.fail("worked before it checked"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        sweep.run_sweep(out=tmp_path / "file" / "bench.json")


def test_the_command_line_passes_its_options_on(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep, "run_sweep", lambda *arguments, **options: calls.append((arguments, options)))
    assert cli.main(["bench", "sweep", "--part", "i", "iii", "--repeats", "2", "--full"]) == 0
    assert calls == [((["i", "iii"],), {"sizes": sweep_parts.FULL, "repeats": 2, "out": None})]
    assert sweep_parts.FULL.rounds == sweep_parts.FULL.few_rounds == 500


def test_bench_runs_end_to_end(tmp_path, capsys):
    out = tmp_path / "bench.json"
    sweep.run_sweep(["i", "ii", "iii", "v"], sizes=TINY, repeats=1, out=out, progress=False)
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed == sweep.text(found)
    assert len(found["targets"]) == 2 + 4 + 1
    for target in found["targets"]:
        assert target["what"] in printed
        assert np.isfinite(target["measured"])
    for part in ("i", "iii"):
        assert found["parts"][f"{part}, float32"]["facts"]["compiled_late"] == 0
    assert "skipped: it needs a GPU" in printed
