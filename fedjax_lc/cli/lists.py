"""`fedjax-lc list`: what is known by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fedjax_lc.cli.options import first_line
from fedjax_lc.errors import unknown


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser("list", help="list what is known by name: methods, compressors, data, ...")
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

    found = data.loading.described().items()
    return [{"data set": name, "kind": kind, "what it holds": what} for name, (kind, what) in found]


def _partitions() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("partition", data.partitions.names())


def _models() -> list[dict[str, str]]:
    from fedjax_lc import models

    return [{"name": name, "what it is": first_line(models.get(name))} for name in models.names()]


def _schedules() -> list[dict[str, str]]:
    from fedjax_lc.algorithms import schedules

    return _named("schedule", schedules.names())


def _figures() -> list[dict[str, str]]:
    from fedjax_lc import figure

    return _named("figure", figure.names())


_LISTS = {
    "methods": _methods,
    "compressors": _compressors,
    "data": _data,
    "partitions": _partitions,
    "models": _models,
    "schedules": _schedules,
    "figures": _figures,
}
