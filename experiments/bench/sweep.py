"""Sweeps against what people would write without this package, every target beside its measurement.

(i) step sizes of W1(b) against one-by-one JAX, a nested vmap and NumPy's matrix products; (ii) LoCoDL's rare
communication against the gradient alone; (iii) 1 to 4096 lanes, and memory; (iv) a tuned comparison on a5a; (v), on a
GPU, 1000 configurations of LoCoDL. (i) to (iii) run on one thread, or on the GPU in both precisions where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.bench import harness, sweep_parts, sweep_tuned
from experiments.bench.harness import Told
from experiments.bench.sweep_parts import FULL, Sizes
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import report

PARTS: dict[str, tuple[str, Callable[[Any], Told]]] = {
    "i": ("64 step sizes of W1(b) FedAvg, ms per configuration and round", sweep_parts.tell_averaging),
    "ii": ("LoCoDL with rand-k on W1, each lane with its own coins", sweep_parts.tell_branches),
    "iii": ("LoCoDL, p = 0.1, more and more lanes in one call", sweep_parts.tell_scaling),
    "iv": ("tuned comparison: wall time of all configurations", sweep_tuned.tell_tuned),
    "v": ("a thousand configurations of LoCoDL", sweep_tuned.tell_thousand),
}
ON_W1 = ("i", "ii", "iii")
KEPT = {"MALLOC_MMAP_THRESHOLD_": "65536"}  #: large arrays go back to the system when freed, so that growth shows


def run_sweep(
    parts: Sequence[str] | None = None,
    *,
    sizes: Sizes | None = None,
    repeats: int = 5,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the parts and print their tables.

    Args:
        parts: of i, ii, iii, iv, v; all that this machine can do if None.
        sizes: shape and block lengths of (i) to (iii).
        repeats: how often every contestant of (i) to (iii) takes its turn.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`; times in milliseconds per round or step, seconds, and MiB, as their names say.

    Raises:
        InputError: a count below 1, an unknown part, or `out` cannot be written; before any work starts.
    """
    chosen = harness.checked(repeats, parts, PARTS)
    return harness.written(lambda: _measured(chosen, sizes or Sizes(), repeats, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench sweep`."""
    harness.options(parser, __doc__, 5, PARTS)
    parser.add_argument("--full", action="store_true", help="(i) with 500 rounds of all configurations for everyone")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> int:
    run_sweep(options.part, sizes=FULL if options.full else None, repeats=options.repeats, out=options.out)
    return 0


# --- the parent ---


def _measured(parts: Sequence[str], sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    # This process never touches a GPU: it would take memory that the children measure.
    machine, backend = harness.machine(), _ask("backend", gpu=True)
    gpu = backend == "gpu"
    found: dict[str, Any] = {}
    for part in parts:
        for dtype in ("float32", "float64") if gpu and part != "iv" else ("float64" if part == "iv" else "float32",):
            facts = _part(part, dtype, sizes, repeats, progress, gpu)
            found[f"{part}, {dtype}"] = {"part": part, "dtype": dtype, "facts": facts}
    results = {
        "sizes": sizes._asdict(),
        "repeats": repeats,
        "backend": backend,
        "parts": found,
        **machine,
        **_ask("environment", gpu=gpu, argv=sys.argv),
    }
    results["targets"] = [
        target.facts() | {"dtype": each["dtype"]} for each in found.values() for target in told(each).targets
    ]
    return results


def _part(part: str, dtype: str, sizes: Sizes, repeats: int, progress: bool, gpu: bool) -> Any:
    """A part's facts, or {"skipped": why}."""
    if part == "v" and not gpu:
        return {"skipped": "it needs a GPU"}
    job: dict[str, Any] = {"sizes": sizes._asdict(), "dtype": dtype, "repeats": repeats, "progress": progress}
    facts = _ask(part, gpu=gpu, **job)
    if part == "iii":
        facts["memory"] = _ask("memory", gpu=gpu, **job)
    return facts


def _ask(task: str, *, gpu: bool, dtype: str = "float32", **job: Any) -> Any:
    """What a fresh process finds; on one thread, unless it has a GPU or the task is one for all cores."""
    alone = not gpu and task not in ("iv", "v")
    chosen = harness.PINNED if alone else {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    chosen = chosen | {"JAX_ENABLE_X64": str(int(dtype == "float64"))} | (KEPT if task == "memory" else {})
    return harness.ask("sweep", {"task": task, "pinned": alone, "dtype": dtype, **job}, chosen)


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_answer)


def _answer(job: dict[str, Any]) -> Any:
    try:
        return _do(job)
    except InputError as error:
        return {"skipped": str(error)}


def _do(job: dict[str, Any]) -> Any:
    task, dtype = job["task"], job["dtype"]
    if task in ("backend", "environment"):
        return harness.about(job)
    if task == "iv":
        return sweep_tuned.tuned(sweep_tuned.recipe(sweep_tuned.TUNED), job["progress"])
    if task == "v":
        return sweep_tuned.thousand(sweep_tuned.recipe(sweep_tuned.WIDE), dtype, job["progress"])
    sizes = Sizes.of(job["sizes"])
    if task == "memory":
        return sweep_parts.memory(sizes, dtype)
    parts = {"i": sweep_parts.averaging, "ii": sweep_parts.branches, "iii": sweep_parts.scaling}
    return parts[task](sizes, dtype, job["repeats"], job["progress"])


# --- what is printed ---


def told(each: dict[str, Any]) -> Told:
    """A part of the results, told."""
    if "skipped" in each["facts"]:
        return Told([], [f"skipped: {each['facts']['skipped']}"], [])
    return PARTS[each["part"]][1](each["facts"])


def text(results: dict[str, Any]) -> str:
    """What is printed."""
    shape = Sizes.of(results["sizes"]).w1
    where = "one GPU" if results["backend"] == "gpu" else "one thread; (iv): all cores"
    lines = [
        f"fedjax-lc bench sweep: {where}; {results['repeats']} turns each, medians",
        f"W1: {shape.clients} clients x {shape.rows} rows x {shape.dim} features; k = {shape.k}, "
        f"{shape.local_steps} local steps",
        *harness.made_on(results),
        f"device: {results['device']}",
    ]
    for each in results["parts"].values():
        part = told(each)
        lines += ["", f"({each['part']}) {PARTS[each['part']][0]}; {each['dtype']}"]
        lines += [report.table(part.rows)] if part.rows else []
        lines += part.notes
    if results["targets"]:
        lines += ["", harness.target_table(results["targets"])]
    return "\n".join([*lines, ""])
