"""Names of metrics of networks, which say the rows that they are measured on, and what to say of an unknown one."""

from __future__ import annotations

from collections.abc import Iterable

from fedjax_lc.core.errors import InputError, unknown

CLIENTS = "clients"  #: stands for all metrics by client
COHORT = "cohort"  #: the metric (n,) that is 1 for clients of the last round before a record, 0 for others
#: names that leave open on which rows a metric is measured
OPEN = ("accuracy", "accuracy_min", "accuracy_std", "accuracy_worst", "client_accuracy", "client_loss")


def by_rows(name: str, rows: str) -> str:
    """The name of a metric that is measured on the training or test rows.

    >>> by_rows("client_loss", "train"), by_rows("accuracy", "test")
    ('client_train_loss', 'test_accuracy')
    """
    stem = name.removeprefix("client_")
    return f"{name.removesuffix(stem)}{rows}_{stem}"


def unknown_metric(name: str, known: Iterable[str], kind: str = "metric") -> InputError:
    """The error for a metric that is not measured; for a name that leaves the rows open, it gives those that do not."""
    known = list(known)
    clear = [whole for whole in (by_rows(name, rows) for rows in ("test", "train")) if name in OPEN and whole in known]
    if clear:
        return InputError(
            f"{kind} {name!r} is called {' or '.join(map(repr, clear))}, by the rows that it is measured on"
        )
    return unknown(kind, name, known)
