"""fedjax_lc: massively vectorised simulation of federated and communication-efficient distributed optimisation.

>>> import fedjax_lc as fl
>>> trace = fl.run("locodl", problem, fl.algorithms.get("locodl").theory(problem), key=0, steps=10_000)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedjax_lc import algorithms, compressors, data, models, plot, problems
    from fedjax_lc.algorithms.frames import schedules
    from fedjax_lc.algorithms.frames.topology import topology
    from fedjax_lc.core import lanes
    from fedjax_lc.core.devices import devices
    from fedjax_lc.core.errors import InputError
    from fedjax_lc.pages.page import report
    from fedjax_lc.problems import problem
    from fedjax_lc.results.table import Table
    from fedjax_lc.running.run import Trace, run
    from fedjax_lc.sweeping.axes import loguniform, times, uniform
    from fedjax_lc.sweeping.extend import extend
    from fedjax_lc.sweeping.grid import Grid, grid, sample
    from fedjax_lc.sweeping.shards import merge
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
    "merge",
    "models",
    "plot",
    "problem",
    "problems",
    "report",
    "run",
    "sample",
    "schedules",
    "sweep",
    "times",
    "topology",
    "uniform",
]

_HOMES = {
    "algorithms.frames.schedules": ("schedules",),
    "algorithms.frames.topology": ("topology",),
    "core.devices": ("devices",),
    "core.lanes": ("lanes",),
    "core.errors": ("InputError",),
    "pages.page": ("report",),
    "problems": ("problem",),
    "results.table": ("Table",),
    "running.run": ("Trace", "run"),
    "sweeping.axes": ("loguniform", "times", "uniform"),
    "sweeping.extend": ("extend",),
    "sweeping.grid": ("Grid", "grid", "sample"),
    "sweeping.shards": ("merge",),
    "sweeping.sweep": ("sweep",),
}  #: where the names live that are no rooms of the package


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line answers Ctrl-C while it imports."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), name)
    module = importlib.import_module(f"{__name__}.{home}")
    globals()[name] = getattr(module, name, module)  # a room, and a file of one, is its module
    return globals()[name]
