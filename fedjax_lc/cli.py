"""The command line: `fedjax-lc run | list | figure | bench`."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedjax_lc.errors import InputError, unknown

EMBEDDED_SCALE = "standard"


class _Help(argparse.HelpFormatter):
    """Shows a default only where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.default in (None, False, argparse.SUPPRESS) or action.default == [] or "default" in text
        return text if plain else f"{text} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did its job, 2 with one line on stderr for bad input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = _parser(arguments)
        options = parser.parse_args(arguments)
        return int(options.command(options) or 0)
    except InputError as error:
        print(f"fedjax-lc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fedjax-lc: interrupted", file=sys.stderr)
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="fedjax-lc", description="Federated and communication-efficient optimisation in JAX.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands, arguments)
    _add_list(commands)
    _add_figure(commands)
    _add_bench(commands, arguments)
    return parser


# --- run ---


def _add_run(commands: Any, arguments: Sequence[str]) -> None:
    run = commands.add_parser(
        "run",
        help="run one method on one data set",
        description="Run one method on one data set and print rounds and bits to each relative gap.",
        epilog="Example: fedjax-lc run locodl --compressor 'rand_k:3|natural' --steps 100000 --rel-gap 1e-10 --out out",
        formatter_class=_Help,
    )
    run.set_defaults(command=_run)
    run.add_argument("method", help="a method's name (fedjax-lc list methods)")
    data = run.add_argument_group("data")
    data.add_argument("--data", default="breast_cancer", help="a data set's name (fedjax-lc list data) or a file")
    data.add_argument("--data-dir", help="folder of local data files (else the environment variable FEDJAX_LC_DATA)")
    data.add_argument("--labels", action="append", help="label of the +1 class of multiclass data; may be repeated")
    data.add_argument("--scale", help="standard, minmax, maxabs, unit or none (default: standard for embedded data)")
    data.add_argument("--clients", type=int, help="number of clients (default: 10, or as the data comes split)")
    data.add_argument("--partition", help="iid, sorted, shards:2, dirichlet:0.5, ... (fedjax-lc list partitions)")
    data.add_argument("--report", action="store_true", help="print sizes and label shares; with --out also a picture")
    data.add_argument("--weights", default="equal", choices=("equal", "size"), help="what each client counts in F")
    data.add_argument("--split-seed", type=int, default=0, help="seed of the partition")
    data.add_argument("--kappa", type=float, help="condition number of the regularised problem (default: 1e4)")
    data.add_argument("--l2", type=float, help="the regulariser's weight, instead of --kappa")
    data.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="numbers of the run")
    loop = run.add_argument_group("run")
    loop.add_argument("--steps", type=int, default=10_000, help="steps at most")
    loop.add_argument("--every", type=int, default=10, help="steps from one record to the next")
    loop.add_argument("--rel-gap", type=float, help="stop at this relative gap")
    loop.add_argument("--seed", type=int, default=0, help="seed of the run")
    loop.add_argument("--measure", action="append", default=[], help="also record grad_norm, distance or lyapunov")
    loop.add_argument("--out", type=Path, help="folder for config.json, trace.parquet and plot.png")
    loop.add_argument("--x", default="bits_up", help="the picture's x-axis: bits_up, rounds, step, grads, total_bits")
    loop.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_hparams(run, _method_among(arguments))


def _method_among(arguments: Sequence[str]) -> str | None:
    """The method that the command line names, if it is one: its hyperparameters become options."""
    if "run" not in arguments[:1]:
        return None
    from fedjax_lc import algorithms

    return next((word for word in arguments[1:] if word in algorithms.names()), None)


def _add_hparams(parser: argparse.ArgumentParser, method: str | None) -> None:
    group = parser.add_argument_group(
        "hyperparameters",
        None if method else "name a method to see them: fedjax-lc run METHOD --help",
    )
    if method is None:
        return
    help_by_name = _hparam_help(method)
    for name, text in help_by_name.items():
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"hp_{name}", metavar="VALUE", help=text)
    group.add_argument("--index-bits", help="price of indices: log2, binom, int32 or none (default: log2)")


def _hparam_help(method: str) -> dict[str, str]:
    """Option -> help: the method's hyperparameters and the choices of its theory, with their docstrings' words."""
    from fedjax_lc import algorithms

    algorithm = algorithms.get(method)
    words = re.findall(r"(\w+(?:, \w+)*): ((?:[^.]|\.\S)+)\.", " ".join((algorithm.Hparams.__doc__ or "").split()))
    told = {name: text for names, text in words for name in names.split(", ")}
    fields = [field.name for field in dataclasses.fields(algorithm.Hparams)]
    choices = list(inspect.signature(algorithm.theory).parameters)[1:]
    plain = {name: told.get(name, "").replace("%", "%%") for name in dict.fromkeys([*fields, *choices])}
    return {name: f"{text} (default: theory's)".strip() for name, text in plain.items()}


