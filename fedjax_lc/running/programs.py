"""Compiled programs: each compiled once per process, their memory known before they run."""

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
    """`function` compiled for arguments (arrays or their shapes), the third one donated; and the seconds that took now.

    Equal functions and shapes compile once per process and default device: the second call takes no time.
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
    """Bytes a compiled program holds at once: arguments, results and scratch, less what it updates in place."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return int(total - found.alias_size_in_bytes)


def out_of_memory(error: Exception) -> bool:
    """Whether a device had no room for what was asked of it."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def check_memory(needed: int) -> None:
    free = free_bytes()
    if free is not None and needed > free:
        raise InputError(f"this run needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: use fewer clients, "
                         "fewer rows or float32")  # fmt: skip


def free_bytes(device: Any = None) -> int | None:
    """Memory that XLA can still get on a device, the default one for None (of a CPU the host's); None where it cannot
    be told."""
    if device is None:
        chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
        device = chosen if hasattr(chosen, "memory_stats") else jax.devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    if device.platform != "cpu":
        return None
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
