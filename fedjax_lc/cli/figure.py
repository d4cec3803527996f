"""`fedjax-lc figure`: the figures of papers."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import repository
from fedjax_lc.cli.options import PATH, add_cache, reader
from fedjax_lc.core import spec
from fedjax_lc.core.errors import unknown


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "figure",
        help="make a figure of a paper: table, picture and which orderings hold",
        epilog="Example: fedjax-lc figure locodl/a5a-87",
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="fedjax-lc list figures; a folder makes all in it but gpu/"
    )
    parser.add_argument("--out", type=PATH, help="folder for the results (default: figures/ beside the recipe)")
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="of the pictures (default: png, 150 kB at most)"
    )
    parser.add_argument("--report", action="store_true", help="also NAME.html: its curves as a page (fedjax-lc report)")
    jobs = spec.Field((int,), fits=lambda number: 1 <= number <= 1000, words="whole and in 1..1000")
    parser.add_argument("--jobs", type=reader(jobs), default=1, help="figures made at the same time (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_cache(parser)
    parser.set_defaults(command=_figure)


def _figure(options: argparse.Namespace) -> int:
    catalogue = repository.load("kit.catalogue")
    known = catalogue.names()
    chosen = [n for name in options.names for n in _matching(name, known)]
    if options.jobs > 1 and len(chosen) > 1:
        return _side_by_side(chosen, options)
    for name in chosen:
        folder = options.out or catalogue.results_folder(name)
        print(_make(catalogue.get(name), folder, Path(name).name, not options.quiet, options.format, options.report))
        also = ", .html" if options.report else ""
        print(f"wrote {folder / Path(name).name}.md, .json{also} and .{options.format}")
    return 0


def _matching(name: str, known: Sequence[str]) -> list[str]:
    """The recipe, or all of a folder; those of its folders called gpu only if asked for, as they take days on a CPU."""
    folder = name.rstrip("/") + "/"
    chosen = [n for n in known if n == name or (n.startswith(folder) and "gpu" not in n[len(folder) :].split("/")[:-1])]
    if not chosen:
        raise unknown("figure", name, known)
    return chosen


def _make(recipe: Any, folder: Path, name: str, progress: bool, picture: str, page: bool) -> str:
    import jax

    jax.config.update("jax_enable_x64", True)
    return recipe.make(folder, name, progress, picture, page)


def _side_by_side(chosen: Sequence[str], options: argparse.Namespace) -> int:
    """One process per figure, `jobs` at a time; 0 if all succeeded."""
    from concurrent.futures import ThreadPoolExecutor

    extra = ["--quiet", "--format", options.format] + (["--out", str(options.out)] if options.out else [])
    extra += ["--no-cache"] * options.no_cache + ["--report"] * options.report

    def make(name: str) -> int:
        print(f"{name}: started", flush=True)
        command = [sys.executable, "-m", "fedjax_lc.cli", "figure", name, *extra]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        print(f"{name}: {'done' if done.returncode == 0 else 'failed'}\n{done.stdout}{done.stderr}", flush=True)
        return done.returncode

    with ThreadPoolExecutor(options.jobs) as pool:
        return max(pool.map(make, chosen))
