"""Every notebook runs from its first cell to its last, with runs cut short."""

from pathlib import Path

import jupytext
import pytest

import fedjax_lc as fl

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.md"))
STEPS = 2000


def execute(path: Path) -> dict:
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(jupytext.read(path).cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.name}[{number}]", "exec"), names)
    return names


@pytest.fixture
def short_runs(monkeypatch, tmp_path):
    """`fl.run` with at most STEPS steps, in an empty folder."""
    run = fl.run
    monkeypatch.setattr(fl, "run", lambda *args, steps=STEPS, **options: run(*args, steps=min(steps, STEPS), **options))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS][:1] == ["01_quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, short_runs):
    assert execute(path)


def test_quickstart(short_runs, capsys):
    names = execute(NOTEBOOKS[0])
    gd, locodl = names["traces"].values()
    assert gd.step[-1] == locodl.step[-1] == STEPS
    assert locodl.bits_up[-1] < gd.bits_up[-1] / 20
    assert max(gd.rel_gap[-1], locodl.rel_gap[-1]) < 1e-2
    assert (short_runs / "quickstart.svg").read_text().count("(capped)") == 2
    assert capsys.readouterr().out.splitlines()[0].startswith("10 clients, 30 features, F* = 0.0")


def test_quickstart_is_short():
    source = [cell.source for cell in jupytext.read(NOTEBOOKS[0]).cells if cell.cell_type == "code"]
    assert len([line for line in "\n".join(source).splitlines() if line.strip()]) <= 20
