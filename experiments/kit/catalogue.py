"""The figures by name, such as `locodl/a5a-87`: those of the table FIGURES in each `recipes.py` below experiments/."""

from __future__ import annotations

import importlib
from pathlib import Path

from experiments.kit.recipe import Recipe
from fedjax_lc.core.errors import unknown

FOLDER = Path(__file__).parents[1]


def figures() -> dict[str, Recipe]:
    """Recipes by name, sorted."""
    found: dict[str, Recipe] = {}
    for path in FOLDER.rglob("recipes.py"):
        *folders, _ = path.relative_to(FOLDER).parts
        table = importlib.import_module(".".join(("experiments", *folders, "recipes"))).FIGURES
        found |= {"/".join((*folders, name)): recipe for name, recipe in table.items()}
    return dict(sorted(found.items()))


def names() -> list[str]:
    """All of them."""
    return list(figures())


def get(name: str) -> Recipe:
    """The recipe of that name."""
    known = figures()
    if name not in known:
        raise unknown("figure", name, known)
    return known[name]


def results_folder(name: str) -> Path:
    """Where the results of that figure are kept."""
    return (FOLDER / name).parent / "figures"
