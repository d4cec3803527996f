"""Recipes of MCM's paper: found by name, well formed, on the authors' data, at the paper's numbers."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.kit import catalogue
from experiments.kit.floors import Floors
from experiments.kit.passes import Passes
from experiments.mcm import _common
from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError

NAMES = [name for name in catalogue.names() if name.rpartition("/")[0] == "mcm"]
ROWS = {"a9a": 32561, "phishing": 11055, "w8a": 49749}
data = pytest.mark.skipif(
    not os.environ.get("FEDJAX_LC_DATA"), reason="set FEDJAX_LC_DATA to a folder with libsvm/ and mcm/ to run these"
)


@pytest.fixture
def needs(monkeypatch):
    """Skip where a file of the authors', or a data set, is not in FEDJAX_LC_DATA; nothing is fetched."""

    def call(file, dataset=None):
        folder = Path(os.environ["FEDJAX_LC_DATA"])
        found = dataset is None or any(any(base.glob(f"{dataset}*")) for base in (folder, folder / "libsvm"))
        if not (folder / "mcm" / file).is_file() or not found:
            pytest.skip(f"{dataset or f'mcm/{file}'} is not in FEDJAX_LC_DATA")

    return call


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_names_known_methods_and_its_own_runs(name, problem):
    recipe = catalogue.get(name)
    assert isinstance(recipe, Floors if name == "mcm/floors" else Passes)
    for run in recipe.curves:
        hp = run.hparams(problem)
        algorithms.get(run.method).check(problem, hp)
        changes = {name: value for name, value in run.changes.items() if name != "gamma"}
        assert changes.items() <= vars(hp).items()
    if isinstance(recipe, Floors):
        ones = [{"factor": c, "floor": 1.0, "error": 0.0} for c in recipe.factors]
        verdicts = recipe.verdicts({"floors": {run.label: ones for run in recipe.curves}}, None)
        assert list(verdicts.values()) == [*3 * ["holds"], "does not hold"]  # one that should be twice another is not


def test_published_values_are_those_of_the_paper():
    table = {
        "mcm/a9a": {"SGD": -3.43, "DIANA": -2.84, "Artemis": -1.87, "Dore": -1.92, "MCM": -2.79, "Rand-MCM": -2.74},
        "mcm/lsr": {"SGD": -4.24, "DIANA": -3.49, "Artemis": -2.99, "Dore": -3.06, "MCM": -3.67, "Rand-MCM": -3.53},
    }
    for name in NAMES:
        recipe = catalogue.get(name)
        papers = {run.label: run.paper for run in recipe.curves if run.paper is not None}
        assert papers == table.get(name, {})


# --- without data ---


@pytest.mark.parametrize("name", ["synth_linear_noised", "synth_logistic"])
def test_without_data_it_is_refused_in_one_line(name, tmp_path, monkeypatch):
    line = rf"^mcm/{name}\.npz is not on this machine: set FEDJAX_LC_DATA to a folder that holds it$"
    monkeypatch.delenv("FEDJAX_LC_DATA", raising=False)
    with pytest.raises(InputError, match=line):
        _common.mcm_file(f"{name}.npz")
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path))
    with pytest.raises(InputError, match=line):
        _common.mcm_file(f"{name}.npz")
    with pytest.raises(InputError, match=line):
        _common.synthetic(name)
    (tmp_path / "mcm").mkdir()
    (tmp_path / "mcm" / f"{name}.npz").write_bytes(b"")
    assert _common.mcm_file(f"{name}.npz") == tmp_path / "mcm" / f"{name}.npz"


def test_a_bias_is_a_column_of_ones_in_front():
    np.testing.assert_array_equal(_common.with_bias(np.array([[2.0], [3.0]])), [[1.0, 2.0], [1.0, 3.0]])


# --- with data ---


def smoothness(problem):
    return f"{np.mean(np.asarray(problem.smooth, np.float64)):.4f}"


@data
@pytest.mark.parametrize(
    ("name", "dim", "least", "most", "L", "f_star"),
    [
        ("a9a", 124, 535, 3225, "11.6974", 0.3196268),
        ("phishing", 69, 229, 1141, "9.7451", 0.1231585),
        ("w8a", 301, 621, 4938, "43.8236", 0.0702559),
    ],
)
def test_clustered_sets_are_those_of_the_authors(name, dim, least, most, L, f_star, needs):
    needs(f"{name}_clusters.npy", name)
    problem, recipe = _common.clustered(name), catalogue.get(f"mcm/{name}")
    sizes = np.asarray(problem.sizes)
    assert (problem.n, problem.dim) == (20, dim)
    assert (sizes.min(), sizes.max(), sizes.sum()) == (least, most, ROWS[name])
    assert smoothness(problem) == L
    assert problem.f_star == f_star
    assert problem.dtype == np.float64
    for found in (recipe, catalogue.get(f"mcm/{name}-half")):
        assert {least // run.changes["batch_size"] for run in found.curves} == {found.rounds}


@data
@pytest.mark.parametrize(
    ("name", "dim", "L", "f_star"),
    [
        ("synth_linear_noised", 20, "13.1771", "0.1296820"),
        ("synth_linear_nonoised", 20, "13.0989", "0.0000000"),
        ("synth_logistic", 2, "0.4102", "0.3133325"),
    ],
)
def test_synthetic_problems_are_those_of_the_authors(name, dim, L, f_star, needs):
    needs(f"{name}.npz")
    problem = _common.synthetic(name)
    assert (problem.n, problem.dim) == (20, dim)
    assert np.all(np.asarray(problem.sizes) == 200)
    assert smoothness(problem) == L
    assert f"{abs(problem.f_star):.7f}" == f_star


@data
def test_synthetic_least_squares_ends_where_the_paper_says(needs):
    needs("synth_linear_noised.npz")
    recipe = dataclasses.replace(catalogue.get("mcm/lsr"), seeds=5)
    problem = recipe.problem()
    facts = recipe.facts(problem, recipe.measure(problem, progress=False))
    assert len(facts["runs"]) == 6
    for label, found in facts["runs"].items():
        assert found["mean"] == pytest.approx(found["paper"], abs=0.35), label
    assert list(recipe.verdicts(facts, None).values()) == 4 * ["holds"]
