"""Provenance of a result as plain values: hyperparameters, problem, versions, device and command."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import platform
import re
import shlex
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.compressors import Compressor
from fedjax_lc.problems import Problem

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
LONG = 100  #: an array with more entries is described by its shape and a digest


def describe(hp: Any) -> dict[str, Any]:
    """Hyperparameters as plain values: compressors in their string form, functions by name, and arrays as lists, or by
    shape and digest if they are long."""

    def plain(value: Any) -> Any:
        if isinstance(value, Compressor):
            return str(value)
        if callable(value):
            return getattr(value, "__qualname__", repr(value))
        if np.size(value) > LONG:
            return f"array {np.shape(value)} {digest(value)}"
        return np.asarray(value).tolist() if hasattr(value, "dtype") or isinstance(value, list | tuple) else value

    return {field.name: plain(getattr(hp, field.name)) for field in dataclasses.fields(hp)}


def describe_problem(problem: Problem) -> dict[str, Any]:
    """The facts that identify a problem in a result file."""
    return {
        "kind": type(problem).__name__,
        "clients": problem.n,
        "dim": problem.dim,
        "dtype": jnp.dtype(problem.dtype).name,
        "strong": float(problem.strong),
        "smooth": float(jnp.max(problem.smooth)),
        "smooth_mean": float(problem.smooth_mean),
        **problem.facts,
    }


def digest(*things: Any) -> str:
    """A hash of sixteen hexadecimal digits: of pytrees by structure and all bits of their arrays, of other values by
    their representation, of functions by their names (not their addresses)."""
    state = hashlib.sha256()
    for thing in things:
        leaves, structure = jax.tree.flatten(thing)
        state.update(ADDRESS.sub("", str(structure)).encode())
        for leaf in leaves:
            is_array = hasattr(leaf, "dtype")
            state.update(repr((leaf.dtype, leaf.shape)).encode() if is_array else repr(leaf).encode())
            state.update(np.ascontiguousarray(leaf).tobytes() if is_array else b"")
    return state.hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Versions, device, command and time, which every result file contains."""
    device = jax.devices()[0]
    return {
        "versions": _versions(),
        "device": f"{device.platform}: {device.device_kind}",
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "written": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


@functools.cache
def _versions() -> dict[str, str]:
    import importlib.metadata as metadata

    packages = ("fedjax_lc", "jax", "jaxlib", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
