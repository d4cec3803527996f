"""`fedjax-lc extend`: more steps of a run that is done, or of chosen lanes of a sweep that is done."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lc.cli import axes, compare, sweep
from fedjax_lc.cli.config import RunConfig, SweepConfig
from fedjax_lc.cli.options import PATH, Help, add_cache, make_problem, reader
from fedjax_lc.cli.run import hparams, show
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.progress import say
from fedjax_lc.results.columns import is_accuracy


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "extend",
        help="continue a run that is done, or lanes of a sweep",
        description="Continue a run that is done by more steps: the results are, bit for bit, those of one run of the "
        "total length. Of a sweep (DIR is the folder of one method, as in out/locodl) the lanes that --best or --lanes "
        "choose go on, into a table of their own; a sweep keeps what that needs where it takes 1 GB at most. An "
        "extension that was interrupted goes on with the same command.",
        epilog="Examples: fedjax-lc extend out --steps 100000; fedjax-lc extend out/locodl --steps 100000 --best 5",
        formatter_class=Help,
    )
    parser.set_defaults(command=_extend)
    parser.add_argument("folder", type=PATH, metavar="DIR", help="the --out of a run, or a sweep's table")
    parser.add_argument(
        "--steps", type=reader(RunConfig.field("steps")), required=True, metavar="MORE", help="how many more"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--best", type=reader(SweepConfig.field("seeds")), metavar="COUNT",
        help="of a sweep: its best lanes, of those that made all their steps, by what the sweep is compared by",
    )  # fmt: skip
    which.add_argument("--lanes", metavar="LANES", help="of a sweep: lanes by number, as in 3,17")
    parser.add_argument("--into", type=PATH, metavar="DIR", help="of a sweep: default: DIR/extended-TOTAL")
    parser.add_argument("--checkpoint-every", metavar="MINUTES", help="as of run")
    parser.add_argument("--other-code", action="store_true", help="as of run")
    parser.add_argument("--track", action="append", metavar="TRACKER", help="of a run: as of run")
    parser.add_argument("--x", default="bits_up", help="as of run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_cache(parser)


def _extend(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.results.storage import is_table
    from fedjax_lc.running import folder as folders
    from fedjax_lc.running.extend import extend

    if is_table(options.folder):
        return _extend_lanes(options)
    if options.best is not None or options.lanes is not None or options.into is not None:
        raise InputError(f"{options.folder} holds no sweep that is done: --best, --lanes and --into are for one "
                         "method's folder of a sweep, as in out/locodl")  # fmt: skip
    kept = folders.read(options.folder)
    if kept is None:
        raise InputError(f"{options.folder} holds no run: expected the --out of a run that is done")
    more = {"out": options.folder, "x": options.x, "quiet": options.quiet}
    try:
        config = RunConfig.from_settings(kept["settings"], **more)
        algorithm = algorithms.get(config.method)
    except KeyError:
        raise InputError(f"{options.folder} holds a run that Python began: extend it by fl.extend") from None
    except (TypeError, AttributeError):
        raise InputError(f"{options.folder}/config.json is damaged: restore it, or run anew elsewhere") from None
    problem, _ = make_problem(config)
    hp = hparams(algorithm, problem, config)
    trace = extend(
        options.folder, options.steps, problem=problem, hp=hp, measure=config.measure,
        progress=not options.quiet, checkpoint_every=options.checkpoint_every, other_code=options.other_code,
        x0=config.x0(problem), track=options.track,
    )  # fmt: skip
    return show(config, algorithm, problem, hp, trace)


def _extend_lanes(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.core.paths import is_there
    from fedjax_lc.results.table import Table
    from fedjax_lc.sweeping.extend import extend

    folder = options.folder
    if is_there(folder / "tuning.json"):
        raise InputError(f"{folder} holds a tune, whose lanes have spent their budget: tune anew with a larger one")
    if options.track is not None:
        raise InputError("--track is for runs: lanes of a sweep that go on are not tracked")
    if options.best is None and options.lanes is None:
        raise InputError(f"{folder} holds a sweep: say which of its lanes go on, by --best 5 or --lanes 3,17")
    if not is_there(folder / "sweep.toml"):
        raise InputError(f"{folder} holds a sweep that Python began: extend it by fl.extend")
    table = Table.load(folder)
    lanes = _best(folder, table, options.best) if options.lanes is None else _numbers(options.lanes)
    config = SweepConfig(**SweepConfig.read(str(folder / "sweep.toml")) | {"quiet": options.quiet})
    algorithm = algorithms.get(next(iter(table.config["methods"])))
    problem, _ = make_problem(config)
    grid = axes.configurations(config, algorithm, problem, config.grid)
    longer = extend(
        folder, options.steps, lanes=lanes, into=options.into, problem=problem, hp=grid, measure=config.measure,
        progress=not options.quiet, checkpoint_every=options.checkpoint_every, other_code=options.other_code,
        x0=config.x0(problem),
    )  # fmt: skip
    into = folder / f"extended-{longer.config['steps']}" if options.into is None else options.into
    left = int((longer.lanes["status"] == "interrupted").sum())
    if left:
        say(f"fedjax-lc: interrupted with {len(longer) - left} of {len(longer)} lanes done; {into} keeps them, and the "
            "same command goes on")  # fmt: skip
        return 130
    print(f"lanes {', '.join(map(str, longer.config['extended']['lanes']))} of {folder}")
    sweep.show(longer, config.rel_gap, into)
    return 0


def _numbers(text: str) -> list[int]:
    """Lanes' numbers as in 3,17."""
    try:
        return [spec.whole(number.strip()) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--lanes must be numbers of lanes, as in 3,17, got {text!r}") from None


def _best(folder: Any, table: Any, count: int) -> list[int]:
    """The best lanes of those that made all their steps, by what the sweep is compared by.

    Raises:
        InputError: there are not so many.
    """
    last = table.records.groupby("lane").last().reindex(table.lanes.index)
    whole = (table.lanes["status"] == "finished") & (last["step"] >= table.config["steps"])
    if whole.sum() < count:
        raise InputError(f"--best {count}: of the lanes of {folder} only {whole.sum()} made all their steps")
    gap, metric, _ = compare.terms(table, None, sweep.METRIC)
    if gap is None:
        keys = [(-last[metric] if is_accuracy(metric) else last[metric]).to_numpy()]
    else:
        row = table.summary([gap])
        costs = row[next(name for name in row if name.startswith(f"{metric} to "))].to_numpy()
        keys = [row["rel_gap"].to_numpy(), np.where(np.isnan(costs), np.inf, costs)]
    order = np.lexsort(keys)
    return [int(lane) for lane in order if whole[lane]][:count]
