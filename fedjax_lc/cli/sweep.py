"""`fedjax-lc sweep`: grids of hyperparameters for one method or several, at equal budget, with one table at the end."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import axes, compare, toml
from fedjax_lc.cli.options import Help, add_cache, add_data, add_index_bits, fill_in, make_problem
from fedjax_lc.core.errors import InputError, unknown

EPILOG = """\
A --grid is NAME=VALUES for every method that has NAME, or METHOD.NAME=VALUES for one. VALUES are
  0.1, 0.3, 1                   numbers or words
  rand_k:1|natural; natural     compressors
  linear:LO:HI:NUM, log:LO:HI:NUM
  uniform:LO:HI, loguniform:LO:HI   with --sample
  theory*...                    any of these numbers times the theory's own value
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
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
OWN = ("command", "parser", "arguments", "methods", "no_cache")  #: what no file says
ASIDE = (*OWN, "data_dir", "report", "out", "quiet", "memory", "block_size")


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
    parser.set_defaults(command=_sweep, parser=parser, arguments=list(arguments[1:]))
    words = "names of methods (fedjax-lc list methods), or a .toml file"
    parser.add_argument("methods", nargs="+", metavar="METHOD", help=words)
    add_data(parser)
    grid = parser.add_argument_group("grid")
    grid.add_argument("--grid", action="append", default=[], metavar="NAME=VALUES", help="one axis; may be repeated")
    grid.add_argument("--sample", type=int, metavar="NUM", help="this many samples of the axes instead of all points")
    kinds = "random, sobol, halton or latin"
    grid.add_argument("--sample-method", default="random", metavar="KIND", help=kinds)
    grid.add_argument("--seeds", type=int, default=1, metavar="NUM", help="seeds 0 to NUM - 1 of every configuration")
    add_index_bits(grid)
    loop = parser.add_argument_group("run")
    loop.add_argument("--steps", type=int, help="steps at most (default: 10,000; of a network 100)")
    loop.add_argument("--every", type=int, help="steps from one record to the next (default: 10; of a network 1)")
    loop.add_argument("--rel-gap", type=float, help="stop at this relative gap; methods are compared there")
    costs = "stop a lane at this cost: bits_up, bits_down, rounds or grads; may be repeated"
    loop.add_argument("--budget", action="append", default=[], metavar="COST=LIMIT", help=costs)
    loop.add_argument("--measure", action="append", default=[], help="also record grad_norm, distance or lyapunov")
    masked = "local_steps: lanes of different numbers of them side by side, not one number after the other"
    loop.add_argument("--masked", action="append", default=[], metavar="NAME", help=masked)
    loop.add_argument("--block-size", type=int, help="lanes side by side (default: what memory holds)")
    loop.add_argument("--memory", help="what the lanes side by side may take, as in 2GB (default: a share of it all)")
    loop.add_argument("--out", type=Path, help="folder for a table per method and plot.png; finished parts are reused")
    loop.add_argument("--quiet", action="store_true", help="no plan and no progress bar")
    add_cache(loop)


