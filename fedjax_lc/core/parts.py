"""Rows that lie spread over devices, in a folder: each process writes those of its own devices, and no process needs
memory for all. The folder is written and read by orbax.

A small file beside the folder says what it holds, with a digest of every file in it, so that a torn, edited or foreign
folder is recognised before orbax reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding

from fedjax_lc.core.devices import BY_CLIENT, Rows, is_rows, of_shapes
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import unwritable
from fedjax_lc.core.typing import PyTree


def split(tree: PyTree) -> tuple[PyTree, dict[str, Rows]]:
    """`tree` with None for each `Rows` that lies over several devices, and those `Rows` by their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_rows)
    rows = {jax.tree_util.keystr(path): leaf for path, leaf in leaves if is_rows(leaf) and _is_spread(leaf)}
    return without(tree, rows), rows


def _is_spread(rows: Rows) -> bool:
    """Orbax lets all processes write together, or there is one."""
    return rows.mesh.size > 1 and (rows.mesh.is_multi_process or jax.process_count() == 1)


def without(tree: PyTree, names: Mapping[str, Any]) -> PyTree:
    """`tree` with None at the paths in `names`."""
    one = lambda path, leaf: None if jax.tree_util.keystr(path) in names else leaf
    return jax.tree_util.tree_map_with_path(one, tree, is_leaf=is_rows)


def joined(tree: PyTree, rows: Mapping[str, Any]) -> PyTree:
    """The inverse of `split`."""
    one = lambda path, leaf: rows.get(jax.tree_util.keystr(path), leaf)
    return jax.tree_util.tree_map_with_path(one, tree, is_leaf=lambda leaf: leaf is None)


def write(folder: Path, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Write rows to a folder, together with all processes of their mesh. Returns what it holds, as plain values.

    Raises:
        InputError: it cannot be written.
    """
    import orbax.checkpoint as ocp

    arrays = {number: rows[name].array for name, number in _numbers(rows).items()}
    try:
        with _silent(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
            orbax.save(folder.absolute(), args=ocp.args.StandardSave(arrays), force=True)
        files = _files(folder) if jax.process_index() == 0 else {}
        return {"shapes": _shapes(rows), "files": {name: _digest(path) for name, path in files.items()}}
    except OSError as error:
        raise unwritable(folder, error) from None
    except (ValueError, RuntimeError) as error:  # tensorstore's
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise unwritable(folder, OSError(int(code[1]), "")) from None
        raise InputError(f"cannot write {folder}: {str(error).partition(chr(10))[0]}") from None


def check(folder: Path, holds: Mapping[str, Any], like: PyTree) -> None:
    """Raise InputError if the folder is not as `write` left it, or its rows are not those of `like`.

    Each of the processes of a mesh reads a share of the files.
    """
    there, digests = _files(folder), dict(holds["files"])
    if not folder.is_dir() or there.keys() != digests.keys():
        raise InputError(f"the files of {folder.name} are missing, or others")
    leaves = _at(like, holds["shapes"])
    several = any(is_rows(leaf) and leaf.mesh.is_multi_process for leaf in leaves.values())
    for name in sorted(there)[jax.process_index() :: jax.process_count()] if several else there:
        if _digest(there[name]) != digests[name]:
            raise InputError(f"{folder.name}/{name} does not hold what its digest says")
    wanted = _shapes(leaves)
    for name, shape in holds["shapes"].items():
        if wanted.get(name) != shape:
            raise InputError(f"it holds another tree: {name} must be {wanted.get(name)}, got {shape}")


def read(folder: Path, holds: Mapping[str, Any], like: PyTree) -> dict[str, Any]:
    """The rows of a folder that `check` let pass, by their paths, together with all processes of the mesh.

    Args:
        like: the tree whose paths they are; where it has `Rows`, they are placed on those devices, which need not be
            as many as when they were written, else on one device, (n, ...).

    Raises:
        InputError: they cannot be read.
    """
    import orbax.checkpoint as ocp

    wanted, numbers = _at(like, holds["shapes"]), _numbers(holds["shapes"])
    try:
        with _silent(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as orbax:
            asked = {number: _target(wanted[name]) for name, number in numbers.items()}
            # not strict: the rows of zeros that fill up the last devices' shares depend on the number of devices
            stored = orbax.restore(folder.absolute(), args=ocp.args.StandardRestore(asked, strict=False))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{folder.name} is damaged ({type(error).__name__})") from None
    put = lambda like, array: Rows(array, like.n, like.mesh) if is_rows(like) else array
    return {name: put(wanted[name], stored[number]) for name, number in numbers.items()}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the tracebacks that orbax logs of an error that it also raises."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _numbers(names: Iterable[str]) -> dict[str, str]:
    """What arrays are called in a folder: paths in a tree are no names of files."""
    return {name: str(number) for number, name in enumerate(sorted(names))}


def _at(tree: PyTree, names: Mapping[str, Any]) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_rows)
    return {name: leaf for path, leaf in leaves if (name := jax.tree_util.keystr(path)) in names}


def _shapes(rows: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype} {leaf.shape}" for name, leaf in of_shapes(dict(rows)).items()}


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """What orbax is asked for."""
    alone: Sharding = SingleDeviceSharding(jax.local_devices()[0])
    array, where = (leaf.array, NamedSharding(leaf.mesh, BY_CLIENT)) if is_rows(leaf) else (leaf, alone)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
