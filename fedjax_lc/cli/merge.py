"""`fedjax-lc merge`: the table of a sweep whose shards have run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fedjax_lc.cli.options import PATH, Help, add_target
from fedjax_lc.cli.sweep import show
from fedjax_lc.core.errors import InputError

EXAMPLE = "Example: fedjax-lc sweep locodl --seeds 8 --shard 1/2 --out out; the same with 2/2; fedjax-lc merge out"


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "merge",
        help="the table of a sweep that ran in shards",
        description="Check that all shards of a sweep are there, belong together and are finished, write the table "
        "that one process with the same --block-size writes, bit for bit, and compare the methods' best.",
        epilog=EXAMPLE,
        formatter_class=Help,
    )
    parser.set_defaults(command=_merge)
    parser.add_argument("folder", type=PATH, metavar="DIR", help="the --out of the shards")
    add_target(parser)


def _merge(options: argparse.Namespace) -> int:
    from fedjax_lc.results.table import Table
    from fedjax_lc.sweeping.shards import merge

    folders = sorted({path.parent for path in [*options.folder.glob("shard-*"), *options.folder.glob("*/shard-*")]})
    if not folders:
        raise InputError(f"{options.folder} holds no shards: expected the --out of fedjax-lc sweep ... --shard I/N")
    tables = [merge(folder) for folder in folders]
    show(tables[0] if len(tables) == 1 else Table.merge(tables), options.rel_gap, options.folder)
    return 0
