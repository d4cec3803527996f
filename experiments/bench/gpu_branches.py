"""Part `branches` of `fedjax-lc bench gpu`: what a branch costs by asking for its coin and by computing both sides, and
what it saves to unroll a loop of local steps, for operands of some thousand to some million numbers.

`platforms.BOTH_SIDES_UP_TO`, `BOTH_SIDES_OF_LANES_UP_TO` and `UNROLL` follow from it. What is said when the coin is
true costs as much as a compression: rand-k of every row.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.gpu_common import AT_ONCE, CHOSEN, Given, Told, called, judged, missing, raced, us
from experiments.bench.harness import Contestant, Target, ratio
from fedjax_lc import compressors
from fedjax_lc.core import lanes, platforms

D, RAND_K = 128, "rand_k:12"  #: of a row
CHANCE, SHRINK = 0.1, 0.999
MOST_LANES = 256
LOCAL_STEPS, UNROLLS = 10, (1, 2, 5, 10)
ONE, OVER = "one run", "over lanes"
ASK, BOTH, OURS = "asking", "both sides", "as the package chooses"

Branch = Callable[[jax.Array, Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
_tracing = threading.Lock()  # limits are the module's own, and programs are made side by side


def ask(coin: jax.Array, talk: Callable[[jax.Array], jax.Array], X: jax.Array) -> jax.Array:
    """Over lanes, those whose coin is true talk in turns."""
    return lanes.rarely(coin, talk, X)


def by_cond(coin: jax.Array, talk: Callable[[jax.Array], jax.Array], X: jax.Array) -> jax.Array:
    return jax.lax.cond(coin, talk, lambda X: X, X)


def both_sides(coin: jax.Array, talk: Callable[[jax.Array], jax.Array], X: jax.Array) -> jax.Array:
    return jnp.where(coin, talk(X), X)


#: per place, ways of branching, and the limit of `lanes` under which they are traced, None for its own
BRANCHES: dict[str, dict[str, tuple[Branch, int | None]]] = {
    ONE: {ASK: (by_cond, None), BOTH: (both_sides, None), OURS: (lanes.rarely, None)},
    OVER: {ASK: (ask, 0), BOTH: (both_sides, None), OURS: (lanes.rarely, None)},
}


def one_step(branch: Branch, X: jax.Array, key: jax.Array) -> jax.Array:
    """Shrinks X (rows, D), and compresses it if a coin is true."""
    coin_key, own = jax.random.split(key)
    compressor = compressors.parse(RAND_K)
    talk = lambda X: X - compressor.joint(own, X).value / D
    return branch(jax.random.bernoulli(coin_key, CHANCE), talk, SHRINK * X)


def operand(place: str, numbers: int) -> jax.Array:
    """(rows, D) of so many numbers, or (lanes, rows, D)."""
    rows = max(1, numbers // D)
    count = max(1, min(MOST_LANES, rows // 2))
    shape = (rows, D) if place == ONE else (count, max(1, rows // count), D)
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def stepped(place: str, name: str, turns: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(X, key) -> X after so many turns."""
    branch, _ = BRANCHES[place][name]

    def steps(X: jax.Array, key: jax.Array) -> jax.Array:
        def turn(X: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            own = jax.random.fold_in(key, t)
            if place == ONE:
                return one_step(branch, X, own), None
            return jax.vmap(partial(one_step, branch))(X, jax.random.split(own, X.shape[0])), None

        return jax.lax.scan(turn, X, jnp.arange(turns))[0]

    return steps


def _limited(limit: int | None) -> contextlib.AbstractContextManager[Any]:
    """`lanes` computes both sides up to `limit` numbers; None: as it does by itself."""
    if limit is None:
        return contextlib.nullcontext()
    return mock.patch.object(lanes, "BOTH_SIDES_OF_LANES_UP_TO", limit)


@functools.cache
def branching(place: str, name: str, numbers: int, turns: int) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Turns of `one_step`, compiled, and what they start from."""
    start, limit = (operand(place, numbers), jax.random.key(0)), BRANCHES[place][name][1]
    with _tracing, _limited(limit):
        lowered = jax.jit(stepped(place, name, turns)).lower(*start)
    return lowered.compile(), start


def branched(place: str, name: str, numbers: int, turns: int) -> Contestant:
    """A round is a turn, of all lanes."""
    program, start = branching(place, name, numbers, turns)
    return called(program, *start, calls=1, rounds=turns)


# --- loops of local steps ---


def loops() -> dict[str, Callable[..., jax.Array]]:
    """Ways of (one, X) -> X after LOCAL_STEPS times `one`."""

    def unrolled(unroll: int, one: Callable[..., Any], X: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(np.int32(0), np.int32(LOCAL_STEPS), one, X, unroll=unroll)

    chosen = {OURS: lambda one, X: platforms.repeat(LOCAL_STEPS, one, X)}
    return {f"unroll {unroll}": partial(unrolled, unroll) for unroll in UNROLLS} | chosen


def rounds_of(name: str, turns: int) -> Callable[..., jax.Array]:
    """(X, M) -> X after so many rounds of local steps, X moved by X M in each."""
    loop = loops()[name]

    def steps(X: jax.Array, M: jax.Array) -> jax.Array:
        one = lambda _, X: X - 0.01 * jnp.matmul(X, M, precision="highest")
        return jax.lax.scan(lambda X, _: (loop(one, X), None), X, None, length=turns)[0]

    return steps


@functools.cache
def looping(name: str, numbers: int, turns: int) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Rounds of local steps, compiled, and what they start from."""
    start = operand(ONE, numbers), jnp.eye(D, dtype=jnp.float32)
    return jax.jit(rounds_of(name, turns)).lower(*start).compile(), start


def looped(name: str, numbers: int, turns: int) -> Contestant:
    """A round is LOCAL_STEPS local steps."""
    program, start = looping(name, numbers, turns)
    return called(program, *start, calls=1, rounds=turns)


def branches(given: Given) -> dict[str, Any]:
    """Contestants are named "place, numbers, way"."""
    turns, sizes = given.sizes.turns, given.sizes.numbers
    makers = {
        f"{place}, {numbers}, {name}": partial(branched, place, name, numbers, turns)
        for place, names in BRANCHES.items()
        for numbers in sizes
        for name in names
    }
    unrolled = {
        f"{numbers}, {name}": partial(looped, name, numbers, turns) for numbers in sizes for name in loops()
    }  # one at a time: for products, XLA tries kernels out
    return {
        "numbers": list(sizes),
        "branches": raced(makers, given, "branches", AT_ONCE),
        "loops": raced(unrolled, given, "local steps"),
        "limits": {
            "both sides": platforms.BOTH_SIDES_UP_TO,
            "both sides, lanes": platforms.BOTH_SIDES_OF_LANES_UP_TO,
            "unroll": platforms.UNROLL,
        },
    }


def tell_branches(found: Mapping[str, Any]) -> Told:
    branched, looped = found["branches"], found["loops"]
    tables: list[list[dict[str, str]]] = [[], []]
    targets, notes = list[Target](), list[str]()
    for place, ways in BRANCHES.items():
        faster = dict[str, str]()
        for numbers in found["numbers"]:
            names = {way: f"{place}, {numbers}, {way}" for way in ways}
            row, target, best = _row(branched, {"branch": place, "numbers": power(numbers)}, names)
            tables[0].append(row)
            targets += [target] if target else []
            faster |= {power(numbers): best} if best else {}
        notes += [f"{place}, the faster way: " + ", ".join(f"{numbers} {way}" for numbers, way in faster.items())]
    for numbers in found["numbers"]:
        names = {way: f"{numbers}, {way}" for way in loops()}
        row, target, _ = _row(looped, {"loop": f"{LOCAL_STEPS} local steps", "numbers": power(numbers)}, names)
        tables[1].append(row)
        targets += [target] if target else []
    limits = found["limits"]
    notes.append(f"on an accelerator the package computes both sides of {power(limits['both sides'])} numbers and "
                 f"fewer, over lanes of {power(limits['both sides, lanes'])}, and unrolls loops of up to "
                 f"{limits['unroll']} steps")  # fmt: skip
    notes.append(f"us a turn; coins are true with probability {CHANCE:g}; over lanes, {ASK} means in turns, and "
                 f"numbers are those of all lanes, {MOST_LANES} at most")  # fmt: skip
    return Told(tables, [*notes, *missing(branched), *missing(looped)], targets)


def _row(
    race: Mapping[str, Any], head: dict[str, str], names: dict[str, str]
) -> tuple[dict[str, str], Target | None, str]:
    """A row of ways, what the package chooses judged by the fastest of the others, and which that is."""
    there = {way: race["rows"][name]["ms"] for way, name in names.items() if name in race["rows"] and way != OURS}
    best, target = min(there, key=there.__getitem__, default=""), None
    if best and names[OURS] in race["rows"]:
        over = ratio(race["rows"], names[OURS], names[best]).median
        target = Target(f"(branches) {', '.join(head.values())}: as chosen / the fastest", CHOSEN, over)
    cells = {way: us(race, name, 0) for way, name in names.items()}
    own = f"{target.measured:.2f}" if target else "-"
    return {**head, **cells, "chosen / the fastest": own, **judged(target)}, target, best


def power(numbers: int) -> str:
    """2^19, or the number itself where it is no power."""
    return f"2^{numbers.bit_length() - 1}" if numbers & (numbers - 1) == 0 else f"{numbers:,}"
