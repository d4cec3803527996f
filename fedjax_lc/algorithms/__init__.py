"""Methods, one file each: every file of this folder registers itself when the package is imported, and so does every
file of the folders that the environment variable FEDJAX_LC_METHODS names, when a method is first looked up."""

from __future__ import annotations

import importlib
import pkgutil

from fedjax_lc.algorithms.frames.base import Algorithm, Cost, choose, constants, get, load, names, register, tile
from fedjax_lc.core.hyperparameters import hyperparameter

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Algorithm", "Cost", "choose", "constants", "get", "hyperparameter", "load", "names", "register", "tile"]
