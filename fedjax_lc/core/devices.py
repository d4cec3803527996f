"""Devices: a mesh of them with the axes "lanes" and "clients", and how arrays are spread over it.

A sweep's lanes are independent: each device runs its lanes, without communication. Clients meet at a server: the rows
of matrices (n, ...) are split over the devices, everything else is the same on each, and a mean over clients is the sum
that devices exchange. Methods do not know of it: within a compiled program they see all n clients (`whole`), and XLA
splits the work (GSPMD). n need not be a multiple of the number of devices: at a program's borders, where JAX asks for
equal shares, rows of zeros fill up the last ones (`Rows`); they are cut off inside.

With several processes (`jax.distributed`) a mesh spans the devices of all, each of which runs the same program.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.typing import PyTree

T = TypeVar("T")

LANES, CLIENTS = "lanes", "clients"
EVERYWHERE = PartitionSpec()  #: the same on every device
SPREAD = PartitionSpec(LANES)  #: first axis, of lanes, split over devices
SPREAD_SECOND = PartitionSpec(None, LANES)  #: second axis, of lanes, split over devices
BY_CLIENT = PartitionSpec(CLIENTS)  #: first axis, of clients, split over devices


def devices(*, clients: int = 1, lanes: int = 1) -> Mesh:
    """A mesh of devices: `fl.run` takes one with `clients`, `fl.sweep` one with `lanes`.

    Args:
        clients: devices that share the clients of a run: their data and states lie spread over them.
        lanes: devices that share the lanes of a sweep.

    Raises:
        InputError: a number below 1, or more devices than there are (of all processes).

    Example:
        >>> trace = fl.run("locodl", problem, devices=fl.devices(clients=4))
    """
    for name, count in ((CLIENTS, clients), (LANES, lanes)):
        if not pytree.is_whole(count) or count < 1:
            raise InputError(f"devices must be whole numbers >= 1, got {name}={count}")
    there = jax.devices()
    if lanes * clients > len(there):
        asked = " x ".join(str(count) for count in (lanes, clients) if count > 1)
        raise InputError(f"{asked} devices are asked for, and there are {len(there)} ({there[0].platform}): ask for "
                         "fewer, or start more processes")  # fmt: skip
    return Mesh(np.array(there[: lanes * clients]).reshape(lanes, clients), (LANES, CLIENTS))


def parse(text: str) -> Mesh:
    """The mesh that words such as clients=4 or clients=4,lanes=2 stand for.

    Raises:
        InputError: an axis is not known, a number is none, or there are not as many devices.
    """
    counts = {}
    for word in filter(None, text.replace(" ", "").split(",")):
        name, _, count = word.partition("=")
        if name not in (CLIENTS, LANES):
            raise unknown("axis of devices", name, (CLIENTS, LANES))
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            raise InputError(f"devices are given as clients=4, got {word!r}")
        counts[name] = int(count)
    return devices(**counts)


def of_clients(mesh: Mesh | None) -> Mesh | None:
    """The mesh of one run, whose only lane takes one device or all devices of the axis "clients"; None for no mesh.

    Raises:
        InputError: it has no such axis, or several devices on another one.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh) or CLIENTS not in mesh.axis_names or mesh.shape[CLIENTS] != mesh.size:
        raise InputError("a run spreads its clients over devices: give devices=fl.devices(clients=4)")
    here, there = jax.process_count(), len({device.process_index for device in mesh.devices.flat})
    if there not in (1, here) or (there == 1 and mesh.devices.flat[0].process_index != jax.process_index()):
        raise InputError(f"{mesh.size} devices leave {here - there} of {here} processes without one: start fewer, or "
                         f"ask for all {len(jax.devices())} devices")  # fmt: skip
    return mesh


def of_lanes(chosen: Mesh | Sequence[Any] | int | None = None) -> Mesh:
    """The mesh of a sweep: all local devices for None, the first ones for a number, or a list, or a mesh.

    Raises:
        InputError: there are not as many devices, or none is given, or clients are to be spread too.
    """
    if isinstance(chosen, Mesh):
        if LANES not in chosen.axis_names or chosen.shape[LANES] != chosen.size or chosen.is_multi_process:
            raise InputError("a sweep spreads its lanes over devices of one process: give devices=fl.devices(lanes=4)")
        return chosen
    local = jax.local_devices()
    if isinstance(chosen, int) and not 1 <= chosen <= len(local):
        raise InputError(f"devices must be 1..{len(local)} local devices, got {chosen}")
    picked = local if chosen is None else local[:chosen] if isinstance(chosen, int) else list(chosen)
    if not picked:
        raise InputError(f"devices must be 1..{len(local)} local devices, got {chosen}")
    return Mesh(np.array(picked)[:, None], (LANES, CLIENTS))


