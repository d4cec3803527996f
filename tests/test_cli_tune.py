"""`fedjax-lc tune`, and what any command line helps with: tables for papers, exports, completion, what to do next."""

import contextlib
import io
import itertools
import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import fedjax_lc as fl
from fedjax_lc.cli import main
from fedjax_lc.core import progress
from fedjax_lc.plot import style
from fedjax_lc.results import paper, report

DATA = ["--data", "iris", "--clients", "4", "--kappa", "100", "--partition", "iid", "--quiet"]
AXES = ["--grid", "gd.gamma=theory*loguniform:0.01:100", "--grid", "agd.gamma=theory*0.5, 1"]
RACE = ["--sample", "9", "--sample-seed", "3", "--budget", "bits_up=20000", "--rel-gap", "1e-3"]
TUNE = ["tune", "gd", "agd", *DATA, *AXES, *RACE, "--every", "1", "--steps", "500"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder of a tune of two methods, and what was printed."""
    folder, out = tmp_path_factory.mktemp("tuned") / "out", io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*TUNE, "--out", str(folder)]) == 0
    return folder, out.getvalue().splitlines()


@pytest.fixture(scope="module")
def tuned(told):
    return told[0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran") / "a run"
    assert main(["run", "gd", *DATA, "--steps", "30", "--out", str(folder)]) == 0
    return folder


def test_tune_is_that_of_python(tuned):
    problem = fl.problem("iris", clients=4, partition="iid", kappa=100)
    table = fl.Table.load(tuned / "gd")
    points = fl.sample(fl.algorithms.get("gd").theory(problem), 9, seed=3, gamma="theory*loguniform:0.01:100")
    expected = fl.tune(
        "gd", problem, points, budget={"bits_up": 20_000}, rel_gap=1e-3, every=1, steps=500, progress=False
    )
    assert table.lanes.drop(columns="seconds").equals(expected.lanes.drop(columns="seconds"))
    assert table.config["tuning"] == expected.config["tuning"]
    assert table.config["tuning"]["configurations"] == [9, 3, 1]


def test_what_tune_prints_and_leaves(told):
    """The race of each method, the comparison, and a picture."""
    tuned, lines = told
    assert any(line.startswith("gd: 9, then 3, then 1 configurations; all lanes together cost ") for line in lines)
    assert "target: relative gap 0.001" in lines
    assert sorted(path.name for path in tuned.iterdir()) == ["agd", "gd", "plot.png"]
    assert {"tune.toml", "tuning.json", "lanes.parquet", "rungs"} <= {path.name for path in (tuned / "gd").iterdir()}


@pytest.mark.slow
def test_called_again_it_only_reads(tuned, capsys):
    before = {path: path.read_bytes() for path in tuned.rglob("*.parquet")}
    assert main([*TUNE, "--out", str(tuned)]) == 0
    assert "compiled nothing: no program was needed" in capsys.readouterr().out.splitlines()
    assert {path: path.read_bytes() for path in tuned.rglob("*.parquet")} == before


def test_a_tune_that_cannot_be(tuned, refused):
    assert "tune needs a budget that all configurations share: add --budget" in refused("tune", "gd", *DATA)
    assert "other halving" in refused(*TUNE, "--halving", 2, "--out", tuned)
    assert "whose lanes have spent their budget: tune anew" in refused(
        "extend", tuned / "gd", "--steps", 9, "--best", 1
    )
    assert "unrecognized arguments: --shard" in refused(*TUNE, "--shard", "1/2")


# --- tables for papers ---


def test_the_best_as_a_table_of_a_paper(tuned, capsys):
    """What is printed is the table alone; where it comes from is said on the other stream."""
    told = {}
    for kind in ("text", "markdown", "latex", "csv"):
        assert main(["best", str(tuned), "--format", kind]) == 0
        told[kind], err = capsys.readouterr()
        assert ("target: relative gap" in told[kind]) == (kind == "text") != ("target: relative gap" in err)
    best = fl.Table.load(tuned).best("bits_up")
    frame = pd.read_csv(io.StringIO(told["csv"]))
    assert frame["median"].tolist() == best["median"].tolist()
    assert list(frame) == list(best)
    rows = [line for line in told["markdown"].splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == best["method"].tolist()
    body = told["latex"].split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(best)
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
    assert all(line.endswith(r"\\") for line in body)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("rand_k:2|natural", r"rand\_k:2\textbar{}natural"),
        ("1.234e+05 .. 1e-08", r"$1.234 \cdot 10^{5}$ .. $1 \cdot 10^{-8}$"),
        ("94.4% & #1 {x} $ <", r"94.4\% \& \#1 \{x\} \$ \textless{}"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("v1e5", "v1e5"),
        (3, "3"),
    ],
)  # fmt: skip
def test_a_cell_in_latex(cell, text):
    assert paper.latex(cell) == text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_export_has_every_record(tuned, ran, kind, tmp_path, capsys):
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[kind]
    assert main(["export", str(ran), "--format", kind]) == 0
    trace = fl.Trace.load(ran)
    assert np.array_equal(read(ran / f"export.{kind}")["bits_up"], trace.bits_up)
    assert main(["export", str(tuned), "--format", kind, "--out", str(tmp_path / "all")]) == 0
    table, frame = fl.Table.load(tuned), read(tmp_path / "all")
    assert f"wrote {len(table.records):,} records to {tmp_path / 'all'}" in capsys.readouterr().out
    assert list(frame) == list(table.to_pandas())
    assert np.array_equal(frame["value"], table.records["value"])
    assert set(frame["status"]) == set(table.lanes["status"]) > {"dropped"}


# --- pictures for papers ---


@pytest.mark.parametrize(("size", "inches"), [("column", 3.35), pytest.param("page", 7.0, marks=pytest.mark.slow)])
def test_pictures_are_as_wide_as_asked_and_carry_their_fonts(tuned, size, inches, tmp_path):
    """Type 42 fonts, as journals ask; the words fit into the page."""
    path = tmp_path / "best.pdf"
    assert main(["plot", str(tuned), "--size", size, "--out", str(path)]) == 0
    content = path.read_bytes()
    width = float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", content)[1])
    assert width == pytest.approx(72 * inches, abs=0.1)
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    table = fl.Table.load(tuned)
    figure = fl.plot.best(
        table, rel_gap=1e-3, size=size, note="small print that is longer than a column is wide, by far, " * 2
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, drawn = figure.axes[0], canvas.get_renderer()
    words = [axes.xaxis.label, axes.yaxis.label, *axes.texts, *figure.legends[0].get_texts()]
    boxes = [word.get_window_extent(drawn) for word in words if word.get_text()]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    shown = [text for text in axes.get_xticklabels(which="both") if text.get_text()]
    spans = sorted((box.x0, box.x1) for box in (text.get_window_extent(drawn) for text in shown))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    letters = {label.get_fontsize() for label in (figure.axes[0].xaxis.label, figure.axes[0].yaxis.label)}
    assert all(7 <= points <= 8.5 for points in letters)


def test_a_lane_that_was_given_up_is_drawn_as_such(tuned):
    table = fl.Table.load(tuned / "gd")
    dropped = table.lanes.index[table.lanes["status"] == "dropped"][0]
    figure = fl.plot.curves({"GD": table.trace(dropped)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GD (dropped)"]


def test_in_a_column_panels_stand_one_below_the_other():
    """And the numbers of a map whose cells become too narrow are left to its colours; those of a narrow map stay."""
    figure = style.new_figure(10.5, 4.6)
    for axes, columns in zip(figure.subplots(1, 2), (20, 3), strict=True):
        axes.set_xlim(0, columns)
        axes.text(1, 0.5, "1.3e4", gid=style.CELL_TEXT)
        style.write(axes, "x", "y", "title", "small print")
    FigureCanvasAgg(style.resized(figure, "column")).draw()
    upper, lower = figure.axes
    assert upper.get_position().y0 > lower.get_position().y1
    assert figure.get_size_inches()[0] == pytest.approx(3.35)
    assert [axes.texts[0].get_visible() for axes in (upper, lower)] == [False, True]


def test_an_unknown_size_is_refused(tuned):
    with pytest.raises(fl.InputError, match="unknown size 'poster'"):
        fl.plot.best(fl.Table.load(tuned), size="poster")


#: linear sRGB as those see it who lack one kind of cones (Machado, Oliveira, Fernandes 2009, severity 1)
SIGHTS = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour, sight):
    """CIE L*a*b* of a colour as it is seen."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = XYZ @ np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart_by_all(sight):
    """Any two of the cycle, six times as far apart as what is just noticed (2.3), and none as pale as the paper."""
    seen = [lab(colour, sight) for colour in style.COLOURS]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 6 * 2.3
    assert min(np.linalg.norm(one - lab("#ffffff", sight)) for one in seen) > 6 * 2.3


def test_no_two_curves_look_the_same():
    """Where colours begin again, markers and line styles differ."""
    looks = [style.look(place) for place in range(60)]
    assert len({(each["color"], each["linestyle"], each["marker"]) for each in looks}) == 60
    for one, other in itertools.combinations(looks[:21], 2):
        assert one["color"] != other["color"] or one["linestyle"] != other["linestyle"]


# --- help that helps ---


def test_alone_it_greets_with_commands_that_work(capsys):
    assert main([]) == 0
    commands = re.findall(r"^  fedjax-lc (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert commands == ["run", "sweep", "list"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_list_is_as_wide_as_the_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list"]) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= width
    monkeypatch.delenv("COLUMNS")
    assert main(["list"]) == 0
    whole = capsys.readouterr().out  # not on a terminal: as wide as it is
    assert narrow.split() != []
    assert sorted(re.findall(r"\w+", narrow)) == sorted(re.findall(r"\w+", whole))


