"""What compression costs in a step of training: time and state of methods with error feedback, against P-SGD's.

Eight clients, the EMNIST network of 1.2 million parameters, batches of 32, signs with a scale for each block. What is
timed of a method is some steps after the last ones, one compiled scan; ratios are taken within each turn. On one
thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.bench import harness
from experiments.bench.harness import Target, ratio
from experiments.bench.neural_parts import CLASSES, EMNIST, Ours, problem_of, raced
from experiments.bench.neural_rivals import Work
from fedjax_lc import algorithms
from fedjax_lc.core import pytree
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment

MOST = 1.15  #: of a compressed step over one of P-SGD
BASE = "P-SGD"


class Entry(NamedTuple):
    """A method, choices of its theory, and its state by the paper: client vectors (n, d) and server vectors (d,)."""

    label: str
    method: str
    choices: Mapping[str, Any]
    client_vectors: int
    server_vectors: int
    judged: bool = True


ENTRIES = (
    Entry(BASE, "sgd", {}, 0, 1, judged=False),
    Entry("MEM-SGD", "mem_sgd", {}, 1, 1),
    Entry("DoubleSqueeze", "double_squeeze", {}, 1, 2),
    Entry("CSER(8)", "cser", {"period": 8}, 2, 0),
    Entry("NEOLITHIC(2)", "neolithic", {"rounds": 2}, 1, 2, judged=False),
    Entry("LIEC(32)", "liec_sgd", {"period": 32}, 1, 1),
    Entry("LIEC(100)", "liec_sgd", {"period": 100}, 1, 1),
    Entry("EF21", "ef21", {}, 1, 2),
)


class Sizes(NamedTuple):
    """The work of a step, and how many of them one timed block does."""

    clients: int = 8
    rows: int = 64
    batch: int = 32
    side: int = 28
    block: int = 131_072  #: entries that share a scale
    steps: int = 2


def run_feedback(
    *, sizes: Sizes | None = None, repeats: int = 7, out: str | Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Measure every method of ENTRIES and print their table.

    Args:
        sizes: of the work; what the module says if None.
        repeats: how often every method takes its turn.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`: milliseconds per step by both clocks, and the state's size in vectors (d,).

    Raises:
        InputError: repeats below 1, or `out` cannot be written; before any work starts.
    """
    harness.checked(repeats)
    return harness.written(lambda: _measured(sizes or Sizes(), repeats, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench feedback`."""
    harness.options(parser, __doc__, 7)
    parser.set_defaults(command=lambda o: run_feedback(repeats=o.repeats, out=o.out) and 0)


def _measured(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    machine = harness.machine()
    found = harness.ask("feedback", {"sizes": sizes._asdict(), "repeats": repeats, "progress": progress})
    results = {"sizes": sizes._asdict(), "repeats": repeats, **found, **machine, **environment()}
    results["targets"] = [target.facts() for target in targets(results)[0]]
    return results


# --- the child ---


def child() -> None:
    """What a child process runs: the job given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(lambda job: race(Sizes(**job["sizes"]), job["repeats"], job["progress"]))


def race(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    """Times of all methods, and the size of their states."""
    rng, shape = np.random.default_rng(0), (sizes.clients, sizes.rows)
    images = rng.random((*shape, sizes.side, sizes.side, 1), dtype=np.float32)
    problem = problem_of(EMNIST, Work(images, rng.integers(CLASSES[EMNIST], size=shape), sizes.batch, 0.03))
    ours = {}
    for entry in ENTRIES:
        ours[entry.label] = Ours(entry.method, problem, hparams(entry, problem, sizes), sizes.steps)
    found = raced({label: own.contestant for label, own in ours.items()}, repeats, "steps", progress)
    return {
        "times": found,
        "compile_s": {label: own.compile_s for label, own in ours.items()},
        "parameters": problem.dim,
        "vectors": {label: vectors(own.state, problem.dim) for label, own in ours.items()},
    }


def hparams(entry: Entry, problem: Any, sizes: Sizes) -> Any:
    """Theory's with blockwise signs wherever the method compresses, as arrays."""
    algorithm = algorithms.get(entry.method)
    fields = {field.name for field in dataclasses.fields(algorithm.Hparams)}
    signs = {way: f"block_sign:{sizes.block}" for way in ("compressor", "downlink", "reset") if way in fields}
    hp = algorithm.theory(problem, **signs, **entry.choices)
    return pytree.cast(dataclasses.replace(hp, batch_size=sizes.batch), problem.dtype)


def vectors(state: Any, dim: int) -> int:
    """How many vectors (d,) the arrays of a state hold; counters and other small parts aside."""
    return sum(leaf.size // dim for leaf in jax.tree.leaves(state))


# --- what is printed ---


def targets(results: Mapping[str, Any]) -> tuple[list[Target], list[str]]:
    """Times of those that are judged, and states of all, with notes where turns disagree."""
    found, notes, n = list[Target](), list[str](), results["sizes"]["clients"]
    for entry in ENTRIES:
        if entry.judged:
            own, unsure = ratio(results["times"]["cpu"], entry.label, BASE).target(
                f"{entry.label} / {BASE}, CPU s", MOST
            )
            found, notes = [*found, own], notes + unsure
        most = entry.client_vectors * n + entry.server_vectors
        found.append(Target(f"state of {entry.label}, vectors", most, results["vectors"][entry.label]))
    return found, notes


def text(results: Mapping[str, Any]) -> str:
    """What is printed."""
    sizes, times = Sizes(**results["sizes"]), results["times"]
    rows = [
        {
            "method": label,
            **{f"{clock} ms": f"{statistics.median(times[clock][label]['turns_ms']):.0f}" for clock in ("wall", "cpu")},
            **{f"it / {BASE}, {clock} [turns]": str(ratio(times[clock], label, BASE)) for clock in ("wall", "cpu")},
            "state": f"{results['vectors'][label]} d",
            "compile s": f"{results['compile_s'][label]:.1f}",
        }
        for label in results["vectors"]
    ]
    lines = [
        f"fedjax-lc bench feedback: {results['repeats']} turns each, medians per step; float32; one thread",
        f"{sizes.clients} clients, {results['parameters']:,} parameters, batches of {sizes.batch}; signs with a scale "
        f"for each {sizes.block:,} entries",
        *harness.made_on(results),
        "",
        report.table(rows),
        *targets(results)[1],
        "",
        harness.target_table(results["targets"]),
        "",
    ]
    return "\n".join(lines)
