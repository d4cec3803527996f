"""`fedjax-lc list`: what is known by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fedjax_lc.cli.options import first_line
from fedjax_lc.errors import unknown


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser("list", help="list methods, compressors, data sets, partitions and figures")
    parser.add_argument("what", nargs="?", default="methods", help=f"one of: {', '.join(_LISTS)} (default: methods)")
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    from fedjax_lc import report

    if options.what not in _LISTS:
        raise unknown("list", options.what, _LISTS)
    print(report.table(_LISTS[options.what]()))
    return 0


def _methods() -> list[dict[str, str]]:
    from fedjax_lc import algorithms

    found = [algorithms.get(name) for name in algorithms.names()]
    return [{"name": a.name, "method": a.title, "paper": a.paper} for a in found]


def _compressors() -> list[dict[str, str]]:
    from fedjax_lc.compressors.parse import REGISTRY

    return [{"name": n, "what it does": first_line(c)} for n, c in sorted(REGISTRY.items())]


def _named(kind: str, names: Sequence[str]) -> list[dict[str, str]]:
    return [{kind: name} for name in names]


def _data() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("data set", data.names())


def _partitions() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("partition", data.partitions.names())


def _figures() -> list[dict[str, str]]:
    from fedjax_lc import figure

    return _named("figure", figure.names())


_LISTS = {
    "methods": _methods,
    "compressors": _compressors,
    "data": _data,
    "partitions": _partitions,
    "figures": _figures,
}