def test_columns_of_numbers_stay_whole():
    text = report.table([{"name": "some words that are long " * 3, "bits": "1.234e+05"}], width=30)
    assert "1.234e+05" in text
    assert max(map(len, text.splitlines())) <= 30


def test_a_quiet_run_says_nothing_of_it(capsys):
    assert main(["run", "gd", *DATA, "--steps", "20"]) == 0
    assert "next:" not in capsys.readouterr().out


def test_a_run_says_what_to_do_next_and_what_was_chosen_for_it(capsys, tmp_path):
    quick = ["--data", "iris", "--steps", "20", "--every", "10"]
    assert main(["run", "gd", *quick]) == 0
    out = capsys.readouterr().out
    assert ("note: by default kappa = 1e4 (--kappa, --l2), 10 clients (--clients), equal clients, rows dealt at random "
            "(--partition)") in out.splitlines()  # fmt: skip
    assert out.splitlines()[-1] == "next: the same run with --out DIR keeps it, for fedjax-lc plot, report and extend"
    given = ["--l2", "1", "--clients", "10", "--partition", "iid", "--out", str(tmp_path / "a b")]
    assert main(["run", "gd", *quick, *given]) == 0
    out = capsys.readouterr().out
    assert "by default" not in out
    folder = f"'{tmp_path / 'a b'}'"
    assert out.splitlines()[-1] == (
        f"next: fedjax-lc plot {folder} --x rounds; fedjax-lc report {folder} --out report.html; "
        f"fedjax-lc extend {folder} --steps 20"
    )


