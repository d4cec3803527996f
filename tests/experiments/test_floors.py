"""Noise floors: against a sweep's own records, fits of powers, claims and their standard errors, runs that diverge."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.kit.claim import Measured
from experiments.kit.contender import Contender
from experiments.kit.floors import Floors, alike, at
from fedjax_lc.core.errors import InputError

FACTORS, STEPS, EVERY, SEEDS = (0.5, 1.0, 1e30), 22, 5, 3
RUNS = (
    Contender("sgd", changes={"batch_size": 1}),
    Contender(
        "diana", choices={"compressor": "qsgd:1", "convention": "mcm_repo"}, changes={"batch_size": 1}, note="s = 1"
    ),
)
LABELS = ["SGD", "DIANA, s = 1"]


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def recipe(problem):
    return Floors(
        title="tiny",
        problem=lambda: problem,
        curves=RUNS,
        factors=FACTORS,
        steps=STEPS,
        every=EVERY,
        seeds=SEEDS,
        claims=(
            alike("DIANA's floor is below a million times SGD's", "DIANA, s = 1", "SGD", FACTORS[:2], most=1e6),
            alike("DIANA's floor is a million times SGD's", "DIANA, s = 1", "SGD", FACTORS[:2], least=1e6, most=1e7),
        ),
    )


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("floors")
    return folder, recipe.make(folder, "tiny", progress=False)


@pytest.fixture(scope="module")
def facts(made):
    return json.loads((made[0] / "tiny.json").read_text())


def test_it_writes_its_files(made):
    folder, text = made
    assert {path.name for path in folder.iterdir()} == {f"tiny.{ending}" for ending in ("md", "json", "png")}
    assert np.ptp(matplotlib.image.imread(folder / "tiny.png")) > 0.5
    assert text.startswith("# tiny\n")
    assert "n = 4, d = 5. F(w) - F* with constant gamma" in text
    assert (folder / "tiny.md").read_text().count("| DIANA, s = 1") == 1


def test_the_result_file_is_plain_json(made):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((made[0] / "tiny.json").read_text(), parse_constant=refuse)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    idle = dataclasses.replace(recipe, problem=lambda: pytest.fail("worked before it checked"))
    with pytest.raises(InputError, match=r"^cannot write .*; choose a folder you may write to$"):
        idle.make(tmp_path / "file" / "figures", "tiny", progress=False)


@pytest.mark.parametrize(("factor", "rounds"), [(0.5, 45), (1.0, 25)])  # 44 and 22, up to the next record
def test_a_floor_is_the_mean_of_the_second_half_and_its_error_that_of_the_seeds(facts, problem, factor, rounds):
    run = RUNS[1]
    hp = run.hparams(problem)
    hp = dataclasses.replace(hp, gamma=factor * hp.gamma)
    table = fl.sweep(run.method, problem, hp, seeds=SEEDS, steps=rounds, every=EVERY, progress=False)
    half = rounds // EVERY // 2
    means = []
    for lane in range(SEEDS):
        own = table.records[table.records["lane"] == lane]
        assert own["step"].iloc[-1] == rounds
        gaps = own["value"].to_numpy() - problem.f_star
        means.append(sum(gaps[half:]) / len(gaps[half:]))
    mean = sum(means) / SEEDS
    error = (sum((m - mean) ** 2 for m in means) / (SEEDS - 1) / SEEDS) ** 0.5
    (found,) = [own for own in facts["floors"][run.label] if own["factor"] == factor]
    assert found["floor"] == pytest.approx(mean, rel=1e-9)
    assert found["error"] == pytest.approx(error, rel=1e-6)
    assert found["error"] > 0


def test_what_diverges_is_told_and_left_out_of_the_fit(made, facts):
    for line in (made[0] / "tiny.md").read_text().splitlines():
        if line.startswith(("| SGD", "| DIANA, ")):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            floors = facts["floors"][cells[0]]
            assert cells[1:4] == [f"{own['floor']:.3g} ± {own['error']:.1g}" for own in floors[:2]] + ["diverged"]
    for label in LABELS:
        low, high = (own["floor"] for own in facts["floors"][label][:2])
        fit = facts["fits"][label]
        assert fit["A"] == pytest.approx(high)
        assert fit["a"] == pytest.approx(np.log2(high / low))


def test_claims_stand_in_facts_and_page(made, facts):
    folder, text = made
    assert list(facts["claims"].values()) == ["holds", "does not hold"]
    for claim, verdict in facts["claims"].items():
        for told in (text, (folder / "tiny.md").read_text()):
            (line,) = [line for line in told.splitlines() if claim in line]
            assert line.split(claim)[1].strip("| ") == verdict


def floor(factor, value, error=0.0):
    return {"factor": factor, "floor": value, "error": error}


def test_powers_are_fitted_exactly(recipe):
    found = [floor(c, 3.0 * c**1.25) for c in (0.0625, 0.125, 0.25, 0.5, 1.0)]
    beyond = [floor(2.0, 1e9), floor(4.0, None, None)]
    assert recipe.fit([*found, *beyond]) == pytest.approx({"A": 3.0, "a": 1.25})
    found[0] = floor(0.0625, None, None)
    assert recipe.fit([*found, *beyond]) == pytest.approx({"A": 3.0, "a": 1.25})
    low = [floor(c, 3.0 * c**1.25 if c <= 0.25 else 1e9) for c in (0.125, 0.25, 0.5)]
    assert dataclasses.replace(recipe, fit_upto=0.25).fit(low) == pytest.approx({"A": 3.0, "a": 1.25})


def test_one_point_has_no_fit_and_is_drawn_and_told_without(recipe, facts):
    alone = [floor(0.5, 2.0, 0.1), floor(1.0, None, None)]
    assert recipe.fit(alone) is None
    assert recipe.fit([floor(0.5, None, None)]) is None
    told = facts | {"floors": {"SGD": alone}, "fits": {"SGD": None}}
    (row,) = [line for line in recipe.page(told, None, "simple").splitlines() if line.startswith("SGD")]
    assert row.split() == ["SGD", "2", "±", "0.1", "diverged", "-"]
    dashed = lambda figure: [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert dashed(recipe.pictures(told)[""]) == []
    told["fits"] = {"SGD": {"A": 4.0, "a": 1.0}}
    (line,) = dashed(recipe.pictures(told)[""])
    np.testing.assert_allclose(line.get_ydata(), [2.0, 4.0])


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([floor(0.5, 1.05), floor(1.0, 2.1)], [floor(0.5, 1.0), floor(1.0, 2.0)], "holds"),
        ([floor(0.5, 1.05), floor(1.0, 2.5)], [floor(0.5, 1.0), floor(1.0, 2.0)], "does not hold"),
        ([floor(0.5, 0.85), floor(1.0, 2.0)], [floor(0.5, 1.0), floor(1.0, 2.0)], "does not hold"),
        # 1.25 is 0.15 too much: three errors of 0.052 excuse it, of 0.048 do not; from either side, and both together
        ([floor(1.0, 1.25, 0.052)], [floor(1.0, 1.0)], "holds"),
        ([floor(1.0, 1.25, 0.048)], [floor(1.0, 1.0)], "does not hold"),
        ([floor(1.0, 1.25)], [floor(1.0, 1.0, 0.052 / 1.1)], "holds"),
        ([floor(1.0, 1.25)], [floor(1.0, 1.0, 0.048 / 1.1)], "does not hold"),
        ([floor(1.0, 1.25, 0.04)], [floor(1.0, 1.0, 0.04)], "holds"),
        ([floor(1.0, 1.25, 0.03)], [floor(1.0, 1.0, 0.03)], "does not hold"),
        # 0.75 is 0.15 too little
        ([floor(1.0, 0.75, 0.052)], [floor(1.0, 1.0)], "holds"),
        ([floor(1.0, 0.75, 0.048)], [floor(1.0, 1.0)], "does not hold"),
        # what diverged is like nothing that ended; at other factors it does not count
        ([floor(1.0, None, None)], [floor(1.0, 1.0)], "does not hold"),
        ([floor(1.0, 1.0)], [floor(1.0, None, None)], "does not hold"),
        ([floor(1.0, None, None)], [floor(1.0, None, None)], "undecided"),
        ([floor(1.0, 1.0), floor(2.0, None, None)], [floor(1.0, 1.0), floor(2.0, 1.0)], "holds"),
        ([floor(1.0, 1.0), floor(2.0, 9.0)], [floor(1.0, 1.0), floor(2.0, 1.0)], "holds"),
    ],
)
def test_floors_are_alike_within_their_standard_errors(a, b, verdict):
    floors = {
        at(one["factor"]): {
            "A": Measured.of(one | {"mean": one["floor"]}),
            "B": Measured.of(other | {"mean": other["floor"]}),
        }
        for one, other in zip(a, b, strict=True)
    }
    factors = [one["factor"] for one in a if one["factor"] <= 1]
    assert alike("", "A", "B", factors, least=0.9, most=1.1).verdict(floors) == verdict
