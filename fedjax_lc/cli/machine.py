"""What a bug report should say of a machine: versions, devices, settings and folders, as plain values."""

from __future__ import annotations

import contextlib
import importlib.metadata as metadata
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lc.core.memory import size
from fedjax_lc.data import images, text
from fedjax_lc.data.catalogue import CATALOGUE
from fedjax_lc.data.download import DATA_VARIABLE, Source, cache_folder
from fedjax_lc.running import cache
from fedjax_lc.running.programs import free_bytes

PACKAGES = ("fedjax_lc", "jax", "jaxlib", "flax", "optax", "numpy")
CUDA = ("jax-cuda13-plugin", "jax-cuda13-pjrt", "jax-cuda12-plugin", "jax-cuda12-pjrt")
OPTIONAL = {
    "torch": "fedjax-lc bench's rivals: pip install 'fedjax_lc[bench]'",
    "jupytext": "notebooks: pip install 'fedjax_lc[notebook]'",
    "jupyterlab": "notebooks: pip install 'fedjax_lc[notebook]'",
    "pytest": "make test: pip install 'fedjax_lc[test]'",
}
VARIABLES = ("JAX_", "XLA_", "FEDJAX_LC_", "CUDA_VISIBLE_DEVICES")  #: what names of telling variables begin with
METHODS_VARIABLE = "FEDJAX_LC_METHODS"


def facts() -> dict[str, dict[str, Any]]:
    """Section -> name -> value. What cannot be read says why, in place of its value.

    Example:
        >>> facts()["devices"]["platform"]
        'cpu'
    """
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "versions": _versions,
        "devices": _devices,
        "numbers": _numbers,
        "variables": _variables,
        "cache": _cache,
        "data": _data,
        "methods": _methods,
        "optional packages": _optional,
    }
    return {name: _told(section) for name, section in sections.items()}


def _told(section: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return section()
    except Exception as error:  # a report must come to its end on a broken machine above all
        return {"failed": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}


def _versions() -> dict[str, str]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    versions = {"python": platform.python_version(), "system": system, **_installed(PACKAGES)}
    return versions | {name: number for name, number in _installed(CUDA).items() if number != "-"}


def _installed(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version, - where it is not installed."""
    versions = dict.fromkeys(packages, "-")
    for name in versions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _devices() -> dict[str, Any]:
    """Of JAX, and the host; whatever platform is the default, JAX as a rule has the CPU too."""
    devices: dict[str, Any] = {"platform": jax.default_backend()}
    devices |= {str(device): f"{device.device_kind}, {_memory(device)}" for device in jax.devices()}
    unused = _unused()
    devices |= {"warning": unused} if unused else {}
    with contextlib.suppress(RuntimeError):
        free = free_bytes(jax.devices("cpu")[0])
        devices |= {"free host memory": "not known" if free is None else size(free)}
    return devices | {"CPU cores": os.cpu_count()}


def _unused() -> str:
    """Why JAX computes on the CPU where its package for GPUs is installed; nothing where that is asked for."""
    plugins = [name for name, number in _installed(CUDA).items() if number != "-"]
    if not plugins or jax.default_backend() != "cpu" or "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        return ""
    return f"{plugins[0]} is installed, but JAX sees no GPU: look at the driver (nvidia-smi)"


def _memory(device: Any) -> str:
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return f"{size(stats['bytes_in_use'])} of {size(stats['bytes_limit'])} in use"
    return "the host's memory" if device.platform == "cpu" else "memory not known"


def _numbers() -> dict[str, Any]:
    return {
        "default matmul precision": jax.config.jax_default_matmul_precision or "the platform's",  # type: ignore[attr-defined, unused-ignore]
        "jax_enable_x64": bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined, unused-ignore]
        "default dtypes": f"{jnp.zeros(()).dtype}, {jnp.asarray(0).dtype}",
    }


def _variables() -> dict[str, str]:
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def _cache() -> dict[str, Any]:
    folder = cache.folder()
    if folder is None:
        return {"compiled programs": "off"}
    entries, held = cache.size(folder)
    return {"compiled programs": "on", "folder": cache.short(folder), "entries": entries, "size": size(held)}


def _data() -> dict[str, Any]:
    local = os.environ.get(DATA_VARIABLE)
    places = {f"{DATA_VARIABLE}": Path(local).expanduser() if local else None, "downloads": cache_folder()}
    return {name: "none" if place is None else _sets(place) for name, place in places.items()}


def _sets(folder: Path) -> str:
    """A folder, and how many of the known sets it holds."""
    if not folder.is_dir():
        return f"{cache.short(folder)} (no such folder)"
    known: list[Sequence[Source]] = [images.MNIST, images.FASHION_MNIST]
    known += [[images.EMNIST], [images.CIFAR10], [images.CIFAR100], [text.SHAKESPEARE]]
    known += [[entry] for entry in CATALOGUE.values()]
    here = sum(all(source.find(folder) for source in files) for files in known)
    return f"{cache.short(folder)} ({here} of {len(known)} known sets)"


def _methods() -> dict[str, Any]:
    """The folders of the user's methods, and how many files each holds."""
    folders = [Path(name) for name in os.environ.get(METHODS_VARIABLE, "").split(os.pathsep) if name]
    if not folders:
        return {METHODS_VARIABLE: "none"}
    return {cache.short(folder): f"{len(list(folder.glob('*.py')))} files" for folder in folders}


def _optional() -> dict[str, str]:
    versions = _installed(OPTIONAL)
    return {name: number if number != "-" else f"not here; for {OPTIONAL[name]}" for name, number in versions.items()}
