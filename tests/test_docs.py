"""The pages of the site that are made from the repository, and the check of its links."""

import json
import re

import pytest

import fedjax_lc as fl
from docs import pages
from docs.pages import check, commands, compressors, escaping, links, methods, mirrored
from docs.pages.links import ROOT, SITE
from fedjax_lc import cli
from fedjax_lc.compressors.parse import REGISTRY
from tests.pages import PAGES, README

# --- methods ---


@pytest.mark.parametrize("name", ["locodl", "artemis", "dgd"])
def test_the_page_of_a_method_has_what_a_reader_looks_for(name):
    method, text = fl.algorithms.get(name), methods.page(name)
    assert text.startswith(f"# {method.title}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")][:4] == [
        "## The step",
        "## Symbols",
        "## Theory",
        "## Costs",
    ]
    for field in method.options:
        assert f"| `{field}` |" in text
    assert f"(../source/fedjax_lc/algorithms/{name}.py.md)" in text
    assert re.search(r"\(https://arxiv.org/abs/\d{4}\.\d{5}\)", text)
    assert ("--theory --out out" in text) == (method.rate is not None)


def test_numbers_of_a_method_are_those_of_a_run():
    text, problem = methods.page("diana"), methods.example()
    hp = fl.algorithms.get("diana").theory(problem)
    trace = fl.run("diana", problem, hp, steps=methods.STEPS, every=methods.STEPS, progress=False)
    assert f"| `gamma` | step size | > 0 | {float(hp.gamma):.4g} |" in text
    assert f"{trace.bits_up[-1] / methods.STEPS:,.0f} up and {32 * problem.dim} down" in text


def test_the_step_is_shown_with_the_functions_that_it_calls():
    box = methods.box(fl.algorithms.get("fedprox"))
    assert box.index("class State") < box.index("def change") < box.index("def prox_step")
    assert "def step(" not in box
    assert "def theory" not in box


def test_a_method_of_frames_is_shown_as_it_is_put_together():
    box = methods.box(fl.algorithms.get("artemis"))
    assert "class Hparams(WithMemory)" in box
    assert "**compose(memory(), gradient)" in box


@pytest.mark.parametrize("name", fl.algorithms.names())
def test_every_method_has_a_box_symbols_and_figures_that_are_there(name):
    method = fl.algorithms.get(name)
    assert methods.box(method)
    assert methods.theory(method)[-1].startswith("```python\n")
    for path in methods.appearances(name):
        assert (ROOT / f"{path}.png").exists()


def test_figures_of_a_method_are_its_papers_first_and_the_demo_last():
    assert methods.appearances("savic")[0].startswith("experiments/savic/")
    assert methods.appearances("locodl")[0].startswith("experiments/locodl/")
    assert methods.appearances("locodl")[-1] == "experiments/figures/demo"
    assert methods.appearances("scaffnew") == ["experiments/figures/demo"]
    assert methods.appearances("marina") == []


def test_a_figure_is_named_where_its_facts_name_the_method():
    for path in methods.appearances("nids"):
        assert "NIDS" in json.dumps(json.loads((ROOT / f"{path}.json").read_text()))


# --- compressors ---


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_compressor_has_an_example_of_its_name(name):
    c = compressors.example(name)
    assert c.name == name
    c.validate(compressors.D)
    assert compressors.kind(c) in ("unbiased", "contractive", "no worst case")


def test_the_code_on_the_page_of_a_compressor_runs(capsys):
    code = re.search(r"```python\n(.*?)```", compressors.page("qsgd"), flags=re.S)[1]
    exec(code, {})
    omega, delta = map(float, capsys.readouterr().out.split())
    assert (omega, delta) == (pytest.approx(min(24 / 16, 24**0.5 / 4)), 0)


def test_the_command_on_the_page_of_a_method_parses():
    for name in ("locodl", "artemis", "dgd"):
        command = re.search(r"```bash\nfedjax-lc (.*)\n```", methods.page(name))[1].split()
        assert cli._parser(command).parse_args(command).steps == 1000


@pytest.mark.parametrize(
    ("name", "kind"), [("rand_k", "unbiased"), ("top_k", "contractive"), ("sidco", "no worst case")]
)
def test_the_page_of_a_compressor(name, kind, tmp_path):
    compressors.draw(name, tmp_path / "picture.svg")
    text, (values, bits) = compressors.page(name), compressors.messages(name)
    assert f"| class | {kind} |" in text
    assert f"| bits of the message above | {bits[0]:,.0f} of {32 * compressors.D} |" in text
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")
    assert len(values) == (1 if compressors.example(name).deterministic else compressors.DRAWS)


