"""One run of one method: a compiled loop over steps, which the host calls chunk by chunk."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.algorithms.frames.rules import strongly_convex
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import of_any, of_clients, of_first, on_host, together
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.progress import bar, say
from fedjax_lc.problems import Neural, Problem
from fedjax_lc.results import ledger
from fedjax_lc.results.provenance import describe, describe_problem, environment, identity
from fedjax_lc.results.trace import Trace
from fedjax_lc.running import folder as folders
from fedjax_lc.running import loop
from fedjax_lc.running.checkpoints import Schedule
from fedjax_lc.running.folder import Folder
from fedjax_lc.running.loop import DIVERGED, STATUS, At, Limits
from fedjax_lc.running.options import Options, Task, task
from fedjax_lc.running.peers import ending_together
from fedjax_lc.running.placing import Places
from fedjax_lc.running.programs import check_memory, compile_once, memory_bytes, out_of_memory
from fedjax_lc.running.signals import interruptible
from fedjax_lc.running.watch import Best, Watch, tracking, with_records
from fedjax_lc.tracking.base import parse

CHUNK_STEPS = 2**16  #: steps whose costs one chunk can hold


def run(
    method: str | Algorithm,
    problem: Problem,
    hp: Any = None,
    key: Any = 0,
    *,
    on_chunk: Callable[[Trace], Any] | None = None,
    progress: bool = True,
    out: str | Path | None = None,
    checkpoint_every: float | str | None = None,
    facts: Mapping[str, Any] | None = None,
    other_code: bool = False,
    **options: Unpack[RunOptions],
) -> Trace:
    """Run `method` on `problem` and record F, its costs and further metrics every `every` steps.

    Args:
        method: a name of `fl.algorithms.names()`, or an Algorithm.
        hp: hyperparameters of the method; None for those of its theory.
        key: a PRNG key, or a whole number s for `jax.random.key(s)`. Step t uses `fold_in(key, t)`.
        on_chunk: called with the trace so far after every chunk; a true result stops the run (status interrupted).
        progress: show a bar on anything over two seconds.
        out: folder of the results. Records and checkpoints are written into it while the run is under way (`Trace.load`
            reads them at any time); the same call goes on from the last checkpoint, with the same bits, or reads the
            results of a run that is done.
        checkpoint_every: minutes from one checkpoint to the next (0: after every chunk), or "steps:1000"; None for a
            minute or more, so that writing takes less than a hundredth of the time.
        facts: plain values to add to the trace's config.
        track: who else sees every record while it is made: "csv" (a file records.csv in `out`), "tensorboard",
            "wandb:PROJECT", "mlflow:EXPERIMENT", another `Tracker`, or a list of these.
        keep_best: a metric: the trace also keeps the model of the record where it is best (`trace.best_x`), and `out`
            has it as best.safetensors. Records are then made one at a time.
        other_code: whether to keep what other code of the method, functions, source of this package or versions of JAX
            computed in `out`, and to go on from there.
        devices: `fl.devices(clients=4)` spreads the clients' data and states over so many devices; None for those of
            `fl.problem(..., devices=...)`, else one. Of several processes each makes the same call; the first one
            writes `out`, which all must see.
        steps: largest number of steps, cut to a multiple of `every`.
        every: steps between records; record j = 0, 1, ... is made after step (j + 1) * every.
        rel_gap: stop at the first record with F(x) - f_star <= rel_gap * (F(x_0) - f_star).
        budget: stop at the first record where a cumulative cost (bits_up, bits_down, grads, rounds) reaches its limit.
        x0: the start, as `problem.start` takes it: a vector (d,), a network's weights, or a file of them; None for the
            problem's x0.
        measure: further metrics: names among `problem.metrics` (grad_norm; distance, |x - x*|; a network's
            train_accuracy, train_accuracy_min, ...), "clients" (loss and accuracy of each client, see `Trace.clients`)
            and lyapunov, whose proven rate the trace's config then holds; or a mapping from a name to
            `f(problem, hp, state)` -> () or (k,), compiled into the loop.

    Returns:
        The Trace. Its records do not depend on how the run was cut into chunks. A diverged run is reported by its
        status, not raised. Ctrl-C ends a run after the current chunk and keeps what was computed; so does SIGTERM,
        which then takes its usual effect. If `out` cannot be written any more, a line says so and the run goes on.

    Raises:
        InputError: an argument cannot be used, or `out` holds something else; raised before any work starts.

    Example:
        >>> trace = fl.run("gd", problem, steps=1000, rel_gap=1e-10)
        >>> trace.status
        'target'
        >>> trace = fl.run("gd", problem, steps=10**6, out="runs/a")  # stopped and called again, it goes on
    """
    algorithm = algorithms.get(method)
    refuse_unknown("run", options, RunOptions)
    places = Places(of_clients(options.pop("devices", None) or problem.mesh))
    track, keep_best = options.pop("track", None), options.pop("keep_best", None)
    checked_task = task("run", algorithm, problem, options)
    if hp is None:
        hp, rule = algorithm.theory(checked_task.problem), algorithm.working_rule(checked_task.problem)
        facts = {"working_rule": rule, **(facts or {})} if rule else facts
        if rule and progress:
            say(rule)
    algorithm.check(checked_task.problem, hp)
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    facts = {"recipe": problem.recipe, **(facts or {})}
    work = Run(algorithm, checked_task, hp, key, progress, facts, places, Watch(track, keep_best))
    schedule = Schedule(checkpoint_every)
    with contextlib.ExitStack() as stack:
        if places.mesh is not None and places.mesh.is_multi_process:
            stack.enter_context(ending_together())
        with together(places.mesh):
            identity = {} if out is None else work.identity()
            opened = folders.opened(out, identity, schedule, other_code=other_code, mesh=places.mesh)
            folder = stack.enter_context(opened)
        return work.result(folder, on_chunk)


class RunOptions(Options, total=False):
    """Options of `fl.run`, explained there."""

    devices: Mesh | None
    track: Any
    keep_best: str | None


@dataclasses.dataclass
class Run:
    """A run as the host sees it: it calls the compiled chunk and collects the records."""

    algorithm: Algorithm
    task: Task
    hp: Any
    key: jax.Array
    progress: bool
    facts: dict[str, Any]
    places: Places
    watch: Watch

    def __post_init__(self) -> None:
        self.problem, self.records, self.every, self.metrics, self.rel_gap, self.budget, self.notes = self.task
        self.placed = self.places.problem(self.problem)
        self.cast_hp, self.key = self.places.put((pytree.cast(self.hp, self.problem.dtype), self.key))
        self.capacity = max(1, min(CHUNK_STEPS // self.every, loop.CHUNK_RECORDS))
        self.best = Best(self.watch.keep_best, self.metrics.names)
        if self.best.metric is not None:
            self.capacity = 1  # so that the point of every record is seen
        self.totals = np.zeros(len(ledger.COSTS))
        self.blocks: list[dict[str, np.ndarray]] = []
        self.stop, self.before, self.seconds, self.x = "", 0.0, 0.0, None

    def identity(self) -> dict[str, Any]:
        """Everything that determines the results."""
        return {
            **identity(self.algorithm, self.problem, self.cast_hp, self.metrics.of_state),
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "key_impl": str(jax.random.key_impl(self.key)),
            "steps": self.records * self.every,
            "every": self.every,
            "rel_gap": self.rel_gap,
            "budget": dict(self.budget),
            "metrics": list(self.metrics.names),
            **({} if self.watch.keep_best is None else {"keep_best": self.watch.keep_best}),
        }

    def result(self, folder: Folder, on_chunk: Callable[[Trace], Any] | None) -> Trace:
        """The trace, read if the folder holds all of it."""
        with together(self.places.mesh):
            trackers = parse(self.watch.track, folder.path) if folder.writes else []
        finished = folder.finished()
        if finished is not None:
            if self.progress:
                say(f"{folder.path} holds this run, {finished.status} after {len(finished) * self.every} steps")
            if trackers:
                tracking(trackers, folder, finished).end(finished.status, finished.summary())
            return finished
        try:
            return self._go(folder, on_chunk, trackers)
        except jax.errors.JaxRuntimeError as error:
            if out_of_memory(error):
                raise InputError("the device ran out of memory: use float32, fewer clients or fewer rows") from error
            raise

    def _go(self, folder: Folder, on_chunk: Callable[[Trace], Any] | None, trackers: Sequence[Any]) -> Trace:
        at, done = self._begin(folder)
        self.best.check(self.initial)
        limits = self.places.put(loop.make_limits(self.problem, self.initial["value"], self.rel_gap, self.budget))
        chunk, self.compile_seconds = self._compiled(at, limits)
        folder.begin(so_far := self._trace(None))
        with together(self.places.mesh):
            seen = tracking(trackers, folder, so_far)
        started, count, mesh = time.perf_counter(), 1, self.places.mesh
        shown = _StepsBar(self, done)
        due = folder.schedule.due
        with shown.bar, interruptible() as interrupted:
            while done < self.records and not self.stop:
                count = min(count, self.records - done, folder.schedule.records(done * self.every, self.every))
                count = of_first(count, mesh)
                tick = time.perf_counter()
                at, block = self._advance(chunk, at, limits, done, count)
                done += len(block["step"])
                self._keep(block)
                if seen.logs:
                    seen.add(with_records(so_far, self.blocks[-1]).columns())
                shown.show(block)
                count = loop.next_count(count, self.capacity, time.perf_counter() - tick)
                self.seconds = self.before + time.perf_counter() - started
                stopped = on_chunk is not None and bool(on_chunk(self._trace(at)))
                if done == self.records or self.stop:
                    break
                if of_any(stopped or interrupted(), mesh):
                    self.stop = "interrupted"
                elif of_first(due(done * self.every), mesh):
                    folder.checkpoint(self._trace(None), at._asdict())
            trace = self._trace(at)
            seen.end(trace.status, trace.summary())
            return folder.end(trace, at._asdict(), self.records * self.every, interrupted.signal == signal.SIGTERM)

    def _begin(self, folder: Folder) -> tuple[At, int]:
        """Where the run begins, or goes on from its last checkpoint: the loop's carry, and the records made."""
        with together(self.places.mesh):
            resumed = folder.resume(self.shapes)
        if resumed is None:
            at, values = self._start()
            self.initial = {name: np.asarray(v, np.float64).tolist() for name, v in values.items()}
            empty = {name: np.zeros((0, *np.shape(value))) for name, value in self.initial.items()}
            self.blocks = [empty | {name: np.zeros(0) for name in ("step", *ledger.COSTS)}]
            return at, 0
        checkpoint, trace = resumed
        self.initial, self.before, totals = (checkpoint.facts[name] for name in ("initial", "seconds", "totals"))
        self.totals, self.seconds, self.x = np.array(totals), self.before, checkpoint.tree["x"]
        series = {"value": trace.value, **{name: getattr(trace, name) for name in ("step", *ledger.COSTS)}}
        self.blocks = [series | trace.metrics]
        self.best.go_on(self.blocks[0], checkpoint.tree)
        return self.places.run(At(checkpoint.tree["state"], checkpoint.tree["spent"]), self.problem.n), len(trace)

    def _start(self) -> tuple[At, dict[str, jax.Array]]:
        return self.places.start(self.algorithm, self.metrics)(self.placed, self.cast_hp, self.key)

    def shapes(self) -> dict[str, Any]:
        """The shapes of what a checkpoint holds, see `Trace.end`; nothing is computed."""
        at, _ = jax.eval_shape(self._start)
        point = np.broadcast_to(np.float64(0), (self.problem.dim,))
        best = {} if self.watch.keep_best is None else {"best": point}
        return {"state": at.state, "spent": at.spent, "x": point, **best}

    def _compiled(self, at: At, limits: Limits) -> tuple[Any, float]:
        arguments = (self.placed, self.cast_hp, at, self.key, self._count(0), self._count(1), limits)
        chunk = self.places.chunk(self.algorithm, self.every, self.capacity, self.metrics)
        compiled, seconds = compile_once(chunk, arguments)
        self.memory = memory_bytes(compiled)
        check_memory(self.memory)
        return compiled, seconds

    def _count(self, number: int) -> jax.Array:
        return self.places.put(np.uint32(number))

    def _advance(self, chunk: Any, at: At, limits: Limits, done: int, count: int) -> tuple[At, dict[str, np.ndarray]]:
        """Make up to `count` further records. Returns the run after them, and their columns."""
        first = self._count(done * self.every)
        ran = chunk(self.placed, self.cast_hp, at, self.key, first, self._count(count), limits)
        recorded, self.stop, self.x = int(ran.done), STATUS[int(ran.stop)], ran.x
        totals = ledger.accumulate(np.asarray(ran.costs)[:recorded], self.totals)
        block: dict[str, np.ndarray] = {n: np.asarray(v, np.float64)[:recorded] for n, v in ran.values.items()}
        block |= dict(zip(ledger.COSTS, totals.T, strict=True))
        block["step"] = np.arange(done + 1, done + recorded + 1, dtype=np.float64) * self.every
        self.totals = totals[-1]
        return ran.at, block

    def _keep(self, block: dict[str, np.ndarray]) -> None:
        """Keep a block of records, without the record that diverged."""
        length = len(block["step"]) - (self.stop == STATUS[DIVERGED])
        self.blocks.append({name: series[:length] for name, series in block.items()})
        self.best.see(self.blocks[-1], self.x)

    def _trace(self, at: At | None) -> Trace:
        series: dict[str, Any] = {n: np.concatenate([b[n] for b in self.blocks]) for n in self.blocks[0]}
        self.blocks = [dict(series)]
        metrics = {name: series.pop(name) for name in self.metrics.names if name != "value"}
        return Trace(
            method=self.algorithm.name,
            status=self.stop or "finished",
            metrics=metrics,
            initial=self.initial,
            f_star=self.problem.f_star,
            config=self._config(),
            notes=self.notes,
            state=None if at is None else on_host(at.state),
            spent=None if at is None else on_host(at.spent),
            x=None if self.x is None else np.asarray(self.x, np.float64),
            best_x=self.best.x,
            **series,
        )

    def _config(self) -> dict[str, Any]:
        config = {
            "method": self.algorithm.name,
            "hyperparameters": describe(self.hp),
            "problem": describe_problem(self.problem),
            "records": self.records,
            "every": self.every,
            "rel_gap": self.rel_gap,
            "budget": dict(self.budget),
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "key_impl": str(jax.random.key_impl(self.key)),
            "compile_seconds": round(self.compile_seconds, 3),
            "seconds": round(self.seconds, 3),
            "memory_bytes": self.memory,
            **environment(),
        }
        if isinstance(self.problem, Neural):
            config["parameters"] = self.problem.layout.described()
            if any(name.startswith("client_") for name in self.metrics.names):
                config["client_rows"] = self.problem.client_rows
        if self.watch.keep_best is not None:
            config["keep_best"] = self.watch.keep_best
        if "lyapunov" in self.metrics.names:
            config["rate"] = proven_rate(self.algorithm, self.problem, self.hp)
        return self.facts | config


