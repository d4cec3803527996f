"""Provenance of a result as plain values: hyperparameters, problem, code, versions, device and command."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.algorithms import Algorithm
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.compressors import Compressor
from fedjax_lc.core.digest import digest, digest_apart, of_package
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems import Problem

ROOMS = ("core", "compressors", "models", "problems", "algorithms/frames")
LOOPS = ("running/loop.py", "sweeping/program.py", "sweeping/blocks.py")
FOUNDATION = (*ROOMS, *LOOPS)  #: source that decides the numbers of every method
#: what `other_code` admits, in the words of a message
CODE = {"code": "code of the method", "package": "source of fedjax_lc", "functions": "", "versions": ""}
LONG = 100  #: an array with more entries is described by its shape and a digest


def describe(hp: Any) -> dict[str, Any]:
    """Hyperparameters as plain values: compressors and topologies in their string form, functions by name, and arrays
    as lists, or by shape and digest if they are long."""

    def plain(value: Any) -> Any:
        if isinstance(value, Compressor | Topology):
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


def identity(
    algorithm: Algorithm,
    problem: Problem,
    hparams: Any,
    measured: Iterable[tuple[str, Callable[..., Any]]] = (),
) -> dict[str, Any]:
    """What decides the numbers of a run or of a sweep, besides plain options, as words and digests that JSON can keep.

    Args:
        hparams: one Hparams or a list of them.
        measured: names and functions of the user's metrics.

    Example:
        >>> identity(fl.algorithms.get("gd"), problem, hp)["method"]
        'gd'
    """
    (hp, of_hp), (of, of_problem) = digest_apart(hparams, [algorithm.Hparams]), digest_apart(problem)
    return {
        "method": algorithm.name,
        "hyperparameters": hp,
        "problem": of,
        "code": digest(algorithm.Hparams, algorithm.init, algorithm.step, algorithm.point),
        "functions": of_problem | of_hp | {name: digest(function) for name, function in measured},
        "package": of_package(FOUNDATION),
        "versions": _deciding(),
    }


def _deciding() -> dict[str, str]:
    """The versions and settings of JAX on which the last bits of a result depend."""
    versions = {name: version for name, version in _versions().items() if name in ("jax", "jaxlib")}
    names = ("jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")
    settings = {name: str(getattr(jax.config, name)) for name in names}
    return versions | settings | {"python": platform.python_version().rpartition(".")[0], "on": jax.default_backend()}


def check_identity(
    folder: os.PathLike[str] | str,
    what: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    finished: bool = False,
    other_code: bool = False,
) -> str | None:
    """Compare what began the results in a folder with what is asked now; both hold `identity` and plain options.

    A finished result of other versions of JAX is what it says it is, to rounding, so it is taken, with a remark. An
    unfinished one would mix the bits of both, and other code may mean other numbers: both only with `other_code`.

    Args:
        what: what the folder holds, run or sweep, for the message.
        finished: whether nothing is left to compute.
        other_code: whether to take what other code of the method, functions, source or versions computed.

    Returns:
        A remark for people where something differs and is taken; None where nothing differs.

    Raises:
        InputError: they differ; the line says in what.
    """
    now = json.loads(json.dumps(now))
    differ, words = differences(before, now)
    if not differ:
        return None
    if not {*differ} <= CODE.keys():
        raise InputError(f"{folder} already holds a different {what} ({words}): choose another folder, or delete it")
    if other_code or (finished and differ == ["versions"]):
        return f"{folder} holds this {what} as computed with {words}"
    raise InputError(f"{folder} already holds this {what} as computed with {words}: choose another folder, or keep "
                     "what it holds by --other-code (other_code=True)")  # fmt: skip


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], str]:
    """The names of the entries in which two identities differ, and how a message says so."""
    differ = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    named = [CODE.get(name, name) for name in differ if name not in ("functions", "versions")]
    named = [name for name in named if name != CODE["code"] or "method" not in differ]
    words = [f"other {', '.join(named)}"] if named else []
    for kind in ("functions", "versions"):
        one, two = (each[kind] if isinstance(each.get(kind), dict) else {} for each in (before, now))
        for name in sorted({*one, *two}):
            if one.get(name) != two.get(name):
                versions = f"{name} {one.get(name)!s:.40} instead of {two.get(name)!s:.40}"
                words.append(f"another function {name}" if kind == "functions" else versions)
    return differ, " ".join(", ".join(words).split())


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
