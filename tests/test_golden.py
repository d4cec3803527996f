"""Traces of all methods stay what they were, bit for bit, where jax and the processor are those of the record.

Five methods with choices of their own are recorded in full; of every method with its theory's, the end and a digest.

Elsewhere XLA may round a sum in another order: there float64 traces agree to 1e-8, and float32 ones are not judged.
`python -m tests.test_golden` writes tests/golden.json anew: for a change that is meant to change results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import platform
from pathlib import Path

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.running import loop
from tests.conftest import make_clients
from tests.test_checkpoints import same

pytestmark = pytest.mark.optimised

FILE = Path(__file__).with_name("golden.json")
RUNS = {  # a coin and random masks; shifts; the largest entries; both directions and batches; cohorts and local steps
    "locodl": {"compressor": "rand_k:7|natural"},
    "diana": {"compressor": "rand_k:7", "batch_size": 3},
    "ef21": {"compressor": "top_k:5"},
    "mcm": {"compressor": "rand_k:7", "downlink": "qsgd:4"},
    "fedavg": {"cohort_size": 4, "batch_size": 3, "replacement": False},
}


ALL = fl.algorithms.names()
BRIEF = 60  #: steps of a method with its theory's hyperparameters


@functools.cache
def clients():
    return make_clients(sizes=(6, 9, 4, 7, 8, 5, 9, 6), dim=40, seed=3)


def trace_of(method: str, dtype: str) -> dict[str, list[str]]:
    """The run's values of F and uplink bits, in hexadecimal."""
    problem = fl.problems.logistic_regression(clients(), kappa=100, dtype=dtype)
    algorithm = fl.algorithms.get(method)
    hp = algorithm.theory(problem)
    fields = {n: fl.compressors.parse(v) if isinstance(v, str) else v for n, v in RUNS[method].items()}
    hp = dataclasses.replace(hp, **fields)
    trace = fl.run(method, problem, hp, 5, steps=120, every=10, progress=False)
    return {name: [float(v).hex() for v in getattr(trace, name)] for name in ("value", "bits_up")}


def end_of(method: str) -> dict[str, str]:
    """The last value of F and of both directions' bits, and a digest of all records, of a run with the theory's choices
    in float64."""
    problem = fl.problems.logistic_regression(clients(), kappa=100, dtype="float64")
    trace = fl.run(method, problem, fl.algorithms.get(method).theory(problem), 5, steps=BRIEF, every=10, progress=False)
    series = {name: np.asarray(getattr(trace, name)) for name in ("value", "bits_up", "bits_down", "grads", "rounds")}
    digest = hashlib.sha256(b"".join(each.tobytes() for each in series.values())).hexdigest()[:16]
    return {name: float(each[-1]).hex() for name, each in series.items()} | {"digest": digest}


def machine() -> str:
    """What decides how XLA rounds: its version, and what the processor can do."""
    told = Path("/proc/cpuinfo")
    flags = (
        next((line for line in told.read_text().splitlines() if line.startswith("flags")), "") if told.exists() else ""
    )
    return f"jaxlib {jax.lib.__version__} {platform.machine()} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", RUNS)
def test_a_trace_is_what_it_was(method, dtype):
    golden = json.loads(FILE.read_text())
    known = golden["traces"][f"{method} {dtype}"]
    if golden["machine"] != machine() and dtype == "float32":
        pytest.skip(f"float32 of another machine: recorded on {golden['machine']}, here {machine()}")
    found = trace_of(method, dtype)
    if golden["machine"] == machine():
        assert found == known
    for name, numbers in found.items():
        np.testing.assert_allclose(*([float.fromhex(v) for v in each] for each in (numbers, known[name])), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", json.loads(FILE.read_text()).get("ends", ()))
def test_a_method_ends_where_it_did(method):
    golden = json.loads(FILE.read_text())
    known, now = golden["ends"][method], end_of(method)
    if golden["machine"] == machine():
        assert now == known
    for name in known.keys() - {"digest"}:
        assert float.fromhex(now[name]) == pytest.approx(float.fromhex(known[name]), rel=1e-8)


@pytest.mark.parametrize("method", [*RUNS, *(pytest.param(m, marks=pytest.mark.slow) for m in ALL if m not in RUNS)])
def test_a_method_goes_on_where_it_was_stopped(method, tmp_path, monkeypatch):
    """From a checkpoint, with the bits of the run that was not: all that a method needs is in its state."""
    monkeypatch.setattr(loop, "next_count", lambda *_: 1)
    problem = fl.problems.logistic_regression(clients(), kappa=100, dtype="float64")
    run = functools.partial(fl.run, method, problem, None, 5, steps=BRIEF, every=10, progress=False)
    whole, calls = run(), itertools.count(1)
    assert run(out=tmp_path, on_chunk=lambda trace: next(calls) == 2).status == "interrupted"
    same(run(out=tmp_path), whole)


def main() -> None:
    traces = {f"{method} {dtype}": trace_of(method, dtype) for method in RUNS for dtype in ("float64", "float32")}
    ends = {method: end_of(method) for method in fl.algorithms.names()}
    FILE.write_text(json.dumps({"machine": machine(), "traces": traces, "ends": ends}, indent=1) + "\n")


if __name__ == "__main__":
    main()
