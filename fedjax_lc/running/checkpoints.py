"""Checkpoints: files from which a computation that was stopped goes on with the same bits, and when to write one.

A checkpoint is one file, checkpoint-STEP.safetensors, which holds a tree of arrays, the identity of what computes and
the step it had reached (`core.tensors` says how a file recognises its contents). What of the tree is spread over
devices lies beside it in a folder, checkpoint-STEP.orbax (`core.parts`); the file, which is written last, makes it
valid. The last two checkpoints are kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from fedjax_lc.core import parts, spec, tensors
from fedjax_lc.core.devices import gathered, of_shapes, together
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.progress import say
from fedjax_lc.core.typing import PyTree

KEPT = 2  #: checkpoints of a folder
NAME = re.compile(r"(?P<prefix>.*)-(?P<step>\d{12,})\.safetensors")
SPREAD = ".orbax"  #: the suffix of folders
FAR = 2**62  #: more records than any run has
SHARE = 0.01  #: of the time that checkpoints may take where nothing else is asked for
LEAST_SECONDS = 60.0  #: from one checkpoint to the next, where nothing else is asked for


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: a tree, the step that it had reached, and further facts as plain values."""

    tree: PyTree
    step: int
    facts: dict[str, Any]


def save(
    folder: Path,
    tree: PyTree,
    facts: Mapping[str, Any],
    *,
    step: int,
    identity: Any,
    prefix: str = "checkpoint",
    mesh: Mesh | None = None,
    writes: bool = True,
) -> Path:
    """Write a checkpoint and keep the last two.

    Args:
        tree: arrays of any dtype, PRNG keys and numbers; `Rows` are written from the devices where they lie.
        facts: plain values, as JSON can write them.
        step: how far the computation had come; of two checkpoints the one with the larger step is the later.
        identity: plain values that determine the results; a checkpoint is used only where they are the same.
        prefix: the beginning of the file's name, for a folder with several computations.
        mesh: the devices of the computation; all of its processes make the same call.
        writes: whether this process writes the file, as one of them does.

    Raises:
        InputError: it cannot be written; those before it are kept.
    """
    path = folder / f"{prefix}-{step:012d}.safetensors"
    rest, rows = parts.split(tree)
    try:
        with agreed(mesh):
            spread = parts.write(path.with_suffix(SPREAD), rows) if rows else None
        if not writes:
            return path
        about = {"identity": identity, "step": step, "facts": dict(facts), "spread": spread}
        tensors.write(path, gathered(rest), about)
    except InputError:
        if writes:
            _remove_folders(folder, prefix, keep=listed(folder, prefix))
        raise
    paths = listed(folder, prefix)
    here = paths.index(path)  # those of larger steps could not be used, or this computation would be beyond them
    for old in [*paths[:here], *paths[here + KEPT :]]:
        with contextlib.suppress(OSError):
            old.unlink()
    _remove_folders(folder, prefix, keep=listed(folder, prefix))
    return path


def latest(
    folder: Path,
    like: PyTree | Callable[[dict[str, Any]], PyTree],
    identity: Any,
    *,
    prefix: str = "checkpoint",
    mesh: Mesh | None = None,
) -> Checkpoint | None:
    """The last checkpoint that can be used, or None; one line on stderr says of each later one why it cannot.

    Args:
        like: a tree with the structure, shapes and dtypes of the one that was saved; nothing of it is computed. Where
            they depend on the facts, a function of those. What was spread over devices comes back spread where `like`
            has `Rows`; all else comes back on the host.
        identity: as given to `save`.
        mesh: the devices of the computation; all of its processes make the same call, and use the same checkpoint.
    """
    paths = listed(folder, prefix)
    for path, before in zip(paths, [*(path.name for path in paths), "the start"][1:], strict=True):
        try:
            with agreed(mesh):
                facts, tree, wanted = _checked(path, like, identity)
            with agreed(mesh):
                rows = parts.read(path.with_suffix(SPREAD), facts["spread"], wanted) if facts.get("spread") else {}
            return Checkpoint(parts.joined(tree, rows), facts["step"], facts["facts"])
        except InputError as error:
            say(f"note: {path} cannot be used, {error}: going on from {before}")
    return None