def _run(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms, report
    from fedjax_lc.run import run

    algorithm = algorithms.get(options.method)
    settings = _settings(options)
    if options.out is not None:
        _check_folder(options.out, settings)
    problem = _problem(options)
    hp = _hparams(algorithm, problem, options)
    trace = run(
        algorithm, problem, hp, options.seed, steps=options.steps, every=options.every, rel_gap=options.rel_gap,
        measure=options.measure, progress=not options.quiet,
    )  # fmt: skip
    trace.config["settings"] = settings
    _tell(problem, trace)
    label = ", ".join(filter(None, (algorithm.title, str(getattr(hp, "compressor", "")))))
    print(report.table([report.summary(label, trace)]))
    if options.out is not None:
        _save(options, trace, label)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides a run's numbers, as plain values."""
    aside = ("command", "out", "quiet", "x", "data_dir", "report")
    return {name: value for name, value in vars(options).items() if name not in aside}


def _check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raise InputError if `folder` cannot be written or holds a run with other settings."""
    from fedjax_lc.files import replacing

    with replacing(folder / "config.json") as path:
        old = folder / "config.json"
        path.write_text(old.read_text() if old.exists() else "{}")
    try:
        found = json.loads(old.read_text())
    except ValueError:
        raise InputError(f"{old} is damaged: choose another --out, or delete it") from None
    if not found:
        old.unlink()
        return
    before = found.get("settings", {})
    differ = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    if differ:
        shown = ", ".join(name.removeprefix("hp_") for name in differ)
        raise InputError(f"{folder} already holds a different run (other {shown}): choose another --out")


def _problem(options: argparse.Namespace) -> Any:
    from fedjax_lc import data
    from fedjax_lc.figure import make_problem

    embedded = options.data in data.loading.EMBEDDED
    scale = options.scale or (EMBEDDED_SCALE if embedded else None)
    labels = options.labels[0] if options.labels and len(options.labels) == 1 else options.labels
    dataset = data.load(options.data, data_dir=options.data_dir, scale=scale, labels=labels)
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.report:
        _report_partition(dataset, options)
    return make_problem(
        dataset, options.clients, options.partition, kappa=options.kappa, l2=options.l2,
        split_seed=options.split_seed, dtype=options.dtype, weights=None if options.weights == "equal" else "size",
    )  # fmt: skip


def _report_partition(dataset: Any, options: argparse.Namespace) -> None:
    from fedjax_lc import data

    parts = data.partition(dataset, options.clients, options.partition, seed=options.split_seed)
    found = data.PartitionReport.of(dataset, parts)
    print(found.table())
    if options.out is not None:
        found.plot(options.out / "clients.png")


def _hparams(algorithm: Any, problem: Any, options: argparse.Namespace) -> Any:
    """Theory's hyperparameters under the choices given, with the numbers given in their place."""
    from fedjax_lc import compressors

    given = {name[3:]: value for name, value in vars(options).items() if name.startswith("hp_") and value is not None}
    fields = {field.name for field in dataclasses.fields(algorithm.Hparams)}
    known = inspect.signature(algorithm.theory).parameters
    values = {name: value if _is_compressor(name) else _value(value) for name, value in given.items()}
    chosen = {name: value for name, value in values.items() if name in known}
    hp = algorithm.theory(problem, **chosen)
    hp = dataclasses.replace(hp, **{n: v for n, v in values.items() if n in fields and n not in known})
    index = getattr(options, "index_bits", None)
    if index is not None:
        priced = {
            n: compressors.with_index(c, index) for n, c in vars(hp).items() if isinstance(c, compressors.Compressor)
        }
        hp = dataclasses.replace(hp, **priced)
    return hp


def _is_compressor(name: str) -> bool:
    return name in ("compressor", "downlink")


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _tell(problem: Any, trace: Any) -> None:
    words = ", ".join(f"{name}={_short(value)}" for name, value in trace.config["hyperparameters"].items())
    print(f"{trace.method}: {words}")
    print(f"n = {problem.n}, d = {problem.dim}, kappa = {problem.kappa:.4g}, effective kappa = {problem.kappa_eff:.4g}"
          f", F* = {problem.f_star:.9g}, memory {trace.config['memory_bytes'] / 1e6:.1f} MB")  # fmt: skip
    for note in trace.notes:
        print(f"note: {note}")
    if trace.status == "diverged":
        last = f"{trace.gap[-1]:.3e} at step {trace.step[-1]}" if len(trace) else "that of the start"
        print(f"diverged: the last finite gap is {last}; try a smaller step size")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _save(options: argparse.Namespace, trace: Any, label: str) -> None:
    from fedjax_lc import plot

    trace.save(options.out)
    plot.save(plot.curves({label: trace}, x=options.x), options.out / "plot.png")
    print(f"wrote {options.out}/config.json, trace.parquet and plot.png")


# --- list ---


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="list methods, compressors, data sets, partitions and figures")
    parser.add_argument("what", nargs="?", default="methods", help=f"one of: {', '.join(_LISTS)} (default: methods)")
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    from fedjax_lc import report

    if options.what not in _LISTS:
        raise unknown("list", options.what, _LISTS)
    print(report.table(_LISTS[options.what]()))
    return 0


