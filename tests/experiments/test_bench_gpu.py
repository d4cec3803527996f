"""`bench gpu`: every part runs at a tiny size on a CPU, rivals do the same maths, and files carry what is printed."""

import functools
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.bench import (
    SUITES,
    gpu,
    gpu_branches,
    gpu_large,
    gpu_methods,
    gpu_select,
    gpu_torch,
    harness,
    neural_parts,
    neural_rivals,
    rivals,
)
from experiments.bench.gpu_common import NO_TIME, TINY, Contestant, Given, Sizes, judged, made, missing, raced
from experiments.bench.harness import Target
from experiments.bench.workloads import w1
from fedjax_lc import cli
from fedjax_lc.core.errors import InputError

ON_A_GPU = jax.default_backend() == "gpu"
GIVEN = Given(TINY, repeats=2)


@functools.cache
def facts(part, job):
    """What a part finds here, as JSON carries it."""
    return json.loads(json.dumps(gpu.PARTS[part].jobs[job].do(GIVEN)))


def first_column(part, job, table=0):
    return [next(iter(row.values())) for row in gpu.told(part, facts(part, job)).tables[table]]


# --- the parts ---


def test_right_compares_the_methods():
    found = facts("right", "float64")
    assert list(found["gaps"]) == list(TINY.methods)
    assert Sizes().methods == ()  # all
    assert first_column("right", "float64")[0] == "all 1, 3 steps, float64"
    assert all(gap <= gpu_methods.ALIKE for gap in found["gaps"].values())


@pytest.mark.parametrize(("other", "gap"), [(1.0, 0.0), (1.5, 1 / 3), (np.nan, np.inf)])
def test_a_difference_is_relative_to_the_cpu(other, gap, monkeypatch):
    ends = iter([np.array([1.0, 0.5]), np.array([other, 0.5])])
    monkeypatch.setattr(gpu_methods, "walk", lambda *_: next(ends))
    assert gpu_methods.difference("gd", w1(TINY.right, "float64").problem, 1) == pytest.approx(gap)


def test_right_names_what_it_left_out():
    found = gpu_methods.right(Given(TINY, ends=0.0))
    told = gpu_methods.tell_right(found)
    assert (told.tables, told.targets) == ([], [])
    assert told.notes == [f"left out, as {NO_TIME}: ef21"]


def test_precision_knows_the_exact_gradient():
    found = facts("precision", "float32")
    assert first_column("precision", "float32") == [
        gpu_methods.ONE, gpu_methods.LANES, gpu_methods.DEFAULT, gpu_methods.HIGHEST,
    ]  # fmt: skip
    assert max(found["errors"].values()) < 1e-6
    assert min(found["errors"].values()) > 0
    assert set(found["rows"]) == {gpu_methods.LANES, gpu_methods.DEFAULT, gpu_methods.HIGHEST}
    work = w1(TINY.w1)
    X = gpu_methods.points(work, TINY.precise_lanes)
    exact = np.asarray(jax.vmap(w1(TINY.w1, "float64").problem.own_grads)(jnp.asarray(X, jnp.float64)))
    for own, expected in zip(X, exact, strict=True):
        np.testing.assert_allclose(gpu_methods.exact_grads(work, own), expected, atol=1e-6)


def test_products_by_hand_are_lowered_in_their_precision():
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 4, 5), (3, 4), (), (2, 3, 5))]
    for precision in ("default", "highest"):
        traced = gpu_methods.products_by_hand.trace(*arguments, precision=precision)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("dot_general") == 2
        assert ("HIGHEST" in text) == (precision == "highest")


def test_single_has_all_methods_with_their_targets():
    most = {entry.label: entry.most for entry in gpu_methods.entries(12, 10)}
    assert most == {
        "GD": None, "DIANA, rand_k:12": 35, "LoCoDL, rand_k:12, p=0.1": 45, "EF21, top_k:12": 35,
        "FedAvg, 10 local steps": 80, "ADIANA": None, "MCM": None, "SAVIC": None, "LIEC-SGD": None, "Scaffnew": None,
    }  # fmt: skip
    assert first_column("single", "float32") == [
        "EF21, top_k:3", "GD by hand",
        "FedAvg by hand, 10 local steps in a scan", "FedAvg by hand, 10 local steps unrolled",
    ]  # fmt: skip


