"""Pictures of sweeps hold what the table says: medians, bands, marks, words, and equal bytes."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, to_rgb

import fedjax_lc as fl
from fedjax_lc import plot
from fedjax_lc.results.table import Table
from tests.test_table import make

GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0)
COMPRESSORS = ("rand_k:1|natural", "natural")
SEEDS = 5
TARGET = 1e-4
BITS = {"rand_k:1|natural": 14.0, "natural": 99.0, None: 640.0}


def lane(method, compressor, gamma, seed):
    """(status, relative gaps): a noisy geometric decay that is too slow below gamma 0.5 and diverges from 3 on."""
    rng = np.random.default_rng([seed, int(100 * gamma), len(method), len(compressor or "")])
    rate = gamma * {"locodl": 0.3, "diana": 0.2, "gd": 0.01}[method] * np.exp(0.3 * rng.normal())
    if gamma * np.exp(0.5 * rng.normal()) > 3 and method != "gd":
        return "diverged", np.exp(np.arange(1, 9))
    gaps = np.exp(-rate * np.arange(1, 61))
    hit = np.flatnonzero(gaps <= TARGET)
    return ("target", gaps[: hit[0] + 1]) if len(hit) else ("finished", gaps)


def table(methods=("locodl", "diana", "gd"), gammas=GAMMAS, seeds=SEEDS, axes=True, f_star=1.0):
    lanes, records, facts = [], [], {}
    for method in methods:
        compressors = COMPRESSORS if method != "gd" else (None,)
        points = [(gamma, compressor) for gamma in gammas for compressor in compressors]
        for config, (gamma, compressor) in enumerate(points):
            for seed in range(seeds):
                status, gaps = lane(method, compressor, gamma, seed)
                step = 10.0 * np.arange(1, len(gaps) + 1)
                row = {"method": method, "config": config, "seed": seed, "gamma/theory": gamma, "gamma": gamma / 100}
                lanes.append(row | {"compressor": compressor, "status": status, "initial": 3.0, "f_star": f_star,
                                    "seconds": 1.0})  # fmt: skip
                bits = BITS[compressor] * step
                costs = {"bits_up": bits, "bits_down": 32 * step, "grads": step, "rounds": step / 5}
                record = {"lane": len(lanes) - 1, "step": step.astype(int), **costs, "value": 1 + 2 * gaps}
                records.append(pd.DataFrame(record | {"seconds": step / 1000}))
        names = ["gamma/theory"] + ["compressor"] * (method != "gd")
        values = {"gamma/theory": list(gammas), "compressor": list(COMPRESSORS)}
        facts[method] = {"axes": {name: values[name] for name in names} if axes else {}, "settings": names,
                         "hyperparameters": ["gamma", *names[1:]]}  # fmt: skip
    config = {"methods": facts, "rel_gap": TARGET, "seeds": list(range(seeds)), "metrics": []}
    order = ["method", "config", "seed", "gamma/theory", "compressor", "gamma"]
    frame = pd.DataFrame(lanes)
    return Table(frame[[*order, *frame.columns.drop(order)]], pd.concat(records, ignore_index=True), config)


def costs_of(swept, metric="bits_up", target=TARGET):
    """(method, compressor, gamma) -> sorted costs of its seeds, inf where one misses: one lane at a time."""
    found = {}
    for i, row in swept.lanes.iterrows():
        seen = swept.records[swept.records.lane == i]
        gaps = (seen.value - row.f_star) / (row.initial - row.f_star)
        hits = seen[gaps <= target]
        key = (row.method, row.compressor if isinstance(row.compressor, str) else None, row["gamma/theory"])
        total = hits.bits_up + 0.1 * hits.bits_down
        series = total if metric == "total_bits" else hits[metric]
        cost = np.inf if row.status == "diverged" or not len(hits) else series.iloc[0]
        found[key] = sorted([*found.get(key, []), cost])
    return found


def median(costs):
    return costs[len(costs) // 2]


def statuses(swept, method, compressor, gamma):
    lanes = swept.lanes
    mine = (lanes.method == method) & (lanes["gamma/theory"] == gamma)
    return lanes[mine if compressor is None else mine & (lanes.compressor == compressor)].status.tolist()


def by_gid(figure, gid):
    return [line for line in figure.axes[0].lines if line.get_gid() == gid]


def named(figure):
    """Legend text -> its line."""
    drawn = (line for line in figure.axes[0].lines if line.get_gid() is None and len(line.get_xdata()))
    return {line.get_label(): line for line in drawn}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def swept():
    made = table()
    medians = {key: median(costs) for key, costs in costs_of(made).items()}
    assert {np.isinf(cost) for cost in medians.values()} == {True, False}
    return made


# ---- best


def least(swept, method, metric="bits_up"):
    found = {key: median(costs) for key, costs in costs_of(swept, metric).items() if key[0] == method}
    return min(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("metric", ["bits_up", "rounds", "total_bits"])
def test_best_draws_the_least_median(swept, metric):
    figure = plot.best(swept, metric, down_weight=0.1)
    stars = by_gid(figure, "median")
    for place, (method, title) in enumerate((("locodl", "LoCoDL"), ("diana", "DIANA"))):
        (_, compressor, gamma), cost = least(swept, method, metric)
        label, line = list(named(figure).items())[place]
        assert label.startswith(f"{title} {compressor}, gamma = {gamma:g} \N{MULTIPLICATION SIGN} theory")
        assert (stars[place].get_xdata()[0], stars[place].get_ydata()[0]) == (pytest.approx(cost), TARGET)
        assert stars[place].get_color() == line.get_color()
    assert figure.axes[0].get_xlabel().startswith(plot.style.COST_LABELS[metric])
    (target,) = by_gid(figure, "target")
    assert set(target.get_ydata()) == {TARGET}


def test_best_line_and_band_are_those_of_its_seeds(swept):
    """The curve of the winner is `curves` of the traces found by hand."""
    (_, compressor, gamma), _ = least(swept, "locodl")
    lanes = swept.lanes[swept.lanes.method == "locodl"]
    mine = lanes[(lanes.compressor == compressor) & (lanes["gamma/theory"] == gamma)]
    expected = plot.curves({"LoCoDL": [swept.trace(i) for i in mine.index]}, band=(0.25, 0.75)).axes[0]
    drawn = plot.best(swept, band=(0.25, 0.75)).axes[0]
    np.testing.assert_array_equal(drawn.lines[0].get_xydata(), expected.lines[0].get_xydata())
    for collection, other in zip(drawn.collections[:1], expected.collections, strict=True):
        np.testing.assert_array_equal(collection.get_paths()[0].vertices, other.get_paths()[0].vertices)


def test_best_marks_a_method_that_never_reaches(swept):
    figure = plot.best(swept, note="my note")
    assert list(named(figure))[2] == "GD, gamma = 4 \N{MULTIPLICATION SIGN} theory (capped)"
    (mark,) = by_gid(figure, "capped")
    assert mark.get_color() == named(figure)["GD, gamma = 4 \N{MULTIPLICATION SIGN} theory (capped)"].get_color()
    assert not np.isfinite(by_gid(figure, "median")[2].get_xdata()[0])
    first, second, third = figure.axes[0].texts[0].get_text().split("\n")
    assert first == "my note"
    assert second == "each tuned for uplink bits per client to relative gap 1e-4 (star: its median)"
    assert third == "median of 5 seeds, band: least to most"


def test_best_calls_nobody_capped_who_reached_the_gap_asked_for(swept):
    """GD ends above the sweep's own 1e-4, but at less than 0.5 of where it began."""
    assert [text for text in legend(plot.best(swept, rel_gap=0.5)) if "capped" in text] == []


