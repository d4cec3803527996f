"""`bench neural`: rivals do the same work, missing ones are told, verdicts follow from the times, files are written."""

import importlib
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import SUITES, harness, neural, neural_parts, neural_rivals
from experiments.bench.neural_parts import EMNIST, FEDJAX, LAST, LOOP, MNIST, OURS, RIVALS, VMAP, Ours, Sizes
from fedjax_lc import algorithms, cli, models
from fedjax_lc.core.errors import InputError
from fedjax_lc.running.programs import compile_count

TINY = Sizes(
    clients=3, cohort=2, rows=4, batch=2, side=16, rounds=2, others=(), small=3, at_once=(1, 2), product=32
)  # fmt: skip
LAYERS = ("Conv_0", "Conv_1", "Dense_0", "Dense_1")


def installed(name):
    """The rival's maker, where its package is."""
    package, make = RIVALS[name]
    pytest.importorskip(package)
    return make


def layers_of(tree):
    return [(np.asarray(tree[name]["kernel"]), np.asarray(tree[name]["bias"])) for name in LAYERS]


# --- the rivals ---


@pytest.fixture(scope="module")
def path():
    """Work, where its network starts, who takes part, and where plain loops end: (work, layers, picks, layers)."""
    work = neural_parts.work_of(EMNIST, 4, TINY._replace(rows=6, batch=3, side=8))
    module = models.get(EMNIST)
    tree = module.init(jax.random.key(1), work.X[0, :1])["params"]
    picks = list(neural_rivals.draws(work, 3, 2))

    def loss(tree, images, labels):
        return -jnp.mean(jax.nn.log_softmax(module.apply({"params": tree}, images))[jnp.arange(len(labels)), labels])

    slope, x = jax.jit(jax.grad(loss)), tree
    for ids, orders in picks:
        ends = []
        for i, order in zip(ids, orders, strict=True):
            y = x
            for rows in (order[:3], order[3:]):
                y = jax.tree.map(lambda a, g: a - work.lr * g, y, slope(y, work.X[i][rows], work.Y[i][rows]))
            ends.append(y)
        x = jax.tree.map(lambda *own: sum(own) / len(own), *ends)
    return work, layers_of(tree), picks, layers_of(x)


@pytest.mark.parametrize("name", list(RIVALS))
def test_rivals_walk_the_path_of_plain_loops(name, path, monkeypatch):
    make = installed(name)
    monkeypatch.setattr(jax, "tree_map", jax.tree.map, raising=False)  # gone again after the test
    work, start, picks, end = path
    assert neural_parts.gap(start, end) > 1e-3
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        found = make(work)(start, picks)
    assert [kernel.shape for kernel, _ in found] == [kernel.shape for kernel, _ in end]
    assert neural_parts.gap(found, end) < 2e-6


def test_the_order_of_rows_matters(path):
    make = installed(LOOP)
    work, start, picks, end = path
    assert neural_parts.gap(make(work)(start, [(ids, orders[:, ::-1].copy()) for ids, orders in picks]), end) > 1e-5


def test_torch_layers_are_ours_rearranged(path):
    pytest.importorskip("torch")
    import torch

    work, start, _, _ = path
    for (kernel, bias), (again, same) in zip(
        start, neural_rivals.from_torch(neural_rivals.to_torch(start)), strict=True
    ):
        np.testing.assert_array_equal(again, kernel)
        np.testing.assert_array_equal(same, bias)
    tree = {name: {"kernel": kernel, "bias": bias} for name, (kernel, bias) in zip(LAYERS, start, strict=True)}
    images = work.X[0].transpose(0, 3, 1, 2)
    theirs = neural_rivals.torch_net(start)(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(theirs, models.get(EMNIST).apply({"params": tree}, work.X[0]), atol=1e-6)


def test_picks_are_different_clients_and_all_their_rows():
    work = neural_parts.work_of(EMNIST, 7, TINY._replace(rows=5))
    picks = list(neural_rivals.draws(work, 4, 3))
    assert len(picks) == 3
    for ids, orders in picks:
        assert len(set(ids)) == 4
        np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(5), (4, 1)))
    assert not np.array_equal(picks[0][1], picks[1][1])