def test_what_is_written_by_hand_walks_the_path_of_ours():
    work, K, steps = w1(TINY.w1), TINY.w1.local_steps, TINY.steps
    by_hand, scan, unrolled = (way() for way in gpu_methods.single_ways(work, K, steps).values())
    ours = fl.run("gd", work.problem, steps=steps, every=steps, progress=False).x
    assert np.abs(ours).max() > 1e-3
    np.testing.assert_allclose(by_hand, ours, atol=1e-5 * np.abs(ours).max())
    lr = float(fl.algorithms.get("fedavg").theory(work.problem, local_steps=K).client_lr)
    averaged = rivals.fedavg_batched(work.A, work.b, np.float32(work.l2), lr, K, steps)
    ours = fl.run("fedavg", work.problem, steps=steps, every=steps, progress=False).x  # ten local steps by itself
    for found in (scan, unrolled, averaged):
        np.testing.assert_allclose(found, ours, atol=1e-5 * np.abs(ours).max())


def test_lanes_stand_beside_their_gradient():
    (count,) = TINY.lanes
    found = facts("lanes", "float32")
    whats = (gpu_methods.LOCODL, gpu_methods.GRADIENT, gpu_methods.COPY, gpu_methods.PLAIN)
    assert list(found["rows"]) == [f"{what}, {count}" for what in whats]
    (row,) = gpu.told("lanes", found).tables[0]
    assert row["lanes"] == str(count)
    assert "-" not in (row[gpu_methods.GRADIENT], row["plain lax.cond"], row[gpu_methods.COPY])
    assert (row["target"], row["verdict"]) == ("-", "-")  # targets begin with many lanes
    assert Sizes().lanes == (1, 16, 256, 1024, 2048, 4096)
    assert [Sizes().steps_of(lanes) for lanes in (1, 256, 4096)] == [1000, 781, 60]
    found = {"lanes": [2048], "missing": {}, "turns": {"wanted": 1, "taken": 1}}
    for ms, verdict in ((1.6, "met"), (1.7, "not met")):
        rows = {"LoCoDL, 2048": {"ms": ms, "turns_ms": [ms]}, "gradient alone, 2048": {"ms": 1.0, "turns_ms": [1.0]}}
        told = gpu_methods.tell_lanes(found | {"rows": rows})
        assert (told.tables[0][0]["verdict"], told.targets[0].most) == (verdict, 1.6)


def test_selections_are_of_all_ways():
    (found,) = facts("select", "uint32").values()
    assert found["differ"] == []
    assert set(found["rows"]) == {*gpu_select.WAYS, gpu_select.FLOOR}
    assert first_column("select", "uint32") == ["3 x 300, 30"]
    assert len(Sizes().selections) == 6
    assert "all pairs" in gpu_select.ways(6400, 1024)
    assert "all pairs" not in gpu_select.ways(100, 20_000)


@pytest.mark.parametrize("ties", [32, 5, 1])
def test_ways_of_selecting_give_one_mask(ties):
    ((rows, d, k),) = TINY.selections
    keys = gpu_select.keys_of(rows, d, ties)
    order = np.argsort(np.asarray(keys), axis=1, kind="stable")
    expected = np.zeros((rows, d), bool)
    np.put_along_axis(expected, order[:, :k], True, axis=1)
    masks = {}
    for name in gpu_select.WAYS:
        program, more = gpu_select.over_rows(name, k)
        masks[name] = program(keys, *more)
        np.testing.assert_array_equal(masks[name], expected, err_msg=name)
    masks["argsort"] = ~masks["argsort"]
    assert gpu_select.differ(masks) == ["argsort"]


def test_branches_have_rows_for_every_size():
    (numbers,) = TINY.numbers
    found, size = facts("branches", "float32"), gpu_branches.power(numbers)
    told = gpu.told("branches", found)
    assert [(row["branch"], row["numbers"]) for row in told.tables[0]] == [("one run", size), ("over lanes", size)]
    assert [row["numbers"] for row in told.tables[1]] == [size]
    assert {"unroll 1", "unroll 2", "unroll 5", "unroll 10", gpu_branches.OURS} < set(told.tables[1][0])
    assert [gpu_branches.power(n) for n in Sizes().numbers] == ["2^12", "2^16", "2^19", "2^21", "2^24"]
    assert gpu_branches.power(100) == "100"


