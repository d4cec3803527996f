"""The compiled loop of `run` and `sweep`: after every `every` steps it records metrics and costs and checks limits."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.algorithms.frames.local import Local, members
from fedjax_lc.core.devices import settled
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.typing import Key, PyTree, Scalar
from fedjax_lc.problems import Problem, starts
from fedjax_lc.problems.metric_names import CLIENTS, COHORT, unknown_metric
from fedjax_lc.problems.stacking import X64_LINE
from fedjax_lc.results import ledger

Metric = Callable[[Problem, Any, PyTree], Scalar]


class Metrics(NamedTuple):
    """The metrics that are measured at every record.

    Attributes:
        known: metrics that `problem.measure` computes at the method's point, F ("value") first; they mean the same for
            every method.
        of_state: name and function (problem, hp, state) of metrics of the method's state, such as lyapunov or a user's.
        cohort: whether it is recorded which clients took part in the last step, a round of local training.
    """

    known: tuple[str, ...]
    of_state: tuple[tuple[str, Metric], ...] = ()
    cohort: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.known, *(name for name, _ in self.of_state), *((COHORT,) if self.cohort else ()))

    def at(
        self, algorithm: Algorithm, problem: Problem, hp: Any, state: PyTree, last: tuple[Scalar, Key] | None = None
    ) -> dict[str, Any]:
        """The values of all metrics, by name; `last` is the number and the key of the step that led here."""
        values = problem.measure(algorithm.point(problem, hp, state), self.known)
        values |= {name: f(problem, hp, state) for name, f in self.of_state}
        if self.cohort:
            values[COHORT] = jnp.zeros(problem.n, problem.dtype) if last is None else members(problem, hp, *last)
        return values


INIT_FOLD = 2**32 - 1  #: folded into the key of a run for `init`, as t is for step t
#: a run has diverged when F exceeds F(x_0) by this multiple of the first gap F(x_0) - f_star and by 1 + |F(x_0)|; where
#: no optimum is known, by this multiple of 1 + |F(x_0)|
BLOW_UP = 1e6
CHUNK_RECORDS = 4096  #: records that a chunk can hold at most
CHUNK_SECONDS = 0.25  #: intended time of a chunk, after which the progress bar moves and Ctrl-C takes effect

GO_ON, TARGET, DIVERGED, SPENT = range(4)  #: stop codes
STATUS = {GO_ON: "", TARGET: "target", DIVERGED: "diverged", SPENT: "finished"}


class At(NamedTuple):
    """The loop's carry: the method's state, and the cumulative costs of the run."""

    state: PyTree
    spent: jax.Array  # (2, 4) float32: cumulative costs, and their rounding errors


class Limits(NamedTuple):
    """When a run stops: F <= target, F > blow_up, or a cost >= its budget; never if it is not live (an idle slot)."""

    target: Scalar  # ()
    blow_up: Scalar  # ()
    budget: Any  # (2, 4) float32, split as At.spent is
    live: Scalar  # () boolean


class Ran(NamedTuple):
    """The results of a chunk. Lanes are the first axis of `at`, `x` and `stop`, and the second axis of the buffers."""

    at: At
    x: jax.Array  # (d,)
    costs: jax.Array  # (capacity, every, 4) float32
    values: dict[str, jax.Array]  # (capacity,) each
    done: jax.Array  # () records made
    stop: jax.Array  # () stop code


def start(algorithm: Algorithm, problem: Problem, hp: Any, key: Key, metrics: Metrics) -> tuple[At, dict[str, Scalar]]:
    """The start of a run, before its first step, and the metrics there."""
    problem = problem.at(jnp.uint32(0))
    state = algorithm.init(problem, hp, jax.random.fold_in(key, INIT_FOLD))
    values = metrics.at(algorithm, problem, hp, state)
    return At(state, jnp.zeros((2, len(ledger.COSTS)), jnp.float32)), values


@functools.cache
def chunk(
    algorithm: Algorithm,
    every: int,
    capacity: int,
    metrics: Metrics,
    over_lanes: tuple[PyTree, ...] | None = None,
) -> Callable[..., Ran]:
    """A function (problem, hp, at, key, first, count, limits) -> Ran, to be compiled.

    It makes up to `count` records of `every` steps each, and ends at the first record where a lane stops. `first` is
    the number of the next step, () uint32.

    Args:
        every: steps of one record.
        capacity: records that the buffers hold.
        over_lanes: None for one run; else the axes of lanes of hp's leaves (a tuple), key and first, as for `jax.vmap`.
    """

    def run_chunk(problem: Problem, hp: Any, at: At, key: Key, first: Scalar, count: Scalar, limits: Limits) -> Ran:
        leaves, structure = jax.tree.flatten(hp)

        def record(problem: Problem, leaves: Sequence[Any], at: At, key: Key, first: Scalar, limits: Limits) -> Any:
            return _record(
                algorithm, every, metrics, problem, jax.tree.unflatten(structure, leaves), at, key, first, limits
            )

        def point(leaves: Sequence[Any], at: At) -> jax.Array:
            return algorithm.point(problem, jax.tree.unflatten(structure, leaves), at.state)

        if over_lanes is not None:
            leaf_axes, key_axis, first_axis = over_lanes
            record = jax.vmap(record, (None, list(leaf_axes), 0, key_axis, first_axis, 0))
            point = jax.vmap(point, (list(leaf_axes), 0))

        record = jax.jit(record, inline=True)  # traced once, for its shapes and in the loop

        def advance(so_far: Ran) -> Ran:
            at, costs, values, stop = record(problem, leaves, so_far.at, key, first + so_far.done * every, limits)
            keep = lambda buffer, new: buffer.at[so_far.done].set(new)
            return so_far._replace(
                at=at,
                costs=keep(so_far.costs, costs),
                values=jax.tree.map(keep, so_far.values, values),
                done=so_far.done + 1,
                stop=stop,
            )

        _, costs, values, stop = jax.eval_shape(record, problem, leaves, at, key, first, limits)
        blank = lambda one: jnp.zeros((capacity, *one.shape), one.dtype)
        begun = Ran(at, jnp.zeros(()), blank(costs), jax.tree.map(blank, values), jnp.uint32(0), jnp.zeros_like(stop))
        end = jax.lax.while_loop(lambda it: (it.done < count) & jnp.all(it.stop == GO_ON), advance, begun)
        return end._replace(x=point(leaves, end.at))

    return run_chunk


def _record(
    algorithm: Algorithm,
    every: int,
    metrics: Metrics,
    problem: Problem,
    hp: Any,
    at: At,
    key: Key,
    first: Scalar,
    limits: Limits,
) -> tuple[At, jax.Array, dict[str, Scalar], jax.Array]:
    """`every` steps of one run. Returns the run after them, their costs (every, 4), the metrics and the stop code."""

    def one_step(state: PyTree, t: jax.Array) -> tuple[PyTree, jax.Array]:
        state, cost = algorithm.step(problem.at(t), hp, settled(state, problem.n), jax.random.fold_in(key, t))
        return state, jnp.stack([jnp.asarray(part, jnp.float32) for part in cost])

    state, costs = jax.lax.scan(one_step, at.state, first + jnp.arange(every, dtype=jnp.uint32))
    spent = _add(at.spent, jnp.sum(costs, axis=0))
    last = first + jnp.uint32(every - 1)
    of_cohort = (last, jax.random.fold_in(key, last)) if metrics.cohort else None
    values = metrics.at(algorithm, problem.at(last), hp, state, of_cohort)
    return At(state, spent), costs, values, _stop_code(values["value"], spent, limits)


def _add(total: jax.Array, more: jax.Array) -> jax.Array:
    """total (2, 4) + more (4,); total[1] collects the rounding errors of total[0] (two-sum, exact)."""
    high = total[0] + more
    shown = high - total[0]
    return jnp.stack([high, total[1] + (total[0] - (high - shown)) + (more - shown)])


def _stop_code(value: Scalar, spent: jax.Array, limits: Limits) -> jax.Array:
    over = jnp.any((spent[0] - limits.budget[0]) + (spent[1] - limits.budget[1]) >= 0)
    code = jnp.where(value <= limits.target, TARGET, jnp.where(over, SPENT, GO_ON))
    diverged = ~jnp.isfinite(value) | (value > limits.blow_up)
    return jnp.where(limits.live, jnp.where(diverged, DIVERGED, code), GO_ON).astype(jnp.int32)


# --- what the host decides before the loop starts ---


def make_limits(
    problem: Problem, initial: float, rel_gap: float | None = None, budget: Mapping[str, float] | None = None
) -> Limits:
    """The limits of a run that starts at F = `initial`, as host numbers in the problem's dtype.

    Raises:
        InputError: the target needs an optimum that is unknown, or is finer than the dtype resolves.
    """
    scalar, f_star = jnp.dtype(problem.dtype).type, problem.f_star
    span = max(abs(initial - f_star), (1 + abs(initial)) / BLOW_UP) if np.isfinite(f_star) else 1 + abs(initial)
    target = scalar(-np.inf)
    if rel_gap is not None:
        _check_target(problem, initial, rel_gap)
        target = at_most(f_star, rel_gap * (initial - f_star), problem.dtype)
    return Limits(target, scalar(initial + BLOW_UP * span), _split(budget or {}), np.bool_(True))


def plain_limits(rel_gap: Any, budget: Mapping[str, Any] | None) -> tuple[float | None, dict[str, float]]:
    """`rel_gap` and `budget` as plain numbers.

    Raises:
        InputError: a value is not a number > 0, or the budget names an unknown cost.
    """
    for name in budget or {}:
        if name not in ledger.COSTS:
            raise unknown("budget", name, ledger.COSTS)
    limits = {name: _positive(f"budget {name}", limit) for name, limit in (budget or {}).items()}
    return None if rel_gap is None else _positive("rel_gap", rel_gap), limits


def _positive(what: str, number: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):
        if float(number) > 0:
            return float(number)
    raise InputError(f"{what} must be a number > 0, got {number}")


def _split(budget: Mapping[str, float]) -> np.ndarray:
    """(2, 4) float32: the budget of each cost, and its rounding error."""
    exact = np.array([budget.get(name, np.inf) for name in ledger.COSTS], np.float64)
    high = exact.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return np.stack([high, np.where(np.isinf(exact), 0, exact - high).astype(np.float32)])


def _check_target(problem: Problem, initial: float, rel_gap: float) -> None:
    f_star = problem.f_star
    if not np.isfinite(f_star):
        raise InputError("rel_gap needs a known optimum, and this problem has none: give f_star= to the problem")
    span = max(initial - f_star, 1e-300)
    finest = 2 * float(jnp.finfo(problem.dtype).eps) * max(abs(f_star), abs(initial)) / span
    if rel_gap < finest:
        dtype = jnp.dtype(problem.dtype).name
        cure = f"use float64 ({X64_LINE}), or " if dtype == "float32" else ""
        raise InputError(f"rel_gap {rel_gap:g} is below what {dtype} resolves here: {cure}ask for {finest:.1e} or more")


def at_most(f_star: float, gap: float, dtype: Any) -> np.floating[Any]:
    """f_star + gap in that dtype, lowered until its difference to f_star is at most `gap`, as in `Trace.reach`."""
    f_star, gap = float(f_star), float(gap)
    number = jnp.dtype(dtype).type(f_star + gap)
    while float(number) - f_star > gap:
        number = np.nextafter(number, jnp.dtype(dtype).type(-np.inf))
    return number


def whole_records(steps: int, every: int) -> tuple[int, int, list[str]]:
    """The number of records, steps per record, and a note if steps were cut to a multiple of `every`."""
    for name, number, least, words in (("every", every, 1, "1"), ("steps", steps, every, f"every = {every}")):
        if not least <= number <= INIT_FOLD or int(number) != number:  # NaN and infinity are none of these
            raise InputError(f"{name} must be a whole number >= {words} and < 2^32, got {number}")
    records, every = int(steps) // int(every), int(every)
    done = records * every
    cut = f"steps cut from {steps} to {done}, a multiple of every = {every}"
    return records, every, [] if done == steps else [cut]


def choose_metrics(
    algorithm: Algorithm, problem: Problem, measure: Sequence[str] | Mapping[str, Metric] | str
) -> Metrics:
    """The metrics of a run: F, the problem's usual ones, and those of `measure` (names, or functions by name).

    Raises:
        InputError: neither the problem nor the method knows a name.
    """
    if isinstance(measure, Mapping):
        given = tuple((name, f) for name, f in (_usual(algorithm) | {**measure}).items() if name != "value")
        return Metrics(("value", *(name for name in problem.usual_metrics if name not in measure)), given)
    names = [measure] if isinstance(measure, str) else list(measure)
    extra, usual = _of_the_method(algorithm, problem), _usual(algorithm)
    cohort = issubclass(algorithm.Hparams, Local)
    by_client = [name for name in problem.metrics if name.startswith("client_")]
    if by_client and CLIENTS in names:
        names = [*(name for name in names if name != CLIENTS), *by_client, *((COHORT,) if cohort else ())]
    for name in names:
        known = ("value", *problem.metrics, *extra, *((CLIENTS,) if by_client else ()), *((COHORT,) if cohort else ()))
        if name not in known:
            raise unknown_metric(name, known)
    plain = [name for name in names if name not in extra and name != COHORT]
    of_state = tuple((name, f) for name, f in extra.items() if name in names or name in usual)
    return Metrics(tuple(dict.fromkeys(["value", *problem.usual_metrics, *plain])), of_state, COHORT in names)


@functools.cache
def _error_norm(algorithm: Algorithm) -> Metric:
    return lambda problem, hp, state: jnp.linalg.norm(algorithm.error(problem, hp, state))  # type: ignore[misc]


@functools.cache
def _consensus(algorithm: Algorithm) -> Metric:
    """mean_i |x_i - xbar|^2."""

    def consensus(problem: Problem, hp: Any, state: PyTree) -> Scalar:
        x = algorithm.models(problem, hp, state)  # type: ignore[misc]
        return jnp.sum((x - jnp.mean(x, axis=0)[None]) ** 2) / len(x)

    return consensus


@functools.cache
def _worst(algorithm: Algorithm) -> Metric:
    """max_i F(x_i) - f_star; max_i F(x_i) where no minimiser can be computed. It costs n evaluations of F."""

    def worst(problem: Problem, hp: Any, state: PyTree) -> Scalar:
        most = jnp.max(jax.lax.map(problem.value, algorithm.models(problem, hp, state)))  # type: ignore[misc]
        if problem.given_f_star is not None:
            return most - problem.given_f_star
        return most - problem.value(problem.x_star) if problem.solvable else most

    return worst


def _usual(algorithm: Algorithm) -> dict[str, Metric]:
    """Metrics of the method's state that every run of it records, by name."""
    return {"consensus": _consensus(algorithm)} if algorithm.models else {}


