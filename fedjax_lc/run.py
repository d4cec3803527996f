"""One run of one method: a compiled loop over steps, driven chunk by chunk from the host."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import algorithms, ledger, pytree
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.errors import InputError, unknown
from fedjax_lc.problems import Problem
from fedjax_lc.programs import check_memory, compile_once, memory_bytes
from fedjax_lc.provenance import describe, describe_problem, environment
from fedjax_lc.stacking import X64_LINE
from fedjax_lc.trace import Trace
from fedjax_lc.typing import PyTree, Scalar

Metric = Callable[[Problem, Any, PyTree], Scalar]

INIT_FOLD = 2**32 - 1
BLOW_UP = 1e6  #: a run whose F rises by this multiple of its first gap (or by 1 + |F|, if more) has diverged
CHUNK_STEPS = 2**16  #: steps whose costs one chunk can hold
CHUNK_RECORDS = 4096
CHUNK_SECONDS = 0.25  #: what a chunk should take, for the progress bar and Ctrl-C


class _Going(NamedTuple):
    """The carry of a chunk: records done, state, buffers, and whether to go on."""

    done: jax.Array  # ()
    state: PyTree
    costs: jax.Array  # (records, every, 4) float32
    values: dict[str, jax.Array]  # (records,) each
    stop: jax.Array  # () 0 go on, 1 target, 2 diverged


class _Limits(NamedTuple):
    """Values of F at which a run stops: at or below `target`, above `blow_up`."""

    target: Scalar
    blow_up: Scalar


def run(
    method: str | Algorithm,
    problem: Problem,
    hp: Any = None,
    key: Any = 0,
    *,
    steps: int = 10_000,
    every: int = 10,
    rel_gap: float | None = None,
    budget: Mapping[str, float] | None = None,
    x0: Any = None,
    measure: Sequence[str] | Mapping[str, Metric] = (),
    on_chunk: Callable[[Trace], Any] | None = None,
    progress: bool = True,
) -> Trace:
    """Run `method` on `problem` and record F, its costs and further metrics every `every` steps.

    Args:
        method: a name of `fl.algorithms.names()`, or an Algorithm.
        hp: its hyperparameters; its theory's if None.
        key: a PRNG key, or a whole number s for `jax.random.key(s)`. Step t uses `fold_in(key, t)`.
        steps: steps at most; cut to a multiple of `every`.
        every: record j is taken after step (j + 1) * every.
        rel_gap: stop at the first record with F(x) - f_star <= rel_gap * (F(x_0) - f_star).
        budget: stop at the first record where a cumulative cost (bits_up, bits_down, grads, rounds) reaches its limit.
        x0: (d,) warm start; the problem's own start if None.
        measure: further metrics: names out of grad_norm, distance (|x - x*|) and lyapunov, or a mapping from a name to
            `f(problem, hp, state) -> ()`, compiled into the loop.
        on_chunk: called with the trace so far after every chunk; a true result stops the run (status interrupted).
        progress: show a bar on anything over two seconds.

    Returns:
        The Trace. Its records do not depend on how the run was cut into chunks. A diverged run is reported by its
        status, not raised. Ctrl-C ends a run after the current chunk and keeps what was computed.

    Raises:
        InputError: in one line, before any work starts.

    Example:
        >>> trace = fl.run("gd", problem, steps=1000, rel_gap=1e-10)
        >>> trace.status
        'target'
    """
    algorithm = algorithms.get(method)
    problem = problem if x0 is None else problem.replace(x0=_start(x0, problem))
    hp = algorithm.theory(problem) if hp is None else hp
    algorithm.check(problem, hp)
    records, every = _records(steps, every)
    metrics = _metrics(algorithm, measure)
    key = jax.random.key(key) if isinstance(key, int) else key
    return _Run(algorithm, problem, hp, key, records, every, rel_gap, budget or {}, metrics, progress).go(
        on_chunk, notes=_cut_note(steps, records, every)
    )


@dataclasses.dataclass
class _Run:
    """The host's side of a run."""

    algorithm: Algorithm
    problem: Problem
    hp: Any
    key: jax.Array
    records: int
    every: int
    rel_gap: float | None
    budget: Mapping[str, float]
    metrics: tuple[tuple[str, Metric], ...]
    progress: bool

    def __post_init__(self) -> None:
        if any(name in ("distance", "lyapunov") for name, _ in self.metrics):
            self.problem = self.problem.solved()
        self.cast_hp = pytree.cast(self.hp, self.problem.dtype)
        self.capacity = max(1, min(CHUNK_STEPS // self.every, CHUNK_RECORDS))
        self.totals = np.zeros(len(ledger.COSTS))
        self.blocks: list[dict[str, np.ndarray]] = []
        self.stop = ""
        for name in self.budget:
            if name not in ledger.COSTS:
                raise unknown("budget", name, ledger.COSTS)

    def go(self, on_chunk: Callable[[Trace], Any] | None, notes: list[str]) -> Trace:
        state, self.initial = self._begin()
        limits = self._limits()
        chunk, self.compile_seconds = self._compiled(state, limits)
        started, count, done = time.perf_counter(), max(1, self.capacity // 64), 0
        with _bar(self) as bar, _interruptible() as interrupted:
            while done < self.records and not self.stop:
                count = min(count, self.records - done)
                tick = time.perf_counter()
                state, block, recorded, code = self._advance(chunk, state, limits, done, count)
                done += recorded
                self._keep(block, code)
                bar.show(recorded, block)
                count = _next_count(count, self.capacity, time.perf_counter() - tick)
                self.seconds = time.perf_counter() - started
                if interrupted() or (on_chunk is not None and on_chunk(self._trace(state, notes))):
                    self.stop = self.stop or "interrupted"
        return self._trace(state, notes)

    def _begin(self) -> tuple[PyTree, dict[str, float]]:
        """The first state and what is measured there."""
        state, values = _begin(self.algorithm, self.metrics)(self.problem, self.cast_hp, self.key)
        return state, {name: float(v) for name, v in values.items()}

    def _limits(self) -> _Limits:
        first, f_star = self.initial["value"], self.problem.f_star
        span = np.fmax(abs(first - f_star), (1 + abs(first)) / BLOW_UP)  # fmax: f_star may be NaN
        target, dtype = jnp.dtype(self.problem.dtype).type(-np.inf), self.problem.dtype
        if self.rel_gap is not None:
            self._check_target(first, f_star)
            target = _at_most(f_star, self.rel_gap * (first - f_star), dtype)
        return _Limits(jnp.asarray(target, dtype), jnp.asarray(first + BLOW_UP * span, dtype))

    def _check_target(self, first: float, f_star: float) -> None:
        if not np.isfinite(f_star):
            raise InputError("rel_gap needs a known optimum, and this problem has none: give f_star= to the problem")
        span = max(first - f_star, 1e-300)
        finest = 2 * float(jnp.finfo(self.problem.dtype).eps) * max(abs(f_star), abs(first)) / span
        if not self.rel_gap or self.rel_gap < finest:
            kind = jnp.dtype(self.problem.dtype).name
            cure = f"use float64 ({X64_LINE}), or " if kind == "float32" else ""
            raise InputError(f"rel_gap {self.rel_gap:g} is below what {kind} resolves here: {cure}"
                             f"ask for {finest:.1e} or more")  # fmt: skip

    def _compiled(self, state: PyTree, limits: _Limits) -> tuple[Any, float]:
        arguments = (self.problem, self.cast_hp, state, self.key, _count(0), _count(1), limits)
        chunk = _chunk(self.algorithm, self.every, self.capacity, self.metrics)
        compiled, seconds = compile_once(chunk, arguments)
        self.memory = memory_bytes(compiled)
        check_memory(self.memory)
        return compiled, seconds

    def _advance(
        self, chunk: Any, state: PyTree, limits: _Limits, done: int, count: int
    ) -> tuple[PyTree, dict[str, np.ndarray], int, int]:
        """Up to `count` further records: the new state, their columns, how many there are, and the stop code."""
        first = _count(done * self.every)
        state, self.x, costs, values, recorded, code = chunk(
            self.problem, self.cast_hp, state, self.key, first, _count(count), limits
        )
        recorded, code = int(recorded), int(code)
        totals = ledger.accumulate(np.asarray(costs)[:recorded], self.totals)
        block: dict[str, np.ndarray] = {name: np.asarray(v, np.float64)[:recorded] for name, v in values.items()}
        block |= dict(zip(ledger.COSTS, totals.T, strict=True))
        block["step"] = np.arange(done + 1, done + recorded + 1, dtype=np.float64) * self.every
        return state, block, recorded, code

    def _keep(self, block: dict[str, np.ndarray], code: int) -> None:
        """Append a block, cut to the first record that spends a budget; drop a record that diverged."""
        self.stop = ("", "target", "diverged")[code]
        length = len(block["step"]) - (self.stop == "diverged")
        for name, limit in self.budget.items():
            over = np.flatnonzero(block[name][:length] >= limit)
            if len(over):
                length, self.stop = int(over[0]) + 1, "finished"
        self.blocks.append({name: series[:length] for name, series in block.items()})
        if length:
            self.totals = np.array([block[name][length - 1] for name in ledger.COSTS])

    def _trace(self, state: PyTree, notes: list[str]) -> Trace:
        series = {name: np.concatenate([b[name] for b in self.blocks]) for name in self.blocks[0]}
        metrics = {name: series.pop(name) for name, _ in self.metrics if name != "value"}
        return Trace(
            method=self.algorithm.name,
            status=self.stop or "finished",
            metrics=metrics,
            initial=self.initial,
            f_star=self.problem.f_star,
            config=self._config(),
            notes=notes,
            state=jax.device_get(state),
            x=np.asarray(self.x, np.float64),
            **series,
        )

    def _config(self) -> dict[str, Any]:
        return {
            "method": self.algorithm.name,
            "hyperparameters": describe(self.hp),
            "problem": describe_problem(self.problem),
            "records": self.records,
            "every": self.every,
            "rel_gap": self.rel_gap,
            "budget": dict(self.budget),
            "key": np.asarray(jax.random.key_data(self.key)).tolist(),
            "compile_seconds": round(self.compile_seconds, 3),
            "seconds": round(self.seconds, 3),
            "memory_bytes": self.memory,
            **environment(),
        }


def _at_most(f_star: float, gap: float, dtype: Any) -> np.floating[Any]:
    """f_star + gap in that dtype, lowered until its difference to f_star is at most `gap`, as Trace.reach asks."""
    number = jnp.dtype(dtype).type(f_star + gap)
    while float(number) - f_star > gap:
        number = np.nextafter(number, jnp.dtype(dtype).type(-np.inf))
    return number


def _start(x0: Any, problem: Problem) -> jax.Array:
    x0 = jnp.asarray(x0, problem.dtype)
    if x0.shape != (problem.dim,):
        raise InputError(f"x0 must have shape ({problem.dim},), got {x0.shape}")
    return x0


def _records(steps: int, every: int) -> tuple[int, int]:
    if int(every) != every or every < 1:
        raise InputError(f"every must be a whole number >= 1, got {every}")
    if int(steps) != steps or steps < every:
        raise InputError(f"steps must be a whole number >= every = {every}, got {steps}")
    return int(steps) // int(every), int(every)


def _cut_note(steps: int, records: int, every: int) -> list[str]:
    done = records * every
    return [] if done == steps else [f"steps cut from {steps} to {done}, a multiple of every = {every}"]


def _metrics(
    algorithm: Algorithm, measure: Sequence[str] | Mapping[str, Metric] | str
) -> tuple[tuple[str, Metric], ...]:
    """(name, function) pairs, F itself first."""
    known = _known_metrics(algorithm)
    if isinstance(measure, Mapping):
        chosen = dict(measure)
    else:
        names = [measure] if isinstance(measure, str) else list(measure)
        for name in names:
            if name not in known:
                raise unknown("metric", name, known)
        chosen = {name: known[name] for name in names}
    return (("value", known["value"]), *((name, f) for name, f in chosen.items() if name != "value"))


@functools.cache
def _known_metrics(algorithm: Algorithm) -> dict[str, Metric]:
    """Metrics by name; all but lyapunov see only the method's point, so no method can report differently."""

    def at_point(f: Callable[[Problem, jax.Array], Scalar]) -> Metric:
        return lambda problem, hp, state: f(problem, algorithm.point(problem, hp, state))

    known = {
        "value": at_point(lambda problem, x: problem.value(x)),
        "grad_norm": at_point(lambda problem, x: jnp.linalg.norm(jnp.mean(problem.grads(x), axis=0))),
        "distance": at_point(lambda problem, x: jnp.linalg.norm(x - problem.x_star)),
    }
    return known if algorithm.lyapunov is None else known | {"lyapunov": algorithm.lyapunov}


@functools.cache
def _begin(algorithm: Algorithm, metrics: tuple[tuple[str, Metric], ...]) -> Callable[..., Any]:
    @jax.jit
    def begin(problem: Problem, hp: Any, key: jax.Array) -> tuple[PyTree, dict[str, Scalar]]:
        state = algorithm.init(problem, hp, jax.random.fold_in(key, INIT_FOLD))
        # Copies, as the state's buffers will be donated and must not be the problem's own.
        return jax.tree.map(jnp.copy, state), {name: f(problem, hp, state) for name, f in metrics}

    return begin


@functools.cache
def _chunk(
    algorithm: Algorithm, every: int, capacity: int, metrics: tuple[tuple[str, Metric], ...]
) -> Callable[..., Any]:
    """The compiled part: up to `count` records of `every` steps, ending early at the target or on divergence."""

    def chunk(  # type: ignore[no-untyped-def]
        problem, hp, state, key, first, count, limits
    ):
        def one_step(state: PyTree, t: jax.Array) -> tuple[PyTree, jax.Array]:
            state, cost = algorithm.step(problem, hp, state, jax.random.fold_in(key, t))
            return state, jnp.stack([jnp.asarray(part, jnp.float32) for part in cost])

        def record(at: _Going) -> _Going:
            steps = first + at.done * every + jnp.arange(every, dtype=jnp.uint32)
            state, costs = jax.lax.scan(one_step, at.state, steps)
            measured = {name: f(problem, hp, state) for name, f in metrics}
            values = {name: at.values[name].at[at.done].set(v) for name, v in measured.items()}
            stop = _stop_code(measured["value"], limits)
            return _Going(at.done + 1, state, at.costs.at[at.done].set(costs), values, stop)

        blank = {name: jnp.zeros(capacity, _result_dtype(f, problem, hp, state)) for name, f in metrics}
        costs = jnp.zeros((capacity, every, len(ledger.COSTS)), jnp.float32)
        start = _Going(jnp.uint32(0), state, costs, blank, jnp.int32(0))
        end = jax.lax.while_loop(lambda at: (at.done < count) & (at.stop == 0), record, start)
        return end.state, algorithm.point(problem, hp, end.state), end.costs, end.values, end.done, end.stop

    return chunk


def _result_dtype(metric: Metric, problem: Problem, hp: Any, state: PyTree) -> Any:
    return jax.eval_shape(metric, problem, hp, state).dtype


def _stop_code(value: Scalar, limits: _Limits) -> jax.Array:
    diverged = ~jnp.isfinite(value) | (value > limits.blow_up)
    return jnp.where(diverged, 2, jnp.where(value <= limits.target, 1, 0)).astype(jnp.int32)


def _count(number: int) -> jax.Array:
    return jnp.asarray(number, jnp.uint32)


def _next_count(count: int, capacity: int, seconds: float) -> int:
    """Records for the next chunk so that it takes about CHUNK_SECONDS, at most four times as many as before."""
    wanted = count * CHUNK_SECONDS / max(seconds, 1e-6)
    return int(max(1, min(wanted, 4 * count, capacity)))


class _Bar:
    """A progress bar that appears after two seconds."""

    def __init__(self, run: _Run) -> None:
        from tqdm import tqdm

        self.f_star, self.every = run.problem.f_star, run.every
        title = f"{run.algorithm.title} ({run.memory / 1e6:.1f} MB)"
        hidden = None if run.progress else True  # None: shown on a terminal only
        self.bar = tqdm(total=run.records * run.every, desc=title, unit=" steps", delay=2, disable=hidden, leave=False)

    def show(self, recorded: int, block: dict[str, np.ndarray]) -> None:
        if recorded and np.isfinite(self.f_star):
            self.bar.set_postfix_str(f"gap {block['value'][-1] - self.f_star:.1e}", refresh=False)
        self.bar.update(recorded * self.every)


@contextlib.contextmanager
def _bar(run: _Run) -> Iterator[_Bar]:
    bar = _Bar(run)
    try:
        yield bar
    finally:
        bar.bar.close()


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C only sets a flag (returned by the yielded function); a second one raises."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
