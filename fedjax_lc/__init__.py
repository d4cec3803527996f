"""fedjax_lc: massively vectorised simulation of federated and communication-efficient distributed optimisation.

>>> import fedjax_lc as fl
>>> trace = fl.run("locodl", problem, fl.algorithms.get("locodl").theory(problem), key=0, steps=10_000)
"""

from __future__ import annotations

from fedjax_lc import algorithms, compressors, data, models, plot, problems
from fedjax_lc.algorithms.frames import schedules
from fedjax_lc.core import lanes
from fedjax_lc.core.devices import devices
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems import problem
from fedjax_lc.results.table import Table
from fedjax_lc.running.extend import extend
from fedjax_lc.running.run import Trace, run
from fedjax_lc.sweeping.axes import loguniform, times, uniform
from fedjax_lc.sweeping.grid import Grid, grid, sample
from fedjax_lc.sweeping.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "Grid",
    "InputError",
    "Table",
    "Trace",
    "algorithms",
    "compressors",
    "data",
    "devices",
    "extend",
    "grid",
    "lanes",
    "loguniform",
    "models",
    "plot",
    "problem",
    "problems",
    "run",
    "sample",
    "schedules",
    "sweep",
    "times",
    "uniform",
]
