"""`fedjax-lc run`: one method on one data set."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.cli.options import Help, add_cache, add_data, add_index_bits, fill_in, make_problem, priced
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command; a method that the command line names brings its hyperparameters as options."""
    run = commands.add_parser(
        "run",
        help="run one method on one data set",
        description="Run one method on one data set and print rounds and bits to each relative gap.",
        epilog="Example: fedjax-lc run locodl --compressor 'rand_k:3|natural' --steps 100000 --rel-gap 1e-10 --out out",
        formatter_class=Help,
    )
    run.set_defaults(command=_run)
    run.add_argument("method", help="a method's name (fedjax-lc list methods)")
    add_data(run)
    loop = run.add_argument_group("run")
    loop.add_argument("--steps", type=int, help="steps at most (default: 10,000; of a network 100)")
    loop.add_argument("--every", type=int, help="steps from one record to the next (default: 10; of a network 1)")
    loop.add_argument("--rel-gap", type=float, help="stop at this relative gap")
    loop.add_argument("--seed", type=int, default=0, help="seed of the run")
    loop.add_argument(
        "--measure",
        action="append",
        default=[],
        help="also record grad_norm, distance or lyapunov; of a network train_accuracy, accuracy_worst, ...",
    )
    loop.add_argument("--out", type=Path, help="folder for config.json, trace.parquet and plot.png")
    loop.add_argument("--x", default="bits_up", help="the picture's x-axis: bits_up, rounds, step, grads, total_bits")
    loop.add_argument("--quiet", action="store_true", help="no progress bar")
    add_cache(loop)
    _add_hparams(run, _method_among(arguments), arguments)


def _method_among(arguments: Sequence[str]) -> str | None:
    """The method that the command line names, if it is one: its hyperparameters become options."""
    if "run" not in arguments[:1]:
        return None
    from fedjax_lc import algorithms

    return next((word for word in arguments[1:] if word in algorithms.names()), None)


def _add_hparams(parser: argparse.ArgumentParser, method: str | None, arguments: Sequence[str]) -> None:
    group = parser.add_argument_group(
        "hyperparameters",
        None if method else "name a method to see them: fedjax-lc run METHOD --help",
    )
    if method is None:
        return
    add_index_bits(group)
    from fedjax_lc import algorithms

    algorithm = algorithms.get(method)
    group.description = f"defaults are those of its theory: {' '.join((algorithm.theory.__doc__ or '').split())}"
    added: dict[str, argparse.Action] = {}
    for name, declared in algorithm.options.items():
        word, words = name.replace("_", "-"), declared.words()
        text = f"{declared.doc} ({words})" if words else declared.doc or "a choice of its theory"
        about: dict[str, Any] = {"dest": f"hp_{name}", "metavar": "VALUE"}
        try:
            added[name] = group.add_argument(f"--{word}", help=text, **about)
        except argparse.ArgumentError:
            clash = f"{text}; --{word} is an option of run itself"
            added[name] = group.add_argument(f"--hp-{word}", help=clash, **about)
    if helps := {"-h", "--help"}.intersection(arguments):
        values = _values(parser, algorithm, [word for word in arguments[1:] if word not in helps])
        for name, action in added.items():
            action.help = f"{action.help}; {values[name]}".replace("%", "%%")


def _values(parser: argparse.ArgumentParser, algorithm: Any, arguments: Sequence[str]) -> dict[str, str]:
    """What a run with these arguments takes where nothing is given, in words; by the name of an option.

    Theory's numbers are told where they are had at once: not for a network, nor for data that would be downloaded.
    """
    from fedjax_lc.sweeping.axes import plain

    known: list[Any] = [
        *dataclasses.fields(algorithm.Hparams),
        *inspect.signature(algorithm.theory).parameters.values(),
    ]
    usual = {each.name: each.default for each in reversed(known)}
    required = (dataclasses.MISSING, inspect.Parameter.empty)
    words = {name: "from theory" if value in required else f"default: {value}" for name, value in usual.items()}
    try:
        options = parser.parse_args(arguments)
        options.report = False
        fill_in(options)
        if options.model is not None:
            return words
        with contextlib.redirect_stderr(io.StringIO()):
            problem = make_problem(options, download=False)
        given = _given(algorithm, options)
        hp = _theory(algorithm, problem, given)
    except Exception:  # help is there for arguments that do not fit, too
        return words
    for name, value in vars(hp).items():
        if name not in given and (usual[name] in required or not np.array_equal(value, usual[name])):
            shown = f"an array {np.shape(value)}" if np.ndim(value) else _short(plain(value))
            words[name] = f"theory: {shown} on {options.data}"
    return words


