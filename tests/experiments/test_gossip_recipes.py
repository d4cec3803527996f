"""Recipes of methods without a server and of adaptive compression: well formed, a tiny one of each kind runs, verdicts
follow the numbers."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from experiments._quadratics import quadratics
from experiments.adaptive._ratios import WORST, Ratios
from experiments.gossip import _common
from experiments.gossip._common import curve, least_squares
from experiments.kit import catalogue
from experiments.kit.claim import Claim
from experiments.kit.comparison import LAST, Comparison
from experiments.kit.contender import Contender
from experiments.kit.floors import FALLS, Floors, at
from experiments.kit.graphs import EXPONENT, FLOORS, STEPS, Graphs, on
from experiments.kit.prices import Prices, at_price
from experiments.kit.training import Training
from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError
from fedjax_lc.sweeping import axes

pytestmark = pytest.mark.usefixtures("quick")
NAMES = [name for name in catalogue.names() if name.rpartition("/")[0] in ("gossip", "adaptive")]
KINDS = {
    "gossip/ring": Floors,
    "gossip/erdos": Floors,
    "gossip/equal-optima": Floors,
    "gossip/bits": Comparison,
    "gossip/a5a": Comparison,
    "gossip/gap": Graphs,
    "gossip/digits": Training,
    "adaptive/two_direction": Prices,
    "adaptive/powersgd": Training,
    "adaptive/sidco": Ratios,
}


@pytest.fixture(scope="module")
def nodes():
    return least_squares(4)


def test_the_figures_are_found_by_name():
    assert {name: type(catalogue.get(name)) for name in NAMES} == KINDS


@pytest.mark.parametrize("name", NAMES)
def test_every_curve_is_a_method_that_takes_the_problem(name, nodes):
    recipe = catalogue.get(name)
    problem = recipe.problem() if KINDS[name] in (Training, Ratios) else nodes
    for one in (*recipe.curves, *getattr(recipe, "settling", ())):
        more = {"compressor": one.choices["compressor"].format(ratio=0.1)} if KINDS[name] is Ratios else {}
        hp = one.hparams(problem, **more)
        algorithms.get(one.method).check(problem, hp)
        assert set(one.scaled) <= set(vars(hp)) or KINDS[name] is not Floors
        if name.startswith("gossip/"):
            assert hp.count == "per_edge"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("gossip/")])
def test_every_page_and_picture_says_how_bits_are_counted(name):
    recipe = catalogue.get(name)
    assert "per_edge" in recipe.said or "per edge" in recipe.said
    assert KINDS[name] is Floors or "per_edge" in recipe.note or "per edge" in recipe.note


def test_nodes_differ_unless_they_have_one_optimum():
    for alike in (False, True):
        problem = least_squares(4, alike)
        away = np.abs(problem.grads(jnp.asarray(problem.x_star))).max()
        assert (away < 1e-12) if alike else (away > 0.1)
    eigenvalues = np.linalg.eigvalsh(np.asarray(least_squares(4).Q))
    np.testing.assert_allclose(eigenvalues[:, [0, -1]], [[1 / _common.KAPPA, 1]] * 4, rtol=1e-9)


# --- floors ---


def floors(**options):
    given = {"title": "tiny", "problem": lambda: least_squares(4), "factors": (0.25, 0.5), "steps": 8, "every": 4}
    given |= {"seeds": 2, "fit_upto": 0, "floor_of": "apart", "curves": (curve("ATC", "dgd"),)}
    return Floors(**given | options)


def test_apart_is_the_mean_distance_of_the_nodes(nodes):
    recipe = floors(factors=(0.5,), steps=4, every=8)  # 8 rounds, as 4 at 1/L
    (found,) = recipe.floors(recipe.curves[0], nodes, progress=False)
    hp = dataclasses.replace(recipe.curves[0].hparams(nodes), gamma=0.5)
    W, x = hp.graph(nodes).W, np.zeros((4, nodes.dim))
    Q, b = np.asarray(nodes.Q), np.asarray(nodes.b)
    for _ in range(8):
        x = W @ (x - 0.5 * (np.einsum("nij,nj->ni", Q, x) - b))
    x_star = np.asarray(nodes.x_star)
    expected = np.mean(np.sum((x - x_star) ** 2, axis=1)) / np.sum(x_star**2)
    assert found["floor"] == pytest.approx(expected, rel=1e-9)


def test_all_scaled_fields_are_multiplied(nodes, monkeypatch):
    seen = []

    def noted(method, problem, configurations, **options):
        seen.extend((float(hp.eta), float(hp.gamma)) for hp in configurations.hparams)
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.kit.floors.sweep", noted)
    cold = curve("COLD", "cold", "top_k:4", step="eta", also=("gamma",), gamma=0.2)
    with pytest.raises(KeyboardInterrupt):
        floors(curves=(cold,)).floors(cold, nodes)
    np.testing.assert_allclose(seen, [(0.25, 0.05)])


def of(*values):
    return [{"factor": c, "floor": value, "error": 0.0} for c, value in zip((0.25, 0.5), values, strict=True)]


def test_floors_fall_and_stall():
    recipe = floors(
        claims=(
            Claim("falls", ("ATC",), statistic=FALLS, most=1.0),
            Claim("stalls", ("ATC",), statistic=at(0.25), least=1e-3),
            Claim("reaches", ("ATC",), statistic=at(0.5), most=1e-12),
        )
    )
    verdicts = lambda *values: list(recipe.verdicts({"floors": {"ATC": of(*values)}}, None).values())
    assert verdicts(0.1, 0.2) == ["holds", "holds", "does not hold"]
    assert verdicts(0.2, 0.1) == ["does not hold", "holds", "does not hold"]
    assert verdicts(1e-15, 1e-14) == ["holds", "does not hold", "holds"]
    assert verdicts(None, None) == ["does not hold", "undecided", "does not hold"]


def test_an_axis_can_leave_out_what_is_empty():
    found = {"title": "t", "clients": 4, "dim": 16, "seeds": 2, "fits": {"A": None, "B": None}}
    found |= {"floors": {"A": of(0.1, 0.2), "B": of(1e-20, 1e-21)}}
    whole, cut = (floors(left_out=out).pictures(found)[""] for out in (None, (1e-12, 1e-3)))
    assert len(whole.axes) == 1
    above, below = cut.axes
    assert above.get_ylim()[0] == 1e-3
    assert below.get_ylim()[1] == 1e-12
    assert "fit" not in floors().page(found | {"claims": {}, "versions": {}, "seconds": 1, "command": "", "device": ""},
                                      None, "simple")  # fmt: skip


def test_an_unknown_series_is_refused():
    with pytest.raises(InputError, match="unknown series 'gaps': did you mean 'gap'"):
        floors(floor_of="gaps")


# --- graphs ---


@pytest.fixture(scope="module")
def graphs():
    return Graphs(
        title="tiny",
        problem=lambda: least_squares(4),
        problem_of=least_squares,
        curves=(curve("NIDS", "nids"),),
        settling=(curve("ATC", "dgd"),),
        rings=(3, 4, 5),
        others=("complete", "ring"),
        beside=4,
        rel_gap=1e-3,
        steps=400,
        settle=300,
        every=1,
        claims=(
            Claim("quicker", (on("NIDS", "complete 4"),), (on("NIDS", "ring 4"),), STEPS, margin=-1),
            Claim("no floor", (on("ATC", "complete 4"),), statistic=FLOORS, most=1e-12),
            Claim("a floor", (on("ATC", "ring 4"),), statistic=FLOORS, least=1e-4),
        ),
    )


def test_graphs_are_measured_drawn_and_judged(graphs, tmp_path, nodes):
    text = graphs.make(tmp_path, "tiny", progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}
    assert text.count("holds") == 3
    hp = graphs.curves[0].hparams(nodes, topology="complete")
    trace = fl.run("nids", nodes, hp, 0, steps=400, every=1, rel_gap=1e-3, progress=False)
    (row,) = [line.split() for line in text.splitlines() if line.startswith("complete 4")]
    assert int(row[5]) == trace.reach(1e-3)["step"]


def test_exponents_are_those_of_the_larger_rings(graphs):
    many = dataclasses.replace(graphs, rings=(8, 16, 32, 64))
    of_n = {8: 1.0, 16: 1.0, 32: 4.0, 64: 16.0}
    facts = {"graphs": {f"ring {n}": {"kappa_g": k, STEPS: {"NIDS": 3 * k**1.5}, FLOORS: {}} for n, k in of_n.items()}}
    assert many.statistics(facts)[EXPONENT]["NIDS"].mean == pytest.approx(1.5)
    facts["graphs"]["ring 64"][STEPS]["NIDS"] = None
    assert many.statistics(facts)[EXPONENT]["NIDS"].mean == math.inf


# --- prices ---


def prices(**options):
    given = {"title": "tiny", "problem": lambda: quadratics(3, 5, 10.0), "problem_of": lambda k: quadratics(3, 5, k)}
    given |= {"kappas": (10.0, 40.0), "shown": 10.0, "prices": (0.1, 10.0), "rel_gap": 1e-3, "steps": 4000}
    tried = {"gamma": axes.times([0.5, 1.0])}
    given["curves"] = (
        Contender("diana", "rand_k:2", tune=tried, name="DIANA"),
        Contender("gd", tune=tried, name="GD"),
    )
    return Prices(**given | options)


def setting(step, up, down):
    return {"step": step, "bits_up": up, "bits_down": down}


def test_each_price_has_its_best_setting(nodes):
    done = {
        "DIANA": {"10": [setting(10, 1.0, 100.0), setting(20, 50.0, 1.0)], "40": [setting(20, 1.0, 1.0)]},
        "GD": {"10": [setting(7, 30.0, 30.0)], "40": []},
    }
    claims = tuple(Claim(f"at {p}", ("DIANA",), ("GD",), at_price(p)) for p in (0.1, 10.0))
    recipe = prices(claims=claims)
    facts = recipe.facts(nodes, done)
    assert facts["bits"]["DIANA"] == {"0.1": pytest.approx(11.0), "10": pytest.approx(60.0)}
    assert facts["steps"] == {"DIANA": {"10": 10, "40": 20}, "GD": {"10": 7, "40": None}}
    assert facts["exponents"] == {"DIANA": pytest.approx(0.5), "GD": None}
    assert list(recipe.verdicts(facts, done).values()) == ["holds", "holds"]


def test_prices_are_measured_and_drawn(tmp_path):
    text = prices(curves=prices().curves[1:]).make(tmp_path, "tiny", progress=False)
    assert (tmp_path / "tiny.png").is_file()
    (steps,) = [line.split() for line in text.split("Steps,")[1].splitlines() if line.startswith("GD")]
    assert 0 < int(steps[1]) < int(steps[2])


# --- shares ---


def test_the_share_that_was_sent_is_told(problem, tmp_path):
    one = Contender("sidco", choices={"compressor": "threshold:{ratio},index=int32"}, name="one stage")
    top = Contender("mem_sgd", choices={"compressor": "top_k:2,index=int32"}, name="top")
    recipe = Ratios(title="tiny", problem=lambda: problem, curves=(one, top), ratios=(0.4,), steps=4,
                    claims=(Claim("exact", ("top",), most=1.0 + 1e-6),))  # fmt: skip
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert "holds" in text
    shares = {"sent over asked": {"a": [0.5, 1.0], "b": [1.0, 3.0], "c": [0.0, 1.0]}}
    worst = {label: measured.mean for label, measured in recipe.statistics(shares)[WORST].items()}
    assert worst == {"a": 2.0, "b": 3.0, "c": pytest.approx(1e9)}


# --- what other kinds have for these figures ---


def test_a_comparison_draws_other_outcomes_and_judges_the_last_gap(tmp_path, nodes):
    recipe = Comparison(
        title="tiny",
        problem=lambda: nodes,
        curves=(curve("NIDS", "nids"), curve("ATC", "dgd")),
        rel_gap=1e-6,
        max_rounds=200,
        bits_ratio=None,
        outcomes={"": "rel_gap", "-consensus": "consensus"},
        bits_are="bits sent per node",
        said="Counted per_edge.",
        claims=(
            Claim("stalls", ("ATC",), statistic=LAST, least=1e-5),
            Claim("rounds", ("NIDS",), ("ATC",), "rounds"),
        ),
    )
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.json", "tiny.md", "tiny.png", "tiny-consensus.png"}
    assert "Bits are bits sent per node until" in text
    assert "Counted per_edge." in text
    assert text.count("holds") == 2
    done = recipe.measure(nodes, progress=False)
    pictures = recipe.pictures(recipe.facts(nodes, done), done)
    assert {figure.axes[0].get_xlabel() for figure in pictures.values()} == {"bits sent per node"}
