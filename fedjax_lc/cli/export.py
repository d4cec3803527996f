"""`fedjax-lc export`: the records of a run, a sweep or a tune as one file for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli.options import PATH, Help
from fedjax_lc.core.paths import is_there

FORMATS = ("csv", "parquet")


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="the records of a run, sweep or tune as a .csv or .parquet file",
        description="Write a tidy table, one row a record: of a sweep or a tune with the method, the settings and the "
        "hyperparameters of its lane.",
        epilog="Example: fedjax-lc export out --format parquet --out records.parquet",
        formatter_class=Help,
    )
    parser.set_defaults(command=_export)
    parser.add_argument("folder", type=PATH, metavar="DIR", help="the --out of a run, sweep or tune")
    parser.add_argument("--format", choices=FORMATS, default="csv", help="of the file (default: csv)")
    parser.add_argument("--out", type=PATH, help="the file (default: export.csv or .parquet in DIR)")


def _export(options: argparse.Namespace) -> int:
    from fedjax_lc.core.files import replacing

    frame = _frame(options.folder)
    path = options.out or options.folder / f"export.{options.format}"
    with replacing(path) as temporary:
        if options.format == "csv":
            frame.to_csv(temporary, index=False)
        else:
            words = {name: frame[name].map(_word) for name in frame if frame[name].dtype == object}
            frame.assign(**words).to_parquet(temporary, index=False)
    print(f"wrote {len(frame):,} records to {path}")
    return 0


def _frame(folder: Path) -> Any:
    """The records of the run or table in a folder."""
    from fedjax_lc.results.table import Table
    from fedjax_lc.results.trace import Trace

    if is_there(folder / "trace.parquet"):
        return Trace.load(folder).to_pandas()
    return Table.load(folder).to_pandas()


def _word(value: Any) -> str | None:
    """A cell of a column that may mix words, numbers and None, none of which Parquet mixes."""
    return None if value is None or value != value else str(value)