def over_devices(function: Callable[..., Any], mesh: Mesh, into: PyTree, out_of: PyTree) -> Callable[..., Any]:
    """A function that runs `function` on every device of `mesh`, on the device's share of the lanes.

    `into` and `out_of` give the placement of each argument and result: EVERYWHERE, SPREAD or SPREAD_SECOND.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=into, out_specs=out_of, check_vma=False)


def put(tree: PyTree, mesh: Mesh, spec: PartitionSpec = EVERYWHERE) -> PyTree:
    """Arrays of `tree` placed on the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, spec))


# --- several processes ---


@contextlib.contextmanager
def together(mesh: Mesh | None = None) -> Iterator[None]:
    """Work after which all processes of a mesh (None: all there are) go on, or none: where it fails in one of them, the
    others raise InputError. Such work may hold more of it."""
    error: InputError | None = None
    try:
        yield
    except InputError as raised:
        error = raised
    several = jax.distributed.is_initialized() and (mesh is None or mesh.is_multi_process)
    if several and not (error is not None and error.everywhere):  # all know of an error that came from within
        failed = multihost_utils.process_allgather(np.int32(error is not None)).ravel().nonzero()[0]
        if len(failed) and error is None:
            error = InputError(f"process {failed[0]} cannot go on, and says why")
    if error is not None:
        error.everywhere = several
        raise error


def of_first(number: int, mesh: Mesh | None) -> int:
    """The first process's number, in every process of a mesh."""
    if mesh is None or not mesh.is_multi_process:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int64(number)))


def is_first(mesh: Mesh | None) -> bool:
    """Whether this process prints and writes: the only one, or the first of the mesh."""
    return mesh is None or not mesh.is_multi_process or jax.process_index() == 0


def of_any(truth: bool, mesh: Mesh | None) -> bool:
    """Whether it is true in one process of a mesh or more, in every process."""
    if mesh is None or not mesh.is_multi_process:
        return truth
    return bool(multihost_utils.process_allgather(np.int32(truth)).any())


# --- clients over devices ---


@pytree.dataclass
class Rows:
    """An array (n, ...) of clients as it lies on the devices of a mesh.

    Attributes:
        array: (N, ...) its rows, split over the axis "clients"; N is n, rounded up to a multiple of the devices.
        n: the number of clients.
        mesh: the devices.
    """

    array: jax.Array
    n: int = pytree.static()
    mesh: Mesh = pytree.static()


def is_rows(leaf: Any) -> bool:
    return isinstance(leaf, Rows)


def of_each_client(leaf: Any, n: int) -> bool:
    """Whether an array is a matrix with a row for each client: these are split, the others lie on every device.

    Any answer gives right results; this one splits what is large. One number a client, such as who takes part in a
    round, is drawn and kept on every device alike.
    """
    return np.ndim(leaf) > 1 and np.shape(leaf)[0] == n


