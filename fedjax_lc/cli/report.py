"""`fedjax-lc report`: runs, sweeps and figures as one HTML page that travels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli.options import PATH, Help


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="runs and sweeps as one HTML page",
        description="Write curves, comparisons and configurations as one HTML page, which needs no network.",
        epilog="Example: fedjax-lc report runs/locodl runs/diana tuning --out report.html",
        formatter_class=Help,
    )
    parser.add_argument(
        "results", nargs="+", type=PATH, metavar="DIR", help="the --out of a run or a sweep, or the .json of a figure"
    )
    parser.add_argument("--out", type=PATH, default=Path("report.html"), help="the page, .html")
    parser.add_argument("--title", help="its heading (default: the problem)")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from fedjax_lc.pages.page import report

    print(f"wrote {report(options.results, options.out, title=options.title)}")
    return 0
