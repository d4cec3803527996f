import dataclasses

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import plot
from fedjax_lc.results import ledger


def geometric(rate=0.9, records=30, every=1, bits=100.0, method="toy", status="target", rel_gap=1e-9, noise=None):
    """A trace with F* = 2, F(x_0) = 5 and relative gap rate^step (times noise), `bits` up and a tenth of them down."""
    step = every * np.arange(1, records + 1)
    gap = 3 * rate**step * (1 if noise is None else noise)
    return fl.Trace(
        method=method,
        status=status,
        step=step,
        value=2 + gap,
        bits_up=bits * step,
        bits_down=bits / 10 * step,
        grads=2.0 * step,
        rounds=step / 4,
        metrics={"test_accuracy": 1 - rate**step, "distance": rate**step},
        initial={"value": 5.0, "test_accuracy": 0.0, "distance": 1.0},
        f_star=2.0,
        config={"rel_gap": rel_gap},
    )


def lines(figure):
    """Label -> its line; the marks at curves' ends and theory lines are by gid."""
    return {line.get_label(): line for line in figure.axes[0].lines if line.get_gid() is None}


def by_gid(figure, gid):
    return [line for line in figure.axes[0].lines if line.get_gid() == gid]


@pytest.fixture(scope="module")
def traces():
    run = lambda name, steps: fl.run(name, quadratic(), steps=steps, every=5, rel_gap=1e-8)
    return [run("gd", 400), run("locodl", 20)]


def quadratic():
    rng = np.random.default_rng(0)
    return fl.problems.quadratic(rng.uniform(1, 10, (4, 6)), rng.normal(size=(4, 6)))


def test_line_is_the_trace_on_log_axes(traces):
    figure = plot.curves(traces)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "uplink bits per client"
    gd, locodl = lines(figure).values()
    for line, trace in ((gd, traces[0]), (locodl, traces[1])):
        sent = trace.bits_up > 0
        np.testing.assert_array_equal(line.get_xdata(), trace.bits_up[sent])
        np.testing.assert_array_equal(line.get_ydata(), trace.rel_gap[sent])
    assert gd.get_label() == "GD"
    assert locodl.get_label() == f"LoCoDL {traces[1].config['hyperparameters']['compressor']} (capped)"


@pytest.mark.parametrize(
    ("x", "label", "cost"),
    [
        ("rounds", "communication rounds", lambda t: t.rounds),
        ("step", "iterations", lambda t: t.step),
        ("grads", "local gradients per client", lambda t: t.grads),
    ],
)
def test_linear_axes_start_at_the_start(x, label, cost):
    trace = geometric()
    figure = plot.curves(trace, x=x)
    assert figure.axes[0].get_xscale() == "linear"
    assert figure.axes[0].get_xlabel() == label
    line = lines(figure)["toy"]
    np.testing.assert_array_equal(line.get_xdata(), [0, *cost(trace)])
    np.testing.assert_array_equal(line.get_ydata(), [1, *trace.rel_gap])


def test_total_bits_and_time():
    trace = geometric()
    figure = plot.curves(trace, x="total_bits", down_weight=0.5)
    np.testing.assert_allclose(lines(figure)["toy"].get_xdata(), 105 * trace.step, rtol=1e-15)
    assert figure.axes[0].get_xlabel() == r"total bits per client (up + 0.5 $\times$ down)"
    model = {"latency": 0.1, "up_bandwidth": 1e3, "seconds_per_gradient": 0.01}
    figure = plot.curves(trace, x="time", time_model=model, note="small print")
    np.testing.assert_array_equal(lines(figure)["toy"].get_xdata()[1:], ledger.simulated_time(trace, **model))
    assert figure.axes[0].get_xlabel() == "simulated time (s)"
    assert figure.axes[0].texts[0].get_text() == "small print\n0.1 s a round, 1000 bit/s up, 0.01 s a gradient"


