"""Parts of `fedjax-lc bench gpu` on methods: whether they are right there, and what a step of one run or lane takes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import harness, rivals
from experiments.bench.gpu_common import (
    AT_ONCE,
    NO_TIME,
    Given,
    Told,
    called,
    judged,
    missing,
    raced,
    ran,
    side_by_side,
    swept,
    us,
)
from experiments.bench.harness import Contestant, Target, ratio
from experiments.bench.workloads import Work, w1, with_plain_branches
from fedjax_lc import algorithms
from fedjax_lc.core import pytree
from fedjax_lc.problems import Problem

ALIKE = 1e-12  #: the most by which a GPU's float64 result may differ from a CPU's, relative
SHOWN = 5
PRECISE = 3e-7  #: the most by which a float32 gradient may be off, relative
CHANCE = 0.1  #: LoCoDL's p
OVER_GRADIENT, MANY = 1.6, 1024  #: the most of LoCoDL over the lane's gradient alone, from so many lanes on

# --- right: every method on the GPU and on the CPU ---


def right(given: Given) -> dict[str, Any]:
    """Largest difference of the points of every method, relative to the point; None where no time was left."""
    sizes, names = given.sizes, given.sizes.methods or tuple(algorithms.names())
    problem = w1(sizes.right, "float64").problem
    with harness.bar(len(names), "right", given.progress) as bar:

        def one(name: str) -> float | None:
            found = None if given.late else difference(name, problem, sizes.right_steps)
            bar.update()
            return found

        gaps = dict(zip(names, side_by_side(one, names, AT_ONCE), strict=True))
    return {"gaps": gaps, "steps": sizes.right_steps}


def difference(name: str, problem: Problem, steps: int) -> float:
    """Between this device and the CPU; infinite where one of them is no number."""
    method = algorithms.get(name)
    hp = pytree.cast(method.theory(problem), problem.dtype)
    here, there = (walk(method, problem, hp, steps, device) for device in (jax.devices()[0], jax.devices("cpu")[0]))
    gap = float(np.max(np.abs(here - there)) / np.max(np.abs(there)))
    return gap if math.isfinite(gap) else math.inf


def walk(method: Any, problem: Problem, hp: Any, steps: int, device: Any) -> np.ndarray:
    """The method's point (d,) after so many steps on a device."""

    @jax.jit
    def steps_of(problem: Problem, hp: Any, key: jax.Array) -> jax.Array:
        one = lambda state, t: (method.step(problem, hp, state, jax.random.fold_in(key, t))[0], None)
        state = jax.lax.scan(one, method.init(problem, hp, key), jnp.arange(steps))[0]
        return method.point(problem, hp, state)

    with jax.default_device(device):
        return np.asarray(steps_of(*jax.device_put((problem, hp, jax.random.key(0)), device)))


def tell_right(found: Mapping[str, Any]) -> Told:
    gaps = {name: gap for name, gap in found["gaps"].items() if gap is not None}
    late = {"missing": {name: NO_TIME for name, gap in found["gaps"].items() if gap is None}}
    worst = sorted(gaps, key=gaps.__getitem__, reverse=True)
    if not worst:
        return Told([], missing({"rows": {}, **late}), [])
    target = Target(f"(right) GPU against CPU, {len(gaps)} methods, in 1e-12", 1e12 * ALIKE, 1e12 * gaps[worst[0]])
    told = lambda name, gap, verdicts: {"methods": name, "largest relative difference": f"{gap:.1e}", **verdicts}
    all_ = f"all {len(gaps)}, {found['steps']} steps, float64"
    rows = [told(all_, gaps[worst[0]], judged(target) | {"target": f"<= {ALIKE:g}"})]
    rows += [told(name, gaps[name], judged(None)) for name in worst[:SHOWN]]
    return Told([rows], [f"those shown differ most, of {len(gaps)}", *missing({"rows": {}, **late})], [target])


# --- precision: float32 gradients ---

ONE, LANES = "one run, grads", "lanes, lane_grads"
DEFAULT, HIGHEST = "lanes, two einsums, XLA's default precision", "lanes, two einsums, highest precision"


