"""Figures: what they write, how curves are capped, and how claims are judged."""

import json

import pytest

import fedjax_lc as fl
from experiments.kit import catalogue
from experiments.kit.comparison import Claim, Comparison, Curve, bits_to
from experiments.kit.tuned import Tuned
from fedjax_lc.core.errors import InputError
from fedjax_lc.results import report

INF = float("inf")


@pytest.mark.parametrize(
    ("bits", "spent", "verdict"),
    [
        ({"A": 10, "B": 20}, {"A": 10, "B": 20}, "holds"),
        ({"A": 30, "B": 20}, {"A": 30, "B": 20}, "does not hold"),
        ({"A": 10, "B": INF}, {"A": 10, "B": 50}, "holds"),
        ({"A": 10, "B": INF}, {"A": 10, "B": 5}, "undecided (capped)"),
        ({"A": INF, "B": 20}, {"A": 90, "B": 20}, "does not hold"),
        ({"A": INF, "B": INF}, {"A": 90, "B": 20}, "undecided (capped)"),
    ],
)
def test_verdicts(bits, spent, verdict):
    assert Claim("A before B", "A", "B").verdict(bits, spent) == verdict


def test_verdicts_take_the_best_of_each_side_and_exclude_the_first():
    bits = {"A, x": 10.0, "A, y": 40.0, "B": 20.0}
    assert Claim("best A", "A*", "B").verdict(bits, bits) == "holds"
    assert Claim("x before all", "A, x", "*").verdict(bits, bits) == "holds"
    assert Claim("y before all", "A, y", "*").verdict(bits, bits) == "does not hold"
    with pytest.raises(InputError, match=r"^claim 'C first' names no curve: have A, x, A, y, B$"):
        Claim("C first", "C", "B").verdict(bits, bits)


@pytest.fixture(scope="module")
def made(tmp_path_factory, problem):
    comparison = Comparison(
        title="tiny",
        problem=lambda: problem,
        curves=(
            Curve("locodl", "rand_k:2|natural"),
            Curve("locodl", choices={"p": "balanced"}, note="fast"),
            Curve("gd"),
        ),
        leaders=2,
        rel_gap=1e-6,
        bits_ratio=2,
        every=1,
        claims=(Claim("LoCoDL beats GD", "LoCoDL*", "GD"),),
    )
    folder = tmp_path_factory.mktemp("figures")
    return comparison, folder, comparison.make(folder, "tiny", progress=False)


def test_a_figure_writes_its_four_files(made):
    _, folder, text = made
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.json", "tiny.md", "tiny.png", "tiny.svg"]
    assert "effective kappa" in text
    assert "LoCoDL beats GD" in text
    assert r"rand_k:2\|natural" in (folder / "tiny.md").read_text()


def test_a_figure_tells_its_facts(made, problem):
    _, folder, _ = made
    facts = json.loads((folder / "tiny.json").read_text())
    assert facts["kappa_eff"] == pytest.approx(problem.kappa_eff)
    assert facts["claims"] == {"LoCoDL beats GD": "holds"}
    assert list(facts["curves"]) == ["LoCoDL, rand_k:2|natural", "LoCoDL, fast", "GD"]
    assert {"versions", "device", "command"} <= set(facts)


def test_others_are_capped_at_a_multiple_of_the_leaders_bits(made):
    comparison, _, _ = made
    traces = comparison.run(progress=False)
    best = min(bits_to(trace, 1e-6) for label, trace in traces.items() if label.startswith("LoCoDL"))
    capped = traces["GD"]
    assert report.ending(capped) == "capped"
    assert capped.bits_up[-2] < 2 * best <= capped.bits_up[-1]


def test_recipes_are_found_by_name():
    names = catalogue.names()
    assert {"demo", "locodl/a5a-87", "locodl/w1a-619", "locodl/dirichlet-1", "locodl/ablation-p"} <= set(names)
    for name in names:
        if name.startswith(("locodl/", "demo")):  # of others see test_mcm_recipes.py and test_network_recipes.py
            assert isinstance(catalogue.get(name), Tuned if "/tuned/" in name else Comparison)


def test_every_recipe_names_known_methods_and_claims():
    for name in catalogue.names():
        recipe = catalogue.get(name)
        if not isinstance(recipe, Comparison):  # see tests/test_tuned.py and tests/test_mcm_recipes.py
            continue
        labels = {curve.label: 1.0 for curve in recipe.curves}
        assert len(labels) == len(recipe.curves)
        for claim in recipe.claims:
            claim.verdict(labels, labels)
        for curve in recipe.curves:
            assert curve.compressor is None or str(fl.compressors.parse(curve.compressor)) == curve.compressor


def test_tables_align_and_escape():
    rows = [{"method": "a|b", "bits": "1,000"}, {"method": "c", "bits": "-"}]
    plain = report.table(rows).splitlines()
    assert len({len(line) for line in plain}) == 1
    assert r"a\|b" in report.table(rows, style="github")


def test_a_folder_leaves_out_what_is_for_a_gpu():
    from fedjax_lc.cli.figure import _matching

    known = ["mcm/a", "mcm/deep/b", "mcm/deep/gpu/c"]
    assert _matching("mcm", known) == _matching("mcm/", known) == known[:2]
    assert _matching("mcm/deep/gpu", known) == _matching("mcm/deep/gpu/c", known) == known[2:]