def test_other_y_axes_and_their_scale():
    trace = geometric(rate=0.8)
    for y, scale, series in (
        ("gap", "log", trace.gap),
        ("value", "linear", trace.value),
        ("test_accuracy", "linear", trace.metrics["test_accuracy"]),
        ("distance", "log", trace.metrics["distance"]),
    ):
        figure = plot.curves(trace, y=y)
        assert figure.axes[0].get_yscale() == scale
        np.testing.assert_array_equal(lines(figure)["toy"].get_ydata(), series)
    assert plot.curves(trace, y="value", log_y=True, log_x=False).axes[0].get_yscale() == "log"


def test_seeds_on_different_grids_are_interpolated_in_log_y():
    """The same log-linear curve, seen at other x: median and band fall together on it and end with the shortest."""
    seeds = [geometric(every=3, records=12), geometric(every=4, records=6), geometric(every=5, records=9)]
    figure = plot.curves({"toy": seeds}, x="bits_up")
    line = lines(figure)["toy"]
    grid = sorted({100 * k for every in (3, 4, 5) for k in range(every, 25, every)})
    np.testing.assert_array_equal(line.get_xdata(), grid)
    np.testing.assert_allclose(line.get_ydata(), 0.9 ** (np.array(grid) / 100), rtol=1e-12)
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(corners[:, 1], 0.9 ** (corners[:, 0] / 100), rtol=1e-12)


@pytest.mark.parametrize("band", [(0.0, 1.0), (0.25, 0.75)])
def test_band_holds_the_median(band):
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(size=(5, 30)))
    figure = plot.curves({"toy": [geometric(noise=row) for row in noise]}, band=band)
    line, corners = lines(figure)["toy"], figure.axes[0].collections[0].get_paths()[0].vertices
    shares = np.log(noise) + np.log(0.9) * np.arange(1, 31)
    np.testing.assert_allclose(np.log(line.get_ydata()), np.median(shares, axis=0), atol=1e-9)
    for x, y, column in zip(line.get_xdata(), line.get_ydata(), shares.T, strict=True):
        edge = corners[np.isclose(corners[:, 0], x), 1]
        assert edge.min() < y < edge.max()
        np.testing.assert_allclose(np.log([edge.min(), edge.max()]), np.quantile(column, band), atol=1e-9)


def test_records_that_cost_nothing_keep_the_latest():
    """Local steps send nothing: the x axis stands still, and a seed's y there is that of its last record."""
    still = geometric(records=4)
    still.bits_up = np.array([100.0, 100.0, 100.0, 200.0])
    figure = plot.curves({"toy": [still, still]})
    np.testing.assert_allclose(lines(figure)["toy"].get_ydata(), [0.9**3, 0.9**4], rtol=1e-12)


def test_endings_are_marked():
    capped = geometric(status="finished", method="capped_one")
    diverged = geometric(rate=1.5, status="diverged", method="diverged_one")
    free = geometric(status="finished", rel_gap=None, method="free")
    figure = plot.curves([capped, diverged, free, geometric(method="reached")])
    assert list(lines(figure)) == ["capped_one (capped)", "diverged_one (diverged)", "free", "reached"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines(figure))
    for ending, trace in (("capped", capped), ("diverged", diverged)):
        (mark,) = by_gid(figure, ending)
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (trace.bits_up[-1], trace.rel_gap[-1])
        assert mark.get_marker() == plot.ENDINGS[ending]
    seeds = [capped, geometric(), geometric()]
    assert list(lines(plot.curves({"toy": seeds}))) == ["toy (1 of 3 capped)"]


def test_diverged_at_once_keeps_its_place_in_the_legend(tmp_path):
    """No record at all: nothing to draw on log axes, one point (the start) on linear ones."""
    empty = geometric(records=0, status="diverged")
    for traces in ({"a": empty, "b": geometric()}, {"a": [empty, geometric()], "b": geometric()}):
        figure = plot.curves(traces, path=tmp_path / "plot.png")
        (a, first), (_, second) = lines(figure).items()
        assert a in ("a (diverged)", "a (1 of 2 diverged)")
        assert (len(first.get_xdata()), len(second.get_xdata())) == (0, 30)
    plot.curves(empty, x="step", path=tmp_path / "plot.png")