# --- pages of files, and links ---


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("README.md", "index"),
        ("docs/guide/sweep.md", "guide/sweep"),
        ("CHANGELOG.md", "changelog"),
        ("experiments/liec/README.md", "figures/liec/index"),
        ("experiments/locodl/tuned/figures/a5a-87.md", "figures/locodl/tuned/a5a-87"),
        ("experiments/figures/demo.md", "figures/demo"),
        ("notebooks/02_sweep.md", "notebooks/02_sweep"),
        ("fedjax_lc/core/lanes.py", "source/fedjax_lc/core/lanes.py"),
        ("experiments/bench/results/gpu.txt", "source/experiments/bench/results/gpu.txt"),
    ],
)
def test_the_page_of_a_file(path, page):
    assert links.page_of(path) == page


def test_links_into_the_repository_stay_within_the_site():
    rest = "![b](../../experiments/figures/demo.png) [c](sweep.md#axes) [d](https://x.org) [e](#f)"
    text = links.within_site(f"[a](../../experiments/liec) {rest}", SITE / "guide" / "page.md", "guide/page")
    assert text == f"[a](../figures/liec/index.md) {rest}"
    code = "```python\nx = y[0](../../z.py)\n```\n"
    assert links.within_site(code, SITE / "guide" / "page.md", "guide/page") == code


def test_links_of_a_recipes_page_follow_it():
    file = ROOT / "experiments" / "liec" / "README.md"
    text = links.within_site("[m](figures/mnist.md) ![p](figures/mnist.png)", file, "figures/liec/index")
    assert text == "[m](mnist.md) ![p](../../../experiments/liec/figures/mnist.png)"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE).with_suffix("")))
def test_links_of_a_page_lead_to_files(path):
    """Those into the repository; the build checks the others."""
    for target in links.targets(path.read_text(), path):
        assert (ROOT / target).is_file()


def test_links_of_the_readme_lead_to_files():
    found = [match[2] for match in links.LINK.finditer(README.read_text())]
    assert len(found) > 20
    assert all((ROOT / target).exists() for target in found)


def test_files_that_pages_link_to_are_shown():
    made = mirrored.pages({"glossary": (SITE / "glossary.md").read_text()})
    assert ":language: python" in made["source/fedjax_lc/sweeping/blocks.py"]
    assert "```{literalinclude} ../../../../fedjax_lc/sweeping/blocks.py" in made["source/fedjax_lc/sweeping/blocks.py"]
    assert made["notebooks/01_quickstart"].startswith("\n# Quickstart")
    assert "locodl/index" in made["figures/index"]


def test_the_page_of_a_figure_has_its_pictures():
    folder = ROOT / "experiments" / "mcm" / "figures"
    assert mirrored.pictures(folder / "a9a.md") == ["a9a.png", "a9a-bits.png"]
    assert mirrored.pictures(folder / "a9a-half.md") == ["a9a-half.png", "a9a-half-bits.png"]
    page = mirrored.pages({})["figures/mcm/a9a"]
    assert "![a9a-bits](../../../experiments/mcm/figures/a9a-bits.png)" in page


def test_commands_say_what_they_do():
    assert commands.said("best").startswith("usage: fedjax-lc best")


def test_made_pages_are_not_kept():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"/docs/{name}" + ("" if name.endswith(".md") else "/") for name in pages.MADE} <= set(ignored)


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a> <a href="https://x.org/none">y</a> <img src="p.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1> <a href="a.html">z</a> <a href="#here">h</a>')
    assert check.broken(tmp_path) == [
        "a.html: b.html#there: no such place in the page",
        "a.html: p.png: no such file",
    ]
    assert check.main(str(tmp_path)) == 1


# --- plain text as markup ---


def test_docstrings_are_plain_text():
    assert escaping.rst("|x|^2, x_ and `y_i` * 2") == r"\|x\|^2, x\_ and ``y_i`` \* 2"
    assert escaping.cell("a | b <c> [d] `e|f`") == r"a \| b \<c> \[d\] `e\|f`"
    assert escaping.markdown("X:\n\n    a = b_\n\nend*") == "X:\n\n```text\na = b_\n```\n\nend\\*"
    assert escaping.cell("") == ""
    assert escaping.markdown("Attributes:\n    k: one,\n        more.\n    p: two.") == (
        "Attributes:\n\n- k: one,\n  more.\n- p: two."
    )
    assert escaping.markdown("Example:\n    >>> f(x)\n    1") == "Example:\n\n```pycon\n>>> f(x)\n1\n```"


def test_fields_without_a_heading_become_a_list():
    lines = ["Of data.", "", "a: one", "    more", "b, c: two", "", ">>> f(*x)", "1"]
    escaping.docstring(None, "", "", None, None, lines)
    assert lines == ["Of data.", "", "* **a:** one", "  more", "* **b, c:** two", "", ">>> f(*x)", "1"]
