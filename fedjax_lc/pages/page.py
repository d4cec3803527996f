"""The page: template, style, script and plotting library, and in it the data as JSON that no name can break out of."""

from __future__ import annotations

import dataclasses
import functools
import html
import importlib.resources
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError, one_line
from fedjax_lc.core.files import check_writable, replacing
from fedjax_lc.core.paths import user_path
from fedjax_lc.pages import embed
from fedjax_lc.pages.figures import Figure
from fedjax_lc.pages.gather import Group, Results, gather
from fedjax_lc.plot.style import COLOURS, COST_LABELS, MARKERS, STYLES
from fedjax_lc.results.provenance import environment

MOST_BYTES = 6_000_000  #: of a page
RECORDS = (1000, 500, 250, 120, 60)  #: records of a curve that are kept, from the most to the fewest
ENDINGS = (".html", ".htm")
SCRIPTS = ("base.js", "costs.js", "curves.js", "sweeps.js", "figures.js", "main.js")
LIBRARY, LICENCE = "plotly-cartesian.min.js", "plotly-LICENSE.txt"
SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross",
    "<": "triangle-left", "*": "star", "h": "hexagon",
}  # fmt: skip
DASHES = {"-": "solid", "-.": "dashdot", ":": "dot"}
DANGEROUS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}  #: what could end a script


def report(results: Results, path: str | os.PathLike[str] = "report.html", *, title: str | None = None) -> Path:
    """Write results as one HTML page that needs nothing else: no network, no Python, no other file.

    The page shows curves against uplink bits, total bits at any price of the downlink, rounds, gradients or simulated
    time on links and machines of any speed; who needs least of each to a target; of a sweep also a map of two of its
    axes, parallel coordinates, and a table of configurations; of the JSON file of a figure its claims, tables and
    pictures; and how everything was made. Results of different problems stand one after the other.

    A curve of very many records is thinned, to 1000 records or fewer, and the page says so. What targets cost is
    computed from all records. A page has at most 6 MB.

    Args:
        results: a trace, a table, the folder of a run or a sweep, a folder of such, or the .json of a figure; a list of
            these; or a dict from a label to one of these or to a list of traces, which are the seeds of one curve. Runs
            that differ only in their key are taken as seeds of one curve.
        path: the page, .html.
        title: its heading; default: the problem or the figure.

    Returns:
        The path.

    Raises:
        InputError: there is nothing to show, a folder or file cannot be read, or the page cannot be written.

    Example:
        >>> fl.report({"LoCoDL": trace, "DIANA": [seed0, seed1]}, "report.html")
        >>> fl.report(["runs/locodl", "tuning"], "report.html", title="LoCoDL on a5a")
    """
    path = user_path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"a report is a page: give its path an ending .html, got {path.name or str(path)!r}")
    check_writable(path)
    groups, figures = gather(results)
    pages = (page(groups, figures, title, most) for most in RECORDS)
    text = next((each for each in pages if len(each) <= MOST_BYTES), None)
    if text is None:
        raise InputError(f"these results make a page of more than {MOST_BYTES / 1e6:g} MB: report fewer at a time")
    with replacing(path) as temporary:
        temporary.write_bytes(text)
    return path


def page(groups: Sequence[Group], figures: Sequence[Figure], title: str | None, most: int) -> bytes:
    """The page in UTF-8; a curve keeps at most `most` records."""
    problems = [embed.group(each, most) for each in groups]
    heading = one_line(title or _heading([each["title"] for each in problems], [each.title for each in figures]))
    made = environment()
    data = {
        "title": heading,
        "made": f"Written {made['written']} by fedjax_lc {made['versions'].get('fedjax_lc', '')}".rstrip(),
        "look": _look(),
        "costs": {name: embed.plain(label) for name, label in COST_LABELS.items()},
        "problems": problems,
        "figures": [dataclasses.asdict(each) for each in figures],
    }
    slots = {
        "title": html.escape(heading),
        "style": _asset("page.css"),
        "library": f"{_asset(LIBRARY)}\n/*\n{_asset(LICENCE)}*/",
        "script": "\n".join(map(_asset, SCRIPTS)),
        "data": embedded(data),
    }
    whole = re.sub(r"<!-- (\w+) -->|/\* (\w+) \*/", lambda slot: slots[slot[1] or slot[2]], _asset("page.html"))
    return whole.encode("utf-8", "backslashreplace")


def embedded(data: Any) -> str:
    """JSON that may stand in a script of a page, whatever its texts say.

    >>> embedded({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(DANGEROUS)


def _heading(problems: Sequence[str], figures: Sequence[str]) -> str:
    names = [*problems, *figures]
    return names[0] if len(names) == 1 else f"{names[0]}, and {len(names) - 1} more"


def _look() -> dict[str, list[str]]:
    """Colours, symbols and dashes of curves, those of all pictures of the package, as plotly calls them."""
    symbols, dashes = [SYMBOLS[marker] for marker in MARKERS], [DASHES[style] for style in STYLES]
    return {"colours": [*COLOURS], "symbols": symbols, "dashes": dashes}


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
