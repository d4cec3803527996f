"""What all pictures share: colours, marks, words for axes, the figure class, legends, and writing to a file."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from fedjax_lc import algorithms
from fedjax_lc.core.errors import unknown
from fedjax_lc.core.files import replacing
from fedjax_lc.core.options import refuse_unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which every common colour blindness tells apart, less the yellow that is too pale for a line.
# Markers tell 9 curves apart in grey print; colour and marker together repeat after 63.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvP<*h"
STYLES = ("-", "-.", ":")
ENDINGS = {"capped": ">", "diverged": "x", "interrupted": "|"}  #: the mark at the end of a curve that fell short
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
    "accuracy": "accuracy on the test set",
    "test_loss": "loss on the test set",
    "train_accuracy": "accuracy on training rows",
    "accuracy_min": "accuracy of the worst client",
    "accuracy_std": "standard deviation of accuracy over clients",
    "accuracy_worst": "mean accuracy of the worst tenth of clients",
}


class Page(TypedDict, total=False):
    """What stands around a picture, and where it goes.

    path: also write the picture there (`save`). title: above the axes. note: small print under the title (index
    convention, condition number, ...), in as many lines as it has.
    """

    path: str | Path | None
    title: str | None
    note: str | None


def named(function: str, page: Page) -> Page:
    """`page`, every field of it set.

    Raises:
        InputError: an option that there is not.
    """
    refuse_unknown(function, page, Page)
    return {"path": page.get("path"), "title": page.get("title"), "note": page.get("note")}


def finished(figure: Figure, page: Page) -> Figure:
    """The figure, written where the page says."""
    if page["path"] is not None:
        save(figure, page["path"])
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .png, .svg or .pdf, by the suffix; equal figures give equal bytes (no dates, no random ids).

    Raises:
        InputError: another suffix, or a folder that cannot be written.
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
    """Colour, line style and marker of the curve in this place."""
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
    """What total bits add up, to follow their name."""
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
    for name in given:
        if name not in known:
            raise unknown(kind, name, known)


def scale_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks between low and high; those of a log axis that spans few decades are numbers that one reads at a glance."""
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
    """Turn long tick labels of an x axis so that they do not meet."""
    for text in axis.get_ticklabels():
        text.set(rotation=30, ha="right", rotation_mode="anchor")


def write(axes: Axes, x_label: str, y_label: str, title: str | None, note: str) -> None:
    """Labels, title, and the note as small print between title and axes."""
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or "", fontsize=12, loc="left", pad=8 + (12 * (note.count("\n") + 1) if note else 0))
    place = ((0, 1), (0, 5), "axes fraction", "offset points")
    small = axes.annotate(note, *place, fontsize=8.5, color="0.35", va="bottom")
    small.set_in_layout(not title)  # the title keeps its place free; a long note should not push panels apart


def write_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """The legend under the axes, in as many columns as have room."""
    columns = max(1, min(len(labels), 84 // (9 + max(map(len, labels)))))  # a row holds about 84 letters
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, which lays itself out."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    """matplotlib's Figure (imported when first needed), which a notebook shows without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=120)
            return buffer.getvalue()

    return Picture
