"""The bench: all contestants do the same maths, take turns, and every target is printed beside its measurement."""

import json

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.bench import rivals, single
from experiments.bench.workloads import FEDAVG, Size, w1
from fedjax_lc.compressors import RandK
from fedjax_lc.core.errors import InputError

TINY = Size(clients=4, rows=6, dim=20, local_steps=3, diana_rounds=12, fedavg_rounds=6, locodl_steps=10)
PRECISION = pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12)])


def kept_by_ours(work, hp, rounds, monkeypatch):
    """(rounds, n, k) coordinates that rand-k keeps in a run of ours with key 0."""
    messages, joint = [], RandK.joint
    diana, key = fl.algorithms.get("diana"), jax.random.key(0)
    monkeypatch.setattr(RandK, "joint", lambda *arguments: messages.append(joint(*arguments)) or messages[-1])

    def one_round(state, t):
        state, _ = diana.step(work.problem, hp, state, jax.random.fold_in(key, t))
        return state, messages.pop().value

    _, values = jax.lax.scan(one_round, diana.init(work.problem, hp, key), jax.numpy.arange(rounds, dtype="uint32"))
    monkeypatch.undo()
    return np.nonzero(np.asarray(values))[2].reshape(rounds, len(work.A), -1)


@PRECISION
def test_diana_contestants_walk_the_same_path(dtype, rtol, monkeypatch):
    work = w1(TINY, dtype)
    hp = fl.algorithms.get("diana").theory(work.problem, compressor=f"rand_k:{TINY.k}")
    picks = kept_by_ours(work, hp, TINY.diana_rounds, monkeypatch)
    assert picks.shape == (TINY.diana_rounds, TINY.clients, TINY.k)
    data = (work.A, work.b, work.l2, float(hp.gamma), float(hp.alpha))
    x = single.contests(TINY, work)[single.DIANA][single.OURS].run().x
    atol = rtol * np.abs(x).max()
    assert np.abs(x).max() > 1e-3
    for found in (
        rivals.diana_loop(*data, picks),
        rivals.diana_batched(*data, picks),
        rivals.diana_jax(*data, picks, lambda indices: indices),
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, x, rtol=0, atol=atol)


@PRECISION
def test_fedavg_contestants_walk_the_same_path(dtype, rtol):
    work = w1(TINY, dtype)
    hp = FEDAVG.theory(work.problem, local_steps=TINY.local_steps)
    data = (work.A, work.b, work.l2, hp.client_lr, hp.local_steps, TINY.fedavg_rounds)
    x = single.contests(TINY, work)[single.AVERAGING][single.OURS].run().x
    assert np.abs(x).max() > 1e-3
    for rival in (rivals.fedavg_loop, rivals.fedavg_batched, rivals.fedavg_jax):
        found = rival(*data)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, x, rtol=0, atol=rtol * np.abs(x).max(), err_msg=rival.__name__)


def test_every_contestant_runs_and_costs_are_those_of_the_method():
    work = w1(TINY)
    for entries in single.contests(TINY, work).values():
        assert next(iter(entries)) == single.OURS
        for contestant in entries.values():
            result = contestant.run()
            assert np.all(np.isfinite(result.x if isinstance(result, fl.Trace) else result))
    trace = single.contests(TINY, work)[single.AVERAGING][single.OURS].run()
    assert trace.grads[-1] == TINY.fedavg_rounds * TINY.local_steps
    assert trace.rounds[-1] == TINY.fedavg_rounds


def random_picks(rounds, n=2, d=5, k=2):
    pick = rivals.random_top_k(n, d, k)
    rng = np.random.default_rng(1)
    return {
        "loop": np.array([list(row) for row in rivals.random_loop(rng, n, d, k, rounds)]),
        "batched": np.array(list(rivals.random_batched(rng, n, d, k, rounds))),
        "plain JAX": np.asarray(jax.vmap(pick)(jax.random.split(jax.random.key(1), rounds))),
    }