# --- the parts, in this process ---


@pytest.fixture(scope="module")
def fedavg():
    """Two rounds of ours, at a tiny size."""
    work = neural_parts.work_of(EMNIST, TINY.clients, TINY)
    problem = neural_parts.problem_of(EMNIST, work)
    return work, Ours("fedavg", problem, neural_parts.hparams("fedavg", problem, work, TINY.cohort), TINY.rounds)


def rivals_of(monkeypatch, fedavg, **rivals):
    """What `_rivals` says of these in place of all, ours from its start on."""
    work, ours = fedavg
    ours.state = jax.tree.map(jnp.copy, algorithms.get("fedavg").init(ours.problem, ours.hp, ours.key))
    monkeypatch.setattr(neural_parts, "RIVALS", rivals)
    return neural_parts._rivals(work, ours, TINY)


def test_ours_ends_where_the_torch_loop_does(monkeypatch, fedavg):
    make = installed(LOOP)
    entries, skipped, gaps = rivals_of(monkeypatch, fedavg, loop=("torch", make))
    assert (list(entries), skipped) == (["loop"], [])
    assert gaps["loop"] < 1e-6
    assert entries["loop"].rounds == TINY.rounds
    entries["loop"].run()


def test_a_rival_that_does_other_work_is_none(monkeypatch, fedavg):
    idle = lambda work: lambda layers, picks: layers
    with pytest.raises(AssertionError, match="idle is no rival: its parameters differ from ours by"):
        rivals_of(monkeypatch, fedavg, idle=("numpy", idle))


def test_rivals_that_are_missing_or_broken_are_told(monkeypatch, fedavg):
    def broken(work):
        raise AttributeError("no tree_map\nmore")

    monkeypatch.setitem(neural_parts.INSTALL, "no_such_package", "pip install it")
    given = {"away": ("no_such_package", broken), "old": ("numpy", broken)}
    entries, skipped, gaps = rivals_of(monkeypatch, fedavg, **given)
    assert (entries, gaps) == ({}, {})
    assert skipped == [
        "away is left out: it needs no_such_package, pip install it",
        f"old is left out: numpy {np.__version__} with jax {jax.__version__} fails with AttributeError: no tree_map",
    ]


def test_faults_of_ours_against_torch_are_not_hidden(monkeypatch, fedavg):
    def broken(work):
        raise ValueError("ours")

    monkeypatch.setattr(importlib.util, "find_spec", lambda package: package)
    with pytest.raises(ValueError, match="ours"):
        rivals_of(monkeypatch, fedavg, loop=("torch", broken))


def test_rounds_of_ours_go_on_and_compile_once(fedavg):
    work, ours = fedavg
    assert ours.problem.statistics == ()
    before, first = compile_count(), int(ours.state.t)
    ours.run()
    assert int(ours.state.t) == first + TINY.rounds
    again = Ours("fedavg", ours.problem, ours.hp, TINY.rounds)
    assert (again.compile_s, compile_count()) == (0.0, before)
    assert float(ours.hp.client_lr) == pytest.approx(work.lr)
    assert (ours.hp.local_epochs, ours.hp.batch_size, ours.hp.cohort_size) == (1, TINY.batch, TINY.cohort)


def test_only_the_problem_with_dropout_drops(fedavg):
    work, ours = fedavg
    picks, weights = jnp.tile(jnp.arange(2), (3, 1)), jnp.ones((3, 2), "float32") / 2
    for problem, drops in ((ours.problem, False), (neural_parts.problem_of(EMNIST, work, dropout=True), True)):
        grads = jax.jit(type(problem).batch_grads)
        one, two = (grads(problem, picks, weights, problem.x0, jax.random.key(seed)) for seed in (0, 1))
        assert bool(jnp.any(one != two)) == drops


