"""The figures by name, such as `locodl/a5a-87`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import unknown

FOLDER = Path(__file__).parents[1]
NO_RECIPES = ("kit", "bench")


def names() -> list[str]:
    """All of them."""
    files = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.py") if path.name[0] != "_")
    return sorted(path.as_posix().replace("_", "-") for path in files if path.parts[0] not in NO_RECIPES)


def get(name: str) -> Any:
    """The recipe of that name."""
    if name not in names():
        raise unknown("figure", name, names())
    return importlib.import_module("experiments." + name.replace("/", ".").replace("-", "_")).FIGURE


def results_folder(name: str) -> Path:
    """Where the results of that figure are kept."""
    return (FOLDER / name).parent / "figures"
