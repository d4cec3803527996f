"""Methods without a server: a step beside its gradients and messages alone, lanes, and memory on a large ring.

The clients of W1 are nodes of a ring. Contestants take turns on one thread: ours, a loop of gradients and messages
without mixing, and NumPy with all nodes stacked and a dense product W X. Lanes also compete with the loop of gradients
and messages that reads and writes as many vectors as the method keeps, which they can hardly undercut. The public code
of PowerGossip cannot run here: it starts one process for each node, and in every step each waits for its neighbours'
messages, one network round trip for each parameter and edge, between small kernels of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import harness, scale
from experiments.bench.harness import Contestant, Target, Told, late_notes, raced, ratio
from experiments.bench.rivals import Array, node_gradients
from experiments.bench.workloads import GRADIENT_ONLY, Size, Work, w1
from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm, Cost, tile
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.memory import size
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.running.run import run
from fedjax_lc.sweeping.sweep import sweep

OURS, ALONE, NUMPY = "fedjax_lc", "gradients and messages alone", "NumPy, nodes stacked, dense W"
KEPT = "gradients, messages, and as many vectors"
CHOCO, LEAD = "choco_sgd", "lead"
LEVELS = 2  #: of LEAD's quantiser
STEP_MOST, LANES_MOST = 1.3, 1.5
PARTS = ("step", "lanes", "nodes")


class Sizes(NamedTuple):
    """Of W1 and of a turn; of the large ring."""

    clients: int = 100
    rows: int = 100
    dim: int = 123
    steps: int = 300
    numpy_steps: int = 30
    lanes: int = 256
    lane_steps: int = 4
    nodes: int = 10_000
    node_dim: int = 1000
    node_steps: int = 20

    @property
    def w1(self) -> Size:
        return Size(clients=self.clients, rows=self.rows, dim=self.dim)


TINY = Sizes(clients=4, rows=3, dim=20, steps=2, numpy_steps=2, lanes=3, lane_steps=2, nodes=300, node_dim=5)


@pytree.dataclass
class AloneHparams:
    gamma: Scalar
    compressor: Compressor
    vectors: int = pytree.static(default=1)  #: (n, d) that a step reads and writes


def _alone(
    problem: Problem, hp: AloneHparams, state: tuple[ClientVecs, ...], key: Key
) -> tuple[tuple[ClientVecs, ...], Cost]:
    x, *others = state
    g = problem.grads(x)
    q = hp.compressor.joint(key, g)
    others = [v + hp.gamma * (q.value - v) for v in others]
    return (x - hp.gamma * sum(others, g + q.value), *others), Cost.of(jnp.mean(q.bits), grads=1)


#: every node's gradient at its point and a message of it, which nobody hears
GRADIENTS_AND_MESSAGES = Algorithm(
    name="bench_gradients_and_messages",
    title=ALONE,
    paper="none",
    Hparams=AloneHparams,
    init=lambda problem, hp, key: (tile(problem.x0, problem.n),) * hp.vectors,
    step=_alone,
    point=lambda problem, hp, state: jnp.mean(state[0], axis=0),
    theory=lambda problem, compressor="identity", vectors=1: AloneHparams(
        0.1 / float(jnp.max(problem.smooth)), compressor, vectors
    ),
)


def run_gossip(
    parts: Sequence[str] | None = None,
    *,
    sizes: Sizes | None = None,
    repeats: int = 7,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the parts and print their tables.

    Args:
        parts: of step, lanes, nodes; all if None.
        sizes: what the module says if None.
        repeats: how often every contestant takes its turn.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`: milliseconds per step (of a lane), bytes.

    Raises:
        InputError: an unknown part, repeats below 1, or `out` cannot be written; before any work starts.
    """
    chosen = harness.checked(repeats, parts, PARTS)
    return harness.written(lambda: _measured(chosen, sizes or Sizes(), repeats, progress), text, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench gossip`."""
    harness.options(parser, __doc__, 7, PARTS)
    parser.set_defaults(command=lambda o: run_gossip(o.part, repeats=o.repeats, out=o.out) and 0)


def _measured(parts: Sequence[str], sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    machine = harness.machine()
    jobs = [(part, method) for part in parts for method in (CHOCO, LEAD)]
    found: dict[str, Any] = {part: {} for part in parts}
    for part, method in jobs:
        job = {"part": part, "method": method, "sizes": sizes._asdict(), "repeats": repeats, "progress": progress}
        found[part][method] = harness.ask("gossip", job)
    results = {"sizes": sizes._asdict(), "repeats": repeats, "parts": found, **machine, **environment()}
    results["targets"] = [target.facts() for told in tell(results).values() for target in told.targets]
    return results


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    harness.answer(_do)


def _do(job: Mapping[str, Any]) -> Any:
    sizes = Sizes(**job["sizes"])
    if job["part"] == "nodes":
        return nodes(sizes, job["method"])
    contests = {"step": step_contests, "lanes": lane_contests}[job["part"]](sizes, job["method"])
    return raced(contests, job["repeats"], f"{job['method']}, {job['part']}", job["progress"])


def hparams(method: str, problem: Problem) -> Any:
    """On a ring: CHOCO with the largest tenth of the entries, LEAD with a quantiser, at 1/L."""
    if method == LEAD:
        return algorithms.get(LEAD).theory(problem, "ring", f"qsgd:{LEVELS},norm=inf", "practical")
    hp = algorithms.get(CHOCO).theory(problem, "ring", f"top_k:{max(1, problem.dim // 10)}")
    return dataclasses.replace(hp, cg=0.2)


def step_contests(sizes: Sizes, method: str) -> dict[str, Contestant]:
    """One run of each."""
    work = w1(sizes.w1)
    once: dict[str, Any] = {"steps": sizes.steps, "every": sizes.steps, "progress": False}
    hp = hparams(method, work.problem)
    alone = GRADIENTS_AND_MESSAGES.theory(work.problem, hp.compressor)
    return {
        OURS: Contestant(sizes.steps, partial(run, method, work.problem, hp, jax.random.key(0), **once)),
        ALONE: Contestant(
            sizes.steps, partial(run, GRADIENTS_AND_MESSAGES, work.problem, alone, jax.random.key(0), **once)
        ),
        NUMPY: Contestant(sizes.numpy_steps, in_numpy(method, work, hp, sizes.numpy_steps)),
    }


def lane_contests(sizes: Sizes, method: str) -> dict[str, Contestant]:
    """Sweeps, and what a lane's gradients, with and without messages, cost in one."""
    work, steps = w1(sizes.w1), sizes.lane_steps
    options: dict[str, Any] = {"seeds": sizes.lanes, "steps": steps, "every": steps, "progress": False}
    hp = hparams(method, work.problem)
    alone = partial(GRADIENTS_AND_MESSAGES.theory, work.problem, hp.compressor)
    vectors = jax.eval_shape(partial(algorithms.get(method).init, work.problem, hp), jax.random.key(0))
    kept = sum(leaf.ndim == 2 for leaf in jax.tree.leaves(vectors))
    entries: dict[str, tuple[Any, Any]] = {
        OURS: (method, hp),
        ALONE: (GRADIENTS_AND_MESSAGES, alone()),
        KEPT: (GRADIENTS_AND_MESSAGES, alone(vectors=kept)),
        GRADIENT_ONLY.title: (GRADIENT_ONLY, GRADIENT_ONLY.theory(work.problem)),
    }
    return {
        name: Contestant(steps * sizes.lanes, partial(sweep, algorithm, work.problem, each, **options))
        for name, (algorithm, each) in entries.items()
    }


def nodes(sizes: Sizes, method: str) -> dict[str, Any]:
    """A run on a ring of many nodes with two rows each: its time, the memory it announces, and what it takes."""
    problem = scale.problem_of(sizes.nodes, 2, sizes.node_dim)
    return scale.of_run(problem, hparams(method, problem), method, sizes.node_steps)[0]


# --- the rival ---


def in_numpy(method: str, work: Work, hp: Any, steps: int) -> Callable[[], Array]:
    """The method in NumPy, the same W as a dense matrix."""
    W = hp.graph(work.problem).W.astype(work.A.dtype)
    data = (work.A, work.b, work.l2, W)
    if method == LEAD:
        quantised = functools.partial(rounded, np.random.default_rng(0), LEVELS)
        return lambda: lead(*data, float(hp.eta), float(hp.gamma), float(hp.alpha), quantised, steps)
    return lambda: choco(*data, float(hp.gamma), float(hp.cg), max(1, work.A.shape[2] // 10), steps)


def choco(A: Array, b: Array, l2: float, W: Array, gamma: float, cg: float, k: int, steps: int) -> Array:
    """X (n, d) after so many steps of CHOCO-SGD, order "new", with the k largest entries of each node."""
    n, _, d = A.shape
    X, Xh, pull = np.zeros((n, d), A.dtype), np.zeros((n, d), A.dtype), cg * (W - np.eye(n, dtype=A.dtype))
    gradients = node_gradients(A, b, l2)
    for _ in range(steps):
        X -= gamma * gradients(X)
        difference = X - Xh
        kept = np.argpartition(-np.abs(difference), k - 1, axis=1)[:, :k]
        Xh[np.arange(n)[:, None], kept] += np.take_along_axis(difference, kept, axis=1)
        X += pull @ Xh
    return X


def lead(
    A: Array, b: Array, l2: float, W: Array, eta: float, gamma: float, alpha: float,
    quantised: Callable[[Array], Array], steps: int,
) -> Array:  # fmt: skip
    """X (n, d) after so many steps of LEAD, the first of them without a message."""
    n, _, d = A.shape
    X, D, H, Hw = (np.zeros((n, d), A.dtype) for _ in range(4))
    gradients = node_gradients(A, b, l2)
    X -= eta * gradients(X)
    for _ in range(steps - 1):
        toward = X - eta * gradients(X)
        q = quantised(toward - eta * D - H)
        Wq = W @ q
        D += gamma / (2 * eta) * (H - Hw + q - Wq)
        H += alpha * q
        Hw += alpha * Wq
        X = toward - eta * D
    return X


def rounded(rng: np.random.Generator, levels: int, V: Array) -> Array:
    """Each entry at random to a multiple of its row's largest modulus over `levels`, without bias."""
    most = np.abs(V).max(axis=1, keepdims=True)
    steps = np.abs(V) * (levels / np.maximum(most, np.finfo(V.dtype).tiny))
    return np.sign(V) * np.floor(steps + rng.random(V.shape, dtype=np.float32)).astype(V.dtype) * (most / levels)


# --- what is printed ---


def tell(results: Mapping[str, Any]) -> dict[str, Told]:
    """Of each part."""
    found = {}
    for part, by_method in results["parts"].items():
        if part == "nodes":
            found[part] = _tell_nodes(by_method)
            continue
        base, most, what = {
            "step": (ALONE, STEP_MOST, "a step / its gradients and messages alone"),
            "lanes": (GRADIENT_ONLY.title, LANES_MOST, "a lane's step / a lane's gradients"),
        }[part]
        rows, notes, judged = list[dict[str, str]](), list[str](), list[Any]()
        for method, own in by_method.items():
            title = algorithms.get(method).title
            rows += [
                {
                    "method": title,
                    "contestant": name,
                    "median us": f"{1e3 * row['ms']:.1f}",
                    "ours / it [turns]": str(ratio(own["rows"], OURS, name)),
                }
                for name, row in own["rows"].items()
            ]
            notes += late_notes(own)
            judged.append(ratio(own["rows"], OURS, base).target(f"{title}: {what}", most))
        found[part] = Told.of(rows, notes, judged)
    return found


def _tell_nodes(by_method: Mapping[str, Mapping[str, Any]]) -> Told:
    rows, targets = list[dict[str, str]](), list[Target]()
    for method, row in by_method.items():
        title, share = algorithms.get(method).title, row["measured"] / row["predicted"]
        shown = {name: size(row[name]) for name in ("predicted", "measured")}
        rows.append(
            {"method": title, "ms a step": f"{row['step_ms']:.4g}", **shown, "measured / predicted": f"{share:.2f}"}
        )
        if row["predicted"] >= scale.LEAST:
            targets.append(Target(f"{title}: measured / predicted memory", scale.WITHIN, share, 1 / scale.WITHIN))
    return Told(rows, [], targets)


def text(results: Mapping[str, Any]) -> str:
    """What is printed."""
    sizes = Sizes(**results["sizes"])
    heads = {
        "step": f"W1 on a ring: {sizes.clients} nodes x {sizes.rows} rows x {sizes.dim} features, per step",
        "lanes": f"{sizes.lanes} lanes of it, per step of a lane",
        "nodes": f"a ring of {sizes.nodes:,} nodes, d = {sizes.node_dim:,}, 2 rows a node",
    }
    lines = [
        f"fedjax-lc bench gossip: {results['repeats']} turns each; float32; one thread; CHOCO with top-10 %, LEAD with "
        f"{LEVELS} levels",
        *harness.made_on(results),
    ]
    for part, told in tell(results).items():
        lines += ["", heads[part], report.table(told.rows), *told.notes]
    if results["targets"]:
        lines += ["", harness.target_table(results["targets"])]
    return "\n".join([*lines, ""])
