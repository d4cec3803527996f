"""Tuned comparisons: what is tried, what wins, what is written."""

import dataclasses
import json
import re

import numpy as np
import pytest

import fedjax_lc as fl
from experiments.kit import catalogue
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender
from experiments.kit.tuned import Tuned
from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError
from fedjax_lc.results.table import Table
from fedjax_lc.sweeping.grid import grid
from fedjax_lc.sweeping.theory import theory_with_steps

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("method", ["gd", "locodl", "diana", "adiana", "five_gcs_cc", "ef21"])
def test_a_step_size_is_the_theory_of_a_smoother_problem(method, problem):
    algorithm = algorithms.get(method)
    theory = theory_with_steps(algorithm, problem)
    assert theory() == algorithm.theory(problem)
    smoother = problem.replace(smooth=problem.smooth / 4, smooth_mean=problem.smooth_mean / 4)
    assert theory(step_size=4.0) == algorithm.theory(smoother)
    step = "eta" if method == "adiana" else "gamma"
    assert getattr(theory(step_size=4.0), step) > 1.5 * getattr(theory(), step)


@pytest.mark.parametrize("method", ["locodl", "compressed_scaffnew"])
def test_a_factor_of_p_is_on_top_of_the_step_size(method, problem):
    theory = theory_with_steps(algorithms.get(method), problem)
    smoother = theory(step_size=0.01)
    doubled = theory(step_size=0.01, p_factor=2.0)
    assert doubled == dataclasses.replace(smoother, p=2 * smoother.p)
    assert theory(p_factor=1e9).p == 1
    with pytest.raises(InputError, match="unknown hyperparameter 'p_factor'"):
        grid(theory_with_steps(algorithms.get("gd"), problem), p_factor=(1.0, 2.0))


def test_choices_of_theory_and_step_sizes_make_the_grid(problem):
    theory = theory_with_steps(algorithms.get("diana"), problem)
    tried = grid(theory, compressor=("rand_k:1", "natural"), step_size=(1.0, 2.0))
    assert tried.axes == {"compressor": ("rand_k:1", "natural"), "step_size": (1.0, 2.0)}
    assert str(tried.hparams[2].compressor) == "natural"


@pytest.fixture(scope="module")
def recipe(problem):
    return Tuned(
        title="tiny, tuned",
        problem=lambda: problem,
        curves=(Contender("locodl", tune={"compressor": ("rand_k:2|natural", "natural")}), Contender("gd")),
        step_sizes=(1.0, 2.0),
        rel_gap=1e-3,
        final_gap=1e-6,
        final_seeds=3,
        max_steps=2000,
        every=1,
        extensions=2,
        claims=(Claim("LoCoDL beats GD", ("LoCoDL*",), ("GD*",), bests=True),),
    )


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    text = recipe.make(folder, "tiny", progress=False)
    return folder, text, json.loads((folder / "tiny.json").read_text())


def test_it_writes_its_files(made):
    folder, text, _ = made
    endings = (".md", ".json", ".png", "-steps.png")
    assert {path.name for path in folder.iterdir()} == {f"tiny{ending}" for ending in endings}
    assert text.startswith("# tiny, tuned")
    assert (folder / "tiny.md").read_text().count("| LoCoDL, ") == 1


def test_pictures_come_in_the_width_of_a_column(recipe, tmp_path):
    recipe.make(tmp_path, "tiny", progress=False, picture="pdf", size="column")
    for path in (tmp_path / "tiny.pdf", tmp_path / "tiny-steps.pdf"):
        width = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", path.read_bytes())
        assert float(width[1]) == pytest.approx(72 * 3.35, abs=0.1)


def test_the_winner_is_the_best_of_what_was_tried(recipe, problem):
    table, tried, budget = recipe.tune(problem, progress=False)
    assert [len(hparams) for hparams in tried] == table.lanes.groupby("method", sort=False)["config"].nunique().tolist()
    for entry, hparams in zip(recipe.curves, tried, strict=True):
        best = table.best("bits_up", 1e-3).set_index("method").loc[entry.method]
        medians = []
        for hp in hparams:
            runs = [fl.run(entry.method, problem, hp, seed, steps=2000, every=1, rel_gap=1e-3,
                           budget={"bits_up": budget}, progress=False) for seed in range(recipe.seeds)]  # fmt: skip
            hits = [run.reach(1e-3) if run.status != "diverged" else None for run in runs]
            medians.append(np.median([hit["bits_up"] if hit else np.inf for hit in hits]))
        assert best["config"] == int(np.argmin(medians))
        assert best["median"] == min(medians)


def test_the_grid_grows_while_its_best_is_at_an_end(recipe, problem):
    narrow = dataclasses.replace(recipe, curves=(Contender("locodl"), Contender("diana")), step_sizes=(0.125, 0.25))
    table, _, _ = narrow.tune(problem, progress=False)
    steps = np.unique(table.lanes.loc[table.lanes["method"] == "diana", "step_size"])
    assert len(steps) > 2
    assert steps.min() < 0.125 or steps.max() > 0.25


def test_p_grows_too_and_every_pair_of_the_grid_is_tried_once(recipe, problem):
    """Theory's p is far too small at 1/64 and 1/32 of it: larger ones are tried at all step sizes so far."""
    entry = Contender("locodl", tune={"compressor": ("natural",), "p_factor": (1 / 64, 1 / 32)})
    table, _, _ = dataclasses.replace(recipe, curves=(entry,), extensions=4).tune(problem, progress=False)
    tried = table.lanes[["p_factor", "step_size", "seed"]]
    assert tried["p_factor"].max() > 1 / 32
    assert not tried.duplicated().any()
    assert len(tried) == 2 * tried["p_factor"].nunique() * tried["step_size"].nunique()


def test_the_winners_run_again_with_new_seeds(recipe, problem, made):
    _, _, facts = made
    assert recipe.rel_gap > recipe.final_gap
    for label, curve in facts["curves"].items():
        assert label.startswith(algorithms.get(curve["method"]).title)
        assert curve["bits"]["1e-06"]["seeds"] == 3
        assert 0 < curve["bits"]["1e-03"]["median"] < curve["bits"]["1e-06"]["median"]
    table, tried, _ = recipe.tune(problem, progress=False)
    final, _ = recipe.rerun(problem, table, tried, progress=False)
    assert isinstance(final, Table)
    assert sorted(set(final.lanes["seed"])) == [2, 3, 4]


def test_a_first_entry_that_never_arrives_is_told(recipe, problem):
    hopeless = dataclasses.replace(recipe, max_steps=2)
    with pytest.raises(
        InputError, match=r"^locodl with its theory.s parameters does not reach 0.001 in 2 steps: raise"
    ):
        hopeless.tune(problem, progress=False)


def test_recipes_try_what_fits_their_problem():
    for name in catalogue.names():
        found = catalogue.get(name)
        if isinstance(found, Tuned):
            methods = [entry.method for entry in found.curves]
            assert methods[0] == "locodl"
            assert len(set(methods)) == len(methods) == 6
            tries = {entry.method: {n for n, values in entry.tune.items() if len(values) > 1} for entry in found.curves}
            assert tries["locodl"] == {"compressor", "p_factor"}
            assert tries["compressed_scaffnew"] >= {"p_factor"}
            assert tries["five_gcs_cc"] == {"compressor", "local_steps"}
            titles = [algorithms.get(method).title for method in methods]
            assert all(claim.sides(titles) for claim in found.claims)