def faked(monkeypatch):
    """`Ours` without any work: what it was given, and the route its convolutions would take."""
    made = []

    def fake(method, problem, hp, rounds):
        made.append((method, problem, hp, models.convolution_route()))
        return SimpleNamespace(contestant=harness.Contestant(rounds, lambda: None), compile_s=1.0)

    monkeypatch.setattr(neural_parts, "Ours", fake)
    return made


def test_part_i_races_ours_and_theirs(monkeypatch):
    made = faked(monkeypatch)
    rival = harness.Contestant(1, lambda: None)
    monkeypatch.setattr(neural_parts, "_rivals", lambda work, fedavg, sizes: ({LOOP: rival}, ["gone"], {LOOP: 1e-8}))
    found = neural_parts.against(TINY._replace(others=("scaffold", "fedadam", "savic")), 3, False)
    ours = [OURS, "SCAFFOLD", "FedAdam", "SAVIC", neural_parts.DROPOUT]
    assert [method for method, *_ in made] == ["fedavg", "scaffold", "fedadam", "savic", "fedavg"]
    assert list(found["wall"]) == list(found["cpu"]) == [*ours, LOOP]
    assert list(found["compile_s"]) == ours
    assert {len(row["turns_ms"]) for clock in ("wall", "cpu") for row in found[clock].values()} == {3}
    assert (found["compiled_late"], found["skipped"], found["gaps"]) == (0, ["gone"], {LOOP: 1e-8})
    assert found["parameters"] == made[0][1].dim


def test_part_ii_trains_all_clients_and_compiles_each_program_once():
    before = compile_count()
    found = neural_parts.small(TINY, 2, False)
    assert compile_count() == before + 2
    assert found["compiled_late"] == 0
    assert list(found["wall"]) == ["3", "1"]
    assert all(len(row["turns_ms"]) == 2 and min(row["turns_ms"]) > 0 for row in found["wall"].values())
    # Multiply-adds of a row forward; gradients take twice as many again, but none of the images.
    first, rest = 12 * 12 * 25 * 10, 2 * 2 * 250 * 20 + 20 * 50 + 50 * 10
    assert found["flops"] == pytest.approx(2 * (2 * first + 3 * rest) * TINY.small * TINY.rows, rel=0.15)


def test_part_iii_tries_all_routes(monkeypatch):
    made = faked(monkeypatch)
    found = neural_parts.routes(TINY, 9, False)["models"]
    assert list(found) == [EMNIST, MNIST]
    tried = [(route, problem.clients_at_once) for _, problem, _, route in made]
    assert tried == 2 * [("patches", 1), ("patches", 2), ("native", 1), ("native", 2)]
    for _, problem, hp, _ in made:
        assert (hp.local_epochs, hp.cohort_size, int(hp.local_steps)) == (None, None, 1)
        assert problem.n == TINY.cohort
    for own in found.values():
        assert list(own["wall"]) == ["patches, 1", "patches, 2", "native, 1", "native, 2"]
        assert {len(row["turns_ms"]) for row in own["wall"].values()} == {neural_parts.ROUTE_TURNS}
    route = models.convolution_route()
    chosen = {model: neural_parts.problem_of(model, neural_parts.work_of(model, 2, TINY)) for model in found}
    for model, own in found.items():
        assert own["chosen"] == f"{route}, {chosen[model].clients_at_once}"


def test_a_clock_reads_the_processor_beside_the_wall():
    clock = harness.Clock()
    wall = clock(lambda: sum(range(200_000)))
    assert 0 < clock.cpu[0] < wall + 0.05


