"""LoCoDL on networks and clients that drift: every curve fits, the cheapest setting wins, phases keep their pace."""

import dataclasses
import json

import numpy as np
import pytest

import fedjax_lc as fl
from experiments.drift.recipes import EACH, PHASES, digits
from experiments.kit import catalogue
from experiments.kit.contender import Contender
from experiments.kit.training import BITS, CALLED, Training, bits_to
from experiments.locodl.deep._common import LOCAL_STEPS, curves
from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError
from tests.experiments.test_network_recipes import builds

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def network():
    return fl.problem("digits", 4, "iid", "linear", smooth=1.0)


@pytest.mark.parametrize("curve", curves((0.1, 0.3, 1.0), 8), ids=lambda curve: curve.label)
def test_every_curve_fits_a_network_and_is_tried_nine_times(curve, network):
    before, after = builds(curve, network)
    assert before == after
    assert len({str(hp) for hp in curve.grid(network).hparams}) == 9
    for hp in curve.grid(network).hparams:
        algorithms.get(curve.method).check(network, hp)
        assert hp.batch_size == 8
    assert curve.pace * getattr(curve.hparams(network), "local_steps", 1) == LOCAL_STEPS


def test_the_setting_of_the_fewest_bits_wins(network, tmp_path):
    """A small p, that is; steps are those of the pace."""
    run = Contender("locodl", "natural", changes={"batch_size": 8, "gamma": 0.3}, tune={"p": [1.0, 0.25]}, pace=5)
    recipe = Training(
        title="tiny", problem=lambda: network, curves=(run,), rounds=8, every=1, seeds=2, tune_rounds=8,
        extensions=0, criterion=BITS, reach=0.8,
    )  # fmt: skip
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.md", "tiny.json", "tiny.png"}
    assert "bits to the accuracy after 8 rounds" in text
    table = fl.sweep("locodl", network, run.grid(network), seeds=[2], steps=40, every=5, progress=False)
    bits = bits_to(dataclasses.replace(table, records=table.records.rename(columns=CALLED)), 0.8)
    assert bits[1] < bits[0]
    found = json.loads((tmp_path / "tiny.json").read_text())["runs"]
    assert found[run.label]["tuning"]["settings"] == {"p": 0.25}
    with pytest.raises(InputError, match="unknown series"):
        dataclasses.replace(recipe, reach=None)


@pytest.mark.parametrize("kind", ["features", "labels"])
def test_phases_of_a_figure_keep_pace_with_its_curves(kind):
    problem = digits(kind, 0.6)
    for curve in catalogue.get(f"drift/{kind}").curves:
        met = curve.on(problem)
        assert met.every == curve.pace * EACH
        assert met.phases == PHASES
    first, last = problem.at(0), problem.at(PHASES * EACH)
    same = np.array_equal(first.table.targets, last.table.targets)
    assert same == (kind == "features")
    assert np.array_equal(first.table.features, last.table.features) != same
    assert (float(np.mean(first.test.targets != last.test.targets)) > 0.5) == (not same)