def test_ways_of_branching_and_looping_give_one_result():
    (numbers,), turns = TINY.numbers, TINY.turns
    for place, ways in gpu_branches.BRANCHES.items():
        programs = {name: gpu_branches.branching(place, name, numbers, turns) for name in ways}
        ends = {name: np.asarray(program(*start)) for name, (program, start) in programs.items()}
        start = next(iter(programs.values()))[1][0]
        assert start.size == numbers
        for name, end in ends.items():
            np.testing.assert_allclose(end, ends[gpu_branches.BOTH], rtol=1e-6, atol=1e-7, err_msg=f"{place}, {name}")
        assert np.abs(np.asarray(start) * gpu_branches.SHRINK**turns - end).max() > 1e-3 or place == gpu_branches.ONE
    ends = [
        program(*start) for program, start in (gpu_branches.looping(n, numbers, turns) for n in gpu_branches.loops())
    ]
    for end in ends:
        np.testing.assert_allclose(end, ends[0], rtol=1e-5)
    shrunk = (1 - 0.01) ** (turns * gpu_branches.LOCAL_STEPS)
    np.testing.assert_allclose(ends[0], shrunk * gpu_branches.operand(gpu_branches.ONE, numbers), rtol=1e-5)


def test_asking_over_lanes_means_turns_whatever_the_limit(monkeypatch):
    own, seen = gpu_branches.lanes.BOTH_SIDES_OF_LANES_UP_TO, []

    def stepped(*_):
        return lambda X, key: seen.append(gpu_branches.lanes.BOTH_SIDES_OF_LANES_UP_TO) or X

    monkeypatch.setattr(gpu_branches, "stepped", stepped)
    for name in gpu_branches.BRANCHES[gpu_branches.OVER]:
        gpu_branches.branching.__wrapped__(gpu_branches.OVER, name, TINY.numbers[0], 1)
    assert seen == [0, own, own]
    assert own == gpu_branches.lanes.BOTH_SIDES_OF_LANES_UP_TO


def test_a_sweep_is_judged_where_it_is_whole():
    found = facts("sweep", "float32")
    assert (found["lanes"], found["steps"]) == (4, TINY.sweep_steps)
    assert gpu.told("sweep", found).targets == []
    for seconds, verdict in ((6.0, "met"), (6.1, "not met")):
        told = gpu.told("sweep", found | {"steps": 10_000, "seconds": seconds})
        assert (told.tables[0][0]["verdict"], told.targets[0].most) == (verdict, 6)
    assert gpu_large.IN_THE_LOOP["float64"] == 9


def test_networks_stand_beside_their_targets():
    found = facts("networks", "ours")
    assert first_column("networks", "ours") == ["chosen by itself", "patches"]
    (auto, *others) = gpu.told("networks", found).tables[0]
    assert auto["target"] == "<= 4.5 and <= 32"
    assert {row["verdict"] for row in others} == {"-"}
    assert "route patches" in found["chosen"]
    assert "precision high" in found["chosen"]


def test_networks_take_all_routes_and_precisions(monkeypatch):
    made = []

    def ours(problem, work, cohort, rounds, route="auto"):
        made.append((problem.precision, cohort, route))
        return Contestant(rounds, lambda: None)

    monkeypatch.setattr(gpu_large, "_ours", ours)
    sizes = TINY._replace(routes=Sizes().routes, precisions=Sizes().precisions)
    found = gpu_large.networks(GIVEN._replace(sizes=sizes))
    assert [(cohort, route) for _, cohort, route in made[:-3]] == [
        (2, "auto"), (None, "auto"), (2, "patches"), (None, "patches"), (2, "native"), (None, "native"),
    ]  # fmt: skip
    assert made[-3:] == [("default", None, "auto"), ("high", None, "auto"), ("highest", None, "auto")]
    assert len(made) == 9
    told = gpu_large.tell_networks(found)
    assert [row["network"] for row in told.tables[0]][-3:] == [
        "precision default",
        "precision high",
        "precision highest",
    ]


def test_without_torch_its_rivals_are_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(gpu_large, "layers", lambda *_: [])
    found = gpu_large.torch_rivals(GIVEN)
    told = gpu_large.tell_networks(found)
    assert (told.tables, told.targets) == ([], [])
    assert len(told.notes) == 5
    assert told.notes[1].startswith("left out: PyTorch loop | 2 of 3: ModuleNotFoundError")


@pytest.mark.parametrize("name", list(gpu_torch.RIVALS))
def test_torch_walks_the_path_of_plain_rivals(name):
    pytest.importorskip("torch")
    work = neural_parts.work_of(neural_parts.EMNIST, 3, TINY.network)
    problem = neural_parts.problem_of(neural_parts.EMNIST, work)
    start = neural_parts.layers(problem, problem.x0)
    picks = list(neural_rivals.draws(work, 2, 2))
    end, found = neural_rivals.torch_loop(work)(start, picks), gpu_torch.RIVALS[name](work, "cpu")(start, picks)
    assert neural_parts.gap(start, end) > 1e-3
    assert neural_parts.gap(found, end) < 2e-6


