"""Weights that come from elsewhere, brought into a network's layout: trees of flax, and PyTorch's flat names.

A leaf called `weight` is in PyTorch's layout: a dense kernel (out, in) is transposed, a convolution's (out, in, h, w)
becomes (h, w, in, out), and a vector is the scale of a norm. A leaf called `kernel` is in flax's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core.errors import InputError

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  #: PyTorch's names of BatchNorm's averages
AVERAGES = "batch_stats"  #: flax's collection of them
BOXES = ("value", "raw_value")  #: the last step to a leaf of `flax.nnx`
KINDS = {
    "kernel": {2: "dense", 3: "convolution", 4: "convolution"},
    "scale": {1: "norm"},
    "embedding": {2: "embedding"},
}
CURE = "give weights of this very network, or say how it calls their modules (names=, --start-names)"

Leaves = dict[str, Any]


class Fitted(NamedTuple):
    """Weights in a network's layout.

    Attributes:
        leaves: arrays by the network's names, in its order and shapes.
        remark: how foreign names were understood; empty where all names are the network's.
    """

    leaves: Leaves
    remark: str = ""


def flat(tree: Any) -> Leaves:
    """The leaves of a tree, a `flax.nnx` state or a mapping of flat names, as NumPy arrays by their paths (a/b/c).

    Raises:
        InputError: a leaf is no array of real, finite numbers.
    """
    spelled = ((name.replace(".", "/"), leaf) for name, leaf in _walk(tree))
    named = {name: leaf for name, leaf in spelled if name.split("/")[0] != AVERAGES and _last(name) not in STATISTICS}
    leaves = {name: _array(name, leaf) for name, leaf in named.items()}
    boxed = leaves and all(_last(name) in BOXES for name in leaves)
    return {_module(name): leaf for name, leaf in leaves.items()} if boxed else leaves


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves with their paths; mappings in their order, which JAX would not keep."""
    if isinstance(tree, Mapping):
        for name, below in tree.items():
            yield from ((f"{name}/{path}".rstrip("/"), leaf) for path, leaf in _walk(below))
    elif hasattr(tree, "detach"):
        yield "", tree
    else:
        paths = jax.tree_util.tree_flatten_with_path(tree)[0]
        yield from ((jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths)


def _array(name: str, leaf: Any) -> np.ndarray:
    if hasattr(leaf, "detach"):  # of PyTorch
        leaf = leaf.detach().cpu()
        leaf = leaf.float() if "bfloat16" in str(leaf.dtype) else leaf
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"weights: {name or 'the start'} is no array ({type(error).__name__})") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"weights: {name or 'the start'} is of type {array.dtype}: weights must be real numbers")
    if not np.all(np.isfinite(array.astype(np.float64))):
        raise InputError(f"weights: {name or 'the start'} holds NaN or infinity: give weights that are finite")
    return array


