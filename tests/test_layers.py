"""A file imports only from lower layers, or from files that stand left of it in its own row."""

import ast
from pathlib import Path

import pytest

import fedjax_lc

PACKAGE = Path(fedjax_lc.__file__).parent
ROWS = [
    ["errors", "files", "typing", "pytree", "platforms", "products"],
    ["losses", "compressors", "data", "lanes"],
    ["models", "optimum", "stacking", "problems"],
    ["algorithms"],
    ["ledger", "provenance", "cache", "programs", "trace", "checkpoint", "loop", "run"],
    ["mesh", "axes", "grid", "table", "blocks", "groups", "planner", "store", "sweep"],
    ["plot", "report", "figure", "tuned", "passes", "floors", "training", "selfcheck", "doctor", "bench", "cli"],
]
PLACE = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names)}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Parts of the package that a file imports anywhere, in functions too (type-checking blocks aside)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "fedjax_lc":
            found |= {f"fedjax_lc.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.split(".")[1] for name in found if name.startswith("fedjax_lc.")}


def test_every_file_has_a_place():
    assert {unit(path) for path in FILES} <= set(PLACE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_or_left(path):
    here = PLACE[unit(path)]
    for other in imports(path) - {unit(path)}:
        assert PLACE[other][0] < here[0] or (PLACE[other][0] == here[0] and PLACE[other][1] < here[1]), other


@pytest.mark.parametrize("path", [path for path in FILES if unit(path) == "data"], ids=lambda path: path.name)
def test_data_is_numpy_only(path):
    modules = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
        )
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not modules & {"jax", "flax", "optax"}