def test_the_rate_of_a_product_counts_its_operations(monkeypatch):
    monkeypatch.setattr(neural_parts, "seconds", lambda work: work() is None or 0.5)
    assert neural_parts.product_gflops(10) == 2 * 10**3 / 0.5 / 1e9


# --- the suite ---


def turns(**ms):
    return {name: {"turns_ms": [value, value]} for name, value in ms.items()}


def facts_of(part, torch=1.0, fedjax=1.5):
    if part == "i":
        ms = {OURS: 1.1, neural_parts.DROPOUT: 1.2}
        ms |= ({LOOP: torch, LAST: 0.9, VMAP: 2.0} if torch else {}) | ({FEDJAX: 1.1 * fedjax} if fedjax else {})
        own = {OURS: 3.0, neural_parts.DROPOUT: 4.0}
        left = [f"{LOOP} is left out: pip install 'fedjax_lc[bench]'"] * (not torch)
        common = {"compiled_late": 0, "compile_s": own, "parameters": 1206590, "skipped": left}
        return {"wall": turns(**ms), "cpu": turns(**ms), "gaps": {LOOP: 3e-8} if torch else {}, **common}
    if part == "ii":
        ms = {"100": 50.0, "1": 100.0}
        numbers = {"clients": 100, "parameters": 21840, "flops": 1e9, "peak_gflops": None}
        common = {"compiled_late": 1, "compile_s": dict.fromkeys(ms, 2.0)}
        return {"wall": turns(**ms), "cpu": turns(**ms), **numbers, **common}
    ms = turns(**{"patches, 1": 2.0, "patches, 10": 1.0, "native, 1": 9.0})
    own = {"wall": ms, "cpu": ms, "compiled_late": 0}
    return {"models": {EMNIST: own | {"chosen": "patches, 1"}, MNIST: own | {"chosen": "patches, 100"}}}


def answers(monkeypatch, gpu=False, **options):
    """Children that answer at once."""
    jobs = []

    def ask(suite, job, environment):
        jobs.append((suite, job["task"], environment))
        if job["task"] == "backend":
            return "gpu" if gpu else "cpu"
        if job["task"] == "environment":
            return harness.environment()
        facts = facts_of(job["task"], **options)
        return facts | ({"peak_gflops": 200.0} if job["task"] == "ii" and not job["pinned"] else {})

    monkeypatch.setattr(harness, "ask", ask)
    return jobs


@pytest.mark.parametrize(
    ("torch", "fedjax", "met"), [(1.0, 1.5, [True, True]), (0.9, 1.4, [False, False]), (1.0, 1.49, [True, False])]
)
def test_targets_stand_beside_their_measurements(torch, fedjax, met, monkeypatch, tmp_path, capsys):
    answers(monkeypatch, torch=torch, fedjax=fedjax)
    out = tmp_path / "new" / "bench.json"
    results = neural.run_neural(sizes=TINY, repeats=2, out=out, progress=False)
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed == neural.text(found)
    assert found == json.loads(json.dumps(results))
    assert [target["met"] for target in found["targets"]] == met * 2
    assert [target["measured"] for target in found["targets"]] == pytest.approx([1.1 / torch, fedjax] * 2)
    for line, told in zip(printed.splitlines()[-4:], met * 2, strict=True):
        assert line.endswith("  met") == told
        assert line.endswith("  not met") != told
    assert "parameters differ from ours after the same rounds by at most: PyTorch loop 3e-08" in printed
    assert "1,206,590 parameters; the first 2 rows are ours" in printed
    assert "emnist_cnn: best is patches, 10; chosen by itself, patches, 1, CPU 2.00 [2.00, 2.00] of it" in printed
    assert "mnist_cnn: best is patches, 10; chosen by itself, patches, 100, which was not measured" in printed
    assert "1 programs were compiled after the first turn" in printed
    assert "no GPU here: the share of its peak was not measured" in printed
    (row,) = (line for line in printed.splitlines() if line.strip().startswith("100 "))
    assert row.split()[-1] == "20.0"  # 1e9 operations in 50 ms


