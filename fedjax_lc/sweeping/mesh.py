"""Local devices: lanes are spread over them, and devices run without communication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import PyTree

LANES = "lanes"
EVERYWHERE = PartitionSpec()  #: the same on every device
SPREAD = PartitionSpec(LANES)  #: first axis split over devices
SPREAD_SECOND = PartitionSpec(None, LANES)  #: second axis split over devices


def mesh(devices: Sequence[Any] | int | None = None) -> Mesh:
    """A mesh with one axis, "lanes", over local devices: all for None, the first ones for a number, or a list.

    Raises:
        InputError: there are not as many devices, or none is given.
    """
    local = jax.local_devices()
    if isinstance(devices, int) and not 1 <= devices <= len(local):
        raise InputError(f"devices must be 1..{len(local)} local devices, got {devices}")
    chosen = local if devices is None else local[:devices] if isinstance(devices, int) else list(devices)
    if not chosen:
        raise InputError(f"devices must be 1..{len(local)} local devices, got {devices}")
    return Mesh(np.array(chosen), (LANES,))


def over_devices(function: Callable[..., Any], mesh: Mesh, into: PyTree, out_of: PyTree) -> Callable[..., Any]:
    """A function that runs `function` on every device of `mesh`, on the device's share of the lanes.

    `into` and `out_of` give the placement of each argument and result: EVERYWHERE, SPREAD or SPREAD_SECOND.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=into, out_specs=out_of, check_vma=False)


def put(tree: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    """Arrays of `tree` placed on the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, spec))