# --- time ---


def test_a_race_tells_what_is_missing():
    ran = []

    def broken():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: much\nmore")

    makers = {"fast": lambda: Contestant(2, lambda: ran.append(0)), "large": broken}
    found = raced(makers, Given(repeats=3), "")
    assert len(ran) == 4  # one untimed
    assert len(found["rows"]["fast"]["turns_ms"]) == 3
    assert missing(found) == ["left out: large: JaxRuntimeError: RESOURCE_EXHAUSTED: much"]
    assert made(makers["fast"], Given(ends=0.0)) == NO_TIME


def test_a_race_that_is_late_ends_after_a_turn(monkeypatch):
    now = iter([0.0, 9.0])
    monkeypatch.setattr(time, "time", lambda: next(now))
    found = raced({"fast": lambda: Contestant(1, lambda: None)}, Given(repeats=3, ends=5.0), "")
    assert len(found["rows"]["fast"]["turns_ms"]) == 1
    assert missing(found) == [f"1 of 3 turns, as {NO_TIME}"]


def test_parts_share_the_time(monkeypatch):
    shares = []
    monkeypatch.setattr(gpu, "_jobs", lambda name, given, ends: shares.append(ends - time.time()) or {})
    assert [name for name, _ in gpu._measured(tuple(gpu.PARTS), Given(TINY, ends=time.time() + 100))] == list(gpu.PARTS)
    total = sum(part.share for part in gpu.PARTS.values())
    assert shares[0] == pytest.approx(100 * gpu.PARTS["right"].share / total, abs=0.5)
    assert shares[-1] == pytest.approx(100, abs=0.5)  # what the others left


def test_what_does_not_fit_is_left_out(monkeypatch):
    now = [100.0]

    def ask(part, job, given, ends):
        now[0] += 20
        return {}

    monkeypatch.setattr(gpu.time, "time", lambda: now[0])
    monkeypatch.setattr(gpu, "_ask", ask)
    assert gpu._jobs("sweep", GIVEN, ends=135.0) == {"float32": {}, "float64": {"skipped": NO_TIME}}
    now[0] = 100.0
    assert gpu._jobs("networks", GIVEN, ends=135.0) == {"ours": {}, "PyTorch": {}}
    now[0] = 100.0
    assert gpu._jobs("right", GIVEN, ends=105.0) == {"float64": {"skipped": NO_TIME}}


def test_processes_that_fail_are_told(monkeypatch):
    def fail(*_, **__):
        raise subprocess.CalledProcessError(-9, "python")

    def hang(*_, **options):
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(subprocess, "run", fail)
    failed = gpu._ask("right", "float64", GIVEN, time.time())
    assert failed == {"failed": "its process ended with exit code -9"}
    assert gpu.section("right", {"float64": failed})[-1] == "failed: its process ended with exit code -9"
    monkeypatch.setattr(subprocess, "run", hang)
    late = gpu._ask("right", "float64", Given(TINY, ends=time.time()), time.time())
    assert late == {"skipped": "it was stopped after 10 s, at the end of all time"}
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert gpu._with_cpu() == {"JAX_PLATFORMS": "cuda,cpu"}
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert gpu._with_cpu() == {}


def test_verdicts():
    assert judged(None) == {"target": "-", "verdict": "-"}
    assert judged(Target("it", 35, 35.0)) == {"target": "<= 35", "verdict": "met"}
    assert judged(Target("it", 35, 35.1)) == {"target": "<= 35", "verdict": "not met"}


# --- the suite ---

ABOUT = {
    "device": "gpu: a GPU", "driver": "NVIDIA 580", "cpu": "a CPU", "load": (0.5, 0.5, 0.5), "written": "today",
    "versions": {"jax": "0.10"}, "command": "fedjax-lc bench gpu",
}  # fmt: skip


def answers(monkeypatch, about=ABOUT):
    """Parts that answer with what they found in this process."""
    asked = []

    def ask(part, job, given, ends):
        asked.append((part, job))
        return (
            {"skipped": "not here"} if job in ("PyTorch",) or (part, job) == ("sweep", "float64") else facts(part, job)
        )

    monkeypatch.setattr(gpu, "_about", lambda: dict(about))
    monkeypatch.setattr(gpu, "_ask", ask)
    return asked


