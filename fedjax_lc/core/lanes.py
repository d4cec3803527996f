"""What a step does once per lane, done well for many lanes: rules that `jax.vmap` follows over a sweep's lanes.

A lane is one run of a sweep. Methods are written for one lane; two kinds of work deserve better than what a plain vmap
makes of them. A branch under a lane's own coin would become work for every lane at every step (`rarely`), and products
of shared data with every lane's own vectors are one matrix product (`per_lane`). Lanes are one flat axis: one vmap.

Derivatives go round the rules by themselves: they are those of the plain branch and of the plain product. `plain()`
goes round them everywhere.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from fedjax_lc.core.platforms import BLOCKS, BOTH_SIDES_OF_LANES_UP_TO, BOTH_SIDES_UP_TO, by_platform, numbers

T = TypeVar("T")

_plain = contextvars.ContextVar("fedjax_lc_plain_lanes", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Trace without the rules of this module; put it inside the function that is traced.

    Example:
        >>> def steps(hp, states, keys):
        ...     with fl.lanes.plain():
        ...         return jax.vmap(functools.partial(alg.step, problem, hp))(states, keys)
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def rarely(coin: jax.Array, talk: Callable[[T], T], operand: T) -> T:
    """`talk(operand)` if `coin` is true, else `operand` itself.

    Over lanes with coins of their own, only lanes whose coin is true pay: they are gathered in blocks, talk, and are
    put back; where no coin is true nothing is done. One coin for all lanes stays a branch. An accelerator, where asking
    for a coin costs more than little work does, lets everyone talk and selects where what all lanes together talk about
    is small: numbers of operands and of arrays that `talk` closes over, up to `platforms.BOTH_SIDES_UP_TO`, or
    BOTH_SIDES_OF_LANES_UP_TO where lanes have coins of their own.

    Args:
        coin: () boolean.
        talk: pure function whose result has the structure, shapes and dtypes of `operand`; it may close over arrays.
        operand: any pytree.

    Example:
        >>> rarely(jnp.array(True), lambda x: x + 1, jnp.array(2))  # Array(3)
    """
    if _plain.get():
        return jax.lax.cond(coin, talk, lambda same: same, operand)
    closed = jax.make_jaxpr(talk)(operand)  # arrays that talk closes over become its first arguments
    leaves, structure = jax.tree.flatten(operand)
    return jax.tree.unflatten(structure, _branch(closed)(coin, closed.consts, leaves))


def _branch(closed: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
    """(coin, consts, leaves) -> leaves, with the rule for lanes."""

    def talk(consts: list[Any], leaves: list[Any]) -> list[Any]:
        said = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*leaves)
        return [jnp.asarray(new, jnp.result_type(old)) for new, old in zip(said, leaves, strict=True)]

    def ask(coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        return jax.lax.cond(coin, talk, lambda _, same: list(same), consts, leaves)

    def both(coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        return [jnp.where(coin, new, old) for new, old in zip(talk(consts, leaves), leaves, strict=True)]

    def shared(lanes: int, coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        small = lanes * numbers((consts, leaves)) <= BOTH_SIDES_UP_TO
        return (by_platform(cpu=ask, accelerator=both) if small else ask)(coin, consts, leaves)

    one = functools.partial(shared, 1)

    branch = custom_vmap(one)

    @branch.def_vmap
    def many(size: int, batched: Any, coin: jax.Array, consts: list[Any], leaves: list[Any]) -> Any:
        ours = _axes(batched[1]), _axes(batched[2])
        if not batched[0]:
            said = jax.vmap(functools.partial(shared, size, coin), ours, axis_size=size)
            return said(consts, leaves), [True] * len(leaves)

        def in_turns(blocks: int) -> Callable[..., list[Any]]:
            return lambda coin, consts, leaves: _in_turns(coin, talk, consts, batched[1], leaves, blocks)

        each = [leaf if b else _repeat(leaf, size) for leaf, b in zip(leaves, batched[2], strict=True)]
        if numbers((consts, each)) > BOTH_SIDES_OF_LANES_UP_TO:
            there = in_turns(BLOCKS["accelerator"])
        else:
            there = jax.vmap(both, (0, ours[0], 0), axis_size=size)
        return by_platform(cpu=in_turns(BLOCKS["cpu"]), accelerator=there)(coin, consts, each), [True] * len(leaves)

    return _with_derivative_of(one, branch)


def _in_turns(
    coins: jax.Array,
    talk: Callable[..., list[Any]],
    consts: list[Any],
    batched: list[bool],
    leaves: list[Any],
    blocks: int,
) -> list[Any]:
    """Leaves (lanes, ...) after the lanes whose coin is true have talked, one of `blocks` blocks of lanes at a time."""
    lanes = coins.shape[0]
    block = -(-lanes // blocks)
    talkers = jnp.sum(coins, dtype=jnp.int32)
    order = jnp.argsort(~coins, stable=True).astype(jnp.int32)
    # Places that hold no talker point beyond the last lane: read as the last lane, and never written.
    order = jnp.concatenate([order, jnp.zeros(block, jnp.int32)])
    place = jnp.arange(lanes + block, dtype=jnp.int32)
    order = jnp.where(place < talkers, order, lanes + place)

    def turn(carry: tuple[jax.Array, list[Any]]) -> tuple[jax.Array, list[Any]]:
        done, leaves = carry
        ids = jax.lax.dynamic_slice(order, (done,), (block,))
        own = [c.at[ids].get(mode="clip") if b else c for c, b in zip(consts, batched, strict=True)]
        said = jax.vmap(talk, (_axes(batched), 0))(own, [leaf.at[ids].get(mode="clip") for leaf in leaves])
        put = lambda leaf, new: leaf.at[ids].set(new, mode="drop", unique_indices=True)
        return done + block, [put(leaf, new) for leaf, new in zip(leaves, said, strict=True)]

    return jax.lax.while_loop(lambda carry: carry[0] < talkers, turn, (jnp.int32(0), leaves))[1]


def per_lane(one: Callable[[Any, T], Any], many: Callable[[Any, T], Any]) -> Callable[[Any, T], Any]:
    """`one(shared, x)`, which over lanes that differ in x alone is `many(shared, xs)`, xs and its result lanes first.

    Example:
        >>> product = per_lane(lambda A, x: A @ x, lambda A, xs: xs @ A.T)
    """
    ruled = custom_vmap(one)

    @ruled.def_vmap
    def rule(size: int, batched: Any, shared: Any, x: T) -> Any:
        if any(jax.tree.leaves(batched[0])) or not all(jax.tree.leaves(batched[1])):
            leaves, structure = jax.tree.flatten((shared, x))
            apply = lambda leaves: one(*jax.tree.unflatten(structure, leaves))
            out = jax.vmap(apply, (_axes(jax.tree.leaves(batched)),), axis_size=size)(leaves)
        else:
            out = many(shared, x)
        return out, jax.tree.map(lambda _: True, out)

    ours = _with_derivative_of(one, ruled)
    return lambda shared, x: (one if _plain.get() else ours)(shared, x)


def _with_derivative_of(one: Callable[..., Any], ruled: Callable[..., Any]) -> Callable[..., Any]:
    """`ruled`, whose derivatives are those of `one`: custom_vmap has no reverse mode, and under vmap its forward mode
    gives wrong shapes where a tangent lacks its primal's lanes."""
    function = jax.custom_jvp(ruled)
    function.defjvp(lambda primals, tangents: jax.jvp(one, primals, tangents))
    return function


def _axes(batched: list[bool]) -> list[int | None]:
    return [0 if b else None for b in batched]


def _repeat(leaf: Any, size: int) -> jax.Array:
    return jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))
