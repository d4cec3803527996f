"""Every notebook runs from its first cell to its last, with runs cut short."""

from pathlib import Path

import jupytext
import pytest

import fedjax_lc as fl
from fedjax_lc.algorithms.frames import base

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.md"))
STEPS = 2000


def code(path: Path) -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def execute(path: Path) -> dict:
    names: dict = {"__name__": "__main__"}
    for number, source in enumerate(code(path)):
        if source.startswith("%%writefile "):
            command, _, text = source.partition("\n")
            Path(command.split()[1]).write_text(text)
            continue
        exec(compile(source, f"{path.name}[{number}]", "exec"), names)
    return names


@pytest.fixture
def short_runs(monkeypatch, tmp_path):
    """`fl.run` and `fl.sweep` with at most STEPS steps, in an empty folder."""

    def cut(call):
        return lambda *args, steps=STEPS, **options: call(*args, steps=min(steps, STEPS), **options)

    monkeypatch.setattr(fl, "run", cut(fl.run))
    monkeypatch.setattr(fl, "sweep", cut(fl.sweep))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_quickstart(names, folder, told):
    gd, locodl = names["traces"].values()
    assert gd.step[-1] == locodl.step[-1] == STEPS
    assert locodl.bits_up[-1] < gd.bits_up[-1] / 20
    assert max(gd.rel_gap[-1], locodl.rel_gap[-1]) < 1e-2
    assert (folder / "quickstart.svg").read_text().count("(capped)") == 2
    assert told.splitlines()[0].startswith("10 clients, 30 features, F* = 0.0")


def check_sweep(names, folder, told):
    best, table = names["best"].set_index("method"), names["table"]
    assert list(best.index) == ["locodl", "compressed_scaffnew", "adiana", "diana"]
    assert list(best["median"].sort_values().index) == ["locodl", "diana", "compressed_scaffnew", "adiana"]
    own = table.best(by=("method", "gamma/theory")).set_index(["method", "gamma/theory"])["median"]
    assert own["diana", 1.0] == float("inf")
    for method, grid in names["grids"].items():  # no winner at an end of a numeric axis, as the text asks
        axes = {name: values for name, values in grid.axes.items() if name != "compressor"}
        assert all(min(values) < best.loc[method, name] < max(values) for name, values in axes.items())
        assert (folder / "tuning" / method / "lanes.parquet").exists()
    assert all(best.loc[["locodl", "compressed_scaffnew", "diana"], "gamma/theory"] > 1)
    assert best.loc["adiana", "step_size"] > 1
    assert {path.name for path in folder.glob("*.svg")} == {"best.svg", "gamma.svg", "map.svg"}
    assert "diverged" in told


def check_new_method(names, folder, told):
    assert names["tested"].returncode == 0, names["tested"].stdout
    assert " 0 passed" not in names["tested"].stdout
    best, trace = names["best"].set_index("method"), names["trace"]
    assert set(best.index) == {"fedavg", "fedclip"}
    assert best["median"].min() > 0.8
    assert trace.status == "finished"
    assert trace.bits_up[-1] == trace.step[-1] * 32 * names["problem"].dim
    assert {path.name for path in folder.glob("*.svg")} == {"best.svg", "map.svg", "client_lr.svg"}


CHECKS = {"01_quickstart": check_quickstart, "02_sweep": check_sweep, "03_new_method": check_new_method}


def test_every_notebook_has_a_check():
    assert [path.stem for path in NOTEBOOKS] == list(CHECKS)


@pytest.fixture
def known_methods():
    """What a notebook registers is forgotten after it."""
    before = dict(base._REGISTRY)
    yield
    base._REGISTRY.clear()
    base._REGISTRY.update(before)


@pytest.mark.parametrize(
    "path",
    [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.slow) for path in NOTEBOOKS[1:])],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, short_runs, known_methods, capsys):
    names = execute(path)
    CHECKS[path.stem](names, short_runs, capsys.readouterr().out)


def test_quickstart_is_short():
    assert len([line for line in "\n".join(code(NOTEBOOKS[0])).splitlines() if line.strip()]) <= 20