@partial(jax.jit, static_argnames="precision")
def products_by_hand(A: jax.Array, b: jax.Array, l2: Any, X: jax.Array, precision: str) -> jax.Array:
    """(lanes, n, d) logistic gradients at X (lanes, n, d), as two einsums."""
    z = jnp.einsum("lnd,nmd->nlm", X, A, precision=precision)
    slopes = -b[:, None] / (b.shape[-1] * (1 + jnp.exp(b[:, None] * z)))
    return jnp.einsum("nlm,nmd->lnd", slopes, A, precision=precision) + l2 * X


_grads = jax.jit(lambda problem, x: problem.grads(x))
_lane_grads = jax.jit(lambda problem, X: problem.lane_grads(X))


def precision(given: Given) -> dict[str, Any]:
    sizes, work = given.sizes, w1(given.sizes.w1)
    ways = lane_ways(work)
    X = points(work, sizes.precise_lanes)
    exact = np.stack([exact_grads(work, own) for own in X])
    x = X[0, 0]
    errors = {ONE: error(_grads(work.problem, x), exact_grads(work, np.tile(x, (len(work.A), 1))))}
    errors |= {name: error(way(X), exact) for name, way in ways.items()}
    many = jnp.asarray(points(work, sizes.timed_lanes))
    makers = {name: partial(called, way, many, calls=sizes.calls, rounds=len(many)) for name, way in ways.items()}
    about = {"errors": errors, "lanes": sizes.precise_lanes, "timed_lanes": len(many)}
    return raced(makers, given, "precision") | about


def lane_ways(work: Work) -> dict[str, Callable[[Any], jax.Array]]:
    """Gradients of lanes, as functions of their points (lanes, n, d)."""
    problem, data = work.problem.for_lanes(), (jnp.asarray(work.A), jnp.asarray(work.b), jnp.float32(work.l2))
    by_hand = lambda precision: lambda X: products_by_hand(*data, X, precision=precision)
    return {LANES: lambda X: _lane_grads(problem, X), DEFAULT: by_hand("default"), HIGHEST: by_hand("highest")}


def points(work: Work, lanes: int) -> np.ndarray:
    """(lanes, n, d) at random."""
    n, _, d = work.A.shape
    return np.random.default_rng(1).standard_normal((lanes, n, d)).astype(work.A.dtype)


def exact_grads(work: Work, X: np.ndarray) -> np.ndarray:
    """(n, d) float64 gradients of the clients, each at its own row of X, of the same data."""
    wide = zip(*(np.asarray(array, np.float64) for array in (work.A, work.b, X)), strict=True)
    return np.stack([rivals.gradient(A, b, work.l2, x) for A, b, x in wide])


