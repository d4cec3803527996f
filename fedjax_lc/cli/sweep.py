"""`fedjax-lc sweep`: grids of hyperparameters for one method or several, at equal budget, with one table at the end."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import axes, compare, toml
from fedjax_lc.cli.config import SweepConfig, check_folder
from fedjax_lc.cli.options import Help, hidden_choices, make_problem
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable, remove_leftovers, replacing
from fedjax_lc.core.paths import is_there
from fedjax_lc.core.progress import say

EPILOG = """\
A --grid is NAME=VALUES for every method that has NAME, or METHOD.NAME=VALUES for one. VALUES are
  0.1, 0.3, 1                   numbers or words
  rand_k:1|natural; natural     compressors
  linear:LO:HI:NUM, log:LO:HI:NUM
  uniform:LO:HI, loguniform:LO:HI   with --sample
  theory*...                    any of these numbers times the theory's value
Every method starts from its theory, computed again for each compressor or other choice on the grid.

Example:
  fedjax-lc sweep locodl diana --grid 'gamma=theory*log:0.25:4:9' --grid 'compressor=rand_k:1|natural; natural' \\
      --seeds 8 --steps 20000 --rel-gap 1e-8 --budget bits_up=1e7 --out out

A file says the same things, and options on the command line override it:
  methods = ["locodl", "diana"]
  seeds = 8
  rel-gap = 1e-8
  budget = { bits_up = 1e7 }
  [grid]
  gamma = "theory*log:0.25:4:9"
  compressor = ["rand_k:1|natural", "natural"]
  diana.alpha = [0.1, 0.5]"""
METRIC = "bits_up"  #: what methods are compared by


class LinesHelp(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the example."""


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    add_of_methods(
        commands,
        "sweep",
        SweepConfig,
        _sweep,
        help="sweep hyperparameters and seeds of one method or several",
        description="Run every configuration of a grid with every seed, all at once, and compare the methods' best.",
        epilog=EPILOG,
    )


def add_of_methods(
    commands: Any, name: str, config: type[SweepConfig], command: Callable[..., int], **words: str
) -> None:
    """Add a command on one method or several, whose options are the fields of `config`."""
    parser = commands.add_parser(name, formatter_class=LinesHelp, **words)
    parser.set_defaults(command=command)
    known = "names of methods (fedjax-lc list methods), or a .toml file"
    parser.add_argument("methods", nargs="+", metavar="METHOD", help=known)
    parser.hint = _as_an_axis
    config.add(parser)


def _as_an_axis(word: str, options: argparse.Namespace) -> str | None:
    """How to give a hyperparameter of a method, where the word is one of those named."""
    from fedjax_lc import algorithms

    name = word.replace("-", "_")
    having = [each for each in options.methods if each in algorithms.names() and name in algorithms.get(each).options]
    return f"a hyperparameter of {having[0]} is an axis here: --grid '{name}=...'" if having else None


def _sweep(options: argparse.Namespace) -> int:
    from fedjax_lc.running import cache
    from fedjax_lc.sweeping.shards import Shard

    config = SweepConfig.of(options)
    shard = None if config.shard is None else Shard.of_text(config.shard)
    tables = each_method(config, "sweep", _one, lambda lanes: lanes if shard is None else shard.count(lanes))
    if tables is None:
        return 130
    print(cache.summary())
    if shard is None:
        show(joined(tables), config.rel_gap, config.out)
        if not config.quiet:
            print(whats_next(config.out, tables, "sweep"))
    else:
        done, lanes = _done(tables), sum(map(len, tables))
        print(f"shard {shard}: its {done} of {lanes} lanes are done; when all shards are: fedjax-lc merge {config.out}")
    return 0


def each_method(
    config: SweepConfig, kind: str, one: Callable[..., Any], of_lanes: Callable[[int], int] = lambda lanes: lanes
) -> list[Any] | None:
    """The table of each method, or None after Ctrl-C, of which this tells.

    Args:
        kind: "sweep" or "tune".
        one: called with config, algorithm, problem, grid, options of `fl.sweep` and `fl.tune`; returns a table.
        of_lanes: how many of a method's lanes run here.
    """
    from fedjax_lc import algorithms
    from fedjax_lc.running import loop
    from fedjax_lc.running.signals import interruptible

    methods = [algorithms.get(name) for name in dict.fromkeys(config.methods)]
    if len(methods) > 1 and any(track.startswith("csv:") for track in config.track):
        raise InputError("--track csv:FILE is for one method: give --out, where each method's folder has records.csv")
    memory = config.bytes()
    shares, notes = axes.shares(config.grid, methods)
    if config.out is not None:
        _check(config.out, config, shares, kind)
    problem, draw_report = make_problem(config)
    for algorithm in methods:
        loop.choose_metrics(algorithm, problem, config.measure)
    grids = {a.name: axes.configurations(config, a, problem, shares[a.name]) for a in methods}
    rules = {a.title: axes.working_rule(a, problem, shares[a.name]) for a in methods}
    for note in [*notes, *(f"{title}: {rule}" for title, rule in rules.items() if rule)]:
        say(f"note: {note}")
    tables, lanes = list[Any](), sum(of_lanes(config.seeds * len(grid)) for grid in grids.values())
    shared = {
        "seeds": config.seeds, "masked": config.masked, "block_size": config.block_size, "memory": memory,
        "other_code": config.other_code, "checkpoint_every": config.checkpoint_every, "x0": config.x0(problem),
        **config.loop(),
    }  # fmt: skip
    with interruptible() as interrupted:
        for algorithm in methods:
            out = None if config.out is None else config.out / algorithm.name
            tables.append(one(config, algorithm, problem, grids[algorithm.name], shared | {"out": out}))
            if out is not None:  # the folder also says how to make it again
                with replacing(out / f"{kind}.toml") as path:
                    settings = config.of_method(algorithm.name, shares[algorithm.name]).settings()
                    path.write_text(toml.spell({"methods": []} | settings))
            if interrupted() and (done := _done(tables)) < lanes:
                _say_interrupted(done, lanes, config)
                return None
    draw_report()
    if (hidden := hidden_choices(config, problem)) is not None:
        print(hidden)
    return tables


