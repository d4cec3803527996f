"""Recipes by name, the repository that holds them, and the pictures they leave."""

import ast
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.kit import catalogue
from experiments.kit.comparison import Comparison
from experiments.kit.contender import Contender
from experiments.kit.recipe import MOST_BYTES, save
from fedjax_lc.cli import repository
from tests.test_report import read

ROOT = catalogue.FOLDER.parent
PAPERS = {
    "locodl": "2403.04348",
    "mcm": "2102.12528",
    "savic": "2406.00846",
    "fedopt": "2003.00295",
    "liec": "2402.11857",
    "gossip": "1902.00340",  # and others
    "adaptive": "2305.12379",
}


def committed(ending):
    listed = subprocess.run(["git", "ls-files", f"*{ending}"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_every_folder_of_a_paper_is_known():
    tables = {path.relative_to(catalogue.FOLDER).parts[0] for path in catalogue.FOLDER.glob("*/**/recipes.py")}
    assert tables == set(PAPERS)
    assert {name.split("/")[0] for name in catalogue.names()} == {"demo", *PAPERS}
    for path in catalogue.FOLDER.glob("*/**/recipes.py"):
        paper = PAPERS[path.relative_to(catalogue.FOLDER).parts[0]]
        assert paper in ast.get_docstring(ast.parse(path.read_text()))


def test_results_lie_beside_their_recipe():
    assert catalogue.results_folder("locodl/tuned/a5a-87") == catalogue.FOLDER / "locodl" / "tuned" / "figures"
    assert catalogue.results_folder("demo") == catalogue.FOLDER / "figures"
    for path in catalogue.FOLDER.glob("**/figures/*.json"):
        name = path.parent.parent.relative_to(catalogue.FOLDER) / path.stem
        assert catalogue.results_folder(name.as_posix()) == path.parent
        assert name.as_posix() in catalogue.names()


def test_an_unknown_figure_is_refused(refused):
    assert refused("figure", "locodl/a5a-88").startswith("unknown figure 'locodl/a5a-88'")


@pytest.mark.parametrize("command", [("figure", "demo"), ("list", "figures"), ("bench", "single")])
def test_outside_a_clone_it_is_one_line(command, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "__file__", str(tmp_path / "fedjax_lc" / "cli" / "repository.py"))
    monkeypatch.chdir(tmp_path)
    said = refused(*command)
    assert said == "no experiments/ folder found: figures and benches live in the repository, run inside a clone"


def test_a_contender_takes_functions_of_the_problem(problem):
    curve = Contender(
        "diana",
        "natural",
        changes={"gamma": lambda problem, hp: 2 * hp.gamma, "alpha": lambda problem, hp: 1 / problem.n},
        tune={"gamma": lambda problem: [1 / problem.n]},
        note="fast",
    )
    plain = Contender("diana", "natural").hparams(problem)
    assert curve.label == "DIANA, natural, fast"
    assert curve.hparams(problem).gamma == 2 * plain.gamma
    assert curve.hparams(problem).alpha == 0.25
    assert curve.grid(problem).hparams[0].gamma == 0.25
    assert str(plain.compressor) == "natural"


# --- pictures ---


def test_committed_pictures_are_small_and_of_one_format():
    pictures = committed(".png")
    assert pictures or not (ROOT / ".git").exists()
    for path in pictures:
        assert path.stat().st_size <= MOST_BYTES, path
    assert committed(".svg") == committed(".pdf") == []


def test_a_large_picture_is_written_small(tmp_path):
    noise = Figure(figsize=(6, 4.5))
    noise.add_subplot().imshow(np.random.default_rng(0).normal(size=(450, 600)), interpolation="nearest")
    save(noise, tmp_path / "noise.png")
    assert 0 < (tmp_path / "noise.png").stat().st_size <= MOST_BYTES
    line = Figure()
    line.add_subplot().plot([0, 1], color="red")
    save(line, tmp_path / "line.png")
    with Image.open(tmp_path / "line.png") as image:
        assert (255, 0, 0) in {colour for _, colour in image.convert("RGB").getcolors(10**6)}
    save(line, tmp_path / "line.svg")
    assert (tmp_path / "line.svg").read_text().count("<svg") == 1


def test_another_format_of_pictures_and_a_page(problem, tmp_path):
    curves = (Contender("gd"), Contender("gd", note="again"))
    recipe = Comparison(title="tiny", problem=lambda: problem, curves=curves, rel_gap=1e-1)
    recipe.make(tmp_path, "tiny", progress=False, picture="svg", page=True)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.html", "tiny.json", "tiny.md", "tiny.svg"}
    assert Path(tmp_path / "tiny.svg").read_text().count("<svg") == 1
    _, page = read(tmp_path / "tiny.html")
    assert [curve["label"] for curve in page["problems"][0]["curves"]] == [curve.label for curve in curves]
    assert page["figures"][0]["title"] == page["title"] == "tiny"
