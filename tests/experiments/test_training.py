"""Trainings of networks: what is tried, what wins, the numbers against single runs, verdicts, what is written."""

import dataclasses
import json
import math

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import fedjax_lc as fl
from experiments.kit import training
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender
from experiments.kit.training import Training
from fedjax_lc import data, problems
from fedjax_lc.core.errors import InputError

ROUNDS, EVERY, SEEDS, TUNE_ROUNDS = 6, 2, 2, 3
CHANGES = {"local_steps": 2, "batch_size": 8, "cohort_size": 3}
RUNS = (
    Contender("fedavg", name="FedAvg", changes=CHANGES, tune={"client_lr": [1e-4, 0.1, 1e30]}, paper="99"),
    Contender("fedavg", name="slow", changes=CHANGES | {"client_lr": 1e-3}),
    Contender("fedavg", name="wild", changes=CHANGES | {"client_lr": 1e30}),
)


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def network():
    dataset = data.load("digits", scale="minmax")
    rows = dataclasses.replace(dataset, features=dataset.features[:400], targets=dataset.targets[:400])
    return problems.problem(rows, 5, "dirichlet:0.5", "linear")


@pytest.fixture(scope="module")
def recipe(network):
    return Training(
        title="tiny",
        problem=lambda: network,
        curves=RUNS,
        rounds=ROUNDS,
        every=EVERY,
        seeds=SEEDS,
        tune_rounds=TUNE_ROUNDS,
        claims=(
            Claim("what ends beats what diverges", ("FedAvg", "slow"), ("wild",)),
            Claim("a hundred points", ("FedAvg",), ("slow",), margin=1.0),
        ),
        said=lambda: "And so on.",
    )


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    text = recipe.make(folder, "tiny", progress=False)
    return folder, text, json.loads((folder / "tiny.json").read_text())


def direct(network, hp, seed, rounds):
    return fl.run("fedavg", network, hp, seed, steps=rounds, every=rounds, progress=False)


# --- what is tried ---


@pytest.mark.parametrize("criterion", ["value", "accuracy"])
def test_the_best_of_what_was_tried_wins_and_what_diverges_loses(criterion, recipe, network):
    found = dataclasses.replace(recipe, criterion=criterion).tune(RUNS[0], network, progress=False)
    ended = [direct(network, hp, SEEDS, TUNE_ROUNDS) for hp in RUNS[0].grid(network).hparams]
    assert [trace.status for trace in ended] == ["finished", "finished", "diverged"]
    ends = [trace.value[-1] if criterion == "value" else -trace.metrics["test_accuracy"][-1] for trace in ended[:2]]
    assert ends[1] < ends[0]
    assert found == {"tried": 3, "diverged": 1, "settings": {"client_lr": 0.1}, "ends": []}


def test_more_is_tried_beyond_a_best_at_an_end(recipe, network):
    """0.001, 0.01 go on with 0.1 and 1; at most two more leave 0.1 at an end. Whole numbers and single values stay."""
    slow = dataclasses.replace(RUNS[0], tune={"client_lr": [1e-3, 1e-2], "local_steps": [1, 2]})
    found = recipe.tune(slow, network, progress=False)
    errors = {
        lr: direct(network, dataclasses.replace(slow.hparams(network), client_lr=lr), SEEDS, TUNE_ROUNDS).value[-1]
        for lr in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
    }
    best = min(errors, key=errors.__getitem__)
    assert 0.01 < best < 100
    assert found["settings"] == {"client_lr": best, "local_steps": 2}
    assert found["ends"] == ["local_steps"]
    assert found["tried"] == 2 * (1 + [*errors].index(best) + 1)
    few = dataclasses.replace(recipe, extensions=1).tune(slow, network, progress=False)
    settings = {"client_lr": 0.1, "local_steps": 2}
    assert few == {"tried": 6, "diverged": 0, "settings": settings, "ends": ["client_lr", "local_steps"]}


@pytest.mark.parametrize(
    ("value", "values", "more"),
    [(0.3, [0.1, 0.3], 0.9), (0.1, [0.3, 0.1, 1.0], 0.033), (4, [1, 2, 4], None), (0.0, [0.0, 1.0], None)],
)
def test_what_is_tried_beyond_an_end(value, values, more):
    assert training._beyond(value, values) == more


@pytest.mark.parametrize(
    ("value", "values", "is_end"),
    [(1, [1, 2, 3], True), (2, [3, 2, 1], False), (0.3, [0.3], False), ("natural", ["natural", "identity"], False)],
)
def test_a_best_at_an_end_is_told(value, values, is_end):
    assert training._at_an_end(value, values) == is_end


# --- what is told ---