def _checked(path: Path, like: Any, identity: Any) -> tuple[dict[str, Any], PyTree, PyTree]:
    """The facts of a checkpoint, its tree without what is spread over devices, and the tree that is wanted.

    Raises:
        InputError: it cannot be used.
    """
    stored = tensors.read(path)
    facts = stored.facts
    if facts.get("identity") != identity:
        raise InputError("it is of something else")
    try:
        wanted, spread = like(facts["facts"]) if callable(like) else like, facts.get("spread")
        if not isinstance(facts["step"], int):
            raise TypeError
        if spread:
            parts.check(path.with_suffix(SPREAD), spread, wanted)
        return facts, stored.tree(of_shapes(parts.without(wanted, spread["shapes"] if spread else {}))), wanted
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"it is damaged ({type(error).__name__})") from None
    except OSError as error:
        raise InputError(f"it cannot be read ({type(error).__name__})") from None


@contextlib.contextmanager
def agreed(mesh: Mesh | None) -> Iterator[None]:
    """As `devices.together`, where several processes compute; without a mesh each process is on its own."""
    with contextlib.nullcontext() if mesh is None else together(mesh):
        yield


def remove(folder: Path, prefix: str = "checkpoint") -> None:
    """Remove all checkpoints."""
    for path in listed(folder, prefix):
        with contextlib.suppress(OSError):
            path.unlink()
    _remove_folders(folder, prefix, keep=[])


def _remove_folders(folder: Path, prefix: str, keep: list[Path]) -> None:
    """Remove the folders of checkpoints that have no file, and those that killed processes left half-written."""
    kept = {path.with_suffix(SPREAD) for path in keep}
    for path in folder.glob(f"{prefix}-*{SPREAD}*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()  # a link, or a file


def listed(folder: Path, prefix: str = "checkpoint") -> list[Path]:
    """All checkpoints, the latest first."""
    steps = {path: NAME.fullmatch(path.name) for path in folder.glob("*.safetensors")}
    ours = [(int(match["step"]), path) for path, match in steps.items() if match and match["prefix"] == prefix]
    return [path for _, path in sorted(ours, reverse=True)]


class Schedule:
    """When to write the next checkpoint.

    Args:
        every: a number of minutes (0: as often as possible), "steps:N" or "minutes:M"; None for so often that writing
            takes a hundredth of the time, and at least a minute apart.

    Raises:
        InputError: `every` is none of these.

    Example:
        >>> Schedule("steps:1000").steps, Schedule(5).seconds, Schedule(None).seconds
        (1000, 300.0, 60.0)
    """

    def __init__(self, every: float | str | None) -> None:
        self.steps, self.seconds, self.adapts = None, LEAST_SECONDS, every is None
        if every is not None:
            unit, number = _read(every)
            self.steps = int(number) if unit == "steps" else None
            self.seconds = 60.0 * number
        self.begin(0)

    def begin(self, step: int) -> None:
        """A computation starts now, at this step."""
        self.step, self.time = step, time.monotonic()

    def records(self, step: int, every: int) -> int:
        """Records of `every` steps until the next checkpoint, at least one."""
        return FAR if self.steps is None else max(1, -(-(self.step + self.steps - step) // every))

    def due(self, step: int) -> bool:
        """Whether to write one now."""
        if self.steps is not None:
            return step - self.step >= self.steps
        return time.monotonic() - self.time >= self.seconds

    def written(self, step: int, seconds: float) -> None:
        """One was written in so many seconds."""
        self.begin(step)
        if self.adapts:
            self.seconds = max(LEAST_SECONDS, seconds / SHARE)


def _read(every: float | str) -> tuple[str, float]:
    wrong = InputError(
        f"checkpoint_every must be a number of minutes >= 0 or steps:N, such as 5 or steps:1000, got {every!r}"
    )
    try:
        call = spec.parse("checkpoint_every", str(every))
        unit, text = ("minutes", call.name) if not call.arguments else (call.name, call.arguments[0][1])
        number = float(int(text)) if unit == "steps" else float(text)
    except (ValueError, OverflowError):
        raise wrong from None
    least = {"minutes": 0, "steps": 1}.get(unit)
    if least is None or not least <= number <= 2**53 or len(call.arguments) > 1 or call.inner:
        raise wrong
    return unit, number