def test_without_rivals_there_are_no_verdicts(monkeypatch, capsys):
    answers(monkeypatch, torch=None, fedjax=None)
    results = neural.run_neural(["i"], repeats=1, progress=False)
    printed = capsys.readouterr().out
    assert results["targets"] == []
    assert "PyTorch loop is left out: pip install 'fedjax_lc[bench]'" in printed
    assert "verdict" not in printed
    assert "differ" not in printed


def test_a_gpu_takes_the_parts_that_it_can(monkeypatch, capsys):
    jobs = answers(monkeypatch, gpu=True)
    results = neural.run_neural(repeats=1, progress=False)
    printed = capsys.readouterr().out
    assert [task for _, task, _ in jobs] == ["backend", "i", "ii", "ii", "iii", "iii", "environment"]
    places = [(each["part"], each["where"]) for each in results["parts"]]
    assert places[1:3] == [("ii", "one thread"), ("ii", "one GPU")]
    assert "all side by side: 10.0% of the 200 GFLOP/s of a large product" in printed
    assert "no GPU here" not in printed


def test_children_have_one_thread(monkeypatch, capsys):
    jobs = answers(monkeypatch)
    neural.run_neural(repeats=1, progress=False)
    capsys.readouterr()
    assert {suite for suite, _, _ in jobs} == {"neural"}
    assert [task for _, task, given in jobs if given == harness.PINNED] == ["i", "ii", "iii", "environment"]


def test_a_child_answers_its_job(monkeypatch, capsys):
    job = {"task": "backend", "pinned": False}
    monkeypatch.setattr(harness, "asked", lambda: job)
    neural.child()
    assert json.loads(capsys.readouterr().out) == jax.default_backend()
    part = lambda sizes, repeats, progress: [sizes == TINY, repeats, progress]
    monkeypatch.setitem(neural.PARTS, "i", ("", part, None))
    pinned = []
    monkeypatch.setattr(harness, "one_core", lambda: pinned.append(True))
    sizes = json.loads(json.dumps(TINY._asdict()))
    job.update(task="i", pinned=True, sizes=sizes, repeats=4, progress=False)
    neural.child()
    assert json.loads(capsys.readouterr().out) == [True, 4, False]
    assert pinned == [True]


def test_bad_requests_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "ask", lambda *_: pytest.fail("worked before it checked"))
    with pytest.raises(InputError, match=r"^bench needs repeats >= 1, got 0$"):
        neural.run_neural(repeats=0)
    with pytest.raises(InputError, match=r"^parts are i, ii, iii, got iv$"):
        neural.run_neural(["iv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        neural.run_neural(out=tmp_path / "file" / "bench.json")


def test_the_command_line_passes_its_options_on(monkeypatch):
    calls = []
    monkeypatch.setattr(neural, "run_neural", lambda parts, **options: calls.append((parts, options)))
    assert cli.main(["bench", "neural", "--part", "i", "iii", "--repeats", "2", "--out", "bench.json"]) == 0
    assert calls == [(["i", "iii"], {"repeats": 2, "out": "bench.json"})]
    assert SUITES["neural"] is neural


def test_bench_runs_end_to_end(tmp_path, capsys):
    out = tmp_path / "bench.json"
    neural.run_neural(["i"], sizes=TINY, repeats=1, out=out, progress=False)  # the other parts ran in this process
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed == neural.text(found)
    (part,) = found["parts"]
    first = part["facts"]
    assert first["compiled_late"] == 0
    assert set(first["wall"]) | {line.split(" is left out")[0] for line in first["skipped"]} >= {OURS, *RIVALS}
    assert all(gap <= neural_parts.ALIKE for gap in first["gaps"].values())
    for target in found["targets"]:
        assert target["what"] in printed
        assert np.isfinite(target["measured"])
