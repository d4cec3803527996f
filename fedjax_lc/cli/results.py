"""`fedjax-lc best` and `fedjax-lc plot`: what the folder of a sweep (or of a run) says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import compare
from fedjax_lc.cli.options import PATH, Help, add_size, add_target, terminal_width
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.paths import is_there
from fedjax_lc.core.progress import say

KINDS = ("best", "heatmap", "sensitivity")
PAPER = ("markdown", "latex", "csv")  #: formats of a table for a paper


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add both commands."""
    best = commands.add_parser(
        "best",
        help="the best configurations of a sweep",
        description="Print the configuration whose median over seeds of the metric at the target is least.",
        epilog="Example: fedjax-lc best out --metric rounds --rel-gap 1e-6 --by method,compressor",
        formatter_class=Help,
    )
    best.set_defaults(command=_best)
    best.add_argument("folder", type=PATH, metavar="DIR", help="the --out of a sweep")
    _add_common(best)
    best.add_argument("--csv", type=PATH, help="also write the table, with every hyperparameter, to this file")
    best.add_argument(
        "--format", choices=("text", *PAPER), default="text", help="of what is printed; csv has every hyperparameter"
    )
    plot = commands.add_parser(
        "plot",
        help="a picture of a sweep or of runs",
        description="Draw the best curves of a sweep, one of its axes or two; of runs, their curves.",
        epilog="Example: fedjax-lc plot out --kind heatmap --x gamma/theory --y compressor --out out/heat.pdf",
        formatter_class=Help,
    )
    plot.set_defaults(command=_plot)
    plot.add_argument("folders", nargs="+", type=PATH, metavar="DIR", help="the --out of a sweep, or of runs")
    _add_common(plot)
    plot.add_argument("--kind", help=f"{', '.join(KINDS)} (default: best)")
    plot.add_argument("--x", help="curves: bits_up, rounds, step, ... (default: the metric); else an axis of the sweep")
    plot.add_argument("--y", help="curves: rel_gap, gap, value or a metric (default: rel_gap); heatmap: another axis")
    plot.add_argument("--theory", action="store_true", help="of a run with --measure lyapunov: its proven bound")
    plot.add_argument("--method", help="heatmap: the method, where the sweep has several")
    plot.add_argument(
        "--out",
        type=PATH,
        help="the picture, .png, .svg or .pdf (default: DIR/plot.png or DIR/KIND.png; plot.png of several runs)",
    )
    add_size(plot)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default="method", help="columns that make the groups, with commas between them")
    known = "bits_up, bits_down, grads, rounds, step, seconds or total_bits; or test_accuracy, value, ... at the end"
    parser.add_argument("--metric", default="bits_up", help=f"what it costs to reach the target: {known}")
    add_target(parser)


def _best(options: argparse.Namespace) -> int:
    from fedjax_lc.core.files import replacing
    from fedjax_lc.results import paper, report
    from fedjax_lc.results.table import Table

    table = Table.load(options.folder)
    by = _groups(options)
    gap, metric, line = compare.terms(table, options.rel_gap, options.metric, by)
    best = table.best(metric, rel_gap=gap, by=by)
    if options.csv is not None:
        with replacing(options.csv) as path:
            best.to_csv(path, index=False)
    if options.format == "text":
        print(line)
        print(report.table(compare.rows(table, best, metric, by), width=terminal_width()))
    else:
        say(line)  # what is printed is the table alone, so that it can be sent to a file
        rows = compare.rows(table, best, metric, by)
        print(best.to_csv(index=False).rstrip("\n") if options.format == "csv" else paper.table(rows, options.format))
    if options.csv is not None:
        print(f"wrote {options.csv}")
    return 0


def _groups(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.by.split(",")]


def _plot(options: argparse.Namespace) -> int:
    first, *others = options.folders
    are_runs = bool(others) or is_there(first / "trace.parquet")
    print(f"wrote {_plot_runs(options) if are_runs else _plot_sweep(options, first)}")
    return 0


def _plot_runs(options: argparse.Namespace) -> Path:
    from fedjax_lc import plot
    from fedjax_lc.pages.gather import gather

    if options.kind is not None or options.method is not None:
        raise InputError("runs have curves alone, and --kind and --method are for one sweep: leave them out")
    groups, figures = gather(options.folders)
    if figures or any(group.sweeps for group in groups):
        raise InputError("plot draws runs together, or one sweep: give folders of runs, or see fedjax-lc report")
    if len(groups) > 1:
        raise InputError(f"these runs are of {len(groups)} problems: plot those of one, or see fedjax-lc report")
    curves = {curve.label: curve.traces for curve in groups[0].runs}
    path = options.out or (options.folders[0] if len(options.folders) == 1 else Path()) / "plot.png"
    x = options.x or options.metric
    plot.curves(curves, x=x, y=options.y, theory=options.theory, path=path, size=options.size)
    return path


def _plot_sweep(options: argparse.Namespace, folder: Path) -> Path:
    from fedjax_lc import plot
    from fedjax_lc.results.table import Table

    kind = options.kind or "best"
    if kind not in KINDS:
        raise unknown("kind of picture", kind, KINDS)
    if options.theory:
        raise InputError(f"{folder} holds a sweep, and --theory is for one run: leave it out")
    table = Table.load(folder)
    by = _groups(options)
    gap, metric, line = compare.terms(table, options.rel_gap, options.metric, by)
    path = options.out or folder / ("plot.png" if kind == "best" else f"{kind}.png")
    if kind == "best":
        plot.best(table, metric, gap, by=by, x=options.x, y=options.y, path=path, size=options.size)
    elif kind == "heatmap":
        x, y = _axes(table, kind, [options.x, options.y])
        plot.heatmap(table, x, y, metric, gap, method=options.method, path=path, size=options.size)
    else:
        (x,) = _axes(table, kind, [options.x])
        plot.sensitivity(table, x, metric, gap, by=by, path=path, size=options.size)
    print(line)
    return path


def _axes(table: Any, kind: str, given: Sequence[str | None]) -> list[str]:
    """The axes given; those that are not, where the sweep leaves no choice."""
    swept = {name for method in table.config["methods"].values() for name in method["settings"]}
    free = sorted(name for name in swept - {*given} if table.lanes[name].nunique() > 1)
    missing = [option for option, name in zip(("--x", "--y"), given, strict=False) if name is None]
    if missing and len(missing) != len(free):
        raise InputError(
            f"{kind} needs {' and '.join(missing)}: choose from {', '.join(free) or 'nothing (no axis left)'}"
        )
    return [name or free.pop(0) for name in given]
