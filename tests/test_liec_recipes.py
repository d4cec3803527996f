"""Recipes of error feedback: found by name, well formed, a tiny one of each kind runs, and verdicts follow figures."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from experiments import _networks
from experiments.kit import catalogue
from experiments.kit.training import Training
from experiments.liec import _convex, _images
from fedjax_lc import algorithms
from tests.test_network_recipes import builds, images

ROOT = Path(experiments.__file__).parent / "liec"
NAMES = [name for name in catalogue.names() if name.split("/")[0] == "liec"]
INF = {"mean": None, "error": None}


@pytest.fixture
def small(monkeypatch):
    for module in (_networks, _images):
        monkeypatch.setattr(module, "load", images)


def of(mean, error=0.0):
    return {"mean": mean, "error": error}


def test_every_recipe_is_found_and_says_where_it_comes_from():
    files = [path for path in ROOT.rglob("[a-z]*.py") if not path.name.startswith("_")]
    found = {f"liec/{path.relative_to(ROOT).with_suffix('').as_posix().replace('_', '-')}" for path in files}
    assert set(NAMES) == found
    assert len(found) == 7
    for path in files:
        assert "2402.11857" in ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("method", [*_convex.METHODS, *_convex.WITH_PERIOD, *_convex.ESTIMATES], ids=lambda m: m.label)
def test_methods_take_the_compressor_everywhere(method, problem):
    hp = method.hparams(problem, "sign", 2)
    algorithms.get(method.name).check(problem, hp)
    assert hp.batch_size == 2
    spelled = {str(getattr(hp, way)) for way in _convex.WAYS if hasattr(hp, way)}
    assert spelled <= {"fcc(sign):2" if method.rounds == 2 else "sign"}
    assert (method.period is None) or hp.period == method.period


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (of(1.0, 0.1), of(2.0, 0.1), True),
        (of(2.0, 0.1), of(1.0, 0.1), False),
        (of(1.0, 0.4), of(2.0, 0.4), None),
        (of(1.0), INF, True),
        (INF, of(1.0), False),
        (INF, INF, None),
    ],
)
def test_verdicts_of_two_figures(one, other, verdict):
    assert _convex.lower(one, other) is verdict
    facts = {"tuned": {"a": one, "b": other}}
    assert _convex.below("a", "b", "tuned")(facts) is verdict
    yes = _convex.below("c", "d", "tuned")
    facts["tuned"] |= {"c": of(0.0), "d": of(1.0)}
    assert _convex.every(yes, _convex.below("a", "b", "tuned"))(facts) is verdict


def test_slopes_are_those_of_the_smallest_steps():
    assert _convex.slope([INF, *(of(c**2) for c in _convex.FACTORS[1:])]) == pytest.approx(2)
    assert np.isnan(_convex.slope([of(1.0), INF]))
    facts = {"floors": {"a": [of(c**2.1) for c in _convex.FACTORS], "b": [of(c) for c in _convex.FACTORS]}}
    assert _convex.squared("a")(facts)
    assert not _convex.squared("a", "b")(facts)
    assert _convex.rises("a")({"periods": {"a": [of(1.0), of(2.0), of(3.0)]}})
    assert _convex.rises("a")({"periods": {"a": [of(1.0), of(3.0), of(2.0)]}}) is False


def test_clients_are_alike_or_not():
    jax.config.update("jax_enable_x64", True)
    spread = {}
    for is_alike in (True, False):
        problem = _convex.convex(alike=is_alike, logistic=False)
        assert (problem.n, problem.dim) == (8, 100)
        spread[is_alike] = float(np.linalg.norm(np.asarray(problem.grads(problem.x_star)), axis=1).mean())
    assert spread[False] > 3 * spread[True]


def test_a_tiny_figure(problem, tmp_path, monkeypatch):
    for name, value in (("FACTORS", (0.2, 0.05)), ("PERIODS", (1, 4)), ("TRIED_STEPS", (0.3, 0.1)), ("BIN", 2)):
        monkeypatch.setattr(_convex, name, value)
    monkeypatch.setattr(_convex, "TRIED_PERIODS", (2, 4))
    mem, liec = (next(m for m in _convex.METHODS if m.label == label) for label in ("MEM-SGD", "LIEC(8)"))
    for name, value in (("METHODS", (mem, liec)), ("WITH_PERIOD", _convex.WITH_PERIOD[:1]), ("ESTIMATES", ())):
        monkeypatch.setattr(_convex, name, value)
    recipe = _convex.Feedback(
        "tiny", lambda: problem, "sign", steps=40, batch_size=2, seeds=2, bits=5e3, measure="gap",
        orderings=(("itself", _convex.below("MEM-SGD", "MEM-SGD", place=0)),), said="Nothing.",
    )  # fmt: skip
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".png", ".svg"}
    assert "undecided" in text
    method = mem
    unit = 1 / float(problem.smooth.max())
    found = recipe.over_steps(method, problem, unit, False)
    table = recipe._sweep(method, problem, {"gamma": [0.2 * unit, 0.05 * unit]}, 40, 2, False)
    ends = table.gap.reshape(2, 2, -1)[..., -10:].mean(axis=2)
    np.testing.assert_allclose([one.mean for one in found["floors"]], ends.mean(axis=1))
    np.testing.assert_allclose([one.error for one in found["floors"]], ends.std(axis=1, ddof=1) / 2**0.5)
    assert recipe.affordable(method, problem) == int(5e3 / (37 + 160))
    spent = (table.records["bits_up"] + table.records["bits_down"]).to_numpy().reshape(4, -1)[0]
    place = int((spent <= 3000).sum()) - 1
    np.testing.assert_allclose(_convex.at_budget(table, 3000), table.gap.reshape(4, -1)[:, place])


def test_networks_build_in_the_setting_of_the_authors(small):
    recipe = catalogue.get("liec/mnist")
    assert isinstance(recipe, Training)
    problem = recipe.problem()
    assert (problem.n, problem.dim) == (8, 21_840)
    for run in recipe.runs:
        hp = run.hparams(problem)
        algorithms.get(run.method).check(problem, hp)
        assert (hp.gamma, hp.weight_decay, hp.momentum, hp.batch_size) == (0.1, 5e-4, None, 128)
    liec = next(run for run in recipe.runs if run.label.startswith("LIEC(32)"))
    before, after = builds(dataclasses.replace(liec, changes={**liec.changes, "batch_size": 8}), problem)
    assert before == after
    periods = {run.label: run.hparams(problem).period for run in recipe.runs if run.method in ("liec_sgd", "cser")}
    assert all(f"({period})" in label for label, period in periods.items())


def test_the_full_configuration_is_that_of_the_authors():
    recipe = catalogue.get("liec/gpu/cifar10-resnet18")
    assert (recipe.rounds, recipe.every) == (20 * 49, 49)
    assert [run.label for run in recipe.runs] == ["P-SGD", "DoubleSqueeze, blocks", "LIEC(32), blocks"]
    for run in recipe.runs:
        assert run.changes == {
            "gamma": 0.1,
            "weight_decay": 5e-4,
            "batch_size": 128,
            "gamma_schedule": "steps:3920,0.1",
        }
