"""Five methods whose traces stay what they were, bit for bit, where jax and the processor are those of the record.

Elsewhere XLA may round a sum in another order: there float64 traces agree to 1e-8, and float32 ones are not judged.
`python -m tests.test_golden` writes tests/golden.json anew: for a change that is meant to change results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
from pathlib import Path

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from tests.conftest import make_clients

FILE = Path(__file__).with_name("golden.json")
RUNS = {  # a coin and random masks; shifts; the largest entries; both directions and batches; cohorts and local steps
    "locodl": {"compressor": "rand_k:7|natural"},
    "diana": {"compressor": "rand_k:7", "batch_size": 3},
    "ef21": {"compressor": "top_k:5"},
    "mcm": {"compressor": "rand_k:7", "downlink": "qsgd:4"},
    "fedavg": {"cohort_size": 4, "batch_size": 3, "replacement": False},
}


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


def machine() -> str:
    """What decides how XLA rounds: its version, and what the processor can do."""
    told = Path("/proc/cpuinfo")
    flags = (
        next((line for line in told.read_text().splitlines() if line.startswith("flags")), "") if told.exists() else ""
    )
    return f"jaxlib {jax.lib.__version__} {platform.machine()} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
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


def main() -> None:
    traces = {f"{method} {dtype}": trace_of(method, dtype) for method in RUNS for dtype in ("float64", "float32")}
    FILE.write_text(json.dumps({"machine": machine(), "traces": traces}, indent=1) + "\n")


if __name__ == "__main__":
    main()