@pytest.mark.slow
def test_a_sweep_says_what_to_do_next(capsys, tmp_path):
    """What it says is what works."""
    words = ["--data", "iris", "--steps", "20", "--every", "10", "--grid", "gamma=theory*0.5, 1"]
    assert main(["sweep", "gd", *words, "--out", str(tmp_path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    ways = line.removeprefix("next: ").split("; ")
    assert ways[0] == f"fedjax-lc plot {tmp_path} --kind sensitivity --x gamma/theory"
    assert ways[2] == f"fedjax-lc extend {tmp_path}/gd --steps 20 --best 1"
    for way in (ways[0], ways[2]):
        assert main(way.split()[1:]) == 0


def test_a_notebook_has_no_bar_and_the_plan_of_a_tune_once(monkeypatch, capsys):
    """Where nothing is a terminal, bars write nothing, so that no lines pile up; the plan is a line a program."""
    monkeypatch.setattr(progress, "DELAY", 0)
    with progress.bar(3, "steps") as steps:
        for _ in range(3):
            steps.update()
    assert capsys.readouterr() == ("", "")
    problem = fl.problem("iris", clients=4, partition="iid", kappa=100)
    options = {"budget": {"rounds": 8}, "halving": 2, "every": 1, "steps": 50}
    fl.tune("gd", problem, {"gamma": "theory*loguniform:0.1:1"}, num=4, **options)
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split()[:2] for line in told.err.splitlines()] == [
        ["budget", "1"], ["GD:", "4"], ["4", "lanes"], ["budget", "2"], ["budget", "3"]
    ]  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_options_and_names(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("tune", "export", "--rel-gap", "--size", "locodl", "breast_cancer", "dirichlet", "hyperparameters"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        complete = (
            f'{script}\nCOMP_WORDS=(fedjax-lc run loco); COMP_CWORD=2; _shtab_fedjax_lc; echo "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash"], input=complete, text=True, capture_output=True, check=True)
        assert "locodl" in done.stdout.split()


def test_settings_of_a_tune_are_kept(tuned):
    facts = json.loads((tuned / "gd" / "tuning.json").read_text())
    assert facts["metric"] == "bits_up"
    assert [rung["bits_up"] for rung in facts["budgets"]] == pytest.approx([20_000 / 9, 20_000 / 3, 20_000])