def test_gaps_below_resolution_are_left_out():
    trace = geometric(records=5)
    trace.value[2] = trace.f_star
    trace.value[3] = trace.f_star - 1e-12
    line = lines(plot.curves(trace))["toy"]
    np.testing.assert_array_equal(line.get_xdata(), trace.bits_up[[0, 1, 4]])


def test_long_curves_are_thinned_to_their_outline():
    rng = np.random.default_rng(1)
    trace = geometric(rate=0.9999, records=50_000, noise=np.exp(rng.normal(size=50_000) / 5))
    line = lines(plot.curves(trace, x="step", theory={"toy": 0.9999}))["toy"]
    x, y = line.get_xdata(), line.get_ydata()
    assert 1000 < len(x) <= plot.MAX_POINTS
    assert (x[0], x[-1]) == (0, 50_000)
    np.testing.assert_array_equal(y[1:], trace.rel_gap[x[1:].astype(int) - 1])
    assert {y.min(), y.max()} == {trace.rel_gap.min(), max(1, trace.rel_gap.max())}


def test_theory_is_dashed_from_the_start():
    trace = geometric(records=50, every=2)
    figure = plot.curves({"A": geometric(rate=0.5, records=20), "B": trace}, x="rounds", theory={"B": 0.95})
    (bound,) = by_gid(figure, "theory")
    np.testing.assert_allclose(bound.get_ydata(), 0.95 ** np.arange(0, 101, 2), rtol=1e-12)
    np.testing.assert_array_equal(bound.get_xdata(), [0, *trace.rounds])
    assert bound.get_linestyle() == "--"
    assert bound.get_color() == lines(figure)["B"].get_color()
    assert figure.legends[0].get_texts()[-1].get_text() == "rate of the theory"


def test_rates_that_runs_keep_are_drawn_beside_their_lyapunov_functions(problem):
    """Of lyapunov, whatever the x axis; hyperparameters that no theorem covers have none."""
    gd = fl.algorithms.get("gd").theory(problem)
    run = lambda name, hp: fl.run(name, problem, hp, steps=20, every=1, measure="lyapunov", progress=False)
    kept, agd = run("gd", gd), run("agd", fl.algorithms.get("agd").theory(problem))
    figure = plot.curves({"GD": kept, "AGD": agd}, theory=True)
    bound, _ = by_gid(figure, "theory")
    rate = float(fl.algorithms.get("gd").rate(problem, gd))
    np.testing.assert_allclose(bound.get_ydata(), kept.initial["lyapunov"] * rate ** np.arange(1, 21), rtol=1e-12)
    for trace in (kept, agd):
        psi = np.concatenate([[trace.initial["lyapunov"]], trace.metrics["lyapunov"]])
        assert np.all(psi <= psi[0] * trace.config["rate"] ** np.arange(21) * (1 + 1e-9))
    diana = fl.algorithms.get("diana").theory(problem)
    assert run("diana", diana).config["rate"] is not None
    for change in ({"gamma": 1.1 * diana.gamma}, {"momentum": 0.5}, {"batch_size": 2}):
        assert run("diana", dataclasses.replace(diana, **change)).config["rate"] is None
    with pytest.raises(fl.InputError, match="a proven rate"):
        plot.curves(fl.run("gd", problem, gd, steps=20, every=1, progress=False), theory=True)


def test_twenty_curves_look_different_even_in_grey():
    figure = plot.curves([geometric(rate=0.9 - 0.02 * i) for i in range(20)])
    drawn = list(lines(figure).values())[:20]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 20
    assert len({(line.get_linestyle(), line.get_marker()) for line in drawn}) == 20
    assert list(lines(figure))[:3] == ["toy", "toy #2", "toy #3"]
    assert len({line.get_marker() for line in drawn[:9]}) == 9


