"""`fedjax-lc sweep`: grids of hyperparameters for one method or several, at equal budget, with one table at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import axes, compare, toml
from fedjax_lc.cli.config import SweepConfig, check_folder
from fedjax_lc.cli.options import Help, make_problem
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


class _Help(Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the example."""


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="sweep hyperparameters and seeds of one method or several",
        description="Run every configuration of a grid with every seed, all at once, and compare the methods' best.",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    parser.set_defaults(command=_sweep)
    words = "names of methods (fedjax-lc list methods), or a .toml file"
    parser.add_argument("methods", nargs="+", metavar="METHOD", help=words)
    SweepConfig.add(parser)


def _sweep(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.results.table import Table
    from fedjax_lc.running import cache, loop
    from fedjax_lc.running.signals import interruptible
    from fedjax_lc.sweeping.shards import Shard

    config = SweepConfig.of(options)
    shard = None if config.shard is None else Shard.of_text(config.shard)
    methods = [algorithms.get(name) for name in dict.fromkeys(config.methods)]
    if len(methods) > 1 and any(track.startswith("csv:") for track in config.track):
        raise InputError("--track csv:FILE is for one method: give --out, where each method's folder has records.csv")
    memory = config.bytes()
    shares, notes = axes.shares(config.grid, methods)
    if config.out is not None:
        _check(config.out, config, shares)
    problem, draw_report = make_problem(config)
    for algorithm in methods:
        loop.choose_metrics(algorithm, problem, config.measure)
    grids = {
        a.name: axes.build(a, problem, shares[a.name], num=config.sample, kind=config.sample_method,
                           index_bits=config.index_bits)
        for a in methods
    }  # fmt: skip
    for note in notes:
        say(f"note: {note}")
    tables, lanes = [], config.seeds * sum(map(len, grids.values()))
    with interruptible() as interrupted:
        for algorithm in methods:
            tables.append(_one(algorithm, problem, grids[algorithm.name], shares[algorithm.name], config, memory))
            done = sum(int((table.lanes["status"] != "interrupted").sum()) for table in tables)
            wanted = lanes if shard is None else sum(shard.count(config.seeds * len(grids[a.name])) for a in methods)
            if interrupted() and done < wanted:
                return _print_interrupted(done, wanted, config)
    draw_report()
    print(cache.summary())
    if shard is None:
        show(tables[0] if len(tables) == 1 else Table.merge(tables), config.rel_gap, config.out)
    else:
        print(f"shard {shard}: its {done} of {lanes} lanes are done; when all shards are: fedjax-lc merge {config.out}")
    return 0


def _check(out: Path, config: SweepConfig, shares: dict[str, dict[str, Any]]) -> None:
    """Raise InputError if the folder cannot be written or holds sweeps that this one cannot stand beside."""
    check_writable(out / "sweep.toml")
    paths = sorted(out.glob("*/sweep.toml"))
    if not paths and is_there(out / "plot.png"):
        raise InputError(f"{out} holds a plot.png and no sweep: choose another --out")
    remove_leftovers(out)
    for path in paths:
        before, method = SweepConfig(**SweepConfig.read(str(path))), path.parent.name
        now = config.of_method(method, shares.get(method, before.grid))
        check_folder(path.parent, "sweep", before.settings(), now)


def _one(
    algorithm: Any, problem: Any, grid: Any, share: dict[str, Any], config: SweepConfig, memory: int | None
) -> Any:
    """One method's table; with --out its folder also says how to make it again."""
    from fedjax_lc.sweeping.sweep import sweep

    out = None if config.out is None else config.out / algorithm.name
    table = sweep(
        algorithm, problem, grid, seeds=config.seeds, budget=config.budget or None, masked=config.masked,
        out=out, block_size=config.block_size, memory=memory, other_code=config.other_code, shard=config.shard,
        checkpoint_every=config.checkpoint_every, engine=_engine(config),
        x0=config.x0(problem), **config.loop(),
    )  # fmt: skip
    if out is not None:
        with replacing(out / "sweep.toml") as path:
            path.write_text(toml.spell({"methods": []} | config.of_method(algorithm.name, share).settings()))
    return table


def _engine(config: SweepConfig) -> Any:
    """The engine that runs the parts."""
    from fedjax_lc.sweeping.work import local

    if config.engine == "local":
        return local
    from fedjax_lc.sweeping.ray import Ray

    return Ray(config.address, config.workers, config.cpus_per_task, config.gpus_per_task)


def _print_interrupted(done: int, lanes: int, config: SweepConfig) -> int:
    """Say what is done and where it is kept; the exit code of Ctrl-C."""
    kept = "nothing is kept without --out"
    if config.out is not None:
        kept = f"finished parts and lanes under way are kept in {config.out}, and the same command goes on"
    say(f"fedjax-lc: interrupted with {done} of {lanes} lanes done; {kept}")
    return 130


def show(table: Any, rel_gap: float | None, out: Path | None) -> None:
    """Print what diverged and the comparison at the target, and draw the picture."""
    from fedjax_lc import plot
    from fedjax_lc.results import report

    gap, metric, terms = compare.terms(table, rel_gap, METRIC)
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
