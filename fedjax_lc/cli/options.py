"""Options that several commands share: what the data are and what is minimised."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from fedjax_lc.core.errors import InputError


class Help(argparse.HelpFormatter):
    """Shows a default only where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.default in (None, False, argparse.SUPPRESS) or action.default == [] or "default" in text
        return text if plain else f"{text} (default: %(default)s)"


def add_data(parser: argparse.ArgumentParser) -> None:
    """The options that say what the data are, how they are split and what is minimised."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", default="breast_cancer", help="a data set's name (fedjax-lc list data) or a file")
    data.add_argument("--data-dir", help="folder of local data files (else the environment variable FEDJAX_LC_DATA)")
    data.add_argument("--labels", action="append", help="label of the +1 class of multiclass data; may be repeated")
    data.add_argument("--scale", help="standard, minmax, maxabs, unit or none (default: standard for embedded data)")
    data.add_argument("--clients", type=int, help="number of clients (default: 10, or as the data comes split)")
    data.add_argument("--partition", help="iid, sorted, shards:2, dirichlet:0.5, ... (fedjax-lc list partitions)")
    data.add_argument("--report", action="store_true", help="print sizes and label shares; with --out also a picture")
    data.add_argument(
        "--weights",
        default="equal",
        choices=("equal", "size"),
        help="what each client counts in F (by size: local gradients are scaled by it, on top of --client-weights)",
    )
    data.add_argument("--split-seed", type=int, default=0, help="seed of the partition")
    data.add_argument("--kappa", type=float, help="condition number of the regularised problem (default: 1e4)")
    data.add_argument("--l2", type=float, help="the regulariser's weight, instead of --kappa (of a network: 0)")
    kinds = ("float32", "float64")
    data.add_argument("--dtype", choices=kinds, help="numbers of the run (default: float64; of a network float32)")
    network = parser.add_argument_group("network")
    network.add_argument("--model", help="train this network (fedjax-lc list models), as in cnn or mlp:hidden=64x64")
    network.add_argument(
        "--test-share", type=float, default=0.2, help="tested on this share of data without a test set"
    )
    network.add_argument("--measured-rows", type=int, help="measure the training loss on so many rows (default: all)")
    network.add_argument(
        "--precision",
        help="of a network's float32 products on a GPU or TPU: high (TF32), highest (exact) or default (the platform's "
        "fastest); convex problems are always exact (default: high)",
    )


def add_cache(parser: Any) -> None:
    """The option that leaves the cache of compiled programs alone."""
    words = "compile everything now, keep nothing (FEDJAX_LC_CACHE: a folder for compiled programs and data, or off)"
    parser.add_argument("--no-cache", action="store_true", help=words)


def fill_in(options: argparse.Namespace, **defaults: tuple[Any, Any]) -> None:
    """Set what was not given: the first of a pair without a network, the second with one."""
    for name, pair in (defaults | {"dtype": ("float64", "float32")}).items():
        if getattr(options, name) is None:
            setattr(options, name, pair[options.model is not None])


def add_index_bits(parser: Any) -> None:
    """The option that says what the indices of sparse messages cost."""
    parser.add_argument("--index-bits", help="price of indices: log2, binom, int32 or none (default: log2)")


def make_problem(options: argparse.Namespace, download: bool = True) -> Any:
    """The problem that the data options ask for; notes on the data go to stderr."""
    import jax

    from fedjax_lc import data, problems
    from fedjax_lc.problems.from_data import usual_scale, with_test

    weights = None if options.weights == "equal" else "size"
    scale = options.scale or usual_scale(options.data)
    labels = options.labels[0] if options.labels and len(options.labels) == 1 else options.labels
    dataset = data.load(options.data, data_dir=options.data_dir, scale=scale, labels=labels, download=download)
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.model is not None:
        dataset = with_test(dataset, options.test_share, options.split_seed)
    if options.report:
        _report_partition(dataset, options)
    if options.model is not None:
        if options.kappa is not None:
            raise InputError("--kappa is for convex problems: give a network's weight decay by --l2")
        chosen = {} if options.precision is None else {"precision": options.precision}
        return problems.problem(
            dataset, options.clients, options.partition, options.model, l2=options.l2, weights=weights,
            split_seed=options.split_seed, test_share=options.test_share, measured_rows=options.measured_rows,
            dtype=options.dtype, **chosen,
        )  # fmt: skip
    if options.precision is not None:
        raise InputError("--precision is for networks: the products of convex problems are always exact")
    if options.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    return problems.problem(
        dataset, options.clients, options.partition, kappa=options.kappa, l2=options.l2,
        split_seed=options.split_seed, dtype=options.dtype, weights=weights,
    )  # fmt: skip


def _report_partition(dataset: Any, options: argparse.Namespace) -> None:
    from fedjax_lc import data

    parts = data.partition(dataset, options.clients, options.partition, seed=options.split_seed)
    found = data.PartitionReport.of(dataset, parts)
    print(found.table())
    if options.out is not None:
        found.plot(options.out / "clients.png")


def priced(hp: Any, index_bits: str | None) -> Any:
    """Hyperparameters whose compressors price indices by that convention (None: as they are)."""
    from fedjax_lc import compressors

    if index_bits is None:
        return hp
    found = {
        n: compressors.with_index(c, index_bits) for n, c in vars(hp).items() if isinstance(c, compressors.Compressor)
    }
    return dataclasses.replace(hp, **found)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]
