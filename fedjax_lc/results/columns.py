"""The columns of a table, and the column of a name."""

from __future__ import annotations

from collections.abc import Collection

from fedjax_lc.results.ledger import COSTS

PRICES = (*COSTS, "step", "seconds")  #: what a first hit costs
METRICS = (*PRICES, "total_bits")  #: what `Table.best` can count
TARGETS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)  #: relative gaps that `Table.summary` tries
HEAD, TAIL = ("method", "config", "seed"), ("status", "initial", "f_star", "seconds")  #: of `Table.lanes`
SERIES = ("lane", "step", *COSTS, "value")  #: of `Table.records`, before metrics and seconds
SPREAD = ("median", "low", "high", "seeds", "reached", "diverged")  #: what `Table.best` adds
OF_TABLE = ("methods", "metrics", "seeds", "axes", "merged")  #: in `Table.config`, of no meaning for one lane
RESERVED = frozenset({*HEAD, *TAIL, *SERIES, *SPREAD, "gap", "rel_gap", "record"})


def column(name: str, metrics: Collection[str] = ()) -> str:
    """The column of a hyperparameter, setting or metric: its name, or `name_` where that is another column's.

    Metrics are named first, without `metrics`; then hyperparameters and settings, with the columns of the metrics.

    >>> column("gamma/theory"), column("seed"), column("p", metrics=["p"])
    ('gamma/theory', 'seed_', 'p_')
    """
    return f"{name}_" if name in RESERVED or name in metrics else name


def is_accuracy(name: str) -> bool:
    """Whether larger numbers of this metric are better."""
    return "accuracy" in name and not name.endswith("_std")
