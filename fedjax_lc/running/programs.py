"""Compiled programs: each is compiled once per process, and its memory is known before it runs."""

from __future__ import annotations

import math
import re
import time
import weakref
from collections.abc import Callable
from typing import Any

import jax

from fedjax_lc import models
from fedjax_lc.core import memory
from fedjax_lc.core.platforms import on_cpu

_COMPILED: dict[Any, Any] = {}
_BYTES: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  #: of compiled programs


def compile_once(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    """Compile `function` for these arguments (arrays or shapes), donating the third. Returns it and the seconds needed.

    Equal functions and shapes are compiled once per process and default device; later calls return 0.0 seconds.
    """
    leaves, structure = jax.tree.flatten(arguments)
    abstract = tuple((leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False))) for leaf in leaves)
    route = models.convolution_route()
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_device)  # type: ignore[attr-defined, unused-ignore]
    place = (function, structure, abstract, route, *settings)
    if place in _COMPILED:
        return _COMPILED[place], 0.0
    started = time.perf_counter()
    _COMPILED[place] = jax.jit(function, donate_argnums=2).lower(*arguments).compile()
    return _COMPILED[place], time.perf_counter() - started


def compile_count() -> int:
    """Programs compiled by `run` and `sweep` in this process so far."""
    return len(_COMPILED)


def memory_bytes(compiled: Any) -> int:
    """Bytes that a compiled program needs: arguments, results and scratch, less what it updates in place."""
    if compiled not in _BYTES:
        usage = compiled.memory_analysis()
        if usage is None:
            return 0
        total = usage.argument_size_in_bytes + usage.output_size_in_bytes + usage.temp_size_in_bytes
        _BYTES[compiled] = int(total - usage.alias_size_in_bytes) + unplanned_bytes(
            compiled.as_text() if on_cpu() else ""
        )
    return _BYTES[compiled]


def unplanned_bytes(program: str) -> int:
    """Bytes that a CPU allocates while the program (HLO text) runs, beyond XLA's plan.

    YNNPACK holds a product that it sums up (a mean of gradients, say) twice: as it is computed, and in the order of the
    sum. What it computes entry by entry is never stored.
    """
    names = re.findall(r"calls=%([\w.\-]+),.*__ynn_fusion", program)
    bodies = dict(re.findall(r"^%([\w.\-]+) \(.*\{\n((?:  .*\n)*)", program, re.MULTILINE)) if names else {}
    return 2 * max((_bytes(*array) for name in names for array in _WITHIN.findall(bodies[name])), default=0)


#: bits and shape of products that a fused computation makes within it
_WITHIN = re.compile(r"^  %\S+ = [a-z]+(\d+)\[([\d,]*)\]\S* dot\(", re.MULTILINE)


def _bytes(bits: str, shape: str) -> int:
    return math.prod(map(int, filter(None, shape.split(",")))) * int(bits) // 8


def out_of_memory(error: Exception) -> bool:
    """Whether the error says that a device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def check_memory(needed: int) -> None:
    """Raise InputError if the default device has fewer than `needed` bytes free."""
    free = free_bytes()
    if free is not None:
        memory.check(needed, "this run", "use fewer clients, fewer rows or float32", free)


def free_bytes(device: Any = None) -> int | None:
    """Bytes that XLA can still allocate on a device (default: JAX's default device); on a CPU the host's free memory.

    None if the device does not report it.
    """
    if device is None:
        chosen = jax.config.jax_default_device  # type: ignore[attr-defined, unused-ignore]
        device = chosen if hasattr(chosen, "memory_stats") else jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    return memory.free_on_host() if device.platform == "cpu" else None
