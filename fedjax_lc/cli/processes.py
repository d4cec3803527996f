"""One command in several processes, of one machine or many: `--distributed`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedjax_lc.core.errors import InputError

if TYPE_CHECKING:
    from fedjax_lc.cli.config import RunConfig


@contextlib.contextmanager
def joined(config: RunConfig) -> Iterator[bool]:
    """Within, this process and the others run one program; yields whether it is the first, which prints and writes.

    Without --distributed it is the only one.

    Raises:
        InputError: the others cannot be found, or options do not fit each other.
    """
    by_hand = {"coordinator": config.coordinator, "processes": config.processes, "process": config.process}
    if not config.distributed:
        for name, value in by_hand.items():
            if value is not None:
                raise InputError(f"--{name} is for several processes: add --distributed, or leave it out")
        yield True
        return
    import jax

    from fedjax_lc.running.peers import ending_together

    _join(by_hand)
    with ending_together():
        if jax.process_index() == 0:
            yield True
        else:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield False
        jax.distributed.shutdown()


def _join(by_hand: dict[str, Any]) -> None:
    import jax

    given = {name: value for name, value in by_hand.items() if value is not None}
    if given and len(given) < len(by_hand):
        missing = " and ".join(f"--{name}" for name in by_hand.keys() - given.keys())
        raise InputError(
            f"{missing} is missing: give --coordinator, --processes and --process together, or none of them"
        )
    if given and not 0 <= by_hand["process"] < by_hand["processes"]:
        raise InputError(f"--process must be 0..{by_hand['processes'] - 1}, got {by_hand['process']}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(by_hand["coordinator"], by_hand["processes"], by_hand["process"])
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--distributed finds no other processes ({reason}): start it by srun or mpirun, or give "
                         "--coordinator, --processes and --process") from error  # fmt: skip


def mesh(config: RunConfig) -> Any:
    """The devices of a run: those that --devices names; all of several processes; None for one.

    Raises:
        InputError: there are no such devices.
    """
    from fedjax_lc.core import devices

    if config.devices is not None:
        return devices.of_clients(devices.parse(config.devices))
    import jax

    return devices.devices(clients=len(jax.devices())) if config.distributed else None
