"""Checkpoints: files from which a computation that was stopped goes on with the same bits, and when to write one.

A checkpoint is one file, checkpoint-STEP.safetensors, which holds a tree of arrays, the identity of what computes and
the step it had reached (`core.tensors` says how a file recognises its contents). The last two of a folder are kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedjax_lc.core import spec, tensors
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.progress import say
from fedjax_lc.core.typing import PyTree

KEPT = 2  #: checkpoints of a folder
NAME = re.compile(r"(?P<prefix>.*)-(?P<step>\d{12,})\.safetensors")
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
    folder: Path, tree: PyTree, facts: Mapping[str, Any], *, step: int, identity: Any, prefix: str = "checkpoint"
) -> Path:
    """Write a checkpoint and keep the last two.

    Args:
        tree: arrays of any dtype, PRNG keys and numbers.
        facts: plain values, as JSON can write them.
        step: how far the computation had come; of two checkpoints the one with the larger step is the later.
        identity: plain values that determine the results; a checkpoint is used only where they are the same.
        prefix: the beginning of the file's name, for a folder with several computations.

    Raises:
        InputError: it cannot be written; those before it are kept.
    """
    path = folder / f"{prefix}-{step:012d}.safetensors"
    tensors.write(path, tree, {"identity": identity, "step": step, "facts": dict(facts)})
    paths = _paths(folder, prefix)
    here = paths.index(path)  # those of larger steps could not be used, or this computation would be beyond them
    for old in [*paths[:here], *paths[here + KEPT :]]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def latest(
    folder: Path,
    like: PyTree | Callable[[dict[str, Any]], PyTree],
    identity: Any,
    *,
    prefix: str = "checkpoint",
) -> Checkpoint | None:
    """The last checkpoint that can be used, or None; one line on stderr says of each later one why it cannot.

    Args:
        like: a tree with the structure, shapes and dtypes of the one that was saved; nothing of it is computed. Where
            they depend on the facts, a function of those.
        identity: as given to `save`.
    """
    paths = _paths(folder, prefix)
    for path, before in zip(paths, [*(path.name for path in paths), "the start"][1:], strict=True):
        try:
            stored = tensors.read(path)
            facts = stored.facts
            if facts.get("identity") != identity:
                raise InputError("it is of something else")
            tree = stored.tree(like(facts["facts"]) if callable(like) else like)
            return Checkpoint(tree, facts["step"], facts["facts"])
        except (InputError, KeyError, TypeError) as error:
            say(f"note: {path} cannot be used, {error}: going on from {before}")
    return None


def remove(folder: Path, prefix: str = "checkpoint") -> None:
    """Remove all checkpoints."""
    for path in _paths(folder, prefix):
        with contextlib.suppress(OSError):
            path.unlink()


def _paths(folder: Path, prefix: str) -> list[Path]:
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
