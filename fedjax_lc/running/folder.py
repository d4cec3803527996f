"""The folder of a run: what determines its results, its records so far, and the checkpoints from which it goes on.

While it runs: config.json (status interrupted), trace.parquet (all records up to the last checkpoint) and the last two
checkpoints. In the end: config.json, trace.parquet and state.safetensors, as `Trace.save` writes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from fedjax_lc.core import tensors
from fedjax_lc.core.devices import is_first, of_any, of_first, of_shapes
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import remove_leftovers, unwritable
from fedjax_lc.core.lock import NAME as LOCK
from fedjax_lc.core.lock import locked
from fedjax_lc.core.paths import read_json
from fedjax_lc.core.progress import say
from fedjax_lc.core.typing import PyTree
from fedjax_lc.results.provenance import check_identity
from fedjax_lc.results.trace import STATE, Trace
from fedjax_lc.running import checkpoints
from fedjax_lc.running.checkpoints import Checkpoint, Schedule

LENGTH = "steps"  #: the entry of an identity that `extend` changes
EXTENDED = "extended_by"  #: the entry of the config of a run that is being extended: by how many steps


@contextlib.contextmanager
def opened(
    out: str | Path | None,
    identity: Mapping[str, Any],
    schedule: Schedule,
    *,
    other_code: bool = False,
    extended: bool = False,
    mesh: Mesh | None = None,
) -> Iterator[Folder]:
    """The folder of a run, locked within the block. Leftovers of killed processes are removed at both ends.

    Args:
        out: its path; None for a run that is in memory alone.
        identity: what determines the results, as plain values.
        other_code: whether to go on with what other code or versions computed.
        extended: whether a run that is done will go on, too.
        mesh: the devices of the run. Of several processes the first one writes; what is spread over devices, each.

    Raises:
        InputError: the folder holds something else, is in use, or cannot be written.
    """
    if out is None:
        yield Folder(None, identity, schedule, mesh)
        return
    path = Path(out)
    if not str(out) or (path.exists() and not path.is_dir()):
        raise InputError(f"out must be a folder, got {str(out)!r}")
    _check(path, identity, other_code, extended)  # before a lock, so that nothing is written beside something else
    if not is_first(mesh):
        yield Folder(path, identity, schedule, mesh)
        return
    # a run that is done is only read, maybe in an archive
    with contextlib.nullcontext() if _is_done(read(path)) and not extended else locked(path):
        remove_leftovers(path)
        remark = _check(path, identity, other_code, extended)
        if remark is not None:
            say(f"note: {remark}")
        try:
            yield Folder(path, identity, schedule, mesh)
        finally:
            remove_leftovers(path)


def _check(path: Path, identity: Mapping[str, Any], other_code: bool, extended: bool) -> str | None:
    """Raise InputError if the folder holds something else than this run; a remark where it is taken all the same."""
    config = read(path)
    if config is None:
        return None
    finished = _is_done(config) and not extended
    try:
        return check_identity(path, "run", config["identity"], identity, finished=finished, other_code=other_code)
    except InputError:
        raise
    except (TypeError, ValueError):
        raise _damaged(path) from None


def _is_done(config: Mapping[str, Any] | None) -> bool:
    return config is not None and config.get("status") != "interrupted"


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}/config.json is damaged: restore it, or choose another folder")


def read(path: Path) -> dict[str, Any] | None:
    """The config.json of a run's folder, None for a folder that holds no run yet.

    Raises:
        InputError: the folder holds something else than a run.
    """
    kept = path / "config.json"
    if not kept.exists():
        if (path / "trace.parquet").exists() or any(path.glob("checkpoint-*.safetensors")):
            raise InputError(f"{path} holds a run without its config.json: choose another folder")
        return None
    try:
        config = read_json(kept)
        if not isinstance(config["identity"], dict) or not isinstance(config["method"], str):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} holds something else than a run: choose another folder") from None
    return config


def set_aside(path: Path) -> None:
    """Give a folder, if it is there, another name: its name with .1, or the first number that is free.

    Raises:
        InputError: a process uses the folder, or it cannot be renamed.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return
    try:
        with locked(path):
            numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
            free = next(other for other in numbered if not other.exists())
            path.rename(free)
        (free / LOCK).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    say(f"kept what {path} held as {free}")


