"""Common parts of all figures: colours, markers, axis labels, the figure class, legends, and writing to a file."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from fedjax_lc import algorithms
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.files import replacing
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.problems.metric_names import unknown_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# The colours of Okabe and Ito, distinguishable with all common forms of colour blindness, without the yellow, which is
# too pale for a line. Markers distinguish 9 curves in grey print; colour and marker together repeat after 63.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvP<*h"
STYLES = ("-", "-.", ":")
NOTE, CELL_TEXT = "note", "cell"  #: ids of the small print under a title, and of the number in a cell of a map
LEGEND_ROW = 0.2  #: inches of a row of the legend on the screen
ROW = 84  #: letters that it holds
#: width in inches, and letters as a share of those on the screen
SIZES = {"column": (3.35, 0.68), "page": (7.0, 0.75)}
ENDINGS = {
    "capped": ">",
    "diverged": "x",
    "interrupted": "|",
    "dropped": "_",
}  #: marker of a run that missed its target
METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

COST_LABELS = {
    "rounds": "communication rounds",
    "step": "iterations",
    "grads": "local gradients per client",
    "bits_up": "uplink bits per client",
    "bits_down": "downlink bits per client",
    "total_bits": "total bits per client",
}
OUTCOME_LABELS = {
    "rel_gap": r"relative gap  $(F(x) - F^\star)\,/\,(F(x^0) - F^\star)$",
    "gap": r"gap  $F(x) - F^\star$",
    "value": r"$F(x)$",
    "grad_norm": r"gradient norm  $\|\nabla F(x)\|$",
    "distance": r"distance to the solution  $\|x - x^\star\|$",
    "lyapunov": "Lyapunov function",
    "consensus": r"consensus error  $\mathrm{mean}_i\, \|x_i - \bar{x}\|^2$",
    "worst": r"largest gap of a node  $\max_i F(x_i) - F^\star$",
    "test_accuracy": "accuracy on the test set",
    "test_loss": "loss on the test set",
    "train_accuracy": "accuracy on training rows",
    **{
        f"{kind}_accuracy_{name}": f"{words}, {kind} rows"
        for kind in ("train", "test")
        for name, words in {
            "min": "accuracy of the worst client",
            "std": "standard deviation of accuracy over clients",
            "worst": "mean accuracy of the worst tenth of clients",
        }.items()
    },
}


class Page(TypedDict, total=False):
    """Options of all figures.

    Attributes:
        path: file to write the figure to (`save`); None to write none.
        title: title above the axes.
        note: small print under the title, such as index convention and condition number; may have several lines.
        size: "column" or "page" of a paper (`resized`); None for the screen.
    """

    path: str | Path | None
    title: str | None
    note: str | None
    size: str | None


def named(function: str, page: Page) -> Page:
    """`page` with all fields set; those not given are None.

    Raises:
        InputError: an option is unknown.
    """
    refuse_unknown(function, page, Page)
    if page.get("size") is not None:
        check_names("size", [str(page["size"])], SIZES)
    return {"path": page.get("path"), "title": page.get("title"), "note": page.get("note"), "size": page.get("size")}


def finished(figure: Figure, page: Page) -> Figure:
    """Bring the figure to the page's size, write it to the page's path, where there are such, and return it."""
    resized(figure, page["size"])
    if page["path"] is not None:
        save(figure, page["path"])
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png, .svg or .pdf; equal figures give equal bytes (no dates, no random ids).

    Raises:
        InputError: the suffix is another, or the folder cannot be written.
    """
    import matplotlib

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in METADATA:
        raise unknown("picture format", kind, METADATA)
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "fedjax_lc", "pdf.fonttype": 42}):
        figure.savefig(temporary, format=kind, dpi=200, metadata=METADATA[kind])
    return path


def look(place: int) -> dict[str, Any]:
    """Colour, line style and marker of the curve at this place in the legend."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": STYLES[place // len(COLOURS) % len(STYLES)],
        "linewidth": 1.6,
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 5.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def weights(cost: str, down_weight: float) -> str:
    """The definition of total bits, as a suffix of their axis label; empty for other costs."""
    return rf" (up + {down_weight:g} $\times$ down)" if cost == "total_bits" else ""


def method_title(method: str) -> str:
    """A method's name as its paper writes it."""
    return algorithms.get(method).title if method in algorithms.names() else method


def short(value: Any) -> str:
    """A number to three digits, anything else as it is.

    >>> short(1_234_567.0), short(0.00025), short("natural")
    ('1.23e6', '0.00025', 'natural')
    """
    if isinstance(value, str | bool | None) or (isinstance(value, int) and abs(value) < 100_000):
        return str(value)
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.3g}")


