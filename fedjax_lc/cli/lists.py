"""`fedjax-lc list`: what is known by name."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli import repository
from fedjax_lc.cli.options import first_line, terminal_width
from fedjax_lc.core.errors import InputError, unknown


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser("list", help="list what is known by name: methods, compressors, data, ...")
    parser.add_argument("what", nargs="?", default="methods", help=f"one of: {', '.join(_LISTS)} (default: methods)")
    parser.add_argument(
        "--long", action="store_true", help="of methods: what travels, what clients keep, what is proven"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    from fedjax_lc.results import report

    if options.what not in _LISTS:
        raise unknown("list", options.what, _LISTS)
    if options.long and options.what != "methods":
        raise InputError(f"--long is for the list of methods, got {options.what}")
    rows = _long_methods(options.markdown) if options.long else _LISTS[options.what]()
    print(report.table(rows, style="github" if options.markdown else "simple", width=terminal_width()))
    return 0


def _methods() -> list[dict[str, str]]:
    from fedjax_lc import algorithms

    methods = map(algorithms.get, algorithms.names())
    return [{"name": a.name, "method": a.title, "paper": a.paper} for a in methods]


def _long_methods(linked: bool) -> list[dict[str, str]]:
    """A row for each method; with links, as a Markdown page of the project's root has them."""
    from fedjax_lc import algorithms

    rows = []
    for method in map(algorithms.get, algorithms.names()):
        identifier, path = method.paper.split()[0].rstrip(":,"), Path(method.file)
        paper = identifier if identifier[:4].isdigit() else method.paper
        inside = f"fedjax_lc/algorithms/{path.name}"
        published = linked and paper == identifier
        rows.append(
            {
                "name": f"`{method.name}`" if linked else method.name,
                "method": method.title,
                "paper": f"[{paper}](https://arxiv.org/abs/{paper})" if published else paper,
                "up": method.up,
                "down": method.down,
                "(n, d) arrays": str(_client_arrays(method)),
                "known rate": method.speed or "-",
                "--theory": "yes" if method.rate else "-",
                "file": f"[{path.name}]({inside})" if linked else path.name,
            }
        )
    return rows


def _client_arrays(method: Any) -> int:
    """How many arrays (n, d) the state holds, counted on a small problem."""
    import jax
    import numpy as np

    from fedjax_lc import problems

    n, d = 3, 4
    problem = problems.quadratic(np.array([np.eye(d)] * n), np.zeros((n, d)))
    hp = method.theory(problem)
    state = jax.eval_shape(lambda: method.init(problem, hp, jax.random.key(0)))
    return sum(leaf.shape == (n, d) for leaf in jax.tree.leaves(state))


def _hyperparameters() -> list[dict[str, str]]:
    """A row for each field of each method, as it is declared."""
    from fedjax_lc import algorithms

    rows = []
    for method in map(algorithms.get, algorithms.names()):
        usual = {field.name: field.default for field in dataclasses.fields(method.Hparams)}
        for name, declared in method.options.items():
            if name in usual:
                default = "theory's" if usual[name] is dataclasses.MISSING else str(usual[name])
                what = {"kind": declared.kind, "range": declared.words(), "default": default, "meaning": declared.doc}
                rows.append({"method": method.name, "hyperparameter": name} | what)
    return rows


def _compressors() -> list[dict[str, str]]:
    from fedjax_lc.compressors.parse import REGISTRY

    return [{"name": n, "what it does": first_line(c)} for n, c in sorted(REGISTRY.items())]


def _named(kind: str, names: Sequence[str]) -> list[dict[str, str]]:
    return [{kind: name} for name in names]


def _data() -> list[dict[str, str]]:
    from fedjax_lc import data

    known = data.loading.described().items()
    rows = [{"data set": name, "kind": kind, "what it holds": what} for name, (kind, what) in known]
    for name, (endings, what) in data.formats.KNOWN.items():
        rows.append(
            {"data set": f"FILE{endings[0]}" if name != "pictures" else "FOLDER", "kind": name, "what it holds": what}
        )
    return rows


def _partitions() -> list[dict[str, str]]:
    from fedjax_lc import data

    return _named("partition", data.partitions.names())


def _models() -> list[dict[str, str]]:
    from fedjax_lc import models

    return [{"name": name, "what it is": first_line(models.get(name))} for name in models.names()]


def _schedules() -> list[dict[str, str]]:
    from fedjax_lc.algorithms.frames import schedules

    return _named("schedule", schedules.names())


def _topologies() -> list[dict[str, str]]:
    from fedjax_lc.algorithms.frames import topology

    return [{"topology": name, "what it is": what} for name, what in topology.described().items()]


def _figures() -> list[dict[str, str]]:
    return _named("figure", repository.load("kit.catalogue").names())


_LISTS = {
    "methods": _methods,
    "hyperparameters": _hyperparameters,
    "compressors": _compressors,
    "data": _data,
    "partitions": _partitions,
    "models": _models,
    "schedules": _schedules,
    "topologies": _topologies,
    "figures": _figures,
}