def padded(n: int, mesh: Mesh) -> int:
    """n, rounded up to a multiple of the devices that share clients."""
    shares = mesh.shape[CLIENTS]
    return -(-n // shares) * shares


def place(tree: PyTree, n: int, mesh: Mesh) -> PyTree:
    """The arrays of `tree`, which the host holds, on the devices: those (n, ...) as `Rows`, the others on every device.
    `Rows` stay where they lie.

    A process reads only the rows of its own devices, `leaf[start:stop]`.

    Raises:
        InputError: there are more devices than clients.
    """
    if n < mesh.shape[CLIENTS]:
        raise InputError(f"{n} clients cannot share {mesh.shape[CLIENTS]} devices: ask for {n} or fewer")
    new = lambda leaf: _rows(leaf, n, mesh) if of_each_client(leaf, n) else everywhere(leaf, mesh)
    return jax.tree.map(lambda leaf: leaf if is_rows(leaf) else new(leaf), tree, is_leaf=is_rows)


def _rows(leaf: Any, n: int, mesh: Mesh) -> Rows:
    shape = (padded(n, mesh), *leaf.shape[1:])

    def share(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(shape[0])
        there = np.asarray(leaf[first : min(last, n)])
        return np.concatenate([there, np.zeros((last - first - len(there), *shape[1:]), there.dtype)])

    return Rows(jax.make_array_from_callback(shape, NamedSharding(mesh, BY_CLIENT), share), n, mesh)


def everywhere(leaf: Any, mesh: Mesh) -> jax.Array:
    """An array, the same in every process, on every device."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(everywhere(jax.random.key_data(leaf), mesh), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, NamedSharding(mesh, EVERYWHERE), lambda index: host[index])


_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("fedjax_lc_clients_mesh", default=None)


@contextlib.contextmanager
def spreading(mesh: Mesh | None) -> Iterator[None]:
    """What is traced within spreads clients over the mesh, where `shared` and `each_device` say how."""
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def shared(tree: T) -> T:
    """`tree`, computed on every device alike: for what is drawn once for all clients. XLA would draw each device's
    entries there and then collect them."""
    mesh = _mesh.get()
    return tree if mesh is None else jax.tree.map(lambda leaf: _split(leaf, mesh, EVERYWHERE), tree)


def by_client(tree: T) -> T:
    """`tree`, whose first axes are clients, computed by the devices that share the clients."""
    mesh = _mesh.get()
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: _split(leaf, mesh, BY_CLIENT if _enough(len(leaf), mesh) else EVERYWHERE), tree)


def settled(tree: T, n: int) -> T:
    """A state, spread as by `place`: what is not split stays on every device from step to step."""
    mesh = _mesh.get()
    if mesh is None:
        return tree
    split = lambda leaf: _split(leaf, mesh, BY_CLIENT if of_each_client(leaf, n) else EVERYWHERE)
    return jax.tree.map(split, tree)


def _enough(n: int, mesh: Mesh) -> bool:
    """Whether so many rows are split over the devices: fewer, such as a server's one message, are computed by each."""
    return n >= mesh.shape[CLIENTS]


def each_device(function: Callable[..., Any], rows: PyTree, common: PyTree = (), count: int | None = None) -> Any:
    """`function(rows, common)`, each device for its own clients, without communication.

    It is for what XLA cannot split by itself: loops that end when data say so, and loops over clients.

    Args:
        function: its results have the clients as first axis, and row i of them depends on row i of `rows`.
        rows: arrays whose first axis is the clients, or blocks of their rows, as many on each device.
        common: arrays that all clients share.
        count: length of the first axis of the results; None for that of the first array of `rows`.
    """
    mesh = _mesh.get()
    n = len(jax.tree.leaves(rows)[0])
    if mesh is None or not _enough(n, mesh):
        return function(rows, common)
    local = jax.shard_map(function, mesh=mesh, in_specs=(BY_CLIENT, EVERYWHERE), out_specs=BY_CLIENT, check_vma=False)
    filled = jax.tree.map(lambda leaf: _filled(leaf, padded(len(leaf), mesh)), rows)
    with spreading(None):
        results = local(filled, common)
    return jax.tree.map(lambda leaf: leaf[: n if count is None else count], results)


def _filled(leaf: jax.Array, count: int) -> jax.Array:
    """`leaf` with rows of zeros at its end, `count` rows in all."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_filled(jax.random.key_data(leaf), count), impl=jax.random.key_impl(leaf))
    return jnp.pad(leaf, [(0, count - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


def on_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of a problem and more, to be compiled: it sees a placed problem whole, and every device has its
    result."""

    def call(problem: Any, *arguments: Any) -> Any:
        leaves = jax.tree.leaves(problem, is_leaf=is_rows)
        with spreading(next((leaf.mesh for leaf in leaves if is_rows(leaf)), None)):
            return shared(function(whole(problem), *arguments))

    return call


def whole(tree: PyTree) -> PyTree:
    """`tree` as methods and problems see it, within a compiled program: its `Rows` as arrays (n, ...)."""
    cut = lambda leaf: _split(leaf.array[: leaf.n], leaf.mesh, BY_CLIENT) if is_rows(leaf) else leaf
    return jax.tree.map(cut, tree, is_leaf=is_rows)


def spread(tree: PyTree, n: int, mesh: Mesh) -> PyTree:
    """The inverse of `whole`, within a compiled program: placed as by `place`."""

    def one(leaf: jax.Array) -> Any:
        if not of_each_client(leaf, n):
            return _split(leaf, mesh, EVERYWHERE)
        return Rows(_split(_filled(leaf, padded(n, mesh)), mesh, BY_CLIENT), n, mesh)

    return jax.tree.map(one, tree)


def _split(array: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))


def of_shapes(tree: PyTree) -> PyTree:
    """The shapes of what `on_host` makes of a tree of these shapes."""
    one = lambda leaf: (
        jax.ShapeDtypeStruct((leaf.n, *leaf.array.shape[1:]), leaf.array.dtype) if is_rows(leaf) else leaf
    )
    return jax.tree.map(one, tree, is_leaf=is_rows)


def gathered(tree: PyTree) -> PyTree:
    """`tree` with its `Rows` in NumPy, (n, ...), in every process, if there are several."""

    def one(leaf: Any) -> Any:
        if not is_rows(leaf):
            return leaf
        array = leaf.array
        if not array.is_fully_addressable:
            array = jax.jit(lambda array: array, out_shardings=NamedSharding(leaf.mesh, EVERYWHERE))(array)
        return np.asarray(array)[: leaf.n]

    return jax.tree.map(one, tree, is_leaf=is_rows)


def on_host(tree: PyTree) -> PyTree:
    """The arrays of `tree` in NumPy, `Rows` as (n, ...); in every process, if there are several."""
    return jax.tree.map(np.asarray, gathered(tree))
