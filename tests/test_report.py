"""The HTML report: it holds the numbers of traces and tables, needs nothing else, and no name breaks out of it."""

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.cli import main
from fedjax_lc.pages import embed, gather, page
from fedjax_lc.plot import style
from tests.test_plot import geometric
from tests.test_plot_sweeps import costs_of, table

FIGURES = sorted(Path(__file__).parents[1].glob("experiments/*/figures/**/*.json"))
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & %{x} \u2028 \ud800 'q' \"p\""


class Elements(HTMLParser):
    """The elements of a page: (tag, attributes, text)."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.made = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.made.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.made:
            self.made[-1][2] += data


def read(path):
    """(elements, data) of a page."""
    elements = Elements(Path(path).read_text(encoding="utf-8")).made
    (data,) = (text for tag, about, text in elements if about.get("id") == "data")
    return elements, json.loads(data)


def data_of(results, tmp_path, **options):
    return read(fl.report(results, tmp_path / "report.html", **options))[1]


def numbers(lane, name):
    return np.frombuffer(base64.b64decode(lane["series"][name]), "<f8")


def run(key=0, **config):
    trace = geometric(records=40, status="finished")
    facts = {
        "hyperparameters": {"gamma": 0.5, "compressor": "natural"},
        "problem": {"clients": 3, "dim": 7},
        "key": [0, key],
        "method": "locodl",
    }
    return dataclasses.replace(trace, method="locodl", config=trace.config | facts | config)


def test_a_page_holds_every_number_of_a_trace_bit_for_bit(tmp_path):
    trace = geometric(rate=0.93, records=70, bits=1 / 3)
    (problem,) = data_of({"GD": trace}, tmp_path)["problems"]
    (curve,) = problem["curves"]
    (lane,) = curve["lanes"]
    assert (curve["label"], lane["records"], lane["ended"], lane["f_star"]) == ("GD", 70, "target", 2.0)
    for name in ("step", "bits_up", "bits_down", "grads", "rounds"):
        np.testing.assert_array_equal(numbers(lane, name), [0.0, *getattr(trace, name)])
    np.testing.assert_array_equal(numbers(lane, "value"), [5.0, *trace.value])
    for name in ("accuracy", "distance"):
        np.testing.assert_array_equal(numbers(lane, name), [trace.initial[name], *trace.metrics[name]])
    assert lane["last"]["rel_gap"] == trace.rel_gap[-1]
    assert lane["last"]["gap"] == trace.gap[-1]
    assert not problem["thinned"]


def test_targets_cost_what_all_records_say_though_a_long_curve_is_thinned(tmp_path):
    long = geometric(rate=0.9995, records=40_000, noise=np.exp(np.sin(np.arange(40_000))))
    (problem,) = data_of({"long": long}, tmp_path)["problems"]
    (lane,) = problem["curves"][0]["lanes"]
    kept = numbers(lane, "step")
    assert len(kept) <= problem["thinned"] == 1000
    assert {0.0, 40_000.0} <= {*kept}
    assert {*kept} <= {0.0, *long.step}
    assert numbers(lane, "value").min() == long.value.min()
    assert len(problem["goals"]) >= 8
    for goal, hit in zip(problem["goals"], lane["hits"], strict=True):
        reached = long.reach(goal["value"])
        assert hit == [reached[name] for name in ("step", "bits_up", "bits_down", "grads", "rounds")]


def test_targets_are_accuracies_where_no_optimum_is_known(tmp_path):
    trace = dataclasses.replace(geometric(records=30), f_star=float("nan"))
    (problem,) = data_of(trace, tmp_path)["problems"]
    assert [outcome["name"] for outcome in problem["outcomes"]] == ["accuracy", "value", "distance"]
    assert [goal["value"] for goal in problem["goals"]] == [
        s for s in embed.SHARES if s <= trace.metrics["accuracy"][-1]
    ]
    hit = trace.reach(accuracy=0.9)
    place = [goal["value"] for goal in problem["goals"]].index(0.9)
    assert problem["curves"][0]["lanes"][0]["hits"][place][1] == hit["bits_up"]


def test_a_sweep_keeps_costs_and_records_of_each_lane(tmp_path):
    swept = table()
    (problem,) = data_of({"tuning": swept}, tmp_path)["problems"]
    (sweep,) = problem["sweeps"]
    assert (sweep["label"], sweep["axes"]) == ("tuning", ["gamma/theory", "compressor"])
    assert problem["goals"][problem["goal"]] == {"name": "rel_gap", "value": 1e-4}
    curves = [problem["curves"][place] for place in sweep["curves"]]
    titles = {style.method_title(name): name for name in ("locodl", "diana", "gd")}
    for (method, compressor, gamma), costs in costs_of(swept).items():
        (curve,) = (c for c in curves if titles[c["method"]] == method and c["settings"]["gamma/theory"] == gamma
                    and c["settings"].get("compressor") == compressor)  # fmt: skip
        hits = [lane["hits"][problem["goal"]] for lane in curve["lanes"]]
        diverged = [lane["ended"] == "diverged" for lane in curve["lanes"]]
        assert sorted(np.inf if lost or not hit else hit[1] for hit, lost in zip(hits, diverged, strict=True)) == costs
    first = swept.trace(0)
    np.testing.assert_array_equal(numbers(curves[0]["lanes"][0], "bits_up"), [0.0, *first.bits_up])
    assert curves[0]["label"] == "LoCoDL rand_k:1|natural, gamma = 0.25 × theory"


def test_of_more_lanes_than_a_page_draws_the_best_are_drawn_and_all_keep_their_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "MOST_DRAWN", 20)
    swept = table()
    (problem,) = data_of(swept, tmp_path)["problems"]
    drawn = [c for c in problem["curves"] if "series" in c["lanes"][0]]
    assert len(problem["curves"]) == 25
    assert len(drawn) == 4
    for method, row in zip(("LoCoDL", "DIANA"), swept.best("bits_up").to_dict("records"), strict=False):
        assert any(c["method"] == method and c["settings"]["gamma/theory"] == row["gamma/theory"] for c in drawn)
    monkeypatch.setattr(gather, "MOST_LANES", 50)
    (problem,) = data_of(swept, tmp_path)["problems"]
    assert (len(problem["curves"]), problem["left_out"]) == (
        11,
        14,
    )  # ten, and the best of the method that is not there
    assert {curve["method"] for curve in problem["curves"]} == {"LoCoDL", "DIANA", "GD"}


def test_a_page_needs_nothing_else(tmp_path):
    elements, _ = read(fl.report({"GD": geometric(), "sweep": table()}, tmp_path / "report.html"))
    assert (tmp_path / "report.html").stat().st_size < page.MOST_BYTES
    assert {tag for tag, about, _ in elements if "src" in about} == set()
    assert [about["href"] for _, about, _ in elements if "href" in about] == ["#content"]
    (policy,) = (about["content"] for tag, about, _ in elements if about.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    library = page._asset(page.LIBRARY)
    texts = [text.replace(library.strip(), "") for *_, text in elements]
    assert {*re.findall(r"https?://[\w./]+", " ".join(texts))} <= {"http://www.w3.org/2000/svg"}
    assert "Licensed under the MIT license" in library
    assert any("Permission is hereby granted" in text for text in texts)


def test_no_name_breaks_out_of_a_page(tmp_path):
    evil = dataclasses.replace(geometric(), metrics={"accuracy": geometric().metrics["accuracy"], EVIL: np.ones(30)})
    evil.config |= {
        "command": EVIL,
        "hyperparameters": {EVIL: EVIL},
        "problem": {EVIL: EVIL},
        "settings": {"data": EVIL},
    }
    plain, _ = read(fl.report({"GD": geometric()}, tmp_path / "plain.html"))
    elements, data = read(fl.report({EVIL: evil}, tmp_path / "evil.html", title=EVIL))
    assert [tag for tag, *_ in elements] == [tag for tag, *_ in plain]
    assert data["problems"][0]["curves"][0]["label"] == EVIL
    assert data["problems"][0]["runs"][0]["made"][0]["command"] == EVIL
    heading = [text.rstrip("\n") for tag, _, text in elements if tag in ("h1", "title")]
    assert heading == [data["title"]] * 2
    assert heading[0].startswith("</script><script>alert(1)")


def test_problems_stand_apart_and_seeds_together(tmp_path):
    problems = data_of([run(), run(1), run(2), run(problem={"clients": 4, "dim": 7})], tmp_path)["problems"]
    assert [each["title"] for each in problems] == ["problem, 3 clients, d = 7", "problem, 4 clients, d = 7"]
    assert [[len(curve["lanes"]) for curve in each["curves"]] for each in problems] == [[3], [1]]
    (problem,) = data_of({"a": [run(), run(1)], "b": run(2)}, tmp_path)["problems"]
    assert [(c["label"], len(c["lanes"])) for c in problem["curves"]] == [("a", 2), ("b", 1)]


def test_every_curve_has_a_label_of_its_own(tmp_path):
    other = run(hyperparameters={"gamma": 0.25, "compressor": "natural"})
    (problem,) = data_of([run(), run(), other], tmp_path)["problems"]
    assert [curve["label"] for curve in problem["curves"]] == [
        "LoCoDL natural, gamma = 0.5", "LoCoDL natural, gamma = 0.5 #2", "LoCoDL natural, gamma = 0.25",
    ]  # fmt: skip


def test_how_a_curve_was_made_stands_beside_it(tmp_path):
    trace = run(
        hyperparameters={"gamma": 1 / 3}, command="fedjax-lc run locodl", versions={"jax": "0.10"}, device="cpu: cpu"
    )
    trace.notes.append("cut to 40 steps")
    trace.save(tmp_path / "a")
    (problem,) = data_of(tmp_path / "a", tmp_path)["problems"]
    (made,) = problem["runs"][0]["made"]
    assert (made["command"], made["notes"]) == ("fedjax-lc run locodl", ["cut to 40 steps"])
    assert {("versions", "jax 0.10"), ("device", "cpu: cpu"), ("folder", str(tmp_path / "a"))} <= {
        *map(tuple, made["facts"])
    }
    assert ["gamma", repr(1 / 3)] in made["chosen"]


def test_numbers_that_json_does_not_have_are_words(tmp_path):
    swept = table(methods=("gd",))
    swept.lanes["gamma/theory"] = np.repeat([1.0, 2.0, 3.0, np.nan, np.inf], 5)
    (problem,) = data_of([swept, run(rel_gap=float("inf"), seed=None)], tmp_path)["problems"][1:]
    values = [curve["settings"]["gamma/theory"] for curve in problem["curves"]]
    assert values == [1.0, 2.0, 3.0, "NaN", "Infinity"]


def test_metrics_of_several_numbers_are_named_where_they_are_not_shown(tmp_path):
    trace = dataclasses.replace(geometric(), metrics={"loss": np.ones((30, 4)), "distance": np.ones(30)})
    (problem,) = data_of(trace, tmp_path)["problems"]
    assert problem["unshown"] == ["loss"]
    assert [each["name"] for each in problem["outcomes"]] == ["rel_gap", "gap", "value", "distance"]


def test_traces_without_records_and_diverged_ones_are_shown(tmp_path):
    nothing = dataclasses.replace(geometric(records=5).head(0), status="diverged")
    lost = dataclasses.replace(geometric(records=5), status="diverged")
    (problem,) = data_of({"nothing": nothing, "lost": lost}, tmp_path)["problems"]
    first, second = (curve["lanes"][0] for curve in problem["curves"])
    assert (first["records"], first["last"]["rel_gap"], first["ended"]) == (0, 1.0, "diverged")
    assert numbers(first, "value").tolist() == [5.0]
    assert second["ended"] == "diverged"


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_figure_of_the_papers_is_understood(path):
    facts, read = json.loads(path.read_text()), page.Figure.read(path)
    assert read.title == facts["title"]
    assert [row[0] for row in read.claims[1:]] == [*facts.get("claims", ())]
    assert read.pictures or not (path.with_suffix(".png")).exists()
    labels = {row["label"] for block in read.blocks if block["kind"] == "table" for row in block["rows"]}
    labels |= {label for block in read.blocks if block["kind"] == "lines" for label in block["series"]}
    by_label = [name for name in ("curves", "runs", "floors", "graphs") if facts.get(name)]
    assert by_label or read.blocks
    for name in by_label:
        assert {*facts[name]} <= labels
    json.dumps(dataclasses.asdict(read), allow_nan=False)


def test_a_figure_keeps_its_numbers(tmp_path):
    facts = {
        "title": "T", "clients": 3, "claims": {"A < B": "holds", "B < C": {"paper": "yes", "here": "undecided"}},
        "curves": {"A": {"hyperparameters": {"gamma": 0.5}, "bits_up": 7.5}, "B": {"bits_up": None, "ended": "capped"}},
        "floors": {"A": [{"factor": 1.0, "floor": 0.25}, {"factor": 2.0, "floor": None}], "B": None},
        "bits": {"A": {"0.1": 3.0, "1": 4.0}}, "ratios": [1, 2], "sent": {"A": [0.5, 0.25]},
        "exponents": {"a": 1, "b": 2, "c": 3},
    }  # fmt: skip
    (tmp_path / "fig.json").write_text(json.dumps(facts))
    (tmp_path / "fig-b.json").write_text(json.dumps({"title": "U"}))
    for name in ("fig", "fig-b", "fig-consensus", "figure"):
        (tmp_path / f"{name}.png").write_bytes(b"picture of " + name.encode())
    figure, other = data_of([tmp_path / "fig.json", tmp_path / "fig-b.json"], tmp_path)["figures"]
    assert figure["claims"] == [["claim", "here", "paper"], ["A < B", "holds", "-"], ["B < C", "undecided", "yes"]]
    assert [picture["name"] for picture in figure["pictures"]] == ["fig", "fig-consensus"]
    assert base64.b64decode(figure["pictures"][0]["source"].partition(",")[2]) == b"picture of fig"
    assert [picture["name"] for picture in other["pictures"]] == ["fig-b"]
    blocks = {block["name"]: block for block in figure["blocks"]}
    assert blocks["curves"]["columns"] == ["bits_up", "ended", "gamma"]
    assert blocks["curves"]["rows"][0] == {"label": "A", "bits_up": 7.5, "gamma": 0.5}
    assert (blocks["floors"]["x"], blocks["floors"]["series"]["A"]) == (
        "factor",
        {"x": [1.0, 2.0], "floor": [0.25, None]},
    )
    assert blocks["bits"]["series"] == {"A": {"x": [0.1, 1.0], "value": [3.0, 4.0]}}
    assert (blocks["sent"]["x"], blocks["sent"]["series"]["A"]) == ("ratios", {"x": [1, 2], "value": [0.5, 0.25]})
    assert [row["exponents"] for row in blocks["exponents"]["rows"]] == [1, 2, 3]
    assert ["clients", "3"] in figure["facts"]


def test_curves_look_as_in_all_pictures_and_no_label_has_tex(tmp_path):
    data = data_of(geometric(), tmp_path)
    assert data["look"]["colours"] == [*style.COLOURS]
    assert len(data["look"]["symbols"]) == len(style.MARKERS)
    assert len(data["look"]["dashes"]) == len(style.STYLES)
    for label in (*style.OUTCOME_LABELS.values(), *style.COST_LABELS.values()):
        assert not set(r"\$^{}") & set(embed.plain(label))
    assert embed.plain(style.OUTCOME_LABELS["gap"]) == "gap F(x) - F*"


def test_the_command_line_writes_a_page_of_runs_and_sweeps(tmp_path, capsys):
    run().save(tmp_path / "runs" / "a")
    run(1).save(tmp_path / "runs" / "b")
    table().save(tmp_path / "tuning")
    out = tmp_path / "pages" / "report.html"
    assert main(["report", str(tmp_path / "runs"), str(tmp_path / "tuning"), "--out", str(out), "--title", "Mine"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    _, data = read(out)
    assert data["title"] == "Mine"
    assert [(len(each["runs"]), len(each["sweeps"])) for each in data["problems"]] == [(1, 0), (0, 1)]
    assert data["problems"][1]["sweeps"][0]["label"] == "tuning"


def test_what_cannot_be_shown_is_one_line_and_keeps_the_page_that_is_there(tmp_path, refused):
    out = tmp_path / "report.html"
    out.write_text("kept")
    (tmp_path / "empty").mkdir()
    assert "no such folder or file" in refused("report", tmp_path / "missing", "--out", out)
    assert "holds no results that are ready" in refused("report", tmp_path / "empty", "--out", out)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    assert "holds no results that are ready" in refused("report", tmp_path / "half", "--out", out)
    (tmp_path / "half" / "trace.parquet").write_text("not one")
    assert "holds no readable trace" in refused("report", tmp_path / "half", "--out", out)
    for name, wrong in (("problem", [1]), ("hyperparameters", "x"), ("rel_gap", "y")):
        run(**{name: wrong}).save(tmp_path / "half")
        assert f"{name} in config.json must be" in refused("report", tmp_path / "half", "--out", out)
    for name, text in (("broken.json", "{"), ("list.json", "[1]"), ("other.json", '{"a": 1}'), ("words.txt", "hello")):
        (tmp_path / name).write_text(text)
        assert "figure" in refused("report", tmp_path / name, "--out", out)
    run().save(tmp_path / "a")
    assert "ending .html" in refused("report", tmp_path / "a", "--out", tmp_path / "report.pdf")
    assert "cannot write" in refused("report", tmp_path / "a", "--out", tmp_path / "words.txt" / "report.html")
    assert out.read_text() == "kept"
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_result_is_refused_in_python(tmp_path, monkeypatch):
    for nothing in ([], {}, {"a": []}, [3], {"a": [3]}):
        with pytest.raises(fl.InputError, match="report"):
            fl.report(nothing, tmp_path / "report.html")
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    with pytest.raises(fl.InputError, match="more than"):
        fl.report(geometric(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_page_that_would_be_too_large_keeps_fewer_records(tmp_path, monkeypatch):
    trace = geometric(rate=0.999, records=5000)
    size = fl.report(trace, tmp_path / "report.html").stat().st_size
    monkeypatch.setattr(page, "MOST_BYTES", size - 10_000)
    (problem,) = data_of(trace, tmp_path)["problems"]
    assert problem["thinned"] == 500
    assert problem["curves"][0]["lanes"][0]["hits"][0][0] == trace.reach(0.1)["step"]
