"""Whether this machine computes what it should: a few methods on small random data, compared with what is known.

On the CPU each model is compared with the one in selfcheck.json, recorded on another machine; on the default device,
where that is not the CPU, with the one that this machine's CPU computes. A lane of a sweep is compared with its run
alone. Steps are few, so that rounding has no time to grow.

What is allowed: 1e-9 in float64, where rounding leaves 1e-13 or less; 1e-5 in float32, where it leaves 1e-6 or less and
products in TF32, as GPUs compute them by default, 2e-5 to 2e-3.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lc import algorithms, problems
from fedjax_lc.problems import Problem
from fedjax_lc.running.run import run
from fedjax_lc.sweeping.grid import Grid
from fedjax_lc.sweeping.sweep import sweep

METHODS = ("gd", "locodl", "diana", "ef21", "mcm", "fedavg", "savic")
NETWORK = "fedavg, mlp"
LANES = "diana, lanes"
#: choices of theory: no random rounding, which turns a difference in the last bit into a large one now and then
CHOICES = {name: {"compressor": "rand_k:8"} for name in ("locodl", "diana")}
ALLOWED = {"float64": 1e-9, "float32": 1e-5}
STEPS = 30
ENTRIES = 10  #: of a model that are compared, evenly spaced
RECORDED = Path(__file__).with_suffix(".json")


class Check(NamedTuple):
    """One comparison: what ran, in which numbers and where, with what it was compared, and how far off it was."""

    method: str
    dtype: str
    device: str
    against: str
    difference: float  #: |a - b| / |b|; NaN where nothing came out
    allowed: float
    error: str = ""

    @property
    def verdict(self) -> str:
        """ok, TOO LARGE, or what went wrong."""
        return self.error or ("ok" if self.difference <= self.allowed else "TOO LARGE")


Compute = Callable[[str], np.ndarray]  #: dtype -> what is compared


def count() -> int:
    """How many checks there will be."""
    return len(_planned())


def checks(begun: Callable[[str], Any] = print) -> Iterator[Check]:
    """All checks, one after the other.

    Args:
        begun: called with what is computed next, in words.

    Example:
        >>> all(check.verdict == "ok" for check in checks())
        True
    """
    recorded = json.loads(RECORDED.read_text())
    known: dict[tuple[str, str, str], np.ndarray] = {}
    for name, dtype, device, reference in _planned():
        begun(f"{name}, {dtype} on {_called(device)}")
        try:
            with jax.default_device(device), jax.enable_x64(dtype == "float64"):
                expected = known[name, dtype, "CPU"] if reference == "CPU" else _expected(name, dtype, recorded)
                computed = known[name, dtype, _called(device)] = _computed(name, dtype)
            difference, error = float(np.linalg.norm(computed - expected) / np.linalg.norm(expected)), ""
        except Exception as problem:  # whatever a broken machine raises belongs into its report
            difference, error = float("nan"), f"failed: {type(problem).__name__}: {str(problem).partition(chr(10))[0]}"
        yield Check(name, dtype, _called(device), reference, difference, ALLOWED[dtype], error)


def compared() -> str:
    """What is compared with what, in words."""
    device = _called(jax.devices()[0])
    if _cpu() is None:
        first = f"The CPU is switched off (JAX_PLATFORMS): models of the {device} are compared with recorded ones"
    elif device == "CPU":
        first = "The default device is the CPU itself: its models are compared with recorded ones"
    else:
        first = f"Models of the {device} are compared with those of the CPU, and these with recorded ones"
    return f"{first}, lanes of a sweep with their runs alone; |a - b| / |b|, b the model less the start."


def record() -> str:
    """What selfcheck.json should hold, computed here; for whoever changed a method on purpose.

    Example:
        >>> RECORDED.write_text(record())
    """
    recorded: dict[str, dict[str, list[float]]] = {}
    with jax.default_device(_cpu()):
        for name, dtype, *_ in _planned():
            with jax.enable_x64(dtype == "float64"):
                if name != LANES:
                    recorded.setdefault(name, {})[dtype] = [float(f"{v:.16g}") for v in _computed(name, dtype)]
    return json.dumps(recorded, indent=1) + "\n"


def _planned() -> list[tuple[str, str, Any, str]]:
    """Name, dtype, device and reference of every check."""
    default, cpu = jax.devices()[0], _cpu()
    kinds = [(name, dtype) for name in METHODS for dtype in ALLOWED] + [(NETWORK, "float32")]
    devices = [(cpu or default, "recorded")]
    if cpu is not None and default.platform != "cpu":
        devices.append((default, "CPU"))
    single = [(*kind, device, reference) for kind in kinds for device, reference in devices]
    return [*single, (LANES, "float32", default, "alone")]


def _cpu() -> Any:
    """The CPU; None where JAX may not use it."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def _called(device: Any) -> str:
    return device.platform.upper()