def _done(tables: Sequence[Any]) -> int:
    """The lanes that are done."""
    return sum(int((table.lanes["status"] != "interrupted").sum()) for table in tables)


def _check(out: Path, config: SweepConfig, shares: dict[str, dict[str, Any]], kind: str) -> None:
    """Raise InputError if the folder cannot be written or holds what this sweep or tune cannot stand beside."""
    check_writable(out / f"{kind}.toml")
    paths = sorted(out.glob(f"*/{kind}.toml"))
    if not paths and is_there(out / "plot.png"):
        raise InputError(f"{out} holds a plot.png and no {kind}: choose another --out")
    remove_leftovers(out)
    for path in paths:
        before, method = type(config)(**config.read(str(path))), path.parent.name
        now = config.of_method(method, shares.get(method, before.grid))
        check_folder(path.parent, kind, before.settings(), now)


def _one(config: SweepConfig, algorithm: Any, problem: Any, grid: Any, options: dict[str, Any]) -> Any:
    """One method's table."""
    from fedjax_lc.sweeping.sweep import sweep

    budget, engine = config.budget or None, _engine(config)
    return sweep(algorithm, problem, grid, budget=budget, shard=config.shard, engine=engine, **options)


def joined(tables: Sequence[Any]) -> Any:
    """The tables of the methods as one."""
    from fedjax_lc.results.table import Table

    return tables[0] if len(tables) == 1 else Table.merge(tables)


def _engine(config: SweepConfig) -> Any:
    """The engine that runs the parts."""
    from fedjax_lc.sweeping.work import local

    if config.engine == "local":
        return local
    from fedjax_lc.sweeping.ray import Ray

    return Ray(config.address, config.workers, config.cpus_per_task, config.gpus_per_task)


def _say_interrupted(done: int, lanes: int, config: SweepConfig) -> None:
    """Say what is done and where it is kept."""
    kept = "nothing is kept without --out"
    if config.out is not None:
        kept = f"finished parts and lanes under way are kept in {config.out}, and the same command goes on"
    say(f"fedjax-lc: interrupted with {done} of {lanes} lanes done; {kept}")


def show(table: Any, rel_gap: float | None, out: Path | None, metric: str = METRIC) -> None:
    """Print what diverged and the comparison at the target, and draw the picture."""
    from fedjax_lc import plot
    from fedjax_lc.results import report

    gap, metric, terms = compare.terms(table, rel_gap, metric)
    if out is not None:
        plot.best(table, metric, gap, path=out / "plot.png")
    for line in compare.diverged(table):
        print(line)
    print(terms)
    best = table.best(metric, rel_gap=gap)
    print(report.table(compare.rows(table, best, metric)))
    for note in compare.edges(table, best):
        print(note)
    if out is not None:
        print(f"wrote a table per method and plot.png to {out}")


def whats_next(out: Path | None, tables: Sequence[Any], kind: str) -> str:
    """A line that says what to do with the results."""
    if out is None:
        return f"next: the same {kind} with --out DIR keeps it, for fedjax-lc plot, report and export"
    shown = shlex.quote(str(out))
    axis = next((f" --kind sensitivity --x {shlex.quote(name)}" for name in _swept(tables)), " --x rounds")
    ways = [f"fedjax-lc plot {shown}{axis}", f"fedjax-lc report {shown} --out report.html"]
    whole = next((t for t in tables if ((t.lanes["status"] == "finished") & ~_spent(t)).any()), None)
    if kind == "sweep" and whole is not None:
        method = next(iter(whole.config["methods"]))
        ways.append(f"fedjax-lc extend {shlex.quote(str(out / method))} --steps {whole.config['steps']} --best 1")
    return f"next: {'; '.join(ways)}"


def _swept(tables: Sequence[Any]) -> list[str]:
    """The settings with several values, numbers first."""
    names = {name: t.lanes[name] for t in tables for m in t.config["methods"].values() for name in m["settings"]}
    several = [name for name, values in names.items() if values.nunique() > 1]
    return sorted(several, key=lambda name: names[name].dtype.kind not in "if")


def _spent(table: Any) -> Any:
    """Whether each lane ended before its last step."""
    made = table.records.groupby("lane")["step"].last().reindex(table.lanes.index, fill_value=0)
    return made < table.config["steps"]