def fitted(
    given: Leaves,
    wanted: Mapping[str, tuple[int, ...]],
    calls: Mapping[str, int],
    names: Mapping[str, str] | None = None,
    in_order: bool = True,
) -> Fitted:
    """Weights in the layout of a network.

    Modules are matched by their names. Where none is the network's, those of one kind (convolutions, dense layers,
    norms, embeddings) are matched in the order in which the network calls them, or by their shapes.

    Args:
        given: arrays by path, as `flat` gives them.
        wanted: the shapes of the network's leaves by name, in its order.
        calls: the network's modules in the order of their calls, each with the number of channels of the images that
            it takes flattened (1: none). PyTorch flattens (C, H, W), flax (H, W, C): a kernel's rows are reordered.
        names: modules (or leaves) of `given` -> those of the network; first of all matches.
        in_order: whether `given` has the order of the calls; otherwise it is that of the names' numbers.

    Raises:
        InputError: a leaf is missing, left over, or of another shape.
    """
    given = _renamed(_unwrapped(given, wanted), wanted, names or {})
    ours, theirs = _by_module(wanted), _by_module(given)
    pairs = {module: module for module in theirs if module in ours}
    if pairs and not names:
        pairs |= {module: module for module in theirs}
    else:
        left_of = lambda modules: {name: one for name, one in modules.items() if name not in pairs}
        pairs |= _paired(left_of(ours), left_of(theirs), [*calls], in_order)
    left, leaves = dict(wanted), {}
    for module, other in pairs.items():
        for name, (theirs_is, array) in _converted(theirs[module], ours.get(other, {}), calls.get(other, 1)).items():
            leaf, spelled = (f"{place}/{last}".strip("/") for place, last in ((other, name), (module, theirs_is)))
            if leaf not in left:
                foreign = "" if spelled == leaf else f" for {spelled}"
                raise InputError(f"weights: the network has no {leaf}{foreign} (it has {_few(wanted)}): {CURE}")
            if array.shape != left[leaf]:
                raise _misfit(leaf, left[leaf], array.shape, spelled)
            leaves[leaf] = array
            del left[leaf]
    if left:
        leaf = next(iter(left))
        raise InputError(f"weights: {leaf} {wanted[leaf]} of the network is missing (they hold {_few(given)}): {CURE}")
    renamed = {module: other for module, other in pairs.items() if module != other}
    turned = [other for module, other in pairs.items() if calls.get(other, 1) > 1 and "weight" in theirs[module]]
    words = ", ".join(f"{module} -> {other}" for module, other in renamed.items())
    words += f"; {', '.join(turned)} takes rows (h, w, c) for PyTorch's (c, h, w)" if turned else ""
    return Fitted({name: leaves[name] for name in wanted}, words.strip("; "))


def _misfit(leaf: str, wanted: tuple[int, ...], got: tuple[int, ...], spelled: str) -> InputError:
    turned = "it is transposed: a leaf called weight must have PyTorch's layout (out, in), one called kernel flax's"
    cure = turned if got == wanted[::-1] and got != wanted else CURE
    named = "" if spelled == leaf else f" from {spelled}"
    return InputError(f"weights: {leaf} must have shape {wanted}, got {got}{named}: {cure}")


def _unwrapped(given: Leaves, wanted: Iterable[str]) -> Leaves:
    """The leaves without layers of names around all of them, such as params, model or module."""
    tops = {name.split("/")[0] for name in wanted}
    while given:
        first = {name.split("/")[0] for name in given}
        if len(first) > 1 or first & tops or any("/" not in name for name in given):
            return given
        given = {name.partition("/")[2]: leaf for name, leaf in given.items()}
    raise InputError("weights: there are none")


def _renamed(given: Leaves, wanted: Iterable[str], names: Mapping[str, str]) -> Leaves:
    """The leaves under the names that the user gives to modules or leaves."""
    table = {theirs.replace(".", "/"): ours.replace(".", "/") for theirs, ours in names.items()}
    for theirs, ours in table.items():
        if not any(name == theirs or name.startswith(f"{theirs}/") for name in given):
            raise InputError(f"names: the weights have no {theirs} (they hold {_few(given)})")
        if not any(name == ours or name.startswith(f"{ours}/") for name in wanted):
            raise InputError(f"names: the network has no {ours} (it has {_few(wanted)})")

    def new(name: str) -> str:
        for theirs, ours in sorted(table.items(), key=lambda pair: -len(pair[0])):
            if name == theirs or name.startswith(f"{theirs}/"):
                return ours + name.removeprefix(theirs)
        return name

    return {new(name): leaf for name, leaf in given.items()}


