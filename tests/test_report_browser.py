"""The HTML report in a real browser, as wide as a desk and as a phone: curves, switches, sliders, tables, paper."""

import dataclasses
import json

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.pages import embed
from fedjax_lc.results import ledger
from tests.browser import browser
from tests.test_plot import geometric
from tests.test_plot_sweeps import costs_of, median, table
from tests.test_report import EVIL

DESK, PHONE = (1280, 900), (390, 844)
MAP = "document.querySelector('.plot.map').data.find((trace) => trace.meta === 'map').z"
#: the least ratio of luminances of a text and what is behind it
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const kinds = 'h1, h2, h3, h4, p, label, output, button, select, td, th, dt, dd, summary, figcaption, code';
  const texts = [...document.querySelectorAll(kinds)].filter((element) => element.offsetParent);
  return Math.min(...texts.map((element) => {
    const both = [rgb(getComputedStyle(element).color), behind(element)].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  }));
}"""
SLOPES = {"a": 0.9, "b": 0.8}


@pytest.fixture(scope="module")
def chromium():
    with browser() as (launched, reason):
        if launched is None:
            pytest.skip(f"no report was looked at: {reason}")
        yield launched


@pytest.fixture
def show(chromium, tmp_path):
    """Write a report and open it offline; at the end nothing was complained of, loaded or wider than the window."""
    contexts, troubles = [], []

    def opened(results, size=DESK, **options):
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            has_touch=size == PHONE,
            is_mobile=size == PHONE,
            offline=True,
        )
        page = context.new_page()
        contexts.append((context, page))
        page.on(
            "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on(
            "request", lambda request: troubles.append(request.url) if request.url[:4] not in ("file", "data") else None
        )
        page.goto(fl.report(results, tmp_path / f"{len(contexts)}.html", **options).as_uri())
        page.wait_for_selector(".plot .main-svg")
        return page

    yield opened
    for context, page in contexts:
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        context.close()
    assert troubles == []


def curves(page, place=0, kind="curve"):
    """Label -> the points of the curves that a chart draws."""
    script = """([place, kind]) => document.querySelectorAll('.plot')[place].data.filter((trace) => trace.meta === kind)
        .map((trace) => [trace.name, [...trace.x], [...trace.y]])"""
    return {name: (np.array(x, float), np.array(y, float)) for name, x, y in page.evaluate(script, [place, kind])}


def axis(page, name="xaxis", place=0):
    about = page.evaluate("([place, name]) => document.querySelectorAll('.plot')[place].layout[name]", [place, name])
    return about["title"]["text"], about["type"]


def slide(page, label, value):
    page.get_by_label(label).evaluate(
        "(range, value) => { range.value = value; range.dispatchEvent(new Event('input')); }", value
    )
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def column(page, name, head):
    """The texts of a column of a table."""
    script = """([name, head]) => { const table = document.querySelector(`[aria-label="${name}"] table`);
        const place = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith(head));
        return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent); }"""
    return page.evaluate(script, [name, head])


def two():
    return {
        name: geometric(rate=rate, status="finished", bits=200.0 * (name == "b") + 100) for name, rate in SLOPES.items()
    }


@pytest.mark.parametrize("size", [pytest.param(DESK, marks=pytest.mark.slow), PHONE], ids=["desk", "phone"])
def test_curves_are_there_and_the_axis_switches(show, size):
    page, traces = show(two(), size), two()
    assert axis(page) == ("uplink bits per client", "log")
    assert axis(page, "yaxis") == ("relative gap (F(x) - F*)/(F(x⁰) - F*)", "log")
    for name, (x, y) in curves(page).items():
        np.testing.assert_array_equal(x[1:], traces[name].bits_up)
        np.testing.assert_array_equal(y[1:], traces[name].rel_gap)
    page.get_by_label("Against").select_option("rounds")
    assert axis(page) == ("communication rounds", "linear")
    np.testing.assert_array_equal(curves(page)["b"][0][1:], traces["b"].rounds)
    drawn = page.evaluate("document.querySelectorAll('.plot .scatterlayer .trace path.js-line').length")
    assert drawn >= 2


@pytest.mark.slow
def test_axes_outcomes_and_scales_are_switched(show):
    page, trace = show(two()), two()["a"]
    for kind in ("step", "grads", "bits_down"):
        page.get_by_label("Against").select_option(kind)
        np.testing.assert_array_equal(curves(page)["a"][0][1:], getattr(trace, kind))
    page.get_by_label("Show", exact=True).select_option("accuracy")
    np.testing.assert_array_equal(curves(page)["a"][1], [0.0, *trace.metrics["accuracy"]])
    assert axis(page, "yaxis") == ("accuracy on the test set", "linear")
    page.get_by_label("log x").check()
    assert axis(page)[1] == "log"
    page.get_by_label("Show", exact=True).select_option("gap")
    page.get_by_label("log y").uncheck()
    assert axis(page, "yaxis")[1] == "linear"
    np.testing.assert_array_equal(curves(page)["a"][1][1:], trace.gap)


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_sliders_change_prices_curves_and_winners(show, size):
    page, traces = show(two(), size), two()
    page.get_by_label("Against").select_option("total_bits")
    np.testing.assert_allclose(curves(page)["a"][0][1:], ledger.total_bits(traces["a"]), rtol=1e-14)
    slide(page, "Price of a downlink bit", 20)
    assert axis(page)[0] == "total bits per client (up + 0.1 × down)"
    np.testing.assert_allclose(curves(page)["a"][0][1:], ledger.total_bits(traces["a"], 0.1), rtol=1e-14)
    slide(page, "Price of a downlink bit", 0)
    np.testing.assert_allclose(curves(page)["a"][0][1:], traces["a"].bits_up, rtol=1e-14)
    page.get_by_label("Against").select_option("time")
    asked = {"Uplink of a client": 40, "Downlink of a client": 101, "Latency of a round": 400, "A local gradient": 0}
    for label, place in asked.items():
        slide(page, label, place)
    seconds = ledger.simulated_time(traces["b"], latency=1.0, up_bandwidth=1e4)
    np.testing.assert_allclose(curves(page)["b"][0], [0.0, *seconds], rtol=1e-14)
    assert "no limit" in page.locator("details.prices summary").text_content()
    page.get_by_label("Compare by").select_option(label="relative gap 1e-1")
    slow, fast = (traces[name].reach(0.1) for name in "ab")
    winners, least = column(page, "who won", "first"), column(page, "who won", "cost")
    winner = "a" if slow["bits_up"] < fast["bits_up"] else "b"
    assert (winners[0], least[0]) == (winner, f"{min(slow['bits_up'], fast['bits_up']):,.0f}")
    assert len(winners) == 5


@pytest.mark.slow
def test_equals_share_the_first_place(show):
    page = show(
        {"a": geometric(records=200), "b": geometric(records=200, bits=300.0), "c": geometric(0.95, records=500)}
    )
    page.get_by_label("Compare by").select_option(label="relative gap 1e-3")
    assert column(page, "who won", "first") == ["a", "a", "a; b", "a; b", "a"]
    assert column(page, "who won", "second") == ["c", "c", "c", "c", "b"]


@pytest.mark.slow
def test_the_legend_hides_and_shows_by_mouse_and_keys(show):
    page = show(two())
    legend = page.get_by_role("group", name="Curves")
    legend.get_by_role("button").first.click()
    assert [*curves(page)] == ["b"]
    assert legend.get_by_role("button").first.get_attribute("aria-pressed") == "false"
    legend.get_by_role("button").first.focus()
    page.keyboard.press("Enter")
    assert [*curves(page)] == ["a", "b"]
    legend.get_by_role("button").first.dblclick()
    assert [*curves(page)] == ["a"]
    legend.get_by_role("button", name="Show all").click()
    assert [*curves(page)] == ["a", "b"]


@pytest.mark.slow
def test_seeds_are_a_median_and_a_band(show):
    rng = np.random.default_rng(0)
    seeds = [geometric(noise=np.exp(rng.normal(size=30) / 4)) for _ in range(3)]
    page = show({"seeds": seeds})
    ((x, y),) = curves(page).values()
    gaps = np.array([trace.rel_gap for trace in seeds])
    np.testing.assert_array_equal(x[-30:], seeds[0].bits_up)
    np.testing.assert_allclose(y[-30:], np.median(gaps, axis=0), rtol=1e-12)
    bands = page.evaluate("document.querySelector('.plot').data.filter((t) => t.meta === 'band').map((t) => [...t.y])")
    np.testing.assert_allclose(np.array(bands)[:, -30:], [gaps.min(axis=0), gaps.max(axis=0)], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_sweep_has_a_map_lines_and_a_table_that_sorts(show, size):
    swept = table(methods=("locodl", "diana"))
    page, costs = show({"tuning": swept}, size), costs_of(swept)
    best = swept.best("bits_up")
    assert len(curves(page)) == 2
    top = best.sort_values("median").iloc[0]
    assert column(page, "configurations of tuning", "reached")[0] == f"{top['reached']} of {top['seeds']}"
    shown = column(page, "configurations of tuning", "uplink bits")
    medians = sorted(median(each) for each in costs.values())
    assert shown == [f"{cost:,.0f}" if np.isfinite(cost) else "–" for cost in medians]
    page.get_by_role("button", name="gamma (× theory's)").click()
    gammas = [float(text) for text in column(page, "configurations of tuning", "gamma")]
    assert gammas == sorted(gammas)
    page.get_by_role("button", name="gamma (× theory's)").click()
    assert [float(text) for text in column(page, "configurations of tuning", "gamma")] == sorted(gammas, reverse=True)
    cells = page.evaluate(MAP)
    grid = [[min(median(costs[method, compressor, gamma]) for method in ("locodl", "diana"))
             for gamma in (0.25, 0.5, 1.0, 2.0, 4.0)] for compressor in ("rand_k:1|natural", "natural")]  # fmt: skip
    z = np.array(cells, float)
    np.testing.assert_allclose(10 ** z[np.isfinite(z)], np.array(grid)[np.isfinite(grid)], rtol=1e-12)
    page.get_by_label("Method", exact=True).select_option("LoCoDL")
    best_of = 10 ** min(value for row in page.evaluate(MAP) for value in row if value is not None)
    assert best_of == pytest.approx(best.set_index("method")["median"]["locodl"], rel=1e-12)
    lines = page.evaluate("document.querySelector('.plot.parallel').data.map((t) => t.x.filter((x) => x === 0).length)")
    assert sum(lines) == len(costs)
    page.get_by_role("checkbox", name="draw").nth(0).click()
    assert len(curves(page)) in (1, 3)
    page.get_by_role("button", name="Draw the best of each method again").click()
    assert len(curves(page)) == 2
    page.get_by_label("Compare by").select_option(label="F(x), at the end")
    assert all(text for text in column(page, "configurations of tuning", "at the end"))


@pytest.mark.slow
def test_a_configuration_without_records_can_win_and_is_not_drawn(show, monkeypatch):
    monkeypatch.setattr(embed, "MOST_DRAWN", 5)
    swept = table(methods=("locodl",), gammas=(0.5, 1.0))
    page = show({"tuning": swept})
    assert len(curves(page)) == 1
    assert column(page, "configurations of tuning", "draw").count("–") == 3
    for kind, cost in zip(("bits_up", "rounds"), (0, 2), strict=True):
        assert column(page, "who won", "cost")[cost] == f"{swept.best(kind)['median'][0]:,.0f}"


@pytest.mark.slow
def test_a_picture_of_the_curves_can_be_had(show):
    page = show({"a": geometric()})
    page.hover(".plot")
    with page.expect_download() as download:
        page.locator(".modebar-btn[data-title*='Download']").click()
    assert download.value.path().read_text().startswith("<svg")


@pytest.mark.slow
def test_samples_are_a_cloud_and_single_axes_a_row(show):
    swept = table(methods=("locodl",), axes=False)
    swept.lanes["gamma/theory"] = swept.lanes["config"] + 0.5
    swept.lanes["compressor"] = None
    swept.lanes["gamma"] = 1.0
    page = show(swept)
    assert page.evaluate("document.querySelector('.plot.map').data[0].type") == "heatmap"
    swept.config["methods"]["locodl"]["settings"] = ["gamma/theory", "gamma"]
    swept.lanes["gamma"] = np.sqrt(swept.lanes["config"] + 1)
    page = show(swept)
    marks = page.evaluate("document.querySelector('.plot.map').data.map((t) => [t.mode, t.x.length])")
    assert [mode for mode, _ in marks] == ["markers", "markers"]
    assert sum(count for _, count in marks) == 10


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_problems_side_by_side_are_announced_and_figures_are_drawn(show, size, tmp_path):
    other = dataclasses.replace(geometric(), config={"problem": {"clients": 7, "dim": 3}})
    facts = {"title": "Floors", "claims": {"A < B": "does not hold"}}
    facts |= {"curves": {"A": {"bits_up": 1e3}, "B": {"bits_up": 1e5}}}
    facts |= {"floors": {"A": [{"factor": 1, "floor": 0.1}, {"factor": 10, "floor": 1e-5}]}}
    (tmp_path / "fig.json").write_text(json.dumps(facts))
    page = show({"a": geometric(), "b": other, "": tmp_path / "fig.json"}, size)
    assert "2 different problems" in page.locator(".notice").text_content()
    assert page.locator("#sections a").count() == 3
    assert page.locator(".fails").text_content() == "✗ does not hold"
    assert page.evaluate("document.querySelector('.plot.dots').data[0].x") == [1e5, 1e3]
    assert axis(page, "yaxis", 3) == ("floors: floor", "log")
    page.get_by_role("button", name="bits_up").click()
    assert column(page, "curves", "bits_up") == ["1,000", "100,000"]


@pytest.mark.slow
def test_names_are_shown_as_they_are(show):
    evil = dataclasses.replace(geometric(), metrics={EVIL: geometric().metrics["accuracy"]})
    evil.config |= {"command": EVIL, "hyperparameters": {EVIL: EVIL}, "problem": {EVIL: EVIL}}
    swept = table(methods=("locodl",), seeds=1)
    words = [EVIL[:-20] if word == "natural" else word for word in swept.lanes["compressor"]]
    swept.lanes["compressor"] = words
    page = show({EVIL: evil, "sweep": swept}, title=EVIL)
    page.get_by_label("Show", exact=True).first.select_option(EVIL)
    assert page.locator("img, script[src], iframe").count() == 0
    text = EVIL.replace("\u2028", "").replace("\ud800", "")[:20]
    assert text in page.locator(".legend").first.text_content()
    assert text in page.locator("h1").text_content()
    page.hover(".plot .scatterlayer", force=True)
    assert text in page.evaluate(
        "[...document.querySelectorAll('.plot .ytitle')].map((each) => each.textContent).join('')"
    )


@pytest.mark.slow
def test_a_print_shows_everything_in_the_width_of_the_paper(show):
    page = show({"a": geometric(), "tuning": table(methods=("locodl",))})
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('section > details')].every((each) => each.open)")
    assert {*page.evaluate("[...document.querySelectorAll('.plot')].map((each) => each.layout.width)")} == {680}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not page.evaluate("[...document.querySelectorAll('section > details')].some((each) => each.open)")
    assert page.pdf(format="A4")[:4] == b"%PDF"


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_controls_have_labels_and_text_has_contrast(show, size):
    page = show({"a": geometric(), "tuning": table()}, size)
    unnamed = """[...document.querySelectorAll('select, input, button, [role="region"]')].filter((each) =>
        !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim())).length"""
    assert page.evaluate(unnamed) == 0
    assert page.evaluate(CONTRAST) >= 4.5
