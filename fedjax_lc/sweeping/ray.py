"""The engine of a Ray cluster: every worker is an actor that runs parts of a sweep (`pip install fedjax_lc[ray]`)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames.base import load
from fedjax_lc.core.devices import of_lanes
from fedjax_lc.core.errors import InputError
from fedjax_lc.results.provenance import differences, identity
from fedjax_lc.sweeping.blocks import Ended
from fedjax_lc.sweeping.farm import Lost, farm
from fedjax_lc.sweeping.fit import Room
from fedjax_lc.sweeping.store import UnderWay
from fedjax_lc.sweeping.work import Eyes, Part, Work

MOMENT = 0.5  #: seconds between two looks at the workers
SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
    "jax_disable_most_optimizations",
)  #: of JAX, which workers take over
VARIABLES = ("FEDJAX_LC_METHODS", "XLA_FLAGS", "PYTHONPATH")  #: of the environment, likewise


@dataclasses.dataclass(frozen=True)
class Ray:
    """An engine for `fl.sweep(engine=...)`: parts of the sweep run on the workers of a Ray cluster.

    Results are gathered here, in the sweep's folder, part by part, and so are lanes under way; a part whose worker dies
    goes on from what was gathered. Results are bit for bit those of the engine in this process with as many lanes side
    by side.

    Attributes:
        address: of the cluster: "auto" for the one that this machine belongs to, "local" for one of this machine only.
        workers: how many at a time; None for as many as the cluster has room for.
        cpus, gpus: what each worker reserves.
        retries: how often a part begins anew before the sweep gives up.

    Raises:
        InputError: Ray is not installed, or the cluster is not there.

    Example:
        >>> fl.sweep("locodl", problem, grid, seeds=64, out="out", engine=Ray("auto", cpus=4))
    """

    address: str = "auto"
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 5

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cpus", 0), ("gpus", 0), ("retries", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < 10**6:
                raise InputError(f"{name} of the engine ray must be {least} or more, got {value}")

    @functools.cached_property
    def size(self) -> int:
        """The number of workers."""
        ray = connect(self.address)
        if self.workers is not None:
            return self.workers
        there = ray.cluster_resources()
        room = [there.get(name, 0) // need for name, need in (("CPU", self.cpus), ("GPU", self.gpus)) if need]
        if not room or min(room) < 1:
            raise InputError(f"the Ray cluster has no room for a worker of {self.cpus:g} CPUs and {self.gpus:g} GPUs: "
                             f"it has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}")  # fmt: skip
        return int(min(room))

    def __call__(self, work: Work, parts: Iterator[Part], eyes: Eyes) -> Iterator[Ended]:
        crew = _Crew(self, work)
        try:
            yield from farm(work, parts, eyes, crew, self.size)
        finally:
            crew.dismiss()


def connect(address: str) -> Any:
    """The module of Ray, connected to a cluster.

    Raises:
        InputError: Ray is not installed, or the cluster is not there.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"the engine ray needs Ray: pip install 'fedjax_lc[ray]' ({error})") from None
    if not ray.is_initialized():
        local = {} if address != "local" else {"include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"no Ray cluster at {address} ({reason}): start one by ray start --head, or give "
                             "--address local for one of this machine") from None  # fmt: skip
    return ray


class _Crew:
    """Actors of a Ray cluster."""

    def __init__(self, engine: Ray, work: Work) -> None:
        self.ray, self.retries, self.work = connect(engine.address), engine.retries, work
        pickle = self.ray.cloudpickle
        room = (work.room.block_size, work.room.memory)
        payload = pickle.dumps((work.task, list(work.hparams), work.seeds, work.masked, room, work.shares))
        alg = work.algorithm
        file = Path(alg.file).read_text() if _is_users(alg.file) else None
        self.order = self.ray.put((alg.name, Path(alg.file).name, file, _settings(), payload))
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        self.actor = self.ray.remote(Worker).options(
            num_cpus=engine.cpus, num_gpus=engine.gpus, max_concurrency=2, runtime_env={"env_vars": variables}
        )
        whole = identity(alg, work.task.problem, work.hparams, work.task.metrics.of_state)
        self.code = _code(whole)
        self.calls: dict[Any, tuple[Any, Part]] = {}
        self.seen: dict[Any, tuple[int, int]] = {}
        self.more = (0, 0)  # progress that is known here and not yet told

    def hire(self) -> Any:
        """A new actor; it is checked when it begins its first part."""
        return self.actor.remote(self.order)

    def begin(self, worker: Any, part: Part) -> None:
        """Let the actor run a part, from where it stopped if it is under way."""
        files = part.under_way.files() if part.under_way.folder is not None else None
        sent = part._replace(under_way=part.under_way.elsewhere(None))
        self.seen[worker] = (0, 0)
        self.calls[worker.run.remote(sent, self.code, files)] = worker, part

    def wait(self) -> list[tuple[Any, Ended | Lost]]:
        """The actors that ended their part within a moment, or died."""
        ready, _ = self.ray.wait(list(self.calls), num_returns=len(self.calls), timeout=MOMENT)
        results: list[tuple[Any, Ended | Lost]] = []
        for call in ready:
            worker, part = self.calls.pop(call)
            made = (len(part.lanes) * self.work.task.records, len(part.lanes))
            try:
                ended, files = self.ray.get(call)
                results.append((worker, ended))
                if not ended.whole:
                    part.under_way.take(files)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except self.ray.exceptions.RayError as error:
                results.append((worker, Lost(str(error).partition("\n")[0])))
                made = (0, 0)  # the part begins anew
            self._count(worker, made)
        return results

    def _count(self, worker: Any, made: tuple[int, int]) -> None:
        """The actor has made so much of its part."""
        before, self.seen[worker] = self.seen[worker], made
        self.more = (self.more[0] + made[0] - before[0], self.more[1] + made[1] - before[1])

    def progress(self) -> tuple[int, int]:
        """What all actors made since the last call, whose lanes under way are kept here; one that is busy or dead is
        asked again later."""
        asked = {worker.progress.remote(): (worker, part) for worker, part in self.calls.values()}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=MOMENT) if asked else ([], [])
        for call in ready:
            with contextlib.suppress(self.ray.exceptions.RayError):
                made, files = self.ray.get(call)
                worker, part = asked[call]
                self._count(worker, made)
                if files:
                    part.under_way.take(files)
        more, self.more = self.more, (0, 0)
        return more

    def stop(self) -> None:
        """Ask all actors to end their parts."""
        for worker, _ in self.calls.values():
            worker.stop.remote()

    def dismiss(self) -> None:
        """End all actors: they end when nothing refers to them."""
        self.calls.clear()
        self.seen.clear()


