"""How much of the host's memory a process may still take, and one line where more is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedjax_lc.core.errors import InputError

#: where control groups lie -> their files of the limit and of the use, and the name of cached files in memory.stat
GROUPS = {
    "sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_on_host(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate: of the host, and of the limits of its control groups (versions 1 and
    2) if these are lower. None where neither is known."""
    return min([*_of_groups(root), *_of_host(root)], default=None)


def check(needed: float, what: str, cure: str, free: float | None = None) -> None:
    """Raise InputError if `what` needs more bytes than are free (None: on the host)."""
    free = free_on_host() if free is None else free
    if free is not None and needed > free:
        raise InputError(f"{what} needs {size(needed)} and {size(free)} are free: {cure}")


def size(number: float) -> str:
    """A number of bytes in words.

    >>> size(1_230_000)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def _of_host(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """Bytes left in the control group of this process and in those that contain it."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, kinds, path = line.split(":", 2)
            if number == "0" or "memory" in kinds.split(","):
                mount = "sys/fs/cgroup" if number == "0" else "sys/fs/cgroup/memory"
                # Within a container the path may be the host's, while the mount is the container's group.
                groups = [Path(path.strip("/")), *Path(path.strip("/")).parents]
                yield from (left for group in groups for left in _left(root / mount / group, *GROUPS[mount]))


def _left(group: Path, limit: str, use: str, cached: str) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # a limit may be the word max
        most, used = (int((group / name).read_text()) for name in (limit, use))
        stat = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        yield max(0, most - used + sum(int(number) for name, number in stat if name == cached))
