"""A file imports only from rooms below its own, or from files of its own room; where an order is given, left of it.

The public surface is what `fedjax_lc/__init__.py` names.
"""

import ast
import types
from pathlib import Path

import pytest

import fedjax_lc

PACKAGE = Path(fedjax_lc.__file__).parent
ROWS = [
    ["core"],
    ["compressors", "data", "models"],
    ["problems"],
    ["algorithms"],
    ["results"],
    ["running"],
    ["sweeping"],
    ["plot", "pages", "cli"],
]
FILES_OF = {
    "core": [
        "errors",
        "paths",
        "memory",
        "files",
        "digest",
        "options",
        "progress",
        "lock",
        "spec",
        "hyperparameters",
        "typing",
        "pytree",
        "platforms",
        "products",
        "lanes",
        "devices",
        "shares",
        "tensors",
        "parts",
    ],
    "results": ["ledger", "provenance", "columns", "trace", "arrays", "ranking", "storage", "table", "report"],
    "running": [
        "cache",
        "programs",
        "signals",
        "peers",
        "checkpoints",
        "folder",
        "loop",
        "options",
        "placing",
        "run",
        "extend",
    ],
    "sweeping": [
        "axes",
        "grid",
        "program",
        "blocks",
        "groups",
        "planner",
        "store",
        "fit",
        "work",
        "farm",
        "ray",
        "outline",
        "shards",
        "start",
        "sweep",
        "extend",
        "theory",
    ],
    "pages": ["words", "figures", "gather", "made", "embed", "page"],
}
PLACE = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names)}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
SURFACE = {
    "Grid", "InputError", "Table", "Trace",
    "devices", "extend", "grid", "loguniform", "merge", "problem", "report", "run", "sample", "sweep", "times",
    "topology", "uniform",
    "algorithms", "compressors", "data", "lanes", "models", "plot", "problems", "schedules",
}  # fmt: skip


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of the package anywhere, in functions too: (room, file or name, ...)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {tuple(name.split(".")[1:]) for name in found if name.startswith("fedjax_lc.")}


def test_every_file_has_a_place_and_every_place_a_file():
    there = {parts(path)[0] for path in FILES}
    assert there == set(PLACE)
    for room, files in FILES_OF.items():
        assert {*files, "__init__"} == {parts(path)[1] for path in FILES if parts(path)[0] == room}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_or_left(path):
    room, *rest = parts(path)
    for other in imports(path):
        if other[0] != room:
            (here_row, here), (row, column) = PLACE[room], PLACE[other[0]]
            assert row < here_row or (row == here_row and column < here), other
        elif room in FILES_OF and len(other) > 1:
            assert FILES_OF[room].index(other[1]) < FILES_OF[room].index(rest[0]), other


@pytest.mark.parametrize("path", [path for path in FILES if "frames" in parts(path)], ids=lambda path: path.name)
def test_frames_know_no_method(path):
    assert all(other[1:2] == ("frames",) for other in imports(path) if other[0] == "algorithms")


@pytest.mark.parametrize("room", [room for row in ROWS for room in row if (PACKAGE / room).is_dir()])
def test_a_room_says_what_lives_there(room):
    assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))


def test_the_public_surface():
    assert set(fedjax_lc.__all__) == SURFACE
    for name in SURFACE:
        thing = getattr(fedjax_lc, name)
        hides_a_module = (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()
        assert isinstance(thing, types.ModuleType) or not hides_a_module


@pytest.mark.parametrize("path", [path for path in FILES if parts(path)[0] == "data"], ids=lambda path: path.name)
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_and_its_functions_take_few_parameters(path):
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([each for each in taken if each.arg not in ("self", "cls")]) <= 10, node.name