def check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise InputError for a name that is not known; `kind` says what it names."""
    for name in given:
        if name not in known:
            raise unknown_metric(name, known, kind)


def scale_ticks(axis: Axis, low: float, high: float) -> None:
    """Set ticks between low and high; a log axis over few decades gets plain numbers."""
    from matplotlib.ticker import AutoLocator, FixedLocator, FuncFormatter, LogLocator, NullLocator

    log = axis.get_scale() == "log"
    if log and high >= 100 * low:
        ticks = LogLocator().tick_values(low, high)
    else:
        locator = LogLocator(subs=(1, 2, 3, 5)) if log and high >= 4 * low else AutoLocator()
        ticks = locator.tick_values(low, high)
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())


def slant(axis: Axis) -> None:
    """Rotate long tick labels of an x axis so that they do not overlap."""
    for text in axis.get_ticklabels():
        text.set(rotation=30, ha="right", rotation_mode="anchor")


def write(axes: Axes, x_label: str, y_label: str, title: str | None, note: str) -> None:
    """Write axis labels, the title, and the note as small print between title and axes."""
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or "", fontsize=12, loc="left", pad=8 + (12 * (note.count("\n") + 1) if note else 0))
    place = ((0, 1), (0, 5), "axes fraction", "offset points")
    small = axes.annotate(note, *place, fontsize=8.5, color="0.35", va="bottom", gid=NOTE)
    small.set_in_layout(not title)  # the title reserves space for it; a long note should not push panels apart


def write_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], row: int = ROW, points: float = 9
) -> int:
    """Draw the legend below the axes, in as many columns as fit, and return the number of its rows.

    Args:
        row: letters that a row of the figure holds.
        points: size of the letters.
    """
    rows, columns = legend_rows(labels, row)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=points, frameon=False)
    return rows


def legend_rows(labels: Sequence[str], row: int) -> tuple[int, int]:
    """Rows and columns of a legend whose rows hold so many letters."""
    columns = max(1, min(len(labels), row // (9 + max(map(len, labels)))))
    return -(-len(labels) // columns), columns


def resized(figure: Figure, size: str | None) -> Figure:
    """The figure, now as wide as a column or a page of a paper, with letters that are read there (7 to 8 points).

    In a column, panels that stood side by side stand one below the other.

    Args:
        size: "column", "page", or None to leave it as it is.

    Example:
        >>> plot.save(plot.resized(plot.curves(trace), "column"), "figure.pdf")
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    if size is None:
        return figure
    check_names("size", [size], SIZES)
    (inches, share), (width, height) = SIZES[size], figure.get_size_inches()
    row = int(ROW * inches / 6.4 / share)
    artists: list[Any] = figure.findobj()
    for artist in artists:
        if isinstance(artist, Text):
            artist.set_fontsize(share * float(artist.get_fontsize()))
        elif isinstance(artist, Line2D):
            artist.set_linewidth(share * float(artist.get_linewidth()))
            artist.set_markersize(share * float(artist.get_markersize()))
        elif isinstance(artist, Patch):
            artist.set_linewidth(share * float(artist.get_linewidth()))
    rows = [0, 0]
    for legend in list(figure.legends):
        labels, handles = [text.get_text() for text in legend.get_texts()], legend.legend_handles
        legend.remove()
        rows[0] += legend_rows(labels, ROW)[0]
        rows[1] += write_legend(figure, handles, labels, row, 9 * share)
    more = 0
    for axes in figure.axes:
        axes.tick_params(labelsize=10 * share)
        for axis in (axes.xaxis, axes.yaxis):
            _fewer_labels(axis)
        _hide_crowded(axes, 0.65 * inches)
        for note in [text for text in axes.texts if text.get_gid() == NOTE and text.get_text()]:
            before = note.get_text().split("\n")
            lines = [part for line in before for part in textwrap.wrap(line, row)]
            note.set_text("\n".join(lines))
            title, pad = axes.get_title(loc="left"), share * (8 + 12 * len(lines))
            axes.set_title(title, fontsize=12 * share, loc="left", pad=pad)
            more = max(more, len(lines) - len(before))
    beside = _stacked(figure) if size == "column" else 1
    tall = (height - LEGEND_ROW * rows[0]) * max(inches * beside / width, share / 1.2)
    tall *= beside
    figure.set_size_inches(inches, tall + share * (LEGEND_ROW * rows[1] + more * 12 / 72))
    return figure


def _stacked(figure: Figure) -> int:
    """Put panels that stand side by side one below the other; returns how many stood so."""
    places = {axes: axes.get_subplotspec() for axes in figure.axes}
    panels = [(axes, place) for axes, place in places.items() if place is not None]
    beside = max((place.get_gridspec().ncols for _, place in panels), default=1)
    if beside > 1:
        grid = figure.add_gridspec(len(panels), 1)
        for row, (axes, _) in enumerate(panels):
            axes.set_subplotspec(grid[row])
            axes.tick_params(labelleft=True, labelbottom=True)
    return beside


def _hide_crowded(axes: Axes, inches: float) -> None:
    """Hide the numbers in the cells of a map so wide if one of them does not fit in there; colours say the same."""
    left, right = axes.get_xlim()
    texts = [text for text in axes.texts if text.get_gid() == CELL_TEXT]
    needed = [0.6 * max(map(len, text.get_text().split("\n"))) * float(text.get_fontsize()) / 72 for text in texts]
    for text in texts:
        text.set_visible(max(needed) < inches / abs(right - left))


def _fewer_labels(axis: Axis) -> None:
    """Name no numbers between the decades of a log axis, or only 2 and 5 where it has one decade at most."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, NullFormatter

    if axis.get_scale() != "log" or isinstance(axis.get_minor_formatter(), NullFormatter):
        return
    low, high = axis.get_view_interval()
    decades = sum(low <= tick <= high for tick in axis.get_majorticklocs())
    name = LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf))
    name.create_dummy_axis()
    chosen = lambda value, _: name(value) if f"{value:.0e}"[0] in "25" else ""
    axis.set_minor_formatter(NullFormatter() if decades > 1 else FuncFormatter(chosen))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with constrained layout."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    """matplotlib's Figure, imported on first use, which notebooks display without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=120)
            return buffer.getvalue()

    return Picture