def test_best_by_group_and_other_axes(swept):
    figure = plot.best(swept, by=("compressor",), x="rounds")
    assert [label.split(",")[0] for label in named(figure)] == [
        "LoCoDL rand_k:1|natural", "LoCoDL natural", "DIANA rand_k:1|natural", "DIANA natural", "GD"]  # fmt: skip
    assert figure.axes[0].get_xlabel() == "communication rounds"
    assert not by_gid(figure, "median")
    assert plot.best(swept, "seconds").axes[0].get_xlabel() == "iterations"


def test_best_all_diverged():
    figure = plot.best(table(methods=["locodl"], gammas=(64.0, 128.0)))
    (label,) = named(figure)
    assert label.endswith("(diverged)")
    assert len(by_gid(figure, "diverged")) == 1


# ---- heat map


def cells(figure):
    (mesh,) = figure.axes[0].collections
    return mesh.get_array().filled(np.nan) if np.ma.isMaskedArray(mesh.get_array()) else np.asarray(mesh.get_array())


def missed_cells(figure, gid):
    return {(p.get_x() + 0.5, p.get_y() + 0.5) for p in figure.axes[0].patches if p.get_gid() == gid}


def test_none_is_a_value_of_an_axis_and_follows_the_numbers():
    """Ten rows, two rows, or no batches at all; a method without the axis is left out."""
    whole, batches = table(methods=["locodl", "gd"], gammas=(1.0, 2.0, 4.0)), {1.0: None, 2.0: 10, 4.0: 2}
    lanes = whole.lanes.assign(batch_size=whole.lanes["gamma/theory"].map(batches))
    lanes.loc[lanes["method"] == "gd", "batch_size"] = np.nan
    config = json.loads(json.dumps(whole.config))
    config["methods"]["locodl"]["hyperparameters"].append("batch_size")
    swept = Table(lanes, whole.records, config)
    figure = plot.heatmap(swept, "batch_size", "compressor", method="locodl")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["2", "10", "None"]
    assert cells(figure)[0, 2] == cells(plot.heatmap(whole, "gamma/theory", "compressor", method="locodl"))[0, 0]
    figure = plot.sensitivity(swept, "batch_size")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["2", "10", "None"]
    (label,) = named(figure)
    assert label.startswith("LoCoDL (best at ")