def error(found: Any, exact: np.ndarray) -> float:
    """Relative, in the Euclidean norm."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


def tell_precision(found: Mapping[str, Any]) -> Told:
    rows, targets = [], []
    for name, off in found["errors"].items():
        ours = name in (ONE, LANES)
        target = Target(f"(precision) {name}, float32 against float64, in 1e-7", 1e7 * PRECISE, 1e7 * off)
        targets += [target] * ours
        rows.append(
            {
                "gradient": name,
                "relative error": f"{off:.1e}",
                "us per lane": us(found, name, 3),
                **judged(target if ours else None),
            }
        )
        rows[-1]["target"] = f"<= {PRECISE:g}" if ours else "-"
    notes = [f"errors of {found['lanes']} lanes, times of {found['timed_lanes']}; W1, float32"]
    return Told([rows], [*notes, *missing(found)], targets)


# --- single: one run ---


class Entry(NamedTuple):
    """A method with choices of its theory, and the most microseconds that a step of it may take."""

    label: str
    method: str
    choices: Mapping[str, Any]
    most: float | None = None


GD, FEDAVG = "GD", "FedAvg, {} local steps"
GD_BY_HAND, FEDAVG_BY_HAND = "GD by hand", "FedAvg by hand, {} local steps {}"
IN_A_SCAN, UNROLLED = "in a scan", "unrolled"


def entries(k: int, local_steps: int) -> tuple[Entry, ...]:
    """The methods, with k of d coordinates sent."""
    return (
        Entry(GD, "gd", {}),
        Entry(f"DIANA, rand_k:{k}", "diana", {"compressor": f"rand_k:{k}"}, 35),
        Entry(f"LoCoDL, rand_k:{k}, p={CHANCE:g}", "locodl", {"compressor": f"rand_k:{k}", "p": CHANCE}, 45),
        Entry(f"EF21, top_k:{k}", "ef21", {"compressor": f"top_k:{k}"}, 35),
        Entry(FEDAVG.format(local_steps), "fedavg", {"local_steps": local_steps}, 80),
        *(Entry(algorithms.get(name).title, name, {}) for name in ("adiana", "mcm", "savic", "liec_sgd", "scaffnew")),
    )


@partial(jax.jit, static_argnames="steps")
def gd_by_hand(A: jax.Array, b: jax.Array, l2: Any, gamma: Any, steps: int) -> jax.Array:
    """Plain JAX: x (d,) after so many steps; the rows of all clients are one matrix."""
    rows, signs = A.reshape(-1, A.shape[-1]), b.reshape(-1)

    def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        slopes = -signs / (signs.size * (1 + jnp.exp(signs * (rows @ x))))
        return x - gamma * (slopes @ rows + l2 * x), None

    return jax.lax.scan(one, jnp.zeros(A.shape[-1], A.dtype), None, length=steps)[0]


@partial(jax.jit, static_argnames=("local_steps", "rounds", "unroll"))
def fedavg_by_hand(
    A: jax.Array, b: jax.Array, l2: Any, client_lr: Any, local_steps: int, rounds: int, unroll: int
) -> jax.Array:
    """Plain JAX: x (d,) after so many rounds, the local steps in a scan with that unroll."""

    def local(X: jax.Array, _: None) -> tuple[jax.Array, None]:
        slopes = -b / (b.shape[-1] * (1 + jnp.exp(b * jnp.einsum("nmd,nd->nm", A, X))))
        return X - client_lr * (jnp.einsum("nm,nmd->nd", slopes, A) + l2 * X), None

    def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        X = jnp.broadcast_to(x, (A.shape[0], A.shape[-1]))
        return jnp.mean(jax.lax.scan(local, X, None, length=local_steps, unroll=unroll)[0], axis=0), None

    return jax.lax.scan(one, jnp.zeros(A.shape[-1], A.dtype), None, length=rounds)[0]


def single_ways(work: Work, local_steps: int, steps: int) -> dict[str, Callable[[], jax.Array]]:
    """What is written by hand: functions that give x (d,) after so many steps of GD or rounds of FedAvg."""
    data, K = (jnp.asarray(work.A), jnp.asarray(work.b), jnp.asarray(work.l2, work.A.dtype)), local_steps
    theory = lambda method, field, **choices: float(
        getattr(algorithms.get(method).theory(work.problem, **choices), field)
    )
    gamma, lr = theory("gd", "gamma"), theory("fedavg", "client_lr", local_steps=K)
    return {
        GD_BY_HAND: lambda: gd_by_hand(*data, gamma, steps=steps),
        FEDAVG_BY_HAND.format(K, IN_A_SCAN): lambda: fedavg_by_hand(*data, lr, K, steps, unroll=1),
        FEDAVG_BY_HAND.format(K, UNROLLED): lambda: fedavg_by_hand(*data, lr, K, steps, unroll=K),
    }


def single(given: Given) -> dict[str, Any]:
    sizes, work = given.sizes, w1(given.sizes.w1)

    def ours(entry: Entry) -> Contestant:
        return ran(entry.method, work, algorithms.get(entry.method).theory(work.problem, **entry.choices), sizes.steps)

    K = sizes.w1.local_steps
    chosen = [entry for entry in entries(sizes.w1.k, K) if entry.method in (sizes.methods or [entry.method])]
    makers = {entry.label: partial(ours, entry) for entry in chosen}
    for name, way in single_ways(work, K, sizes.steps).items():
        makers[name] = partial(called, way, calls=1, rounds=sizes.steps)
    return raced(makers, given, "single") | {"k": sizes.w1.k, "local_steps": K}


def tell_single(found: Mapping[str, Any]) -> Told:
    K = found["local_steps"]
    most = {entry.label: entry.most for entry in entries(found["k"], K)}
    beside = {GD: GD_BY_HAND, FEDAVG.format(K): FEDAVG_BY_HAND.format(K, UNROLLED)}
    rows, targets = [], []
    for name, row in found["rows"].items():
        target = Target(f"(single) {name}, us a step", most[name], 1e3 * row["ms"]) if most.get(name) else None
        targets += [target] if target else []
        rival = beside.get(name, "")
        over = str(ratio(found["rows"], name, rival)) if rival in found["rows"] else "-"
        rows.append({"method": name, "us a step": us(found, name), "over by hand [turns]": over, **judged(target)})
    return Told([rows], ["W1, float32; of a whole run's loop; a step of FedAvg is a round", *missing(found)], targets)


# --- lanes: many runs at once ---

LOCODL, GRADIENT, COPY, PLAIN = "LoCoDL", "gradient alone", "x and u read and written", "LoCoDL, plain lax.cond"


def lanes(given: Given) -> dict[str, Any]:
    """Contestants are named "what, lanes"."""
    sizes, work = given.sizes, w1(given.sizes.w1)
    method = algorithms.get("locodl")
    hp = method.theory(work.problem, compressor=f"rand_k:{sizes.w1.k}", p=CHANCE)
    makers: dict[str, Callable[[], Contestant]] = {}
    for count in sizes.lanes:
        steps = sizes.steps_of(count)
        makers[f"{LOCODL}, {count}"] = partial(swept, method, work, hp, count, steps)
        makers[f"{GRADIENT}, {count}"] = partial(gradient_alone, work, count, steps)
        makers[f"{COPY}, {count}"] = partial(moved, work, count, sizes.calls)
    for count in sizes.plain_lanes:
        plain = with_plain_branches(method)
        makers[f"{PLAIN}, {count}"] = partial(swept, plain, work, hp, count, max(1, sizes.steps_of(count) // 4))
    return raced(makers, given, "lanes") | {"lanes": list(sizes.lanes)}


@functools.cache
def _iterated(turns: int) -> Callable[..., jax.Array]:
    return jax.jit(
        lambda problem, X: jax.lax.fori_loop(np.int32(0), np.int32(turns), lambda _, X: problem.lane_grads(X), X)
    )


def gradient_alone(work: Work, count: int, turns: int) -> Contestant:
    """The gradients of so many lanes, each at the last gradients: nothing else is read or written."""
    X = jnp.asarray(points(work, count))
    return called(_iterated(turns), work.problem.for_lanes(), X, calls=1, rounds=turns * count)


def moved(work: Work, count: int, calls: int) -> Contestant:
    """LoCoDL's x and u of so many lanes, read and written once a step."""
    x = jnp.asarray(points(work, count))
    return called(jax.jit(lambda x, u: (2 * x, 2 * u)), x, x + 1, calls=calls, rounds=count)


def tell_lanes(found: Mapping[str, Any]) -> Told:
    rows, targets = [], []
    for count in found["lanes"]:
        name = lambda what, count=count: f"{what}, {count}"
        pair = (name(LOCODL), name(GRADIENT))
        both = all(each in found["rows"] for each in pair)
        over = ratio(found["rows"], *pair) if both else None
        what = f"(lanes) {count} lanes, LoCoDL / gradient alone"
        target = Target(what, OVER_GRADIENT, over.median) if over and count >= MANY else None
        targets += [target] if target else []
        rows.append(
            {
                "lanes": str(count),
                "LoCoDL, us per lane-step": us(found, name(LOCODL), 2),
                GRADIENT: us(found, name(GRADIENT), 3),
                "over it [turns]": str(over) if over else "-",
                "plain lax.cond": us(found, name(PLAIN), 2),
                COPY: us(found, name(COPY), 3),
                **judged(target),
            }
        )
    notes = [f"W1, float32, p = {CHANCE:g}, a coin of its own in every lane; small numbers of lanes wait for launches"]
    return Told([rows], [*notes, *missing(found)], targets)
