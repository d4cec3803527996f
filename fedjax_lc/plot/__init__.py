"""Figures of traces and sweeps: log axes, bands over seeds, heat maps; PNG, SVG and PDF files."""

from __future__ import annotations

from fedjax_lc.plot.heat import heatmap
from fedjax_lc.plot.lines import MAX_POINTS, curves
from fedjax_lc.plot.spread import sensitivity
from fedjax_lc.plot.style import ENDINGS, resized, save
from fedjax_lc.plot.winners import best

__all__ = ["ENDINGS", "MAX_POINTS", "best", "curves", "heatmap", "resized", "save", "sensitivity"]