def test_files_carry_what_is_printed(monkeypatch, tmp_path, capsys):
    asked = answers(monkeypatch)
    out = tmp_path / "new" / "gpu.json"
    results = gpu.run_gpu(sizes=TINY, repeats=2, out=out, progress=False)
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed == gpu.text(found)
    assert found == json.loads(json.dumps(results))
    assert sorted(path.name for path in out.parent.iterdir()) == ["gpu.json", "gpu.txt"]
    assert asked == [(name, job) for name, part in gpu.PARTS.items() for job in part.jobs]
    assert Sizes.of(found["sizes"]) == TINY
    assert "device: gpu: a GPU; driver: NVIDIA 580" in printed
    for name, part in gpu.PARTS.items():
        assert f"({name}) {part.title}" in printed
    assert printed.count("skipped: not here") == 2
    for target in found["targets"]:
        assert target["what"] in printed
        assert np.isfinite(target["measured"])


def test_tables_are_printed_as_soon_as_they_are_done(monkeypatch, tmp_path, capsys):
    answers(monkeypatch)
    seen = []
    ask = gpu._ask
    monkeypatch.setattr(gpu, "_ask", lambda *a: seen.append(capsys.readouterr().out) or ask(*a))
    (tmp_path / "gpu.json").write_text("old")
    gpu.run_gpu(["precision", "lanes"], sizes=TINY, out=tmp_path / "gpu.json", progress=False)
    assert "bench gpu" in seen[0]
    assert "(precision)" not in seen[0]
    assert "(precision)" in seen[1]
    monkeypatch.setattr(gpu, "_ask", lambda *_: 1 / 0)
    before = (tmp_path / "gpu.json").read_text()
    with pytest.raises(ZeroDivisionError):
        gpu.run_gpu(["right"], sizes=TINY, out=tmp_path / "gpu.json", progress=False)
    assert (tmp_path / "gpu.json").read_text() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_child_answers_in_a_process_of_its_own():
    found = gpu._ask("precision", "float32", GIVEN._replace(ends=time.time() + 60), time.time() + 60)
    assert set(found["rows"]) == set(facts("precision", "float32")["rows"])
    assert found["turns"] == {"wanted": 2, "taken": 2}


@pytest.mark.skipif(ON_A_GPU, reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(refused):
    said = refused("bench", "gpu")
    assert said == "bench gpu needs a GPU, and jax sees cpu: cpu; see README 'On a GPU'"


def test_what_is_seen_of_the_device(monkeypatch):
    argv = sys.argv
    monkeypatch.setattr(sys, "argv", argv)
    about = gpu._seen(["fedjax-lc", "bench", "gpu"])
    assert about["command"] == "fedjax-lc bench gpu"
    assert about["backend"] == jax.default_backend()
    assert about["driver"]
    monkeypatch.setattr(harness, "ask", lambda *_: {"backend": "gpu", "device": "gpu: it", "driver": "jax's"})
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    assert gpu._about()["driver"] == "jax's"
    monkeypatch.setattr(gpu.shutil, "which", lambda _: "nvidia-smi")
    run = lambda *_, **__: subprocess.CompletedProcess([], 0, stdout="580.95\n")
    monkeypatch.setattr(subprocess, "run", run)
    assert gpu._about()["driver"] == "NVIDIA 580.95"


def test_bad_requests_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "_about", lambda: pytest.fail("worked before it checked"))
    with pytest.raises(InputError, match=r"^bench needs repeats >= 1 and seconds > 0, got 0 and 290$"):
        gpu.run_gpu(repeats=0)
    with pytest.raises(InputError, match=r"got 5 and 0$"):
        gpu.run_gpu(seconds=0.0)
    with pytest.raises(InputError, match=r"^parts are right, .*, networks, got iv$"):
        gpu.run_gpu(["iv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        gpu.run_gpu(out=tmp_path / "file" / "bench.json")


@pytest.mark.parametrize(("facts", "code"), [({}, 0), ({"skipped": "late"}, 0), ({"failed": "so"}, 1)])
def test_the_command_line_passes_its_options_on(facts, code, monkeypatch):
    calls = []
    results = {"parts": {"right": {"float64": facts}}}
    monkeypatch.setattr(gpu, "run_gpu", lambda parts, **options: calls.append((parts, options)) or results)
    arguments = ["--part", "right", "--part", "lanes", "--repeats", "2", "--seconds", "60", "--out", "gpu.json"]
    assert cli.main(["bench", "gpu", *arguments]) == code
    assert calls == [(["right", "lanes"], {"repeats": 2, "seconds": 60.0, "out": "gpu.json"})]
    assert SUITES["gpu"] is gpu