def test_markers_are_few_and_spread_on_a_rough_curve():
    noise = np.exp(np.random.default_rng(2).normal(size=1500))
    line = lines(plot.curves(geometric(rate=0.99, records=1500, noise=noise)))["toy"]
    places = np.array(line.get_markevery())
    assert len(places) == 8
    u = np.log(line.get_xdata()) / np.log(1500) - np.log(line.get_ydata()) / (-1500 * np.log(0.99))
    assert np.diff(u[places]).max() < 0.6


def test_files_are_equal_bytes_in_every_format(tmp_path, traces):
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, again = tmp_path / f"new/first.{kind}", tmp_path / f"again.{kind}"
        plot.curves({"a": traces[0], "b": [traces[1]] * 2}, path=first)
        plot.save(plot.curves({"a": traces[0], "b": [traces[1]] * 2}), again)
        assert first.read_bytes().startswith(magic)
        assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["first.pdf", "first.png", "first.svg"]


def test_a_notebook_shows_the_figure():
    assert plot.curves(geometric())._repr_png_().startswith(b"\x89PNG")


def test_legend_covers_nothing():
    figure = plot.curves([geometric(method=f"a method with a long name {i}") for i in range(6)], title="t", note="n")
    figure.draw_without_rendering()
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_tightbbox()
    assert not legend.overlaps(axes)
    assert min(legend.x0, legend.y0, figure.bbox.x1 - legend.x1) >= 0
    title, small = figure.axes[0]._left_title.get_window_extent(), figure.axes[0].texts[0].get_window_extent()
    assert not title.overlaps(small)


X_KNOWN = "bits_down, bits_up, grads, rounds, step, time, total_bits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "bit_up"}, f"unknown x axis 'bit_up': did you mean 'bits_up'? (known: {X_KNOWN})"),
        (
            {"y": "relgap"},
            "unknown y axis 'relgap': did you mean 'rel_gap'? (known: distance, gap, rel_gap, test_accuracy, value)",
        ),
        (
            {"x": "time"},
            "x='time' needs time_model, a dict of latency, up_bandwidth, down_bandwidth, seconds_per_gradient",
        ),
        (
            {"x": "time", "time_model": {"latncy": 1}},
            "unknown time_model entry 'latncy': did you mean 'latency'? (known: down_bandwidth, latency, "
            "seconds_per_gradient, up_bandwidth)",
        ),
        ({"theory": {"toi": 0.9}}, "unknown theory label 'toi': did you mean 'toy'? (known: toy)"),
        ({"labels": ["a", "b"]}, "labels must be 1 different names, one per curve, got ['a', 'b']"),
        ({"path": "plot.jpg"}, "unknown picture format 'jpg': did you mean 'png'? (known: pdf, png, svg)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(fl.InputError) as error:
        plot.curves({"toy": geometric()}, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("nothing", [[], {}, {"a": []}])
def test_nothing_to_plot(nothing):
    with pytest.raises(fl.InputError) as error:
        plot.curves(nothing)
    assert str(error.value) == "nothing to plot: every label needs at least one trace, got none"


def test_no_optimum():
    trace = geometric()
    trace.f_star = np.nan
    with pytest.raises(fl.InputError) as error:
        plot.curves(trace, y="rel_gap")
    assert str(error.value) == "y='rel_gap' needs a known optimum, and a trace has none: use y='value'"
    assert len(lines(plot.curves(trace, y="value"))["toy"].get_xdata()) == 30
    y_label = lambda **metrics: plot.curves(dataclasses.replace(trace, metrics=metrics)).axes[0].get_ylabel()
    assert y_label() == r"$F(x)$"
    assert y_label(test_accuracy=np.linspace(0.1, 0.9, len(trace))) == "accuracy on the test set"