def _by_module(leaves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Leaves by their module and, in it, by their last name."""
    modules: dict[str, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        modules.setdefault(_module(name), {})[_last(name)] = leaf
    return modules


def _converted(theirs: Leaves, ours: Mapping[str, Any], channels: int) -> dict[str, tuple[str, Any]]:
    """Leaves of one module by flax's names and in its layout, each with the name that it came by."""
    leaves: dict[str, tuple[str, Any]] = {}
    for name, array in theirs.items():
        if name != "weight" or "weight" in ours:
            leaves[name] = name, array
        elif array.ndim == 1:
            leaves["scale"] = name, array
        elif "embedding" in ours:
            leaves["embedding"] = name, array
        else:
            kernel = np.moveaxis(array, (0, 1), (-1, -2))
            leaves["kernel"] = name, _by_pixels(kernel, channels) if array.ndim == 2 else kernel
    return leaves


def _by_pixels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A dense kernel (C H W, out) with its rows as (H, W, C)."""
    if channels == 1 or len(kernel) % channels:
        return kernel
    return kernel.reshape(channels, -1, kernel.shape[1]).swapaxes(0, 1).reshape(kernel.shape)


# --- modules whose names are not the network's ---


def _paired(ours: Mapping[str, Any], theirs: Mapping[str, Leaves], calls: list[str], in_order: bool) -> dict[str, str]:
    """Their modules -> ours, for each kind in order, or by shapes where these do not fit in order."""
    place = {name: number for number, name in enumerate(calls)}
    our_order = sorted(ours, key=lambda name: (place.get(name, len(place)), natural(name)))
    their_order = list(theirs) if in_order else sorted(theirs, key=natural)
    kinds = {name: _kind({leaf: len(shape) for leaf, shape in ours[name].items()}) for name in our_order}
    embedded = [ours[name]["embedding"] for name in our_order if kinds[name] == "embedding"]
    their_kinds = {name: _kind_of(theirs[name], embedded) for name in their_order}
    pairs: dict[str, str] = {}
    for kind in dict.fromkeys([*kinds.values(), *their_kinds.values()]):
        wanted = [name for name in our_order if kinds[name] == kind]
        given = [name for name in their_order if their_kinds[name] == kind]
        if len(wanted) != len(given):
            what = kind or "other module"
            raise InputError(f"weights: the network has {_count(wanted, what)}, and they hold {_count(given, what)}: "
                             f"{CURE}")  # fmt: skip
        pairs |= _in_order(given, wanted, theirs, ours, in_order)
    return pairs


def _in_order(
    given: list[str], wanted: list[str], theirs: Mapping[str, Leaves], ours: Mapping[str, Any], in_order: bool
) -> dict[str, str]:
    """Modules of one kind, which are as many as ours: those of one shape in order; all in order where shapes differ."""
    alike: dict[Any, tuple[list[str], list[str]]] = {}
    for name in given:
        shapes = sorted(np.shape(leaf) for _, leaf in _converted(theirs[name], {}, 1).values())
        alike.setdefault(str(shapes), ([], []))[0].append(name)
    for name in wanted:
        alike.setdefault(str(sorted(ours[name].values())), ([], []))[1].append(name)
    if any(len(one) != len(other) for one, other in alike.values()):
        return dict(zip(given, wanted, strict=True))  # whose shapes will differ
    for twins, others in alike.values():
        if not in_order and len({re.sub(r"\d+", "", name) for name in twins}) > 1:
            raise InputError(f"weights: {' and '.join(twins[:3])} are of one shape, and their order is not known: give "
                             f"names={{'{twins[0]}': '{others[0]}', ...}}")  # fmt: skip
    return {name: other for one, others in alike.values() for name, other in zip(one, others, strict=True)}


def _kind_of(module: Leaves, embedded: list[tuple[int, ...]]) -> str:
    """The kind of a module of PyTorch or flax."""
    weight = module.get("weight")
    if weight is None:
        return _kind({name: np.ndim(leaf) for name, leaf in module.items()})
    if np.ndim(weight) == 2 and "bias" not in module and np.shape(weight) in embedded:
        return "embedding"
    return "norm" if np.ndim(weight) == 1 else KINDS["kernel"].get(np.ndim(weight), "")


def _kind(axes: Mapping[str, int]) -> str:
    """The kind of a module of flax by its leaves' numbers of axes."""
    kinds = (KINDS[name].get(count, "") for name, count in axes.items() if name in KINDS)
    return next(kinds, "")


def _count(names: list[str], what: str) -> str:
    count = f"{len(names)} {what} layer{'s' * (len(names) != 1)}" if what else f"{len(names)} others"
    return f"{count} ({_few(names)})" if names else count


def natural(name: str) -> list[Any]:
    """A key that sorts numbers in names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _module(name: str) -> str:
    return name.rpartition("/")[0]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")
