"""What a reader of files and frames is asked for beyond the data themselves, and how a refusal names the option."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from fedjax_lc.core.errors import InputError, unknown

CATEGORIES = ("onehot", "codes")
MISSING = ("mean", "drop")
ALLOW = ("zero", "unsorted", "repeated", "qid")
_CHOICES = {"categories": CATEGORIES, "missing": MISSING}
_FOR = {
    "n_features": "LIBSVM files only",
    "allow": "LIBSVM files only",
    "target": "tables with columns (CSV, Parquet, Arrow, frames)",
    "categories": "tables with columns (CSV, Parquet, Arrow, frames)",
    "missing": "tables and arrays of numbers",
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How data of a user are to be read; every field may be left out.

    target: the target's column, by name or by place counted from 0 (negative: from the right).
    categories: what becomes of words: "onehot" (a column of 0 and 1 for each word) or "codes" (0, 1, ... by alphabet).
    missing: what becomes of empty cells: "mean" (of the training rows of the column) or "drop" (the rows go).
    allow: irregularities of LIBSVM text that are read: "zero" (indices count from 0), "unsorted", "repeated" (values of
        one index are summed), "qid" (the rows of one query are one client).
    n_features: columns of a LIBSVM file, or "file" for its largest index.
    """

    target: str | int | None = None
    categories: str | None = None
    missing: str | None = None
    allow: str | Sequence[str] = ()
    n_features: int | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow", (self.allow,) if isinstance(self.allow, str) else tuple(self.allow or ()))
        for name, known in _CHOICES.items():
            if getattr(self, name) is not None and getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for word in self.allow:
            if word not in ALLOW:
                raise unknown("irregularity to allow", word, ALLOW)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def only(self, where: str, known: Iterable[str] = ()) -> None:
        """Raise InputError if an option is given that is not among the `known` ones, which these data have use for."""
        for name in ("n_features", "target", "categories", "missing", "allow"):
            if name not in known and getattr(self, name) not in (None, ()):
                raise InputError(f"{where}: {name} is for {_FOR[name]}; leave it out")


def option(name: str, *values: str) -> str:
    """How a message names an option.

    >>> option("missing", "mean", "drop")
    '--missing mean or drop (in Python missing="mean")'
    """
    return f'--{name} {" or ".join(values)} (in Python {name}="{values[0]}")'
