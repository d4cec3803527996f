"""`fedjax-lc run`: one method on one data set."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.cli import processes
from fedjax_lc.cli.config import RunConfig, check_folder
from fedjax_lc.cli.options import Help, hidden_choices, make_problem, priced
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable
from fedjax_lc.core.paths import is_there


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
    RunConfig.add(run)
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

    Theory's numbers are shown where they are had at once: not for a network, nor for data that would be downloaded.
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
        config = dataclasses.replace(RunConfig.of(parser.parse_args(arguments)), report=False)
        if config.model is not None:
            return words
        with contextlib.redirect_stderr(io.StringIO()):
            problem, _ = make_problem(config, download=False)
        given = _given(algorithm, config)
        hp = _theory(algorithm, problem, given)
    except Exception:  # help is there for arguments that do not fit, too
        return words
    for name, value in vars(hp).items():
        if name not in given and (usual[name] in required or not np.array_equal(value, usual[name])):
            shown = f"an array {np.shape(value)}" if np.ndim(value) else _short(plain(value))
            words[name] = f"theory: {shown} on {config.data}"
    return words


def _run(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.core import devices
    from fedjax_lc.plot.lines import X_LABELS
    from fedjax_lc.plot.style import check_names
    from fedjax_lc.running import folder as folders
    from fedjax_lc.running.run import run

    config = RunConfig.of(options)
    with processes.joined(config) as first:
        with devices.together():
            algorithm = algorithms.get(config.method)
            check_names("x axis", [config.x], X_LABELS.keys() - {"time"})
            mesh = processes.mesh(config)
            if config.out is not None:
                _check(config.out, config)
            problem, draw_report = make_problem(config, mesh=mesh)
            hp = hparams(algorithm, problem, config)
            rule = algorithm.working_rule(problem, _given(algorithm, config))
            algorithm.check(problem, hp)
            if config.theory:
                _check_theory(algorithm, problem, hp)
            if config.out is not None and config.restart and first:
                folders.set_aside(config.out)
        trace = run(
            algorithm, problem, hp, config.seed, out=config.out, checkpoint_every=config.checkpoint_every,
            facts={"settings": config.settings(), "working_rule": rule}, other_code=config.other_code, devices=mesh,
            x0=config.x0(problem), keep_best=config.keep_best, **config.loop(),
        )  # fmt: skip
        if first:
            draw_report()
        code = show(config, algorithm, problem, hp, trace)  # all compute what the first one prints
        return code if first or trace.status == "interrupted" else 0


def show(config: RunConfig, algorithm: Any, problem: Any, hp: Any, trace: Any) -> int:
    """Draw the picture beside the results, which are saved, then print them. Returns the exit code."""
    from fedjax_lc import plot
    from fedjax_lc.results import report

    compressor = str(getattr(hp, "compressor", "")).removeprefix("identity")
    label = ", ".join(filter(None, (algorithm.title, compressor)))
    done = trace.status != "interrupted"
    if trace.folder is not None and done:
        plot.save(plot.curves({label: trace}, x=config.x, theory=config.theory), trace.folder / "plot.png")
    _print_outcome(config, problem, hp, trace)
    if (hidden := hidden_choices(config, problem)) is not None:
        print(hidden)
    print(report.table([report.training(label, trace) if config.model else report.summary(label, trace)]))
    if trace.folder is not None and done:
        best = "" if trace.best_x is None else ", best.safetensors"
        print(
            f"wrote {trace.folder}/config.json, trace.parquet, state.safetensors, model.safetensors{best} and plot.png"
        )
    if not done:
        return 130
    if not config.quiet:
        print(_whats_next(config, trace))
    return 0 if trace.folder is not None or config.out is None else 2


def _whats_next(config: RunConfig, trace: Any) -> str:
    """A line that says what to do with the results."""
    if trace.folder is None:
        return "next: the same run with --out DIR keeps it, for fedjax-lc plot, report and extend"
    shown = shlex.quote(str(trace.folder))
    ways = [f"fedjax-lc plot {shown} --x rounds", f"fedjax-lc report {shown} --out report.html"]
    if trace.status == "finished":
        ways.append(f"fedjax-lc extend {shown} --steps {int(trace.step[-1])}")
    return f"next: {'; '.join(ways)}"


def _check_theory(algorithm: Any, problem: Any, hp: Any) -> None:
    """Raise InputError if there is no bound to draw."""
    from fedjax_lc import algorithms
    from fedjax_lc.running.run import proven_rate

    if algorithm.rate is None:
        known = [name for name in algorithms.names() if algorithms.get(name).rate]
        raise InputError(f"--theory: no theorem gives {algorithm.name} a rate here; it gives one to {', '.join(known)}")
    if proven_rate(algorithm, problem, hp) is None:
        raise InputError(f"--theory: the theorem of {algorithm.name} says nothing of this problem with these "
                         "hyperparameters: leave them to theory, on a strongly convex problem")  # fmt: skip


def _check(folder: Path, config: RunConfig) -> None:
    """Raise InputError if `folder` cannot be written or, without --restart, holds a run with other settings."""
    from fedjax_lc.running import folder as folders

    check_writable(folder / "config.json")
    before = None if config.restart else folders.read(folder)
    if before is None and not config.restart and is_there(folder / "plot.png"):
        raise InputError(f"{folder} holds a plot.png and no run: choose another --out")
    if before is not None:
        check_folder(folder, "run", _settings(before), config)


def _settings(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that a folder holds; {} of one that Python began."""
    settings = kept.get("settings")
    return settings if isinstance(settings, dict) else {}