def _expected(name: str, dtype: str, recorded: dict[str, Any]) -> np.ndarray:
    return _alone() if name == LANES else np.asarray(recorded[name][dtype])


def _computed(name: str, dtype: str) -> np.ndarray:
    if name == LANES:
        return _side_by_side()
    if name == NETWORK:
        return _model("fedavg", _network(), steps=3)
    return _model(name, _convex(dtype), STEPS)


def _model(method: str, problem: Problem, steps: int) -> np.ndarray:
    """Some entries of the model after so many steps, less the start."""
    hp = algorithms.get(method).theory(problem, **CHOICES.get(method, {}))
    trace = run(method, problem, hp, steps=steps, every=steps, progress=False)
    moved = np.asarray(trace.x) - np.asarray(problem.x0, np.float64)
    return moved[:: max(1, len(moved) // ENTRIES)][:ENTRIES]


# --- lanes ---


def _settings() -> Grid:
    hp = algorithms.get("diana").theory(_convex("float32"), **CHOICES["diana"])
    return Grid.of([hp, dataclasses.replace(hp, gamma=hp.gamma / 2)])


def _side_by_side() -> np.ndarray:
    """(configurations * seeds,) norms of the gradient at the end."""
    table = sweep("diana", _convex("float32"), _settings(), seeds=2, devices=1, progress=False, **_short())
    return table.records.sort_values("lane")["grad_norm"].to_numpy()


def _alone() -> np.ndarray:
    problem = _convex("float32")
    ran = [run("diana", problem, hp, s, progress=False, **_short()) for hp in _settings().hparams for s in range(2)]
    return np.array([trace.metrics["grad_norm"][-1] for trace in ran])


def _short() -> dict[str, Any]:
    return {"steps": STEPS, "every": STEPS, "measure": ["grad_norm"]}


# --- problems ---


def _convex(dtype: str) -> Problem:
    """Logistic regression; its optimum is not asked for, so that it need not be computed."""
    return problems.logistic_regression(clients(), kappa=100, dtype=dtype, f_star=0.0)


def _network() -> Problem:
    rows = [(features, labels) for features, labels in _images()]
    return problems.neural("mlp:hidden=8", rows, classes=4, smooth=10.0, precision="highest", usual_batch=8)


@functools.cache
def clients() -> list[tuple[np.ndarray, np.ndarray]]:
    """Five clients with 20 rows of 40 features, and labels +-1: enough features for a selection to be a sort or a
    search, as it is for models of all sizes but the smallest."""
    rng = np.random.default_rng(0)
    model, shifts = rng.normal(size=40), rng.normal(size=(5, 40)) / 2
    rows = [rng.normal(size=(20, 40)) + shift for shift in shifts]
    return [(A, np.where(A @ model + rng.normal(size=20) > 0, 1.0, -1.0)) for A in rows]


@functools.cache
def _images() -> list[tuple[np.ndarray, np.ndarray]]:
    """Five clients with 16 noisy copies of four pictures of 4 x 4."""
    rng = np.random.default_rng(1)
    pictures, labels = rng.normal(size=(4, 16)), rng.integers(4, size=(5, 16))
    return [((pictures[label] + rng.normal(size=(16, 16))).astype(np.float32), label) for label in labels]
