"""`bench feedback`: all methods run the same work, states are counted, verdicts follow from the times."""

import json

import jax.numpy as jnp
import pytest

from experiments.bench import SUITES, feedback, harness
from experiments.bench.feedback import BASE, ENTRIES, Sizes
from fedjax_lc import cli
from fedjax_lc.core.errors import InputError

TINY = Sizes(clients=2, rows=3, batch=2, side=8, block=64, steps=1)
RACED = [entry for entry in ENTRIES if entry.label in (BASE, "MEM-SGD", "LIEC(32)")]


@pytest.fixture(scope="module")
def results():
    """A race of three, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feedback, "ENTRIES", RACED)
        found = json.loads(json.dumps(feedback.race(TINY, 2, False)))
    return {"sizes": TINY._asdict(), "repeats": 2, **found, **harness.machine()}


def test_it_is_a_suite():
    assert SUITES["feedback"] is feedback


def test_every_entry_is_measured(results):
    labels = [entry.label for entry in RACED]
    assert list(results["vectors"]) == list(results["compile_s"]) == labels
    for clock in ("wall", "cpu"):
        turns = results["times"][clock]
        assert list(turns) == labels
        assert all(len(own["turns_ms"]) == 2 and min(own["turns_ms"]) > 0 for own in turns.values())
    assert results["vectors"] == {BASE: 1, "MEM-SGD": 2 + 1, "LIEC(32)": 2 + 1}
    assert results["times"]["compiled_late"] == 0


def test_states_are_counted_in_vectors():
    state = {"x": jnp.zeros(10), "e": jnp.zeros((3, 10)), "k": jnp.int32(0), "small": jnp.zeros(4)}
    assert feedback.vectors(state, 10) == 4


def test_verdicts_follow_from_the_times(results, monkeypatch):
    monkeypatch.setattr(feedback, "ENTRIES", RACED)
    slow = {"turns_ms": [2.0, 2.0]}
    for own, verdict in ((slow, False), ({"turns_ms": [1.0, 1.1]}, True)):
        times = {"cpu": {BASE: {"turns_ms": [1.0, 1.0]}, "MEM-SGD": own, "LIEC(32)": slow}}
        targets, _ = feedback.targets(results | {"times": times})
        found = {target.what: target.met for target in targets}
        assert found[f"MEM-SGD / {BASE}, CPU s"] is verdict
        assert found["state of MEM-SGD, vectors"]
    assert f"{BASE} / {BASE}, CPU s" not in found
    targets, _ = feedback.targets(results | {"times": times, "vectors": results["vectors"] | {"MEM-SGD": 4}})
    assert not {target.what: target.met for target in targets}["state of MEM-SGD, vectors"]


def test_what_is_printed(results, monkeypatch):
    monkeypatch.setattr(feedback, "ENTRIES", RACED)
    about = {"written": "today", "versions": {"jax": "1"}, "command": "fedjax-lc bench feedback"}
    targets = [target.facts() for target in feedback.targets(results)[0]]
    text = feedback.text(results | about | {"targets": targets})
    assert "1 d" in text
    assert "state of LIEC(32), vectors" in text
    assert max(len(line) for line in text.splitlines()) < 140


def test_every_method_takes_blockwise_signs(problem):
    for entry in ENTRIES:
        hp = feedback.hparams(entry, problem, TINY)
        assert hp.batch_size == 2
        for way in ("compressor", "downlink", "reset"):
            assert "block_sign:64" in str(getattr(hp, way, "block_sign:64"))


def test_bad_input(tmp_path, capsys):
    with pytest.raises(InputError, match="repeats >= 1"):
        feedback.run_feedback(repeats=0)
    assert cli.main(["bench", "feedback", "--repeats", "0"]) == 2
    assert "repeats" in capsys.readouterr().err
