"""fedjax_lc: massively vectorised simulation of federated and communication-efficient distributed optimisation.

>>> import fedjax_lc as fl
>>> trace = fl.run("locodl", problem, fl.algorithms.get("locodl").theory(problem), key=0, steps=10_000)
"""

from __future__ import annotations

from fedjax_lc import algorithms, compressors, data, lanes, plot, problems
from fedjax_lc.axes import loguniform, times, uniform
from fedjax_lc.errors import InputError
from fedjax_lc.grid import Grid, grid, sample
from fedjax_lc.run import Trace, run
from fedjax_lc.sweep import sweep
from fedjax_lc.table import Table

__version__ = "0.1.0"

__all__ = [
    "Grid",
    "InputError",
    "Table",
    "Trace",
    "algorithms",
    "compressors",
    "data",
    "grid",
    "lanes",
    "loguniform",
    "plot",
    "problems",
    "run",
    "sample",
    "sweep",
    "times",
    "uniform",
]
