"""`fedjax-lc bench`: speed against honest baselines; compiling is measured too, so no program comes from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedjax_lc.cli import repository
from fedjax_lc.cli.options import first_line


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command; its suites become known when the command line names it."""
    parser = commands.add_parser("bench", help="measure speed against honest baselines")
    if "bench" not in arguments[:1]:
        return
    suites = parser.add_subparsers(metavar="SUITE", required=True)
    for name, suite in repository.load("bench").SUITES.items():
        suite.add_arguments(suites.add_parser(name, help=first_line(suite)))