def test_rivals_draw_subsets_without_replacement_uniformly():
    rounds = 2000
    for name, picks in random_picks(rounds).items():
        assert picks.shape == (rounds, 2, 2), name
        assert np.all(picks[..., 0] != picks[..., 1]), name
        pairs = np.sort(picks, axis=-1) @ [5, 1]
        for client in range(2):
            _, counts = np.unique(pairs[:, client], return_counts=True)
            assert len(counts) == 10, name
            assert np.abs(counts - rounds / 10).max() < 5 * np.sqrt(rounds * 0.1 * 0.9), name


def test_race_takes_turns_after_one_untimed_run_each():
    calls = []
    entries = {name: single.Contestant(4, lambda name=name: calls.append(name)) for name in "AB"}
    ticks = []
    times = single.race(entries, 3, lambda: ticks.append(0))
    assert calls == list("AB" * 4)
    assert len(ticks) == 6
    assert {name: len(ms) for name, ms in times.items()} == {"A": 3, "B": 3}


def made_up(ours_ms, compile_s=1.0, start=1.0):
    """Results whose medians are known: every rival takes 1 ms a round."""
    times = {
        single.DIANA: {single.OURS: [ours_ms] * 3, single.BATCHED: [0.9, 1.0, 1.2]},
        single.AVERAGING: {single.OURS: [ours_ms] * 3, single.BATCHED: [1.0, 0.8, 1.1]},
        single.LOCODL: {single.OURS: [ours_ms] * 3, single.SCAN: [1.0] * 3},
    }
    lone = {"compile_s": compile_s, "peak_mib": 300.0}
    results = {
        "size": Size()._asdict(),
        "repeats": 3,
        "startup_s": {"pass": 0.1, "import jax": 0.5, "import fedjax_lc": 0.5 + start},
        "contests": {w: single._rows(rows, dict.fromkeys(rows, lone)) for w, rows in times.items()},
        "cpu": "a CPU",
        "load": (0.5, 0.5, 0.5),
        "written": "today",
        "versions": {"jax": "0.10"},
        "command": "fedjax-lc bench single",
    }
    results["targets"] = [t._asdict() | {"met": t.met} for t in single.targets(results)]
    return results


@pytest.mark.parametrize(
    ("ours_ms", "compile_s", "start", "met"),
    [
        (1.0, 3.0, 1.25, [True, True, True, True, True]),
        (1.1, 3.1, 1.0, [False, True, True, True, False]),
        (1.28, 1.0, 1.4, [False, False, True, False, True]),
        (1.4, 1.0, 1.0, [False, False, False, True, True]),
    ],
)
def test_targets_are_judged_by_the_ratio_of_medians(ours_ms, compile_s, start, met):
    results = made_up(ours_ms, compile_s, start)
    assert [target["met"] for target in results["targets"]] == met
    assert [target["most"] for target in results["targets"]] == [1.0, 1.25, 1.3, 1.3, 3.0]
    assert results["targets"][0]["measured"] == pytest.approx(ours_ms)
    verdicts = single.text(results).splitlines()[-5:]
    assert [line.endswith(" met") and not line.endswith("not met") for line in verdicts] == met


def test_peak_memory_grows_with_an_allocation():
    before = single.peak_mib()
    block = np.ones(int(2**20 * (before + 20) / 8))
    assert single.peak_mib() >= before + 10, block.nbytes


@pytest.mark.parametrize("count", ["0", "-3"])
def test_a_count_below_one_is_refused(count, refused):
    assert (
        refused("bench", "single", "--repeats", count) == f"bench needs repeats >= 1 and starts >= 1, got {count} and 3"
    )


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(single, "_measured", lambda *_: pytest.fail("worked before it checked"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        single.run_single(TINY, out=tmp_path / "file" / "bench.json")


def test_bench_runs_end_to_end_and_prints_every_target(tmp_path, capsys):
    out = tmp_path / "bench.json"
    single.run_single(TINY, repeats=2, starts=1, out=out, progress=False)
    printed = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert out.with_suffix(".txt").read_text() == printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.txt"]
    for target in results["targets"]:
        assert target["what"] in printed
        assert np.isfinite(target["measured"])
    for rows in results["contests"].values():
        for row in rows.values():
            assert 0 < row["min_ms"] <= row["median_ms"]
            assert row["peak_mib"] > 10
    assert results["startup_s"]["import jax"] > results["startup_s"]["pass"]