def _run(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.plot.lines import X_LABELS
    from fedjax_lc.plot.style import check_names
    from fedjax_lc.results import report
    from fedjax_lc.running.run import run

    algorithm = algorithms.get(options.method)
    check_names("x axis", [options.x], X_LABELS.keys() - {"time"})
    fill_in(options, steps=(10_000, 100), every=(10, 1))
    settings = _settings(options)
    if options.out is not None:
        _check_folder(options.out, settings)
    problem = make_problem(options)
    hp = _hparams(algorithm, problem, options)
    trace = run(
        algorithm, problem, hp, options.seed, steps=options.steps, every=options.every, rel_gap=options.rel_gap,
        measure=options.measure, progress=not options.quiet,
    )  # fmt: skip
    trace.config["settings"] = settings
    _tell(options, problem, hp, trace)
    compressor = str(getattr(hp, "compressor", "")).removeprefix("identity")
    label = ", ".join(filter(None, (algorithm.title, compressor)))
    print(report.table([report.training(label, trace) if options.model else report.summary(label, trace)]))
    if options.out is not None:
        _save(options, trace, label)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides a run's numbers, as plain values."""
    aside = ("command", "out", "quiet", "x", "data_dir", "report", "no_cache")
    return {name: value for name, value in vars(options).items() if name not in aside}


def _check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raise InputError if `folder` cannot be written or holds a run with other settings."""
    from fedjax_lc.core.files import replacing

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


def _hparams(algorithm: Any, problem: Any, options: argparse.Namespace) -> Any:
    """Theory's hyperparameters under the choices given, with the numbers given in their place."""
    given = _given(algorithm, options)
    hp = _theory(algorithm, problem, given)
    known = inspect.signature(algorithm.theory).parameters
    hp = dataclasses.replace(hp, **{name: value for name, value in given.items() if name not in known})
    return priced(hp, getattr(options, "index_bits", None))


def _given(algorithm: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The method's options that the command line gives, by name."""
    given = {name[3:]: value for name, value in vars(options).items() if name.startswith("hp_") and value is not None}
    return {name: _read(text, algorithm.options[name]) for name, text in given.items()}


def _theory(algorithm: Any, problem: Any, given: Mapping[str, Any]) -> Any:
    """Theory's hyperparameters under those of the options given that are choices of it."""
    chosen = {name: given[name] for name in inspect.signature(algorithm.theory).parameters if name in given}
    try:
        return algorithm.theory(problem, **chosen)
    except InputError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        told = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise InputError(f"the theory of {algorithm.name} does not take {told}: {error}") from error


def _read(text: str, declared: Any) -> Any:
    """What `text` stands for: a compressor, None where that may be, a number, a truth, or the word itself."""
    from fedjax_lc import compressors

    if declared.admits(compressors.Compressor):
        return compressors.parse(text)
    words = declared.kind in ("choice", "schedule", "word")
    value = spec.read(
        text, ((type(None),) if declared.admits(None) else ()) + ((str,) if words else (int, float, bool, str))
    )
    return (
        next((choice for choice in declared.within if str(choice) == value), value)
        if declared.kind == "choice"
        else value
    )


def _tell(options: argparse.Namespace, problem: Any, hp: Any, trace: Any) -> None:
    """The hyperparameters that differ from their defaults, what was minimised, what was compiled, and remarks."""
    from fedjax_lc.running import cache

    usual = {field.name: field.default for field in dataclasses.fields(hp)}
    told = {name: value for name, value in trace.config["hyperparameters"].items() if value != usual[name]}
    print(f"{trace.method}: " + ", ".join(f"{name}={_short(value)}" for name, value in told.items()))
    shape = f"n = {problem.n}, d = {problem.dim:,}"
    if options.model:
        tested = f", tested on {len(problem.test.targets):,}" if problem.test is not None else ""
        shape += f" ({options.model}), {len(problem.table.targets):,} rows{tested}, precision {problem.precision}"
    else:
        shape += f", kappa = {problem.kappa:.4g}, effective kappa = {problem.kappa_eff:.4g}, F* = {problem.f_star:.9g}"
    print(f"{shape}, memory {trace.config['memory_bytes'] / 1e6:.1f} MB")
    print(cache.told())
    for note in trace.notes:
        print(f"note: {note}")
    if trace.status == "diverged":
        series, what = (trace.gap, "gap") if problem.solvable else (trace.value, "loss")
        last = f"{series[-1]:.3e} at step {trace.step[-1]}" if len(trace) else "that of the start"
        print(f"diverged: the last finite {what} is {last}; try a smaller step size")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _save(options: argparse.Namespace, trace: Any, label: str) -> None:
    from fedjax_lc import plot

    trace.save(options.out)
    plot.save(plot.curves({label: trace}, x=options.x), options.out / "plot.png")
    print(f"wrote {options.out}/config.json, trace.parquet and plot.png")
