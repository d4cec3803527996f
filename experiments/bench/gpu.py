"""What a GPU does with the methods, beside targets and rivals, in less than five minutes.

right: all methods against the CPU. precision: float32 gradients against float64. single: a step of one run. lanes:
LoCoDL's step over many lanes. select: choosing the k smallest keys. branches: asking for a coin or computing both
sides, and unrolling. sweep: a thousand configurations of LoCoDL. networks: rounds of the EMNIST network, and PyTorch's.
Each part has a share of the time, and says what it left out. Every part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench import gpu_branches, gpu_large, gpu_methods, gpu_select, harness
from experiments.bench.gpu_common import NO_TIME, Given, Sizes, Told
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment

SECONDS = 290.0  #: of all parts
LEAST = 10.0  #: seconds without which a part is not started
X64, NO_GPU = {"JAX_ENABLE_X64": "1"}, {"JAX_PLATFORMS": "cpu"}


class Job(NamedTuple):
    """A process of a part: what it does, its environment, and whether it does all or nothing: it is then left out where
    less time is left than the job before it took."""

    do: Callable[[Given], dict[str, Any]]
    environment: Mapping[str, str] = {}
    whole: bool = False


class Part(NamedTuple):
    """A part: its title, its jobs by name, how their facts are told, and its share of the time."""

    title: str
    jobs: Mapping[str, Job]
    tell: Callable[[Any], Told]
    share: float


def _of_dtypes(do: Callable[..., dict[str, Any]]) -> dict[str, Job]:
    return {
        "float32": Job(partial(do, dtype="float32"), whole=True),
        "float64": Job(partial(do, dtype="float64"), X64, whole=True),
    }


PARTS = {
    "right": Part("all methods, GPU against CPU", {"float64": Job(gpu_methods.right, X64)}, gpu_methods.tell_right, 60),
    "precision": Part(
        "float32 gradients against float64", {"float32": Job(gpu_methods.precision)}, gpu_methods.tell_precision, 20
    ),
    "single": Part("a step of one run", {"float32": Job(gpu_methods.single)}, gpu_methods.tell_single, 50),
    "lanes": Part("LoCoDL over lanes", {"float32": Job(gpu_methods.lanes)}, gpu_methods.tell_lanes, 55),
    "select": Part(
        "the k smallest of d keys, in every row", {"uint32": Job(gpu_select.select)}, gpu_select.tell_select, 35
    ),
    "branches": Part("branches and loops", {"float32": Job(gpu_branches.branches)}, gpu_branches.tell_branches, 45),
    "sweep": Part("a thousand configurations", _of_dtypes(gpu_large.thousand), gpu_large.tell_thousand, 50),
    "networks": Part(
        "rounds of a network",
        {"ours": Job(gpu_large.networks), "PyTorch": Job(gpu_large.torch_rivals, NO_GPU)},
        gpu_large.tell_networks,
        55,
    ),
}


def run_gpu(
    parts: Sequence[str] | None = None,
    *,
    sizes: Sizes | None = None,
    repeats: int = 5,
    seconds: float = SECONDS,
    out: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the parts, and print the tables of each as soon as it is done.

    Args:
        parts: names of PARTS; all if None.
        sizes: of all parts.
        repeats: how often every contestant takes its turn.
        seconds: that all parts may take; what does not fit is left out and named.
        out: also write the results there as JSON, and the printed text beside it with the ending .txt.
        progress: show a bar on anything over two seconds.

    Returns:
        The results as written to `out`; times in milliseconds per round or step, and seconds, as their names say.

    Raises:
        InputError: no GPU, a count below 1, an unknown part, or `out` cannot be written; before any work starts.
    """
    chosen = tuple(PARTS) if parts is None else tuple(dict.fromkeys(parts))
    if repeats < 1 or not seconds > 0:
        raise InputError(f"bench needs repeats >= 1 and seconds > 0, got {repeats} and {seconds:g}")
    if not chosen or not set(chosen) <= set(PARTS):
        raise InputError(f"parts are {', '.join(PARTS)}, got {', '.join(chosen) or 'none'}")
    with _files(out) as (as_json, as_text):
        about = _about()
        given = Given(sizes or Sizes(), repeats, time.time() + seconds, progress)
        results = {"sizes": given.sizes._asdict(), "repeats": repeats, "seconds": seconds, **about, "parts": {}}
        printed = [_told(head(results))]
        for name, jobs in _measured(chosen, given):
            results["parts"][name] = jobs
            printed.append(_told(section(name, jobs)))
        results["targets"] = [target.facts() for target in targets(results)]
        printed.append(_told(tail(results)))
        as_json.write_text(json.dumps(results, indent=1) + "\n")
        as_text.write_text("".join(printed))
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fedjax-lc bench gpu`."""
    parser.description = __doc__
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="only this part; may be given again")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every contestant (default 5)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"that it may take (default {SECONDS:g})")
    parser.add_argument("--out", metavar="FILE", help="also write JSON to FILE and the tables beside it as .txt")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> int:
    """1 where a part failed."""
    results = run_gpu(options.part, repeats=options.repeats, seconds=options.seconds, out=options.out)
    return int(any("failed" in facts for jobs in results["parts"].values() for facts in jobs.values()))


# --- the parent, which never touches the GPU: it would take memory from the children ---


@contextlib.contextmanager
def _files(out: str | Path | None) -> Iterator[tuple[Path, Path]]:
    """Where JSON and text go."""
    if out is None:
        yield Path(os.devnull), Path(os.devnull)
        return
    with replacing(out) as as_json, replacing(Path(out).with_suffix(".txt")) as as_text:
        yield as_json, as_text


def _about() -> dict[str, Any]:
    """Machine, device, driver and versions.

    Raises:
        InputError: no GPU.
    """
    seen = harness.ask("gpu", {"job": None, "argv": sys.argv}, {})
    if seen.pop("backend") != "gpu":
        raise InputError(f"bench gpu needs a GPU, and jax sees {seen['device']}; see README 'On a GPU'")
    return {**harness.machine(), **seen, "driver": _driver() or seen["driver"]}


def _driver() -> str:
    """As NVIDIA's own tool tells it; nothing where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return f"NVIDIA {found[0].strip()}" if found else ""


def _measured(parts: Sequence[str], given: Given) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per part the facts of its jobs; each part may take its share of the time that is left."""
    for place, name in enumerate(parts):
        left = given.ends - time.time()
        own = left * PARTS[name].share / sum(PARTS[each].share for each in parts[place:])
        yield name, _jobs(name, given, time.time() + own)


def _jobs(name: str, given: Given, ends: float) -> dict[str, Any]:
    """A part's."""
    found, before = dict[str, Any](), LEAST
    for job, own in PARTS[name].jobs.items():
        started = time.time()
        if ends - started < (before if own.whole else LEAST):
            found[job] = {"skipped": NO_TIME}
            continue
        found[job] = _ask(name, job, given, ends)
        before = time.time() - started
    return found


def _ask(part: str, job: str, given: Given, ends: float) -> Any:
    """What a fresh process finds: facts, {"skipped": why} or {"failed": how}."""
    own = PARTS[part].jobs[job].environment
    settings = {"JAX_ENABLE_COMPILATION_CACHE": "0", "JAX_ENABLE_X64": "0", **_with_cpu(), **own}
    asked = given._replace(ends=ends, sizes=given.sizes._asdict())  # type: ignore[arg-type]
    task = {"job": (part, job), "given": asked._asdict()}
    command = [sys.executable, "-c", harness.child_code("gpu"), json.dumps(task)]
    left = max(LEAST, given.ends - time.time())
    try:
        done = subprocess.run(
            command, env=os.environ | settings, stdout=subprocess.PIPE, text=True, timeout=left, check=True
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"it was stopped after {left:.0f} s, at the end of all time"}
    except subprocess.CalledProcessError as error:
        return {"failed": f"its process ended with exit code {error.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _with_cpu() -> dict[str, str]:
    """Where JAX's platforms are named, the CPU among them."""
    named = os.environ.get("JAX_PLATFORMS", "")
    return {"JAX_PLATFORMS": f"{named},cpu"} if named and "cpu" not in named.split(",") else {}


# --- the child ---


def child() -> None:
    """What a child process runs: one job, given as JSON on the command line, its result as JSON on stdout."""
    task = harness.asked()
    if task["job"] is None:
        print(json.dumps(_seen(task["argv"])))
    else:
        part, job = task["job"]
        print(json.dumps(_do(part, job, task["given"])))


def _do(part: str, job: str, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return PARTS[part].jobs[job].do(Given(**{**given, "sizes": Sizes.of(given["sizes"])}))
    except InputError as error:
        return {"skipped": str(error)}


def _seen(argv: list[str]) -> dict[str, Any]:
    """The device, and what it runs on."""
    import jax

    sys.argv = argv
    about = environment()
    about["versions"] |= {
        name: importlib.metadata.version(name)
        for name in ("jax-cuda12-plugin", "jax-cuda13-plugin", "torch")
        if _installed(name)
    }
    driver = " ".join(jax.devices()[0].client.platform_version.split())
    return about | {"backend": jax.default_backend(), "driver": driver}


def _installed(name: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return False


# --- what is printed ---


def _told(lines: Sequence[str]) -> str:
    """Print lines now, and give them back as text."""
    text = "\n".join([*lines, ""])
    print(text, end="", flush=True)
    return text


def head(results: Mapping[str, Any]) -> list[str]:
    """The lines on top."""
    return [
        f"fedjax-lc bench gpu: {results['repeats']} turns each, medians; at most {results['seconds']:g} s",
        f"device: {results['device']}; driver: {results['driver']}",
        *harness.made_on(results),
    ]


def section(name: str, jobs: Mapping[str, Any]) -> list[str]:
    """The tables of a part, and its notes."""
    lines = ["", f"({name}) {PARTS[name].title}"]
    for job, told in _told_jobs(name, jobs).items():
        lines.append(f"- {job}")
        for rows in told.tables:
            lines += [report.table(rows), ""]
        lines += told.notes
    return lines


def _told_jobs(name: str, jobs: Mapping[str, Any]) -> dict[str, Told]:
    return {job: told(name, facts) for job, facts in jobs.items()}


def told(name: str, facts: Mapping[str, Any]) -> Told:
    """What a job found, told."""
    for why in ("skipped", "failed"):
        if why in facts:
            return Told([], [f"{why}: {facts[why]}"], [])
    return PARTS[name].tell(facts)


def targets(results: Mapping[str, Any]) -> list[harness.Target]:
    """Of all parts."""
    return [
        target
        for name, jobs in results["parts"].items()
        for each in _told_jobs(name, jobs).values()
        for target in each.targets
    ]


def tail(results: Mapping[str, Any]) -> list[str]:
    """All targets."""
    return ["", harness.target_table(results["targets"])] if results["targets"] else []


def text(results: Mapping[str, Any]) -> str:
    """What is printed."""
    lines = head(results)
    for name, jobs in results["parts"].items():
        lines += section(name, jobs)
    return "\n".join([*lines, *tail(results), ""])