class Worker:
    """What an actor does: it makes the sweep's work again and runs parts of it."""

    def __init__(self, order: tuple[str, str, str | None, dict[str, Any], bytes]) -> None:
        name, file, text, settings, payload = order
        for setting, value in settings.items():
            jax.config.update(setting, value)
        if text is not None and name not in algorithms.names():
            load(_written(file, text))
        import ray

        task, hparams, seeds, masked, (block_size, memory), shares = ray.cloudpickle.loads(payload)
        room = Room(of_lanes(), block_size, memory)
        self.work = Work(algorithms.get(name), task, hparams, seeds, masked, room, shares, lambda line: None)
        self.made, self.stopped = (0, 0), threading.Event()
        self.under_way: UnderWay | None = None
        self.sent: set[str] = set()  # names of files that the sweep has

    def run(self, part: Part, code: dict[str, Any], files: dict[str, bytes] | None) -> tuple[Ended, dict[str, bytes]]:
        """Run a part. Returns its results and, if it was asked to end early, the files of its lanes under way.

        Args:
            code: the code and versions of the sweep.
            files: those of the part's lanes under way; None if they are not kept.

        Raises:
            InputError: this worker's code or versions are not those of the sweep.
        """
        differ, words = differences(self.code, code)
        if differ:
            raise InputError(f"the worker on {platform.node()} has {words}: give all machines of the cluster the same "
                             "fedjax_lc, jax and method files")  # fmt: skip
        self.made, self.sent = (0, 0), set(files or ())
        with tempfile.TemporaryDirectory(prefix="fedjax_lc_") as folder:
            self.under_way = part.under_way.elsewhere(None if files is None else Path(folder))
            self.under_way.identity = part.under_way.identity | {"slots": [part.block, self.work.room.mesh.size]}
            self.under_way.take(files or {})
            ended = self.work.run(part._replace(under_way=self.under_way), self._advanced, self.stopped.is_set)
            kept, self.under_way = self.under_way.files(), part.under_way
        return ended, kept

    @functools.cached_property
    def code(self) -> dict[str, Any]:
        """The code and versions here."""
        work = self.work
        return _code(identity(work.algorithm, work.task.problem, work.hparams, work.task.metrics.of_state))

    def _advanced(self, records: int, ended: int) -> None:
        self.made = (self.made[0] + records, self.made[1] + ended)

    def progress(self) -> tuple[tuple[int, int], dict[str, bytes]]:
        """Records made and lanes that ended in this part, and the files of its lanes under way where they are new."""
        files = self.under_way.files() if self.under_way is not None else {}
        if files.keys() <= self.sent:
            return self.made, {}
        self.sent = {*files}
        return self.made, files

    def stop(self) -> None:
        """End the part early."""
        self.stopped.set()


def _is_users(file: str) -> bool:
    """Whether a method's file is not of this package, and can be read."""
    return Path(file).is_file() and Path(algorithms.__file__).parent not in Path(file).parents


def _written(name: str, text: str) -> Path:
    """A user's method file, on the worker's machine."""
    path = Path(tempfile.mkdtemp(prefix="fedjax_lc_")) / name
    path.write_text(text)
    return path


def _settings() -> dict[str, Any]:
    return {name: jax.config.values[name] for name in SETTINGS}


def _code(identity: dict[str, Any]) -> dict[str, Any]:
    """The entries of an identity that workers must share with the sweep; their kind of device may be another."""
    versions = {name: version for name, version in identity["versions"].items() if name != "on"}
    return {"code": identity["code"], "package": identity["package"], "versions": versions}
