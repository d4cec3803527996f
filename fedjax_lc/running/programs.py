"""Compiled programs: each is compiled once per process, and its memory is known before it runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from fedjax_lc import models
from fedjax_lc.core.errors import InputError

_COMPILED: dict[Any, Any] = {}


def compile_once(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    """Compile `function` for these arguments (arrays or shapes), donating the third. Returns it and the seconds needed.

    Equal functions and shapes are compiled once per process and default device; later calls return 0.0 seconds.
    """
    leaves, structure = jax.tree.flatten(arguments)
    abstract = tuple((leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False))) for leaf in leaves)
    route = models.convolution_route()
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_device)  # type: ignore[attr-defined]
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
    usage = compiled.memory_analysis()
    if usage is None:
        return 0
    total = usage.argument_size_in_bytes + usage.output_size_in_bytes + usage.temp_size_in_bytes
    return int(total - usage.alias_size_in_bytes)


def out_of_memory(error: Exception) -> bool:
    """Whether the error says that a device ran out of memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def check_memory(needed: int) -> None:
    """Raise InputError if the default device has fewer than `needed` bytes free."""
    free = free_bytes()
    if free is not None and needed > free:
        raise InputError(f"this run needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: use fewer clients, "
                         "fewer rows or float32")  # fmt: skip


def free_bytes(device: Any = None) -> int | None:
    """Bytes that XLA can still allocate on a device (default: JAX's default device); on a CPU the host's free memory.

    None if the device does not report it.
    """
    if device is None:
        chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
        device = chosen if hasattr(chosen, "memory_stats") else jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    if device.platform != "cpu":
        return None
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
