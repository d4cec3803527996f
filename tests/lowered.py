"""What a program holds on a platform that this machine need not have: its loops and its products, out of its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

PLATFORMS = ("cuda", "rocm", "tpu")


def lowered(traced: Any, platform: str) -> Any:
    """The StableHLO module of `jax.jit(f).trace(*arguments)` for that platform."""
    return traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")


def operations(module: Any, name: str) -> Iterator[Any]:
    """All operations of that name, those inside loops and branches too."""

    def within(operation: Any) -> Iterator[Any]:
        for region in operation.regions:
            for block in region:
                for each in block:
                    if each.operation.name == name:
                        yield each.operation
                    yield from within(each.operation)

    yield from within(module.operation)


def open_loops(module: Any) -> int:
    """How many loops end when data say so. A loop of known length compares a counter with a constant."""
    return sum(not _counts(loop) for loop in operations(module, "stablehlo.while"))


def _counts(loop: Any) -> bool:
    *before, end = (each.operation for each in loop.regions[0].blocks[0])
    assert end.name == "stablehlo.return"
    condition = before[-1] if before else end
    if condition.name != "stablehlo.compare" or "LT" not in str(condition.attributes["comparison_direction"]):
        return False
    counter, limit = condition.operands
    return _is_argument(counter) and not _is_argument(limit) and limit.owner.name == "stablehlo.constant"


def open_branches(module: Any) -> int:
    """How many branches depend on data: their coin comes to the host. (Those by platform have a constant one.)"""
    return sum(_depends(branch) for name in ("stablehlo.case", "stablehlo.if") for branch in operations(module, name))


def _depends(branch: Any) -> bool:
    coin = branch.operands[0]
    if _is_argument(coin) or len(branch.regions) == 1:
        return len(branch.regions) > 1
    if coin.owner.name == "stablehlo.case":
        return _depends(coin.owner)
    return coin.owner.name != "stablehlo.constant"


def _is_argument(value: Any) -> bool:
    return not hasattr(value.owner, "name")  # it belongs to a block, not to an operation


def rounded_products(module: Any) -> list[str]:
    """Products and convolutions of float32 numbers whose inputs a platform may round: all that are not HIGHEST."""
    found = []
    for name in ("stablehlo.dot_general", "stablehlo.dot", "stablehlo.convolution"):
        for product in operations(module, name):
            kinds = {
                str(operand.type).rstrip(">").rpartition("x")[2].rpartition("<")[2] for operand in product.operands
            }
            precision = str(product.attributes["precision_config"]) if "precision_config" in product.attributes else ""
            if "f32" in kinds and precision.count("HIGHEST") != 2:
                found.append(f"{name} {precision} {[str(operand.type) for operand in product.operands]}")
    return found


def trace_step(algorithm: Any, problem: Any, hp: Any, lanes: int = 0) -> Any:
    """`algorithm.step` traced for lowering: of one run, or of so many lanes with their own numbers, states and keys."""
    hp, key = jax.tree.map(jax.numpy.asarray, hp), jax.random.key(0)
    state = algorithm.init(problem, hp, key)
    step = algorithm.step
    if lanes:
        many = lambda tree: jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * lanes), tree)
        hp, state, key = many(hp), many(state), jax.random.split(key, lanes)
        step = jax.vmap(step, (None, 0, 0, 0))
    return jax.jit(step).trace(problem, hp, state, key)