def hparams(algorithm: Any, problem: Any, config: RunConfig) -> Any:
    """Theory's hyperparameters under the choices given, with the numbers given in their place."""
    given = _given(algorithm, config)
    hp = _theory(algorithm, problem, given)
    known = inspect.signature(algorithm.theory).parameters
    hp = dataclasses.replace(hp, **{name: value for name, value in given.items() if name not in known})
    return priced(hp, config.index_bits)


def _given(algorithm: Any, config: RunConfig) -> dict[str, Any]:
    """The method's options that the command line gives, by name."""
    return {name: _read(text, algorithm.options[name]) for name, text in config.hyperparameters.items()}


def _theory(algorithm: Any, problem: Any, given: Mapping[str, Any]) -> Any:
    """Theory's hyperparameters under those of the options given that are choices of it."""
    chosen = {name: given[name] for name in inspect.signature(algorithm.theory).parameters if name in given}
    try:
        return algorithm.theory(problem, **chosen)
    except InputError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        choices = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise InputError(f"the theory of {algorithm.name} does not take {choices}: {error}") from error


def _read(text: str, declared: Any) -> Any:
    """What `text` stands for: a compressor, None, a number, numbers as in 3x4, a truth, or the word itself."""
    from fedjax_lc import compressors

    if declared.admits(compressors.Compressor):
        return compressors.parse(text)
    words = declared.kind in ("choice", "schedule", "word")
    kinds: list[type] = [type(None), tuple, str] if words else [type(None), int, tuple, float, bool, str]
    value = spec.read(text, [kind for kind in kinds if kind not in (type(None), tuple) or declared.admits(kind)])
    if isinstance(value, float) and declared.whole and value.is_integer() and abs(value) < 2**63:
        return int(value)  # 3e4
    return next((choice for choice in declared.within or () if str(choice) == value), value) if words else value


def _print_outcome(config: RunConfig, problem: Any, hp: Any, trace: Any) -> None:
    """The hyperparameters that differ from their defaults, what was minimised, what was compiled, and remarks."""
    from fedjax_lc.running import cache

    usual = {field.name: field.default for field in dataclasses.fields(hp)}
    changed = {name: value for name, value in trace.config["hyperparameters"].items() if value != usual[name]}
    print(f"{trace.method}: " + ", ".join(f"{name}={_short(value)}" for name, value in changed.items()))
    if rule := trace.config.get("working_rule"):
        print(rule)
    shape = f"n = {problem.n}, d = {problem.dim:,}"
    if config.model:
        tested = f", tested on {len(problem.test.targets):,}" if problem.test is not None else ""
        shape += f" ({config.model}), {problem.facts['rows']:,} rows{tested}, precision {problem.precision}"
    else:
        shape += f", kappa = {problem.kappa:.4g}, effective kappa = {problem.kappa_eff:.4g}, F* = {problem.f_star:.9g}"
    print(f"{shape}, memory {trace.config['memory_bytes'] / 1e6:.1f} MB")
    print(cache.summary())
    for note in trace.notes:
        print(f"note: {note}")
    if trace.status == "diverged":
        series, what = (trace.gap, "gap") if problem.solvable else (trace.value, "loss")
        last = f"{series[-1]:.3e} at step {trace.step[-1]}" if len(trace) else "that of the start"
        print(f"diverged: the last finite {what} is {last}; try a smaller step size")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
