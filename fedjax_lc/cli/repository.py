"""The repository's `experiments/`: recipes of figures and benches live beside the package, not in it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from fedjax_lc.core.errors import InputError


def load(name: str) -> ModuleType:
    """The module experiments.NAME of the clone that the package or the working folder lies in.

    Raises:
        InputError: there is no clone.
    """
    places = [Path(__file__).parents[2], Path.cwd(), *Path.cwd().parents]
    root = next((place for place in places if (place / "experiments" / "kit").is_dir()), None)
    if root is None:
        raise InputError("no experiments/ folder found: figures and benches live in the repository, run inside a clone")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"experiments.{name}")
