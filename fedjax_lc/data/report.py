"""What a partition looks like: a table in plain text and a picture of sizes and label shares."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.data.dataset import Dataset
from fedjax_lc.data.targets import is_real

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart with every common colour blindness: Okabe & Ito's colours, and Tol's "muted" ones for up to ten classes.
_FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_TEN = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#BBBBBB")
_TABLE_CLASSES = 12


@dataclasses.dataclass(frozen=True, eq=False)
class PartitionReport:
    """Sizes and label shares of the clients of one partition.

    indices: row indices of each client; targets: (N,) targets of all rows; classes: the names of the labels in
    sorted order of the targets (default: the values of the targets). Regression targets are described by their mean
    and deviation instead of shares.

    >>> print(PartitionReport([np.array([0, 1]), np.array([2, 3])], np.array([0, 0, 0, 1])).table())
    2 clients, 4 of 4 rows; sizes min 2, median 2, max 2
    distance of a client's label shares from those of all rows (total variation): mean 0.25, max 0.25
    client  rows      0      1
         0     2   1.00   0.00
         1     2   0.50   0.50
       all     4   0.75   0.25
    """

    indices: Sequence[NDArray[Any]]
    targets: NDArray[Any]
    classes: tuple[Any, ...] = ()
    title: str = ""

    @classmethod
    def of(cls, dataset: Dataset, indices: Sequence[NDArray[Any]], title: str = "") -> PartitionReport:
        """The report of a partition of a data set, with its class names."""
        classes = dataset.classes
        if dataset.task in ("multiclass", "sequence"):
            classes = tuple(classes[label] for label in np.unique(dataset.targets))
        if dataset.task == "sequence":
            classes = tuple(repr(character) for character in classes)
        return cls(indices, dataset.targets, classes, title)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each client, (n,)."""
        return np.array([len(part) for part in self.indices])

    @functools.cached_property
    def labels(self) -> NDArray[Any]:
        """The distinct targets in order, (C,); empty for regression targets."""
        distinct = np.unique(self.targets)
        return distinct[:0] if is_real(self.targets) else distinct

    def shares(self) -> NDArray[np.float64]:
        """Share of each label in each client, (n, C); rows add up to 1."""
        return np.array([self._shares_of(self.targets[part]) for part in self.indices])

    def _shares_of(self, targets: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([np.mean(targets == label) for label in self.labels])

    def distances(self) -> NDArray[np.float64]:
        """Total variation distance of each client's label shares from those of all rows, (n,): 0 = the same mix."""
        return 0.5 * np.abs(self.shares() - self._shares_of(self.targets)).sum(axis=1)

    def __str__(self) -> str:
        return self.table()

    def table(self, limit: int = 20) -> str:
        """Aligned text: sizes (min, median, max), how far clients differ, then a line for each of `limit` clients."""
        sizes = self.sizes
        lines = [
            f"{len(sizes)} clients, {sizes.sum()} of {len(self.targets)} rows; "
            f"sizes min {sizes.min()}, median {np.median(sizes):g}, max {sizes.max()}"
        ]
        if len(self.labels):
            far = self.distances()
            lines.append(
                "distance of a client's label shares from those of all rows (total variation): "
                f"mean {far.mean():.2f}, max {far.max():.2f}"
            )
        shown = range(min(limit, len(sizes)))
        body = [self._row(str(client), self.targets[self.indices[client]]) for client in shown]
        lines += _aligned([self._head(), *body, self._row("all", self.targets)])
        if len(sizes) > limit:
            lines.insert(-1, f"... {len(sizes) - limit} more clients")
        return "\n".join([self.title, *lines] if self.title else lines)

    def _names(self) -> list[str]:
        return [str(c) for c in self.classes] if self.classes else [f"{label:g}" for label in self.labels]

    def _head(self) -> list[str]:
        if not len(self.labels):
            return ["client", "rows", "mean", "deviation"]
        if len(self.labels) > _TABLE_CLASSES:
            return ["client", "rows", "classes", "main class", "its share"]
        return ["client", "rows", *self._names()]

    def _row(self, name: str, targets: NDArray[Any]) -> list[str]:
        start = [name, str(len(targets))]
        if not len(self.labels):
            return [*start, f"{targets.mean():.4g}", f"{targets.std():.4g}"]
        shares = self._shares_of(targets)
        if len(self.labels) > _TABLE_CLASSES:
            main = int(np.argmax(shares))
            return [*start, str(np.count_nonzero(shares)), self._names()[main], f"{shares[main]:.2f}"]
        return [*start, *(f"{share:.2f}" for share in shares)]

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Writes the picture of sizes and label shares; the file's ending (.png, .pdf, .svg) chooses the format.

        Raises InputError for an unknown ending or a folder that cannot be written.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        path = Path(path)
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        kind = path.suffix.lower().lstrip(".")
        if kind not in FigureCanvasAgg.get_supported_filetypes():
            raise InputError(f"{path}: unknown picture format; end the name in .png, .pdf or .svg")
        self._draw(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=150)
        return path

    def _draw(self, figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
        sizes, clients = self.sizes, np.arange(len(self.sizes))
        # Thin gaps help to tell a few bars apart and turn many into a moire pattern.
        width = 0.85 if len(clients) <= 40 else 1.0
        top.bar(clients, sizes, width, color="#4D4D4D")
        top.axhline(float(np.median(sizes)), color="#D55E00", lw=1, ls="--")
        top.set_ylabel("rows")
        top.set_title(
            f"{self.title + ': ' if self.title else ''}{len(sizes)} clients, rows min {sizes.min()}, "
            f"median {np.median(sizes):g} (dashed), max {sizes.max()}",
            fontsize=10,
            loc="left",
        )
        if len(self.labels):
            self._draw_shares(bottom, clients, width)
        else:
            self._draw_moments(bottom, clients)
        bottom.set_xlabel("client")
        bottom.set_xlim(-0.6, len(clients) - 0.4)
        bottom.xaxis.get_major_locator().set_params(integer=True)
        for axes in (top, bottom):
            axes.spines[["top", "right"]].set_visible(False)

    def _draw_shares(self, axes: Axes, clients: NDArray[Any], width: float) -> None:
        shares = self.shares()
        base = np.zeros(len(clients))
        for name, share, colour in zip(self._names(), shares.T, _colours(len(self.labels)), strict=True):
            axes.bar(clients, share, width, bottom=base, color=colour, label=name)
            base += share
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of labels")
        if len(self.labels) <= 20:
            axes.legend(
                title="label",
                loc="center left",
                bbox_to_anchor=(1.01, 0.5),
                frameon=False,
                fontsize=8,
                title_fontsize=8,
                reverse=True,
                ncols=1 if len(self.labels) <= 12 else 2,
            )

    def _draw_moments(self, axes: Axes, clients: NDArray[Any]) -> None:
        means = [self.targets[part].mean() for part in self.indices]
        spread = [self.targets[part].std() for part in self.indices]
        axes.errorbar(clients, means, spread, fmt="o", ms=3, lw=1, color="#0072B2")
        axes.set_ylabel("target, mean and deviation")


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    widths[2:] = [max(5, w) for w in widths[2:]]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _colours(count: int) -> list[Any]:
    """One colour a class; more than ten classes take even steps of cividis, whose order still shows."""
    if count <= len(_TEN):
        return list(_FEW if count <= len(_FEW) else _TEN)[:count]
    from matplotlib import colormaps

    return list(colormaps["cividis"](np.linspace(0, 1, count)))