class Folder:
    """A run's folder within `opened`; with path None nothing is read or written.

    Attributes:
        mesh: the devices of the run.
        writes: whether this process writes, or only reads what another one writes.
        config: config.json as it was, or None if the run begins now.
        identity: what determined the results when the run began.
        trouble: why the last try to write failed; empty if it did not.
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, Any], schedule: Schedule, mesh: Mesh | None = None
    ) -> None:
        self.path, self.schedule, self.trouble, self.mesh, self.writes = path, schedule, "", mesh, is_first(mesh)
        self.config = None if path is None else read(path)
        self.identity = dict(identity) if self.config is None else self.config["identity"]

    def finished(self) -> Trace | None:
        """The trace of a run that is done, or None."""
        if self.path is None or not _is_done(self.config):
            return None
        trace = Trace.load(self.path)
        if self.writes:
            checkpoints.remove(self.path)
        return trace

    def resume(self, like: Callable[[], PyTree]) -> tuple[Checkpoint, Trace] | None:
        """The last checkpoint that can be used, with its records; None for a run that begins now.

        Args:
            like: makes the shapes of the checkpoint's tree.

        Raises:
            InputError: the records are not those of the checkpoint.
        """
        if of_any(of_first(seen := self._seen(), self.mesh) != seen, self.mesh):
            raise InputError(f"not all processes find the same in {self.path}: choose a folder that all of them see")
        if self.path is None or self.config is None:
            return None
        checkpoint = checkpoints.latest(self.path, like(), name(self.identity), mesh=self.mesh)
        if checkpoint is None:
            return None
        trace, records = Trace.load(self.path), checkpoint.facts["records"]
        if len(trace) < records or trace.digest(records) != checkpoint.facts["digest"]:
            raise InputError(f"{self.path}/trace.parquet does not hold the records of the checkpoint at step "
                             f"{checkpoint.step}: restore it, or begin anew in another folder")  # fmt: skip
        return checkpoint, trace.head(records)

    def _seen(self) -> int:
        """A number for what the folder holds."""
        if self.path is None or self.config is None:
            return 0
        return 1 + zlib.crc32("/".join(path.name for path in checkpoints.listed(self.path)).encode()) % 2**30

    def lengthen(self, steps: int, like: Callable[[], PyTree], facts: Mapping[str, Any]) -> None:
        """Turn a run that is done into one of `steps` steps, interrupted where the other ended.

        Raises:
            InputError: its last state cannot be used, or the folder cannot be written.
        """
        assert self.path is not None
        assert self.config is not None
        try:
            stored = tensors.read(self.path / STATE)
            trace = Trace.load(self.path)
            if stored.facts.get("digest") != trace.digest():
                raise InputError("it is of other records")
            if name(stored.facts.get("identity") or {}) != name(self.identity):
                raise InputError("it is of another run")
            tree = stored.tree(of_shapes(like()))
        except InputError as error:
            raise InputError(f"{self.path / STATE} cannot be used, {error}: run it anew") from None
        if self.writes:
            checkpoints.save(self.path, tree, stored.facts, step=int(trace.step[-1]), identity=name(self.identity))
        self.identity[LENGTH] = steps
        trace.config.update(facts)
        if self.writes:
            self._save_config(self.path, trace)
        self.config |= {"status": "interrupted"}

    def begin(self, trace: Trace) -> None:
        """The computation begins now; if that is at its first step, write what the folder will hold.

        Raises:
            InputError: it cannot be written.
        """
        self.schedule.begin(len(trace) and int(trace.step[-1]))
        if self.path is not None and not len(trace) and self.writes:
            self._save_config(self.path, trace)
            trace.save_records(self.path)

    def checkpoint(self, trace: Trace, at: Mapping[str, PyTree]) -> None:
        """Write the records so far and a checkpoint. If that fails, one line says so and the run goes on.

        Args:
            trace: the records; its state is not used.
            at: what of `Trace.end` lies on the devices.
        """
        if self.path is None:
            return
        step, started = int(trace.step[-1]), time.monotonic()
        with self._lines():
            with checkpoints.agreed(self.mesh):
                if self.writes:
                    trace.save_records(self.path)
                    self._save_config(self.path, trace)
            tree, facts = trace.end()
            identity, tree = name(self.identity), tree | dict(at)
            checkpoints.save(self.path, tree, facts, step=step, identity=identity, mesh=self.mesh, writes=self.writes)
        self.schedule.written(step, time.monotonic() - started)

    def end(self, trace: Trace, at: Mapping[str, PyTree], steps: int, ended: bool) -> Trace:
        """Write the results of a run that is done, or where one of `steps` steps was interrupted. Returns the trace.

        If that fails, one line says so, and the trace has no folder.

        Args:
            at: as for `checkpoint`.
            ended: whether the process ends after it.
        """
        if self.path is None:
            if ended and self.writes:
                say(f"terminated at step {trace.step[-1]:.0f} of {steps}: nothing is kept of a run without out")
            return trace
        self.trouble = ""
        if trace.status == "interrupted":
            self.checkpoint(trace, at)
        if not self.writes:
            return trace
        trace.folder = self.path
        if trace.status != "interrupted":
            with self._lines():
                trace.config["identity"] = self.identity
                trace.config.pop(EXTENDED, None)
                trace.save(self.path)
                checkpoints.remove(self.path)
        if self.trouble:
            trace.folder = None
        elif trace.status == "interrupted":
            say(f"interrupted at step {trace.step[-1]:.0f} of {steps}: {self.path} keeps it, and the same call goes on")
        return trace

    def _save_config(self, path: Path, trace: Trace) -> None:
        trace.config["identity"] = self.identity
        status, trace.status = trace.status, "interrupted"
        try:
            trace.save_config(path)
        finally:
            trace.status = status

    @contextlib.contextmanager
    def _lines(self) -> Iterator[None]:
        """Within the block a file that cannot be written is one line, and the same line only once."""
        try:
            yield
            self.trouble = ""
        except InputError as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                say(f"note: {error}")


def name(identity: Mapping[str, Any]) -> str:
    """A digest of a run's identity that does not depend on its length."""
    facts = {key: value for key, value in identity.items() if key != LENGTH}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