def _methods() -> list[dict[str, str]]:
    from fedjax_lc import algorithms

    found = [algorithms.get(name) for name in algorithms.names()]
    return [{"name": a.name, "method": a.title, "paper": a.paper} for a in found]


def _compressors() -> list[dict[str, str]]:
    from fedjax_lc.compressors.parse import REGISTRY

    return [{"name": n, "what it does": _first_line(c)} for n, c in sorted(REGISTRY.items())]


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _named(kind: str, names: Sequence[str]) -> list[dict[str, str]]:
    return [{kind: name} for name in names]


def _data() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("data set", data.names())


def _partitions() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("partition", data.partitions.names())


def _figures() -> list[dict[str, str]]:
    from fedjax_lc import figure

    return _named("figure", figure.names())


_LISTS = {
    "methods": _methods,
    "compressors": _compressors,
    "data": _data,
    "partitions": _partitions,
    "figures": _figures,
}


# --- figure ---


def _add_figure(commands: Any) -> None:
    parser = commands.add_parser(
        "figure",
        help="make a figure of a paper: table, picture and which orderings hold",
        epilog="Example: fedjax-lc figure locodl/a5a-87",
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="fedjax-lc list figures; a folder makes all of its own"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (default: figures/ beside the recipe)")
    parser.add_argument("--jobs", type=int, default=1, help="figures made at the same time (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_figure)


def _figure(options: argparse.Namespace) -> int:
    from fedjax_lc import figure

    known = figure.names()
    chosen = [n for name in options.names for n in _matching(name, known)]
    if options.jobs > 1 and len(chosen) > 1:
        return _side_by_side(chosen, options)
    for name in chosen:
        folder = options.out or figure.recipes_folder() / Path(name).parent / "figures"
        print(_make(figure.get(name), folder, Path(name).name, not options.quiet))
        print(f"wrote {folder / Path(name).name}.md, .json, .png and .svg")
    return 0


def _matching(name: str, known: Sequence[str]) -> list[str]:
    found = [n for n in known if n == name or n.startswith(name.rstrip("/") + "/")]
    if not found:
        raise unknown("figure", name, known)
    return found


def _make(recipe: Any, folder: Path, name: str, progress: bool) -> str:
    import jax

    jax.config.update("jax_enable_x64", True)
    return recipe.make(folder, name, progress)


def _side_by_side(chosen: Sequence[str], options: argparse.Namespace) -> int:
    """One process per figure, `jobs` at a time; 0 if all succeeded."""
    from concurrent.futures import ThreadPoolExecutor

    extra = ["--quiet"] + (["--out", str(options.out)] if options.out else [])

    def make(name: str) -> int:
        print(f"{name}: started", flush=True)
        command = [sys.executable, "-m", "fedjax_lc.cli", "figure", name, *extra]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        print(f"{name}: {'done' if done.returncode == 0 else 'failed'}\n{done.stdout}{done.stderr}", flush=True)
        return done.returncode

    with ThreadPoolExecutor(options.jobs) as pool:
        return max(pool.map(make, chosen))


# --- bench ---


def _add_bench(commands: Any, arguments: Sequence[str]) -> None:
    parser = commands.add_parser("bench", help="measure speed against honest baselines")
    if "bench" not in arguments[:1]:
        return
    from fedjax_lc.bench import SUITES

    suites = parser.add_subparsers(metavar="SUITE", required=True)
    for name, suite in SUITES.items():
        suite.add_arguments(suites.add_parser(name, help=_first_line(suite)))


if __name__ == "__main__":
    sys.exit(main())