def proven_rate(algorithm: Algorithm, problem: Problem, hp: Any) -> float | None:
    """The factor by which a theorem makes E lyapunov shrink per step at least; None where it says nothing, of these
    hyperparameters or of this problem."""
    known = getattr(hp, "in_theory", ())
    frames = [field for field in dataclasses.fields(hp) if field.kw_only and field.name not in known]  # batches, ...
    if any(getattr(hp, field.name) != field.default for field in frames):
        return None
    if algorithm.rate is None or not strongly_convex(problem):
        return None
    rate = float(algorithm.rate(problem, hp))
    return rate if 0 < rate < 1 else None


class _StepsBar:
    """A progress bar over steps that shows the current gap, or the loss and accuracy."""

    def __init__(self, run: Run, done: int) -> None:
        self.f_star, self.every = run.problem.f_star, run.every
        title = f"{run.algorithm.title} ({run.memory / 1e6:.1f} MB)"
        self.bar = bar(run.records * run.every, title, " steps", shown=run.progress, initial=done * run.every)

    def show(self, block: dict[str, np.ndarray]) -> None:
        if len(block["value"]) and np.isfinite(self.f_star):
            self.bar.set_postfix_str(f"gap {block['value'][-1] - self.f_star:.1e}", refresh=False)
        elif len(block["value"]):
            hits = f", accuracy {block['test_accuracy'][-1]:.1%}" if "test_accuracy" in block else ""
            self.bar.set_postfix_str(f"loss {block['value'][-1]:.3f}{hits}", refresh=False)
        self.bar.update(len(block["value"]) * self.every)