def test_it_writes_its_files(made):
    folder, text, _ = made
    assert {path.name for path in folder.iterdir()} == {f"tiny.{ending}" for ending in ("md", "json", "png")}
    assert np.ptp(matplotlib.image.imread(folder / "tiny.png")) > 0.5
    page = (folder / "tiny.md").read_text()
    for told in (text, page):
        assert told.startswith("# tiny\n")
        assert "after 6 rounds" in told
        assert "And so on." in told
        assert "client_lr 0.1" in told
        assert "diverged" in told
    assert page.count("| FedAvg") == 1


def test_means_and_errors_are_those_of_single_runs(made, network):
    _, _, facts = made
    hp = RUNS[0].grid(network).hparams[1]
    traces = [direct(network, hp, seed, ROUNDS) for seed in range(SEEDS)]
    found = facts["runs"]["FedAvg"]
    for name, ends in {
        "value": [trace.value[-1] for trace in traces],
        "accuracy": [trace.metrics["test_accuracy"][-1] for trace in traces],
        "test_loss": [trace.metrics["test_loss"][-1] for trace in traces],
    }.items():
        assert found[name]["mean"] == pytest.approx(np.mean(ends), rel=1e-4)
        assert found[name]["error"] == pytest.approx(np.std(ends, ddof=1) / math.sqrt(SEEDS), rel=1e-2, abs=1e-6)
    assert found["bits_up"] == pytest.approx(np.mean([trace.bits_up[-1] for trace in traces]))
    assert found["hyperparameters"]["client_lr"] == 0.1
    assert facts["runs"]["wild"] | {"accuracy": None, "value": None, "diverged": SEEDS} == facts["runs"]["wild"]
    assert {"versions", "device", "command", "seconds"} <= set(facts)


def test_orderings_come_with_their_verdicts(made):
    _, text, facts = made
    assert facts["claims"] == {"what ends beats what diverges": "holds", "a hundred points": "does not hold"}
    assert "does not hold" in text


def test_more_accuracy_is_better_and_less_loss(recipe, made):
    numbers = recipe.statistics(made[2])
    accuracy, loss = (made[2]["runs"]["FedAvg"][name]["mean"] for name in ("accuracy", "value"))
    assert list(numbers) == ["accuracy", "value", "test_loss"]
    assert (numbers["accuracy"]["FedAvg"].mean, numbers["value"]["FedAvg"].mean) == (-accuracy, loss)
    assert numbers["accuracy"]["wild"].mean == math.inf


def test_curves_are_means_over_seeds(recipe, network):
    table = recipe.train(RUNS[1], network, {}, progress=False)
    x, mean, low, high = training.curve(table, "bits", "value")
    values = table.records["value"].to_numpy().reshape(SEEDS, -1)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(high - low, 2 * values.std(axis=0, ddof=1) / math.sqrt(SEEDS))
    bits = (table.records["bits_up"] + table.records["bits_down"]).to_numpy()
    np.testing.assert_allclose(x, bits.reshape(SEEDS, -1).mean(axis=0))


# --- what is refused, and what ends early ---


def test_an_interrupted_figure_leaves_the_old_files(recipe, made, monkeypatch):
    folder, _, _ = made
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    whole = training.sweep

    def cut(*arguments, **options):
        table = whole(*arguments, **options)
        return dataclasses.replace(table, lanes=table.lanes.assign(status="interrupted"))

    monkeypatch.setattr(training, "sweep", cut)
    with pytest.raises(KeyboardInterrupt):
        recipe.make(folder, "tiny", progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"criterion": "acuracy"}, "unknown series 'acuracy'.*accuracy"),
        ({"claims": (Claim("x", ("FedAvg",), ("FedAvgg",)),)}, "names no curve by 'FedAvgg'.*FedAvg"),
        ({"claims": (Claim("x", ("FedAvg",), ("slow",), statistic="loss"),)}, "unknown series 'loss'"),
        ({"tune_rounds": 0}, "need tune_rounds"),
        ({"seeds": 0}, "one seed or more"),
        ({"curves": (RUNS[1], RUNS[1]), "claims": ()}, "different labels"),
    ],
)
def test_recipes_without_meaning_are_refused_in_one_line(recipe, changes, line):
    with pytest.raises(InputError, match=line) as error:
        dataclasses.replace(recipe, **changes)
    assert "\n" not in str(error.value)


def test_bits_to_an_accuracy_are_those_of_the_first_record_there():
    records = pd.DataFrame(
        {
            "lane": [0, 0, 0, 1, 1, 1],
            "accuracy": [0.5, 0.9, 0.8, 0.1, 0.2, 0.3],
            "bits_up": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
            "bits_down": [10.0, 20.0, 30.0, 10.0, 20.0, 30.0],
        }
    )

    class Lanes(list):
        pass

    table = Lanes([0, 1])
    table.records = records
    np.testing.assert_array_equal(training.bits_to(table, 0.85), [22.0, np.inf])
    np.testing.assert_array_equal(training.bits_to(table, 0.2), [11.0, 22.0])