def _sweep(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.results.table import Table
    from fedjax_lc.running import loop

    options = _merged(options)
    fill_in(options, steps=(10_000, 100), every=(10, 1))
    methods = [algorithms.get(name) for name in dict.fromkeys(options.methods)]
    options.memory = _bytes(options.memory)
    shares, notes = axes.shares(options.grid, methods)
    if options.out is not None:
        _check_folder(options, shares)
    problem = make_problem(options)
    for algorithm in methods:
        loop.choose_metrics(algorithm, problem, options.measure)
    grids = {
        a.name: axes.build(a, problem, shares[a.name], num=options.sample, kind=options.sample_method,
                           index_bits=options.index_bits)
        for a in methods
    }  # fmt: skip
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    tables, lanes = [], options.seeds * sum(map(len, grids.values()))
    with loop.interruptible() as interrupted:
        for algorithm in methods:
            tables.append(_one(algorithm, problem, grids[algorithm.name], shares[algorithm.name], options))
            done = sum(int((table.lanes["status"] != "interrupted").sum()) for table in tables)
            if interrupted() and done < lanes:
                return _tell_interrupted(done, lanes, options)
    _tell(tables[0] if len(tables) == 1 else Table.merge(tables), options)
    return 0


def _merged(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the file, if one is named, under those of the command line; grid and budget by name."""
    files = [word for word in options.methods if word.endswith(".toml")]
    said = toml.Said([], {name: {} for name in toml.TABLES}, {})
    grid = axes.pairs("grid", options.grid, "gamma=log:0.01:1:5")
    budget = axes.pairs("budget", options.budget, "bits_up=1e7")
    if len(files) > 1:
        raise InputError(f"one .toml file at a time, got {' and '.join(files)}")
    if files:
        known = vars(options).keys() - {*OWN}
        said = toml.read(files[0], known)
        given = {name for name in toml.LISTS if getattr(options, name)}
        words = [word for name, part in said.options.items() if name not in given for word in part]
        options = options.parser.parse_args([*words, *options.arguments])
    options.methods = [word for word in options.methods if word not in files] or said.methods
    if not options.methods:
        raise InputError(f'{files[0]} names no methods: add methods = ["locodl"], or give them before it')
    left_out = {*said.methods} - {*options.methods}
    kept = {name: axis for name, axis in said.tables["grid"].items() if name.partition(".")[0] not in left_out}
    options.grid = kept | grid
    if options.sample is not None and not options.grid:
        raise InputError("--sample draws from axes, and there is none: add --grid, as in 'gamma=loguniform:0.01:1'")
    options.budget = {name: _limit(name, value) for name, value in (said.tables["budget"] | budget).items()}
    return options


def _limit(name: str, value: Any) -> float:
    from fedjax_lc.results import ledger

    if name not in ledger.COSTS:
        raise unknown("budget", name, ledger.COSTS)
    try:
        limit = float(value)
    except (TypeError, ValueError):
        limit = 0.0
    if not limit > 0:
        raise InputError(f"--budget {name} must be a number > 0, got {value!r}")
    return limit


def _bytes(text: str | None) -> int | None:
    """2GB, 512MiB, 1e9, ... as a number of bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"([\d.]+(?:e\+?\d+)?)\s*([kmgt]i?)?b?", text.strip().lower())
    try:
        return int(float(match[1]) * UNITS[match[2] or ""])  # type: ignore[index]
    except (TypeError, ValueError):
        raise InputError(f"--memory must be a size such as 2GB, 512MiB or 1e9, got {text!r}") from None


def _settings(options: argparse.Namespace, method: str, grid: dict[str, Any]) -> dict[str, Any]:
    """What decides the numbers of one method's sweep; as a file, it repeats it."""
    said = {name: value for name, value in vars(options).items() if name not in ASIDE}
    return {"methods": [method]} | said | {"grid": grid}


def _check_folder(options: argparse.Namespace, shares: dict[str, dict[str, Any]]) -> None:
    """Raise InputError if the folder cannot be written or holds sweeps that this one cannot stand beside."""
    from fedjax_lc.core.files import check_writable

    check_writable(options.out / "sweep.toml")
    for path in sorted(options.out.glob("*/sweep.toml")):
        before = toml.load(str(path))
        method = path.parent.name
        grid = shares.get(method, before.get("grid", {}))
        now = toml.loads(toml.spell(_settings(options, method, grid)))
        differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if differ:
            raise InputError(f"{path.parent} holds a different sweep (other {', '.join(differ)}): choose another --out")


def _one(algorithm: Any, problem: Any, grid: Any, own: dict[str, Any], options: argparse.Namespace) -> Any:
    """One method's table; with --out its folder also says how to make it again."""
    from fedjax_lc.core.files import replacing
    from fedjax_lc.sweeping.sweep import sweep

    out = None if options.out is None else options.out / algorithm.name
    table = sweep(
        algorithm, problem, grid, seeds=options.seeds, steps=options.steps, every=options.every,
        rel_gap=options.rel_gap, budget=options.budget or None, measure=options.measure,
        masked=options.masked, out=out, block_size=options.block_size, memory=options.memory,
        progress=not options.quiet,
    )  # fmt: skip
    if out is not None:
        with replacing(out / "sweep.toml") as path:
            path.write_text(toml.spell(_settings(options, algorithm.name, own)))
    return table


def _tell_interrupted(done: int, lanes: int, options: argparse.Namespace) -> int:
    """Say what is done and where it is kept; the exit code of Ctrl-C."""
    kept = "nothing is kept without --out"
    if options.out is not None:
        kept = f"finished parts are kept in {options.out}, and the same command continues from them"
    print(f"fedjax-lc: interrupted with {done} of {lanes} lanes done; {kept}", file=sys.stderr)
    return 130


def _tell(table: Any, options: argparse.Namespace) -> None:
    """What was compiled, what diverged, the comparison at the target, and the picture."""
    from fedjax_lc import plot
    from fedjax_lc.results import report
    from fedjax_lc.running import cache

    print(cache.told())
    for line in compare.diverged(table):
        print(line)
    gap, metric, line = compare.terms(table, options.rel_gap, METRIC)
    print(line)
    best = table.best(metric, rel_gap=gap)
    print(report.table(compare.rows(table, best, metric)))
    for note in compare.edges(table, best):
        print(note)
    if options.out is not None:
        plot.best(table, metric, gap, path=options.out / "plot.png")
        print(f"wrote a table per method and plot.png to {options.out}")
