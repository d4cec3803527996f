"""Comparisons: what they write, and how curves are capped."""

import json

import pytest

import fedjax_lc as fl
from experiments.kit import catalogue
from experiments.kit.claim import Claim
from experiments.kit.comparison import Comparison, bits_to
from experiments.kit.contender import Contender
from fedjax_lc.results import report

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def made(tmp_path_factory, problem):
    comparison = Comparison(
        title="tiny",
        problem=lambda: problem,
        curves=(
            Contender("locodl", "rand_k:2|natural"),
            Contender("locodl", choices={"p": "balanced"}, note="fast"),
            Contender("gd"),
        ),
        leaders=2,
        rel_gap=1e-6,
        bits_ratio=2,
        every=1,
        claims=(Claim("LoCoDL beats GD", ("LoCoDL*",), ("GD",), bests=True),),
    )
    folder = tmp_path_factory.mktemp("figures")
    return comparison, folder, comparison.make(folder, "tiny", progress=False)


def test_a_figure_writes_its_files(made):
    _, folder, text = made
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.json", "tiny.md", "tiny.png"]
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


def test_others_are_capped_at_a_multiple_of_the_leaders_bits(made, problem):
    comparison, _, _ = made
    traces = comparison.measure(problem, progress=False)
    best = min(bits_to(trace, 1e-6) for label, trace in traces.items() if label.startswith("LoCoDL"))
    capped = traces["GD"]
    assert report.ending(capped) == "capped"
    assert capped.bits_up[-2] < 2 * best <= capped.bits_up[-1]


def test_recipes_name_known_methods_and_compressors():
    found = {name: recipe for name, recipe in catalogue.figures().items() if isinstance(recipe, Comparison)}
    assert {"demo", "locodl/a5a-87", "locodl/w1a-619", "locodl/dirichlet-1", "locodl/ablation-p"} <= set(found)
    for recipe in found.values():
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