@pytest.mark.parametrize("metric", ["bits_up", "seconds"])
def test_heatmap_is_the_table_of_medians(swept, metric):
    figure = plot.heatmap(swept, "gamma/theory", "compressor", metric, method="diana")
    expected = costs_of(swept, metric)
    matrix = np.array([[median(expected["diana", c, g]) for g in GAMMAS] for c in COMPRESSORS])
    np.testing.assert_allclose(cells(figure), np.where(np.isfinite(matrix), matrix, np.nan))
    axes, scale = figure.axes
    assert isinstance(axes.collections[0].norm, LogNorm)
    assert scale.get_ylabel() == {"bits_up": "uplink bits per client", "seconds": "wall time (s)"}[metric] + (
        "\nto relative gap 1e-4"
    )
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.25", "0.5", "1", "2", "4"]
    assert [t.get_text() for t in axes.get_yticklabels()] == list(COMPRESSORS)
    assert axes.get_xlabel() == "gamma  (multiples of the theory's)"
    assert axes.get_title(loc="left") == "DIANA"
    row, column = np.unravel_index(np.argmin(matrix), matrix.shape)
    assert missed_cells(figure, "best") == {(column, row)}


def test_heatmap_marks_what_misses(swept):
    figure = plot.heatmap(swept, "gamma/theory", "compressor", method="diana")
    expected = {"capped": set(), "diverged": set()}
    for (method, compressor, gamma), costs in costs_of(swept).items():
        if method == "diana" and np.isinf(median(costs)):
            ends = statuses(swept, method, compressor, gamma)
            misses = len(costs) - np.isfinite(costs).sum()
            kind = "diverged" if 2 * ends.count("diverged") >= misses else "capped"
            expected[kind].add((GAMMAS.index(gamma), COMPRESSORS.index(compressor)))
    assert expected["capped"]
    assert expected["diverged"]
    assert {kind: missed_cells(figure, kind) for kind in expected} == expected
    crosses = {(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines}
    assert crosses == expected["diverged"]
    assert {line.get_marker() for line in figure.axes[0].lines} == {"x"}
    hatched = {(p.get_x() + 0.5, p.get_y() + 0.5) for p in figure.axes[0].patches if p.get_hatch()}
    assert hatched == expected["capped"]
    assert legend(figure) == ["best", "target not reached", "diverged"]


def test_heatmap_numbers_are_the_costs_in_readable_colours(swept):
    figure = plot.heatmap(swept, "gamma/theory", "compressor", method="locodl")
    found = costs_of(swept)
    texts = {text.get_position(): text for text in figure.axes[0].texts if text.get_text()[:1].isdigit()}
    (mesh,) = figure.axes[0].collections
    count = 0
    for (method, compressor, gamma), costs in found.items():
        if method != "locodl" or np.isinf(median(costs)):
            continue
        count += 1
        text = texts[GAMMAS.index(gamma), COMPRESSORS.index(compressor)]
        number, *share = text.get_text().split("\n")
        reached = sum(np.isfinite(costs))
        assert float(number) == pytest.approx(median(costs), rel=0.05)
        assert share == ([f"{reached}/5"] if reached < 5 else [])
        assert contrast(mesh.to_rgba(median(costs)), text.get_color()) > 4.5
    assert len(texts) == count


def contrast(one, other):
    """Contrast ratio of two colours, as the web guidelines for readable text define it (WCAG 2)."""
    light = sorted(luminance(to_rgb(colour)) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def luminance(rgb):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def test_heatmap_takes_the_best_over_other_axes(swept):
    figure = plot.heatmap(swept, "gamma/theory", "method", "total_bits", down_weight=0.1)
    found = costs_of(swept, "total_bits")
    for row, method in enumerate(("locodl", "diana", "gd")):
        for column, gamma in enumerate(GAMMAS):
            expected = min(median(costs) for key, costs in found.items() if key[0] == method and key[2] == gamma)
            drawn = cells(figure)[row, column]
            assert np.isnan(drawn) if np.isinf(expected) else drawn == pytest.approx(expected)
    assert figure.axes[0].texts[-1].get_text() == "median of 5 seeds; each cell at its best compressor"
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["LoCoDL", "DIANA", "GD"]


def test_heatmap_where_nothing_reaches():
    figure = plot.heatmap(table(methods=["diana"]), "gamma/theory", "compressor", rel_gap=0)
    assert len(figure.axes) == 1
    assert not figure.axes[0].collections
    assert len(missed_cells(figure, "capped") | missed_cells(figure, "diverged")) == 10
    assert "best" not in legend(figure)


# ---- sensitivity


def test_sensitivity_is_the_median_against_one_axis(swept):
    figure = plot.sensitivity(swept, "gamma/theory")
    found, axes = costs_of(swept), figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "uplink bits per client\nto relative gap 1e-4"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.25", "0.5", "1", "2", "4"]
    stars = by_gid(figure, "best")
    for place, (method, title) in enumerate((("locodl", "LoCoDL"), ("diana", "DIANA"))):
        line = list(named(figure).values())[place]
        options = [[found[method, c, g] for c in COMPRESSORS] for g in GAMMAS]
        expected = np.array([min(map(median, option)) for option in options])
        np.testing.assert_array_equal(line.get_xdata(), GAMMAS)
        np.testing.assert_allclose(line.get_ydata(), np.where(np.isfinite(expected), expected, np.nan))
        best = int(np.argmin(expected))
        assert line.get_label() == f"{title} (best at {GAMMAS[best]:g})"
        assert (stars[place].get_xdata()[0], stars[place].get_ydata()[0]) == (
            GAMMAS[best],
            pytest.approx(min(expected)),
        )
    assert list(named(figure))[2] == "GD (never at the target)"
    assert legend(figure) == [*named(figure), "target not reached", "diverged"]
    assert axes.texts[0].get_text() == "median of 5 seeds, band: least to most; each point at its best compressor"


def test_sensitivity_band_is_open_where_a_seed_misses(swept):
    figure = plot.sensitivity(swept, "gamma/theory", by=("compressor",))
    found, edge = costs_of(swept), by_gid(figure, "edge")[0].get_ydata()[0]
    corners = {}
    for path in figure.axes[0].collections[0].get_paths():
        for x, y in path.vertices:
            corners.setdefault(round(x, 6), set()).add(y)
    ends = {gamma: found["locodl", COMPRESSORS[0], gamma] for gamma in corners}
    for gamma, drawn in corners.items():
        assert np.isfinite(median(ends[gamma]))
        assert min(drawn) == pytest.approx(ends[gamma][0])
        assert max(drawn) == pytest.approx(min(ends[gamma][-1], edge))
    assert {np.isinf(costs[-1]) for costs in ends.values()} == {True, False}


def test_sensitivity_marks_what_misses_at_the_top(swept):
    figure = plot.sensitivity(swept, "gamma/theory", by=("compressor",))
    found = costs_of(swept)
    expected = {"capped": [], "diverged": []}
    for (method, compressor, gamma), costs in found.items():
        if np.isinf(median(costs)):
            ends = statuses(swept, method, compressor, gamma)
            kind = "diverged" if 2 * ends.count("diverged") >= len(costs) - np.isfinite(costs).sum() else "capped"
            expected[kind].append(gamma)
    axes = figure.axes[0]
    edge = axes.transAxes.inverted().transform(axes.transData.transform((1, by_gid(figure, "edge")[0].get_ydata()[0])))
    for kind, gammas in expected.items():
        marks = by_gid(figure, kind)
        assert sorted(mark.get_xdata()[0] for mark in marks) == sorted(gammas)
        assert {mark.get_marker() for mark in marks} == {plot.ENDINGS[kind]}
        assert all(edge[1] < mark.get_ydata()[0] < 1 for mark in marks)
    highest = max(np.nanmax(line.get_ydata()) for line in named(figure).values() if np.isfinite(line.get_ydata()).any())
    assert highest < by_gid(figure, "edge")[0].get_ydata()[0]
    assert max(axes.get_yticks()) <= by_gid(figure, "edge")[0].get_ydata()[0]


def test_sensitivity_to_words(swept):
    figure = plot.sensitivity(swept, "compressor", "rounds")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == list(COMPRESSORS)
    found = costs_of(swept, "rounds")
    line = named(figure)[next(label for label in named(figure) if label.startswith("DIANA"))]
    expected = [min(median(found["diana", c, g]) for g in GAMMAS) for c in COMPRESSORS]
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert legend(figure)[0].startswith("LoCoDL (best at ")


def test_samples_are_points_and_grids_are_lines():
    rows = table(methods=["locodl"], gammas=tuple(np.geomspace(0.5, 2, 6)))
    lanes = rows.lanes[(rows.lanes["config"] % 4).isin([0, 3])]  # one compressor for each gamma: no product
    number = pd.Series(range(len(lanes)), index=lanes.index)
    records = rows.records[rows.records["lane"].isin(lanes.index)]
    facts = {"locodl": rows.config["methods"]["locodl"] | {"axes": {}}}
    sample = Table(
        lanes.reset_index(drop=True), records.assign(lane=records["lane"].map(number)), rows.config | {"methods": facts}
    )
    assert {line.get_linestyle() for line in named(plot.sensitivity(sample, "gamma/theory")).values()} == {"None"}
    assert {line.get_linestyle() for line in named(plot.sensitivity(rows, "gamma/theory")).values()} == {"-"}


# ---- all three


PICTURES = {
    "best": lambda swept, **options: plot.best(swept, **options),
    "heatmap": lambda swept, **options: plot.heatmap(swept, "gamma/theory", "compressor", method="locodl", **options),
    "sensitivity": lambda swept, **options: plot.sensitivity(swept, "gamma/theory", **options),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_files_are_equal_bytes(swept, tmp_path, name):
    for kind in ("png", "svg"):
        first, again = tmp_path / f"first.{kind}", tmp_path / f"again.{kind}"
        PICTURES[name](swept, path=first)
        plot.save(PICTURES[name](swept), again)
        assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", PICTURES)
def test_words_do_not_meet(swept, name):
    figure = PICTURES[name](swept, title="a title", note="a note")
    figure.draw_without_rendering()
    axes, shown = figure.axes[0], figure.legends[0].get_window_extent()
    assert not any(shown.overlaps(other.get_tightbbox()) for other in figure.axes)
    for axis in (axes.xaxis, axes.yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
        assert not any(one.overlaps(two) for one, two in itertools.pairwise(boxes))
    title, small = axes._left_title.get_window_extent(), axes.texts[0].get_window_extent()
    assert not title.overlaps(small)
    assert max(title.x1, small.x1, shown.x1) <= figure.bbox.x1
    assert min(shown.x0, shown.y0) >= 0


@pytest.mark.parametrize("name", PICTURES)
def test_no_optimum_is_one_line(name):
    with pytest.raises(fl.InputError) as error:
        PICTURES[name](table(methods=["locodl"], seeds=1, f_star=np.nan))
    assert "needs a known optimum" in str(error.value)
    assert "\n" not in str(error.value)


AXES = "known: compressor, gamma, gamma/theory, method"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda t: plot.sensitivity(t, "gama"), f"unknown axis 'gama': did you mean 'gamma'? ({AXES})"),
        (lambda t: plot.heatmap(t, "gama", "compressor"), f"unknown axis 'gama': did you mean 'gamma'? ({AXES})"),
        (
            lambda t: plot.best(t, by="compresor"),
            f"unknown axis 'compresor': did you mean 'compressor'? ({AXES})",
        ),
        (
            lambda t: plot.best(t, "bitsup"),
            "unknown metric 'bitsup': did you mean 'bits_up'? "
            "(known: bits_down, bits_up, grads, rounds, seconds, step, "
            "total_bits, value)",
        ),
        (
            lambda t: plot.heatmap(t, "gamma/theory", "compressor"),
            "this table holds 3 methods (locodl, diana, gd): choose one by method=",
        ),
        (
            lambda t: plot.heatmap(t, "gamma/theory", "compressor", method="dana"),
            "unknown method 'dana': did you mean 'diana'? (known: diana, gd, locodl)",
        ),
        (
            lambda t: plot.heatmap(t, "gamma", "gamma"),
            "x and y must be two different axes of the sweep, got 'gamma' twice",
        ),
        (
            lambda t: plot.heatmap(t, "gamma", "gamma/theory", method="gd"),
            "no value of gamma or gamma/theory repeats, so their pairs make no map: use plot.sensitivity",
        ),
        (
            lambda t: plot.heatmap(t, "gamma", "compressor", method="gd"),
            "gd has no value of gamma or none of compressor, so there is no map: choose other axes",
        ),
        (
            lambda t: plot.sensitivity(t, "gamma", by="gamma"),
            "x='gamma' is also in by, so that each line would be a point: choose another of them",
        ),
        (
            lambda t: plot.sensitivity(table(methods=["gd"], gammas=(2.0,)), "gamma/theory"),
            "sensitivity to gamma/theory needs two or more values of it, and this table has the one value 2: sweep it",
        ),
    ],
)
def test_bad_input_is_one_line(swept, draw, message):
    with pytest.raises(fl.InputError) as error:
        draw(swept)
    assert str(error.value) == message


def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, fedjax_lc; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_largest_accuracy_is_the_best():
    """Outlined in the map, starred on the line."""
    axes = {"gamma/theory": [0.5, 1.0, 2.0], "p": [0.1, 0.2]}
    table = make(axes=axes, seeds=(0,), metrics=["accuracy"])
    table.lanes["status"] = "finished"
    ends = {config: 0.3 + 0.1 * config for config in range(6)}  # the last configuration is the best
    accuracy = table.records["lane"].map(lambda lane: ends[table.lanes["config"][lane]])
    table = Table(table.lanes, table.records.drop(columns="grad_norm").assign(accuracy=accuracy), table.config)
    heat = plot.heatmap(table, "gamma/theory", "p", "accuracy").axes[0]
    (box, *_) = [patch for patch in heat.patches if patch.get_gid() == "best"]
    assert (round(box.get_x() + 0.5), round(box.get_y() + 0.5)) == (2, 1)
    line = plot.sensitivity(table, "gamma/theory", "accuracy")
    (star,) = [drawn for drawn in line.axes[0].lines if drawn.get_gid() == "best"]
    assert star.get_xdata() == [2.0]
    assert "best at 2" in line.legends[0].get_texts()[0].get_text()
