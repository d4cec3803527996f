"""fedjax_lc: massively vectorised simulation of federated and communication-efficient distributed optimisation.

>>> import fedjax_lc as fl
>>> trace = fl.run("locodl", problem, fl.algorithms.get("locodl").theory(problem), key=0, steps=10_000)
"""

from __future__ import annotations

from fedjax_lc import algorithms, compressors, data, plot, problems
from fedjax_lc.errors import InputError
from fedjax_lc.run import Trace, run

__version__ = "0.1.0"

__all__ = ["InputError", "Trace", "algorithms", "compressors", "data", "plot", "problems", "run"]