def _of_the_method(algorithm: Algorithm, problem: Problem) -> dict[str, Metric]:
    """Metrics of the method's state, by name."""
    metrics: dict[str, Metric] = {}
    if algorithm.lyapunov and problem.solvable:
        metrics["lyapunov"] = algorithm.lyapunov
    if algorithm.error:
        metrics["error_norm"] = _error_norm(algorithm)
    if algorithm.models:
        metrics |= _usual(algorithm) | {"worst": _worst(algorithm)}
    return metrics


def needs_solution(metrics: Metrics) -> bool:
    """Whether a metric needs x_star inside the compiled loop."""
    return bool({"distance", "lyapunov", "worst"} & {*metrics.names})


def start_at(x0: Any, problem: Problem) -> tuple[Problem, list[str]]:
    """The problem with the start x0, and remarks on it; unchanged if x0 is None."""
    if x0 is None:
        return problem, []
    x, remark = starts.start(problem, x0)
    return problem.replace(x0=x), [remark] if remark else []


def next_count(count: int, capacity: int, seconds: float) -> int:
    """Records of the next chunk, so that it takes about CHUNK_SECONDS; at most four times as many as before."""
    wanted = count * CHUNK_SECONDS / max(seconds, 1e-6)
    return int(max(1, min(wanted, 4 * count, capacity)))
