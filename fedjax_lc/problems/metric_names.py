"""Names of metrics of networks, which say the rows that they are measured on, and what to say of an unknown one."""

from __future__ import annotations

from collections.abc import Iterable

from fedjax_lc.core.errors import InputError, unknown

CLIENTS = "clients"  #: stands for all metrics by client
COHORT = "cohort"  #: the metric (n,) that is 1 for clients of the last round before a record, 0 for others
#: names that metrics had, which said nothing of the rows
OLD = ("accuracy", "accuracy_min", "accuracy_std", "accuracy_worst", "client_accuracy", "client_loss")


def by_rows(name: str, rows: str) -> str:
    """The name of a metric that is measured on the training or test rows.

    >>> by_rows("client_loss", "train"), by_rows("accuracy", "test")
    ('client_train_loss', 'test_accuracy')
    """
    stem = name.removeprefix("client_")
    return f"{name.removesuffix(stem)}{rows}_{stem}"


def unknown_metric(name: str, known: Iterable[str], kind: str = "metric") -> InputError:
    """The error for a metric that is not measured; of a name of before, it gives the names of now."""
    known = list(known)
    now = [new for new in (by_rows(name, rows) for rows in ("test", "train")) if name in OLD and new in known]
    if now:
        return InputError(
            f"{kind} {name!r} is called {' or '.join(map(repr, now))}, by the rows that it is measured on"
        )
    return unknown(kind, name, known)
