"""What several commands share: help, the problem that is asked for, the price of indices."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from fedjax_lc.core.errors import InputError

if TYPE_CHECKING:
    from fedjax_lc.cli.config import Config


class Help(argparse.HelpFormatter):
    """Shows a default only where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.default in (None, False, argparse.SUPPRESS) or action.default == [] or "default" in text
        return text if plain else f"{text} (default: %(default)s)"


def add_cache(parser: Any) -> None:
    """The option that leaves the cache of compiled programs alone."""
    words = "compile everything now, keep nothing (FEDJAX_LC_CACHE: a folder for compiled programs and data, or off)"
    parser.add_argument("--no-cache", action="store_true", help=words)


def make_problem(config: Config, download: bool = True, mesh: Any = None) -> Any:
    """The problem that the data options ask for, for the devices of a mesh; notes on the data go to stderr."""
    import jax

    from fedjax_lc import data, problems
    from fedjax_lc.problems.from_data import remember, usual_scale, with_test

    network = config.model is not None
    scale = config.scale or usual_scale(config.data)
    labels = config.labels[0] if config.labels and len(config.labels) == 1 else config.labels
    dataset = data.load(config.data, data_dir=config.data_dir, scale=scale, labels=labels, download=download)
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    if network:
        dataset = with_test(dataset, config.test_share, config.split_seed)
    if config.report:
        parts = data.partition(dataset, config.clients, config.partition, seed=config.split_seed)
        report = data.PartitionReport.of(dataset, parts)
        print(report.table())
        if config.out is not None:
            report.plot(config.out / "clients.png")
    if network and config.kappa is not None:
        raise InputError("--kappa is for convex problems: give a network's weight decay by --l2")
    if not network and config.precision is not None:
        raise InputError("--precision is for networks: the products of convex problems are always exact")
    if not network and config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    chosen: dict[str, Any] = {"kappa": config.kappa}
    if network:
        chosen = {"model": config.model, "test_share": config.test_share, "measured_rows": config.measured_rows}
        chosen |= {} if config.precision is None else {"precision": config.precision}
    chosen |= {"clients": config.clients, "partition": config.partition, "split_seed": config.split_seed}
    weights = None if config.weights == "equal" else "size"
    made = problems.problem(dataset, l2=config.l2, weights=weights, dtype=config.dtype, devices=mesh, **chosen)
    source = {"name_or_path": config.data, "data_dir": config.data_dir, "scale": scale, "labels": labels}
    remember(made, source, chosen | {"l2": config.l2, "weights": weights, "dtype": config.dtype})
    return made


def priced(hp: Any, index_bits: str | None) -> Any:
    """Hyperparameters whose compressors price indices by that convention (None: as they are)."""
    from fedjax_lc import compressors

    if index_bits is None:
        return hp
    kept = {name: value for name, value in vars(hp).items() if isinstance(value, compressors.Compressor)}
    return dataclasses.replace(hp, **{name: compressors.with_index(c, index_bits) for name, c in kept.items()})


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]
