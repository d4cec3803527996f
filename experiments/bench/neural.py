"""Federated training of networks against PyTorch and fedjax, every target beside its measurement.

(i) W2, rounds of FedAvg on the EMNIST network, against a PyTorch loop over clients, torch.func.vmap and google/fedjax;
(ii) 100 clients of the small MNIST network, all in every round, side by side and one after the other; (iii) the routes
of convolutions and the clients side by side, which the package chooses by itself. On one thread; (ii) and (iii) also
on a GPU where there is one. Dropout is off on all sides, but where a row says so. Rivals that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench import harness, neural_parts
from experiments.bench.harness import Told
from experiments.bench.neural_parts import Sizes
from fedjax_lc.results import report

PARTS = {
    "i": ("W2, a round", neural_parts.against, neural_parts.tell_against),
    "ii": ("small clients, all in every round", neural_parts.small, neural_parts.tell_small),
    "iii": ("routes of convolutions, clients side by side", neural_parts.routes, neural_parts.tell_routes),
}
ON_GPU = ("ii", "iii")


def run_neural(
    parts: Sequence[str] | None = None,
    *,
    sizes: Sizes | None = None,
    repeats: int = 5,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the parts and print their tables.

    Args:
        parts: of i, ii, iii; all if None.
        sizes: of the clients, and how long one timed block is; W2 itself if None.
        repeats: how often every contestant takes its turn; in (iii) three times at most.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`; milliseconds per round, of the wall clock and of the processor, and seconds of
        compilation, as their names say.

    Raises:
        InputError: repeats below 1, an unknown part, or `out` cannot be written; before any work starts.
    """
    chosen = harness.checked(repeats, parts, PARTS)
    return harness.written(lambda: _measured(chosen, sizes or Sizes(), repeats, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench neural`."""
    harness.options(parser, __doc__, 5, PARTS)
    parser.set_defaults(command=lambda o: run_neural(o.part, repeats=o.repeats, out=o.out) and 0)


# --- the parent ---


def _measured(parts: Sequence[str], sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    # This process never touches a GPU: it would take memory that the children measure.
    machine, backend = harness.machine(), _ask("backend", pinned=False)
    gpu, found = backend == "gpu", []
    for part in parts:
        for pinned in (True, False) if gpu and part in ON_GPU else (True,):
            facts = _ask(part, pinned=pinned, sizes=sizes._asdict(), repeats=repeats, progress=progress)
            found.append({"part": part, "where": "one thread" if pinned else "one GPU", "facts": facts})
    about = _ask("environment", pinned=not gpu, argv=sys.argv)
    results = {"sizes": sizes._asdict(), "repeats": repeats, "backend": backend, "parts": found, **machine, **about}
    results["targets"] = [target.facts() for each in found for target in told(each).targets]
    return results


def _ask(task: str, *, pinned: bool, **job: Any) -> Any:
    """What a fresh process finds; on one thread, or with what JAX takes by itself."""
    environment = harness.PINNED if pinned else {"JAX_ENABLE_COMPILATION_CACHE": "0", "JAX_ENABLE_X64": "0"}
    return harness.ask("neural", {"task": task, "pinned": pinned, **job}, environment)


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_do)


def _do(job: dict[str, Any]) -> Any:
    if job["task"] not in PARTS:
        return harness.about(job)
    return PARTS[job["task"]][1](Sizes.of(job["sizes"]), job["repeats"], job["progress"])


# --- what is printed ---


def told(each: dict[str, Any]) -> Told:
    """A part of the results, told."""
    return PARTS[each["part"]][2](each["facts"])


def text(results: dict[str, Any]) -> str:
    """What is printed."""
    sizes = Sizes.of(results["sizes"])
    lines = [
        f"fedjax-lc bench neural: {results['repeats']} turns each, medians; float32; dropout off unless said",
        f"W2: the EMNIST network on images of {sizes.side} x {sizes.side}; {sizes.cohort} of {sizes.clients} clients x "
        f"{sizes.rows} rows a round, one epoch in batches of {sizes.batch}",
        *harness.made_on(results),
        f"device: {results['device']}",
    ]
    for each in results["parts"]:
        part = told(each)
        lines += [
            "",
            f"({each['part']}) {PARTS[each['part']][0]}; {each['where']}",
            report.table(part.rows),
            *part.notes,
        ]
        if results["backend"] != "gpu" and each["part"] == "ii":
            lines.append("no GPU here: the share of its peak was not measured")
    if results["targets"]:
        lines += ["", harness.target_table(results["targets"])]
    return "\n".join([*lines, ""])
