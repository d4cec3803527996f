"""A tree of arrays in one file, which is read without ever running or unpickling what it holds.

The file is a safetensors file: one tensor per leaf, called by its path in the tree (".state.x"). Its metadata hold the
leaves' types, further facts as JSON, and a digest of all of it, so that a torn, edited or foreign file is recognised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.core.typing import PyTree

FORM = "fedjax_lc tree 1"  #: of the file, the first entry of its metadata
_KINDS = {"int": "I", "uint": "U", "float": "F"}
#: types by the file's names for them; others, such as bfloat16, are stored as bytes
PLAIN = {"bool": "BOOL"} | {f"{kind}{size}": f"{short}{size}" for kind, short in _KINDS.items()
                            for size in (8, 16, 32, 64) if f"{kind}{size}" != "float8"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stored:
    """The contents of a file.

    Attributes:
        leaves: arrays on the host, and PRNG keys, by their paths in the tree.
        places: path -> its steps, each a kind (attribute, key or index) and a name or number; of leaves and of None.
        facts: the facts given to `write`.
    """

    leaves: dict[str, Any]
    places: dict[str, list[Any]]
    facts: dict[str, Any]

    def tree(self, like: PyTree) -> PyTree:
        """The leaves in the tree structure of `like`, whose leaves are arrays, keys or their shapes.

        Raises:
            InputError: `like` has other leaves, shapes or types.
        """
        wanted, structure = jax.tree_util.tree_flatten_with_path(like)
        names = [jax.tree_util.keystr(path) for path, _ in wanted]
        if names != list(self.leaves):
            raise InputError(f"it holds another tree: expected {_few(names)}, got {_few(list(self.leaves))}")
        for name, (_, one) in zip(names, wanted, strict=True):
            here, there = (f"{leaf.dtype} {leaf.shape}" for leaf in (self.leaves[name], _as_array(one)))
            if here != there:
                raise InputError(f"it holds another tree: {name} must be {there}, got {here}")
        return jax.tree.unflatten(structure, list(self.leaves.values()))

    def rebuilt(self) -> PyTree:
        """The leaves in named tuples, dictionaries and lists, for a reader who does not have the tree's classes."""
        return _nested([(place, self.leaves.get(name)) for name, place in self.places.items()])


def write(path: str | Path, tree: PyTree, facts: Mapping[str, Any]) -> None:
    """Write a tree and plain facts to a file, under a temporary name that is then renamed.

    Args:
        tree: leaves are arrays of any dtype, PRNG keys or numbers; arrays on devices are copied to the host.
        facts: values that JSON can write; numbers come back with all bits.

    Raises:
        InputError: the file cannot be written; one that was there is kept.
    """
    entries = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)[0]
    places = {jax.tree_util.keystr(path): list(map(_step, path)) for path, _ in entries}
    leaves = {jax.tree_util.keystr(path): _as_array(leaf) for path, leaf in entries if leaf is not None}
    described = [{"name": name, **_kind(leaf)} for name, leaf in leaves.items()]
    about = json.dumps({"facts": dict(facts), "leaves": described, "places": places})
    tensors = {name: _on_host(leaf) for name, leaf in leaves.items()}
    metadata = {"form": FORM, "about": about, "digest": _digest(about, tensors)}
    with replacing(path) as temporary:
        _write(temporary, tensors, metadata)


def _write(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a safetensors file. The library would leave a file of a name of its own where the process is killed."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # so that all are aligned
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": PLAIN[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(array.reshape(-1).view(np.uint8).data)


def read(path: str | Path) -> Stored:
    """Read a file that `write` wrote.

    Raises:
        InputError: it is missing, torn, edited or foreign; the message begins with what is wrong, not with its name.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError("it is no file")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("form") != FORM:
                raise InputError("it is of another form")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(metadata["about"], tensors):
            raise InputError("it does not hold what its digest says")
        about = json.loads(metadata["about"])
        leaves = {leaf["name"]: _leaf(leaf, tensors[leaf["name"]]) for leaf in about["leaves"]}
        return Stored(leaves, dict(about["places"]), dict(about["facts"]))
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"it is damaged ({type(error).__name__})") from None


def write_plain(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays by name as any program reads them, under a temporary name that is then renamed.

    Raises:
        InputError: the file cannot be written; one that was there is kept.
    """
    with replacing(path) as temporary:
        _write(temporary, {name: _on_host(array) for name, array in arrays.items()}, dict(metadata))


def plain(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and the metadata, of a safetensors file of any program.

    Raises:
        InputError: it is damaged; the message begins with what is wrong, not with its name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"it is damaged ({type(error).__name__})") from None


# --- leaves ---


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def _as_array(x: Any) -> Any:
    """The leaf, or a number as an array."""
    return x if hasattr(x, "dtype") and hasattr(x, "shape") else np.asarray(x)


def _kind(x: Any) -> dict[str, Any]:
    key = {"key": str(jax.random.key_impl(x))} if _is_key(x) else {}
    return {"dtype": str(x.dtype), "shape": list(x.shape), **key}


def _on_host(x: Any) -> np.ndarray:
    """The array as a safetensors file takes it: contiguous, of a plain type."""
    array = np.asarray(jax.random.key_data(x) if _is_key(x) else x)
    array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=None)
    return array if array.dtype.name in PLAIN else array.reshape(-1).view(np.uint8)


def _leaf(described: dict[str, Any], tensor: np.ndarray) -> Any:
    if "key" in described:
        return jax.random.wrap_key_data(jnp.asarray(tensor), impl=described["key"])
    dtype = np.dtype(described["dtype"])
    return tensor if dtype.name in PLAIN else tensor.view(dtype).reshape(described["shape"])


def _digest(about: str, tensors: Mapping[str, np.ndarray]) -> str:
    state = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        state.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        state.update(tensors[name].reshape(-1).view(np.uint8).data)
    return state.hexdigest()


# --- places in a tree ---


def _step(entry: Any) -> list[Any]:
    """A step of a path as plain values."""
    match entry:
        case jax.tree_util.GetAttrKey(name=name):
            return ["attribute", name]
        case jax.tree_util.DictKey(key=key):
            return ["key", str(key)]
        case jax.tree_util.SequenceKey(idx=number):
            return ["index", number]
        case _:
            return ["index", getattr(entry, "key", 0)]


def _nested(leaves: list[tuple[list[Any], Any]]) -> Any:
    """Leaves at their places, each a path relative to the tree that is built."""
    if len(leaves) == 1 and not leaves[0][0]:
        return leaves[0][1]
    inner: dict[Any, list[tuple[list[Any], Any]]] = {}
    for (first, *rest), leaf in leaves:
        inner.setdefault(tuple(first), []).append((rest, leaf))
    kinds = {kind for kind, _ in inner}
    values = {name: _nested(below) for (_, name), below in inner.items()}
    if kinds == {"attribute"}:
        return namedtuple("Tree", list(values), rename=True)(*values.values())
    return list(values.values()) if kinds == {"index"} else values


def _few(names: list[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "nothing"
