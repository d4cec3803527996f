"""`bench gossip`: contestants do the same work, NumPy's methods are ours, verdicts follow from the times."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.bench import SUITES, gossip, harness
from experiments.bench.gossip import ALONE, CHOCO, KEPT, LEAD, NUMPY, OURS, PARTS, TINY
from experiments.bench.workloads import GRADIENT_ONLY, w1
from fedjax_lc import cli
from fedjax_lc.core.errors import InputError

pytestmark = pytest.mark.usefixtures("quick")


def test_it_is_a_suite():
    assert SUITES["gossip"] is gossip


@pytest.fixture(scope="module")
def work():
    return w1(TINY.w1, "float64")


def after(method, work, hp, steps):
    """The average model of ours after so many steps."""
    return fl.run(method, work.problem, hp, 0, steps=steps, every=steps, progress=False).x


def test_choco_in_numpy_is_ours(work):
    hp = gossip.hparams(CHOCO, work.problem)
    X = gossip.in_numpy(CHOCO, work, hp, 7)()
    np.testing.assert_allclose(X.mean(axis=0), after(CHOCO, work, hp, 7), rtol=1e-9)
    assert np.ptp(X, axis=0).max() > 1e-6


def test_lead_in_numpy_is_ours(work):
    hp = dataclasses.replace(gossip.hparams(LEAD, work.problem), compressor=fl.compressors.parse("identity"))
    W = hp.graph(work.problem).W
    numbers = (float(hp.eta), float(hp.gamma), float(hp.alpha))
    X = gossip.lead(work.A, work.b, work.l2, W, *numbers, lambda V: V, 7)
    np.testing.assert_allclose(X.mean(axis=0), after(LEAD, work, hp, 7), rtol=1e-9)


def test_rounding_is_without_bias_and_on_its_grid():
    V = np.array([[0.5, -1.0, 0.2]])
    drawn = np.stack([gossip.rounded(np.random.default_rng(seed), 2, V)[0] for seed in range(4000)])
    assert set(np.unique(drawn)) == {-1.0, 0.0, 0.5}
    np.testing.assert_allclose(drawn.mean(axis=0), V[0], atol=0.02)


@pytest.mark.parametrize("method", [CHOCO, LEAD])
def test_every_contestant_runs(method):
    for part, contests, names in (
        ("step", gossip.step_contests, [OURS, ALONE, NUMPY]),
        ("lanes", gossip.lane_contests, [OURS, ALONE, KEPT, GRADIENT_ONLY.title]),
    ):
        found = harness.raced(contests(TINY, method), 2, part, False)
        assert list(found["rows"]) == names
        assert all(min(row["turns_ms"]) > 0 for row in found["rows"].values())
        assert found["compiled_late"] == 0


def test_a_large_ring_is_measured_beside_its_plan(monkeypatch):
    monkeypatch.setattr(gossip.scale, "AGAIN", 0.0)
    row = gossip.nodes(TINY, CHOCO)
    assert row["step_ms"] > 0
    assert row["predicted"] > 0


def test_messages_alone_are_heard_by_nobody(work):
    """A node moves by its own gradient and message: the others' rows change nothing."""
    hp = gossip.GRADIENTS_AND_MESSAGES.theory(work.problem, fl.compressors.parse("top_k:3"))
    X = np.random.default_rng(0).normal(size=(TINY.clients, TINY.dim))
    after = lambda X: gossip.GRADIENTS_AND_MESSAGES.step(work.problem, hp, (X,), jax.random.key(0))[0][0]
    one, other = after(X), after(np.vstack([X[:1], 2 * X[1:]]))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).max() > 0


def results(step, lanes, measured):
    times = lambda base, own: {
        "rows": {name: {"turns_ms": [ms, ms], "ms": ms, "outside_s": 0.0} for name, ms in ((OURS, own), (base, 1.0))},
        "compiled_late": 0,
    }
    parts = {
        "step": {CHOCO: times(ALONE, step)},
        "lanes": {LEAD: times(GRADIENT_ONLY.title, lanes)},
        "nodes": {CHOCO: {"step_ms": 1.0, "predicted": 10**9, "measured": measured * 10**9}},
    }
    about = {"written": "today", "versions": {"jax": "1"}, "command": "fedjax-lc bench gossip", **harness.machine()}
    found = {"sizes": TINY._asdict(), "repeats": 2, "parts": parts, **about}
    targets = [target.facts() for told in gossip.tell(found).values() for target in told.targets]
    return json.loads(json.dumps(found | {"targets": targets}))


@pytest.mark.parametrize(
    ("numbers", "met"),
    [((1.29, 1.49, 1.19), [True] * 3), ((1.31, 1.51, 1.21), [False] * 3), ((1.0, 1.0, 0.8), [True, True, False])],
)
def test_verdicts_follow_from_the_times(numbers, met):
    found = results(*numbers)
    assert [target["met"] for target in found["targets"]] == met
    printed = gossip.text(found)
    assert "CHOCO-SGD: a step / its gradients and messages alone" in printed
    assert max(len(line) for line in printed.splitlines()) < 140


def test_bad_input(capsys):
    with pytest.raises(InputError, match="parts are step, lanes, nodes"):
        gossip.run_gossip(["memory"])
    assert cli.main(["bench", "gossip", "--repeats", "0"]) == 2
    assert "repeats" in capsys.readouterr().err
    assert PARTS == ("step", "lanes", "nodes")
