"""Batching rules that make `jax.vmap` over the lanes of a sweep efficient.

A lane is one run of a sweep: one configuration with one seed. A method's step is written for one lane and vmapped over
a single flat axis of lanes. Two operations have a custom batching rule. `rarely` is a branch: plain vmap would execute
it for all lanes at every step, the rule executes it only for lanes whose coin is true. `per_lane` is a product of
shared data with one vector per lane: the rule makes it one matrix product.

Derivatives do not use the rules: they are those of the plain branch and the plain product. `plain()` turns the rules
off.
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

from fedjax_lc.core.platforms import BLOCKS, BOTH_SIDES_OF_LANES_UP_TO, BOTH_SIDES_UP_TO, by_platform, entry_count

T = TypeVar("T")

_plain = contextvars.ContextVar("fedjax_lc_plain_lanes", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Trace without the batching rules of this module; enter it inside the function that is traced.

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
    """`talk(operand)` if `coin` is true, else `operand` unchanged: a communication that happens at random.

    Over lanes with one coin each, `talk` is computed only for lanes whose coin is true: they are gathered, processed
    one block of lanes at a time, and written back. One coin shared by all lanes stays a branch. On an accelerator,
    where a branch costs more than a small computation, `talk` is computed for all lanes and the result selected by the
    coin, provided that its arguments (operands and arrays it closes over) hold at most `platforms.BOTH_SIDES_UP_TO`
    numbers, or BOTH_SIDES_OF_LANES_UP_TO with one coin per lane.

    Args:
        coin: () boolean.
        talk: pure function; its result has the structure, shapes and dtypes of `operand`. It may close over arrays.
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
    """`rarely` on flat arguments: (coin, consts, leaves) -> leaves, with the batching rule."""

    def talk(consts: list[Any], leaves: list[Any]) -> list[Any]:
        outputs = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*leaves)
        return [jnp.asarray(new, jnp.result_type(old)) for new, old in zip(outputs, leaves, strict=True)]

    def branch_on(coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        return jax.lax.cond(coin, talk, lambda _, same: list(same), consts, leaves)

    def both(coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        return [jnp.where(coin, new, old) for new, old in zip(talk(consts, leaves), leaves, strict=True)]

    def shared(lanes: int, coin: jax.Array, consts: list[Any], leaves: list[Any]) -> list[Any]:
        small = lanes * entry_count((consts, leaves)) <= BOTH_SIDES_UP_TO
        return (by_platform(cpu=branch_on, accelerator=both) if small else branch_on)(coin, consts, leaves)

    one = functools.partial(shared, 1)

    branch = custom_vmap(one)

    @branch.def_vmap
    def many(size: int, batched: Any, coin: jax.Array, consts: list[Any], leaves: list[Any]) -> Any:
        axes = _axes(batched[1]), _axes(batched[2])
        if not batched[0]:
            mapped = jax.vmap(functools.partial(shared, size, coin), axes, axis_size=size)
            return mapped(consts, leaves), [True] * len(leaves)

        def by_blocks(blocks: int) -> Callable[..., list[Any]]:
            return lambda coin, consts, leaves: _by_blocks(coin, talk, consts, batched[1], leaves, blocks)

        each = [leaf if b else _repeat(leaf, size) for leaf, b in zip(leaves, batched[2], strict=True)]
        if entry_count((consts, each)) > BOTH_SIDES_OF_LANES_UP_TO:
            accelerated = by_blocks(BLOCKS["accelerator"])
        else:
            accelerated = jax.vmap(both, (0, axes[0], 0), axis_size=size)
        chosen = by_platform(cpu=by_blocks(BLOCKS["cpu"]), accelerator=accelerated)
        return chosen(coin, consts, each), [True] * len(leaves)

    return _with_derivative_of(one, branch)


def _by_blocks(
    coins: jax.Array,
    talk: Callable[..., list[Any]],
    consts: list[Any],
    batched: list[bool],
    leaves: list[Any],
    blocks: int,
) -> list[Any]:
    """Apply `talk` to the lanes whose coin is true, one block of lanes after the other; `blocks` cover all lanes."""
    lanes = coins.shape[0]
    block = -(-lanes // blocks)
    talkers = jnp.sum(coins, dtype=jnp.int32)
    order = jnp.argsort(~coins, stable=True).astype(jnp.int32)
    # Unused places of a block hold an index beyond the last lane: reads are clipped to it, writes are dropped.
    order = jnp.concatenate([order, jnp.zeros(block, jnp.int32)])
    place = jnp.arange(lanes + block, dtype=jnp.int32)
    order = jnp.where(place < talkers, order, lanes + place)

    def one_block(carry: tuple[jax.Array, list[Any]]) -> tuple[jax.Array, list[Any]]:
        done, leaves = carry
        ids = jax.lax.dynamic_slice(order, (done,), (block,))
        gathered = [c.at[ids].get(mode="clip") if b else c for c, b in zip(consts, batched, strict=True)]
        outputs = jax.vmap(talk, (_axes(batched), 0))(gathered, [leaf.at[ids].get(mode="clip") for leaf in leaves])
        put = lambda leaf, new: leaf.at[ids].set(new, mode="drop", unique_indices=True)
        return done + block, [put(leaf, new) for leaf, new in zip(leaves, outputs, strict=True)]

    return jax.lax.while_loop(lambda carry: carry[0] < talkers, one_block, (jnp.int32(0), leaves))[1]


def per_lane(one: Callable[[Any, T], Any], many: Callable[[Any, T], Any]) -> Callable[[Any, T], Any]:
    """A function (shared, x) that computes `one(shared, x)`, or `many(shared, xs)` over lanes that differ only in x.

    The first axis of xs, and of the result of `many`, is the lanes.

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

    batched_one = _with_derivative_of(one, ruled)
    return lambda shared, x: (one if _plain.get() else batched_one)(shared, x)


def _with_derivative_of(one: Callable[..., Any], ruled: Callable[..., Any]) -> Callable[..., Any]:
    """`ruled` with the derivatives of `one`: custom_vmap has no reverse mode, and under vmap its forward mode gives
    wrong shapes where a tangent lacks the axis of lanes that its primal has."""
    function = jax.custom_jvp(ruled)
    function.defjvp(lambda primals, tangents: jax.jvp(one, primals, tangents))
    return function


def _axes(batched: list[bool]) -> list[int | None]:
    return [0 if b else None for b in batched]


def _repeat(leaf: Any, size: int) -> jax.Array:
    return jnp.broadcast_to(leaf, (size, *jnp.shape(leaf)))
