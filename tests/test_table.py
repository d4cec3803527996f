"""Table against plain loops over lanes and records, on hand-made sweeps."""

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest

from fedjax_lc.core.errors import InputError
from fedjax_lc.results import arrays
from fedjax_lc.results.columns import METRICS, PRICES, TARGETS, column
from fedjax_lc.results.table import Table

PROBLEM = {"kind": "Problem", "clients": 3, "dim": 5, "strong": float("nan")}
AXES = {"gamma/theory": [0.5, 1.0, 2.0], "compressor": ["natural", "rand_k:1|natural"]}


def make(method="locodl", axes=AXES, seeds=(0, 1, 4), steps=60, every=5, rng=0, drop=(), **config):
    """A sweep of random curves; lanes diverge, stop early or have no records at all, some of each."""
    rng = np.random.default_rng(rng)
    settings = [dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values())]
    lanes, records = [], []
    for config_number, setting in enumerate(settings):
        for seed in seeds:
            if (config_number, seed) in drop:
                continue
            status = rng.choice(["finished", "target", "diverged", "interrupted"], p=[0.5, 0.2, 0.2, 0.1])
            count = int(rng.choice([steps // every, rng.integers(0, steps // every)]))
            f_star, initial = 0.25, 0.25 + float(rng.uniform(1, 2))
            gaps = np.exp(np.cumsum(rng.normal(-1.2, 1.5, count)))
            increments = rng.integers(1, 4, (count, 4)).astype(float)  # few values, so that costs tie
            frame = pd.DataFrame(np.cumsum(increments, axis=0), columns=["bits_up", "bits_down", "grads", "rounds"])
            frame.insert(0, "lane", len(lanes))
            frame.insert(1, "step", np.arange(1, count + 1) * every)
            frame = frame.assign(
                value=f_star + gaps, grad_norm=rng.normal(size=count), seconds=rng.random(count).cumsum()
            )
            frame = frame.astype({"lane": np.int64, "step": np.int64})
            facts = {"method": method, "config": config_number, "seed": seed, **setting}
            facts |= {"gamma": float(rng.uniform()), "local_steps": config_number + 1}
            lanes.append(facts | {"status": str(status), "initial": initial, "f_star": f_star, "seconds": 1.5 * count})
            records.append(frame)
    facts = {
        "axes": axes,
        "settings": list(axes),
        "hyperparameters": ["gamma", "local_steps", *({"compressor"} & {*axes})],
    }
    base = {"methods": {method: facts}, "metrics": ["grad_norm"], "rel_gap": 1e-2, "steps": steps, "every": every}
    base |= {"seeds": list(seeds), "budget": None, "problem": PROBLEM, "command": f"sweep {method}"}
    return Table(pd.DataFrame(lanes), pd.concat(records, ignore_index=True), base | config)


def first_hit(table, lane, rel_gap):
    """The first record of a lane that reaches the gap, by a loop; None without one."""
    facts = table.lanes.iloc[lane]
    trace = table.trace(lane)
    for record, value in enumerate(trace.value):
        if value - facts["f_star"] <= rel_gap * (facts["initial"] - facts["f_star"]):
            return {name: table.records[name][np.flatnonzero(table.records["lane"] == lane)[record]] for name in PRICES}
    return None


def cost(hit, metric, down_weight):
    if hit is None:
        return math.inf
    return hit["bits_up"] + down_weight * hit["bits_down"] if metric == "total_bits" else hit[metric]


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def last_rel_gap(table, lane):
    own, facts = table.records[table.records["lane"] == lane], table.lanes.iloc[lane]
    if facts["status"] == "diverged" or own.empty:
        return math.inf
    return (own["value"].iloc[-1] - facts["f_star"]) / (facts["initial"] - facts["f_star"])


def test_first_hits_and_summary_are_those_of_a_loop():
    for rng in range(5):
        table, target = make(rng=rng), 10.0 ** -(rng % 3 + 1)
        summary = table.summary([target])
        reached = 0
        for lane in range(len(table)):
            hit = first_hit(table, lane, target)
            reached += hit is not None
            for name in PRICES:
                assert summary[f"{name} to {target:.0e}"][lane] == pytest.approx(
                    hit[name] if hit else np.nan, nan_ok=True
                )
            if table.lanes["status"][lane] != "diverged":
                expected = last_rel_gap(table, lane)
                assert summary["rel_gap"][lane] == pytest.approx(
                    expected if expected < math.inf else np.nan, nan_ok=True
                )
            trace = table.trace(lane).reach(target)
            assert trace is None if hit is None else trace["bits_up"] == hit["bits_up"]
        assert 0 < reached < len(table)
        assert summary["diverged"].tolist() == (table.lanes["status"] == "diverged").tolist()


def test_summary_chooses_targets():
    table = make(rel_gap=None)
    least = min(table.rel_gap)
    decades = [target for target in TARGETS if target >= least]
    columns = [name.removeprefix("bits_up to ") for name in table.summary() if name.startswith("bits_up to ")]
    assert columns == [f"{target:.0e}" for target in decades]
    assert len(columns) >= 2
    finite = make(rel_gap=2.5e-3).summary()
    assert [name for name in finite if name.startswith("step to")] == ["step to 1e-02", "step to 0.0025"]
    table.lanes.loc[:, "f_star"] = np.nan
    assert list(Table(table.lanes, table.records, table.config).summary()) == list(table.summary([]))


@pytest.mark.parametrize(("rng", "target"), [(0, 3.0), (1, 1e-1), (2, 1e-3), (3, 1e-9)])
def test_best_is_that_of_a_loop(rng, target):
    table = Table.merge([make(rng=rng), make("gd", {"gamma/theory": [0.5, 4.0]}, rng=rng + 50, seeds=(0, 1))])
    diverged = (table.lanes["status"] == "diverged").tolist()
    hits = [None if diverged[lane] else first_hit(table, lane, target) for lane in range(len(table))]
    ends = [last_rel_gap(table, lane) for lane in range(len(table))]
    for names in (["method"], ["method", "compressor"], ["gamma/theory"], ["config"], []):
        for metric in METRICS:
            best = table.best(metric, target, names, down_weight=0.5, band=(0.25, 0.75))
            groups = {}
            for identity, lanes in table.lanes.groupby(["method", "config"], sort=False):
                costs = [cost(hits[lane], metric, 0.5) for lane in lanes.index]
                end = 0.0 if median(costs) < math.inf else median([ends[lane] for lane in lanes.index])
                key = tuple(str(lanes.iloc[0][name]) for name in names)
                groups.setdefault(key, []).append(((median(costs), end, identity[1]), identity, costs, lanes))
            for row, members in zip(best.to_dict("records"), groups.values(), strict=True):
                rank, identity, costs, lanes = min(members, key=lambda member: member[0])
                assert (row["method"], row["config"]) == identity
                assert row["median"] == pytest.approx(rank[0])
                assert row["seeds"] == len(costs)
                assert row["reached"] == sum(value < math.inf for value in costs)
                assert row["diverged"] == sum(diverged[lane] for lane in lanes.index)
                if row["reached"] == row["seeds"]:
                    assert [row["low"], row["high"]] == pytest.approx(np.quantile(costs, [0.25, 0.75]).tolist())
                assert row["gamma"] == lanes["gamma"].iloc[0]


def rows(status_and_costs):
    """One method, one lane per entry: (config, status, bits at which it reaches 1e-2 or None)."""
    lanes, records, count = [], [], {}
    for lane, (config, status, bits) in enumerate(status_and_costs):
        count[config] = count.get(config, -1) + 1
        lanes.append({"method": "gd", "config": config, "seed": count[config], "gamma": 0.1 * (config + 1),
                      "status": status, "initial": 1.0, "f_star": 0.0, "seconds": 1.0})  # fmt: skip
        for step, (value, cost) in enumerate([(0.5, 1.0), *([(1e-3, bits)] if bits else [])]):
            records.append({"lane": lane, "step": step + 1, "bits_up": cost, "bits_down": 0.0, "grads": 0.0,
                            "rounds": 0.0, "value": value, "seconds": 0.1})  # fmt: skip
    methods = {"gd": {"axes": {}, "settings": [], "hyperparameters": ["gamma"]}}
    return Table(pd.DataFrame(lanes), pd.DataFrame(records), {"methods": methods, "rel_gap": 1e-2})


def test_best_by_hand():
    table = rows([(0, "diverged", 2.0), (0, "diverged", 2.0), (1, "target", 9.0), (1, "target", 5.0)])
    (best,) = table.best().to_dict("records")
    assert (best["config"], best["median"], best["low"], best["high"]) == (1, 7.0, 5.0, 9.0)

    half = rows([(0, "target", 2.0), (0, "finished", None), (1, "target", 90.0), (1, "target", 50.0)]).best()
    assert half["config"][0] == 1  # half of the seeds of 0 fail, so its median is inf

    one_of_three = rows([(0, "target", 2.0), (0, "target", 3.0), (0, "diverged", None), (1, "target", 4.0)]).best()
    assert one_of_three[["config", "median", "high", "reached", "diverged"]].iloc[0].tolist() == [
        0,
        3.0,
        math.inf,
        2,
        1,
    ]

    ties = rows([(1, "target", 5.0), (0, "target", 5.0), (2, "target", 5.0)]).best()
    assert ties["config"].tolist() == [0]

    never = rows([(0, "diverged", None), (1, "finished", None), (2, "finished", None)]).best()
    assert never[["config", "median", "reached"]].iloc[0].tolist() == [1, math.inf, 0]


def test_best_keeps_groups_apart_that_lack_a_column():
    table = Table.merge([make("gd", {"gamma/theory": [1.0]}), make(), make("agd", {"gamma/theory": [1.0]})])
    best = table.best(rel_gap=1.0, by=("method", "compressor"))
    assert best["method"].tolist() == ["gd", "locodl", "locodl", "agd"]
    assert best["compressor"].isna().tolist() == [True, False, False, True]
    assert list(best)[:3] == ["method", "compressor", "config"]


def test_quantiles_agree_with_numpy():
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, 7, 90))
    values = rng.normal(size=90)
    order = rng.permutation(90)
    for share in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        (found,) = arrays.quantiles(values[order], group[order], [share])
        assert found == pytest.approx([np.quantile(values[group == g], share) for g in range(7)], rel=1e-12)


def test_diverged_lists_the_lanes():
    table = make(rng=2)
    found = table.diverged()
    assert found.index.tolist() == np.flatnonzero(table.lanes["status"] == "diverged").tolist()
    assert len(found)
    for lane, row in found.iterrows():
        own = table.records[table.records["lane"] == lane]["step"]
        assert row["step"] == (own.iloc[-1] if len(own) else 0)
        assert row["gamma"] == table.lanes["gamma"][lane]


def test_tidy_frame_has_the_lane_beside_each_record():
    table = make()
    frame = table.to_pandas()
    names = ["method", "config", "seed", "gamma/theory", "compressor", "gamma", "local_steps", "status", "step"]
    names += ["bits_up", "bits_down", "grads", "rounds", "value", "gap", "rel_gap", "grad_norm", "seconds"]
    assert list(frame) == names
    for number in range(0, len(frame), 7):
        record, row = table.records.iloc[number], frame.iloc[number]
        lane = table.lanes.iloc[record["lane"].astype(int)]
        assert all(row[name] == lane[name] for name in names[:8])
        assert all(row[name] == record[name] for name in ("step", "bits_up", "value", "grad_norm", "seconds"))
        assert row["rel_gap"] == (record["value"] - lane["f_star"]) / (lane["initial"] - lane["f_star"])


def test_traces_are_lanes():
    table = Table.merge([make(), make("gd", {"gamma/theory": [1.0]})])
    trace = table.trace(4)
    own = table.records[table.records["lane"] == 4]
    for name in ("step", "bits_up", "grads", "value"):
        assert getattr(trace, name).tolist() == own[name].tolist()
    assert trace.metrics["grad_norm"].tolist() == own["grad_norm"].tolist()
    assert trace.rel_gap.tolist() == table.rel_gap[table.records["lane"] == 4].tolist()
    assert trace.config["hyperparameters"]["compressor"] == table.lanes["compressor"][4]
    assert trace.config["settings"] == table.lanes.loc[4, list(AXES)].to_dict()
    assert (trace.config["rel_gap"], trace.config["command"]) == (1e-2, "sweep locodl")
    assert (trace.method, trace.config["seed"], trace.status) == ("locodl", 1, table.lanes["status"][4])
    assert [t.config["seed"] for t in table.traces(1, "locodl")] == [0, 1, 4]
    assert [t.config["seed"] for t in table.traces(5)] == [0, 1, 4]
    assert "compressor" not in table.traces(0, "gd")[0].config["hyperparameters"]


def check_same(a, b):
    pd.testing.assert_frame_equal(a.lanes, b.lanes, check_exact=True)
    pd.testing.assert_frame_equal(a.records, b.records, check_exact=True)
    assert repr(a.config) == repr(b.config)  # repr: NaN equals NaN


def test_load_gives_what_was_saved(tmp_path):
    table = make(rng=3)
    table.records.loc[1, "grad_norm"] = np.inf
    table.records.loc[2, "grad_norm"] = np.nan
    lanes = table.lanes.assign(f_star=np.nan, own_delta=True, cohort_size=None)
    lanes.insert(3, "p", pd.Series(["balanced", 0.5, None, True, 3, *[np.nan] * (len(lanes) - 5)], dtype=object))
    lanes = lanes[[*list(lanes)[:-6], "own_delta", "cohort_size", "status", "initial", "f_star", "seconds"]]
    check_same(Table.load(Table(lanes, table.records, table.config).save(tmp_path / "t")),
               Table(lanes, table.records, table.config))  # fmt: skip
    empty = Table(lanes, table.records.iloc[:0], table.config)
    check_same(Table.load(empty.save(tmp_path / "t")), empty)
    merged = Table.merge([make(), make("gd", {"gamma": [1.0]})])
    check_same(Table.load(merged.save(tmp_path / "merged")), merged)
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [
        "config.json",
        "lanes.parquet",
        "records.parquet",
    ]


def test_a_save_cut_short_leaves_no_table(tmp_path, monkeypatch):
    make().save(tmp_path)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(rng=1).save(tmp_path)
    assert not (tmp_path / "lanes.parquet").exists()


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_table_and_damaged_tables(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"hold no table: expected lanes\.parquet") as error:
            Table.load(folder)
        one_line(error)
    for name in ("config.json", "records.parquet", "lanes.parquet"):
        for damage in (lambda content: b"", lambda content: content[: len(content) // 2], lambda content: b"[1, 2]"):
            make().save(tmp_path / "t")
            (tmp_path / "t" / name).write_bytes(damage((tmp_path / "t" / name).read_bytes()))
            with pytest.raises(InputError, match="is damaged") as error:
                Table.load(tmp_path / "t")
            one_line(error)
    make().save(tmp_path / "t")
    (tmp_path / "t" / "records.parquet").unlink()
    with pytest.raises(InputError, match="damaged"):
        Table.load(tmp_path)


def test_subfolders_merge_in_name_order(tmp_path):
    second, first = make("locodl"), make("gd", {"gamma/theory": [1.0, 2.0]})
    second.save(tmp_path / "locodl")
    first.save(tmp_path / "gd")
    (tmp_path / "unfinished").mkdir()
    check_same(Table.load(tmp_path), Table.merge([first, second]))


def test_merge_renumbers_lanes_and_unites_columns():
    locodl, gd = make(), make("gd", {"gamma/theory": [1.0], "p": ["balanced"]}, rng=1, rel_gap=1e-1, steps=100)
    gd = Table(gd.lanes, gd.records.rename(columns={"grad_norm": "distance"}), gd.config)
    merged = Table.merge([locodl, gd])
    head = ["method", "config", "seed", "gamma/theory", "compressor", "p", "gamma", "local_steps"]
    assert list(merged.lanes) == [*head, "status", "initial", "f_star", "seconds"]
    assert merged.metrics == ["grad_norm", "distance"]
    count = len(locodl)
    for table, offset in ((locodl, 0), (gd, count)):
        for lane in range(len(table)):
            shown, own = merged.trace(offset + lane), table.trace(lane)
            assert shown.value.tolist() == own.value.tolist()
            assert shown.config["hyperparameters"] == own.config["hyperparameters"]
            assert shown.config["settings"] == own.config["settings"]
            assert shown.config["rel_gap"] == own.config["rel_gap"]
    assert merged.lanes["compressor"][count:].isna().all()
    assert merged.lanes["config"].tolist() == [*locodl.lanes["config"], *gd.lanes["config"]]
    assert (merged.config["rel_gap"], merged.config["steps"], merged.config["every"]) == (1e-1, 100, 5)
    assert merged.config["problem"].keys() == PROBLEM.keys()
    assert merged.config["methods"]["gd"]["command"] == "sweep gd"


def test_merge_of_one_method_keeps_configurations_apart():
    first, second, gd = make(), make(rng=1, command="again"), make("gd", {"gamma/theory": [1.0]})
    merged = Table.merge([gd, first, second])
    own = merged.lanes[merged.lanes["method"] == "locodl"]
    assert own["config"].tolist() == [*first.lanes["config"], *(second.lanes["config"] + 6)]
    facts = merged.config["methods"]["locodl"]
    assert facts["axes"] == {}
    assert [facts["command"], *(part["command"] for part in facts["merged"])] == ["sweep locodl", "again"]
    assert Table.merge([first, second]).to_xarray().sizes == {"config": 12, "seed": 3, "record": 12}
    between = Table.merge([first, gd, second]).lanes
    assert between.groupby("method")["config"].nunique().to_dict() == {"locodl": 12, "gd": 1}
    nested = Table.merge([Table.merge([gd, first]), second])
    pd.testing.assert_frame_equal(nested.lanes, merged.lanes)
    check_same(Table.merge([first]), first)


def test_merge_refuses_other_problems_and_nothing():
    with pytest.raises(InputError, match="different problems") as error:
        Table.merge([make(), make(problem=PROBLEM | {"dim": 6})])
    one_line(error)
    assert len(Table.merge([make(), make(problem=dict(reversed(PROBLEM.items())))])) == 2 * len(make())
    with pytest.raises(InputError, match="at least one"):
        Table.merge([])


def check_cells(table, data, place):
    """Every record lies at the coordinates of its lane and step, and nothing else does."""
    names = ("bits_up", "bits_down", "grads", "rounds", "value", "gap", "rel_gap", "grad_norm", "seconds")
    tidy = table.to_pandas()
    for lane, own in tidy.groupby(table.records["lane"].to_numpy()):
        cell = data.sel(place(table.lanes.iloc[lane]))
        assert cell["status"].item() == table.lanes["status"][lane]
        for name in names:
            series = cell[name].to_series().set_axis(cell["step"].to_numpy()).dropna()
            assert series.to_dict() == dict(zip(own["step"], own[name], strict=True))
    assert all(int(data[name].notnull().sum()) == len(tidy) for name in names)


def test_xarray_of_a_product():
    table = make(drop=[(1, 1), (5, 0), (5, 1), (5, 4)])
    data = table.to_xarray()
    assert data["value"].dims == ("gamma/theory", "compressor", "seed", "record")
    assert data["status"].dims == ("gamma/theory", "compressor", "seed")
    assert data["gamma/theory"].values.tolist() == AXES["gamma/theory"]
    assert data["compressor"].values.tolist() == AXES["compressor"]
    assert data["seed"].values.tolist() == [0, 1, 4]
    assert data["step"].dims == ("record",)
    assert data["gamma"].dims == ("gamma/theory", "compressor")
    check_cells(table, data, lambda lane: {name: lane[name] for name in (*AXES, "seed")})
    assert data["gamma"].sel({"gamma/theory": 1.0, "compressor": "natural"}) == table.lanes["gamma"][
        table.lanes["config"] == 2].iloc[0]  # fmt: skip
    mixed = make(axes={"p": ["balanced", 0.5]}).to_xarray()
    assert mixed["p"].values.tolist() == ["balanced", 0.5]


def test_xarray_without_a_product_and_of_several_methods():
    table = make()
    table.config["methods"]["locodl"]["axes"] = {}
    data = table.to_xarray()
    assert data["value"].dims == ("config", "seed", "record")
    assert data["compressor"].dims == ("config",)
    check_cells(table, data, lambda lane: {"config": lane["config"], "seed": lane["seed"]})
    table.config["methods"]["locodl"]["axes"] = {"gamma/theory": [0.5, 1.0]}  # of fewer configurations than there are
    assert table.to_xarray()["value"].dims == ("config", "seed", "record")
    several = Table.merge([make(), make("gd", {"gamma/theory": [1.0]}, every=7)])
    data = several.to_xarray()
    assert data["value"].dims == ("lane", "record")
    assert data["method"].values.tolist() == several.lanes["method"].tolist()
    check_cells(several, data, lambda lane: {"lane": lane.name})


def test_names_that_clash_get_an_underscore():
    assert [column(name) for name in ("seed", "value", "gamma")] == ["seed_", "value_", "gamma"]
    assert column("p", ["p"]) == "p_"
    axes = {column("seed"): [7, 8], column("value"): ["a"]}
    table = make(axes=axes)
    assert table.to_xarray()["rel_gap"].dims == ("seed_", "value_", "seed", "record")
    assert table.best(by="seed_", rel_gap=1.0)["seed_"].tolist() == [7, 8]
    with pytest.raises(InputError, match=r"two meanings: name columns by columns\.column") as error:
        make(axes={"step": [1, 2]})
    one_line(error)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t: t.best("bits"), "unknown metric 'bits': did you mean 'bits_up'"),
        (lambda t: t.best(by=("compresor",)), "unknown column 'compresor': did you mean 'compressor'"),
        (lambda t: t.best(by="seed"), "unknown column 'seed'"),
        (lambda t: t.best(band=(0.9, 0.1)), "band must be two quantiles"),
        (lambda t: t.best(rel_gap=-1.0), "rel_gap must be a number >= 0, got -1.0"),
        (lambda t: Table(t.lanes, t.records, t.config | {"rel_gap": None}).best(), "give rel_gap=, such as 1e-4"),
        (lambda t: Table(t.lanes.assign(f_star=np.nan), t.records, t.config).best(), "needs a known optimum"),
        (lambda t: Table(t.lanes.assign(f_star=np.nan), t.records, t.config).summary([0.1]), "needs a known optimum"),
        (lambda t: t.trace(18), "no lane 18: it has 18"),
        (lambda t: t.trace(-1), "no lane -1"),
        (lambda t: t.traces(6), "no configuration 6"),
        (lambda t: t.traces(0, "gb"), "unknown method 'gb'"),
        (lambda t: Table.merge([t, make("gd")]).traces(0), r"configuration 0: give its method= \(locodl, gd\)"),
        (lambda t: Table(t.lanes.drop(columns="seed"), t.records, t.config), "lack seed"),
        (lambda t: Table(t.lanes, t.records, {"methods": {}}), "lack locodl"),
        (lambda t: Table(t.lanes, t.records.iloc[::-1], t.config), "sorted by lane"),
        (lambda t: Table(t.lanes.iloc[1:], t.records.iloc[:0], t.config), "numbered from 0"),
    ],
)
def test_errors_are_one_line(ask, message):
    with pytest.raises(InputError, match=message) as error:
        ask(make())
    one_line(error)


def test_lanes_without_records_are_no_trouble():
    table = make()
    empty = Table(table.lanes, table.records.iloc[:0], table.config)
    assert empty.summary([1e-2])["bits_up to 1e-02"].isna().all()
    assert empty.best()[["config", "median"]].iloc[0].tolist() == [0, math.inf]
    assert len(empty.to_pandas()) == 0
    assert len(empty.trace(0)) == 0
    assert empty.to_xarray().sizes["record"] == 0
    assert (empty.diverged()["step"] == 0).all()
    none = Table(table.lanes.iloc[:0], table.records.iloc[:0], table.config)
    assert (len(none), len(none.best()), len(none.summary()), len(none.diverged())) == (0, 0, 0, 0)
    assert none.to_xarray().sizes == {"lane": 0, "record": 0}


def test_thousands_of_lanes_take_no_time():
    lanes, count = 2048, 500
    one = np.geomspace(1, 1e-9, count)
    lane = np.repeat(np.arange(lanes), count)
    series = {name: np.tile(np.arange(1.0, count + 1), lanes) for name in ("bits_up", "bits_down", "grads", "rounds")}
    records = pd.DataFrame({"lane": lane, "step": np.tile(np.arange(1, count + 1), lanes), **series,
                            "value": np.tile(one, lanes), "seconds": 0.0})  # fmt: skip
    frame = pd.DataFrame({"method": "gd", "config": np.arange(lanes) // 8, "seed": np.arange(lanes) % 8, "gamma": 1.0,
                          "status": "finished", "initial": 1.0, "f_star": 0.0, "seconds": 0.0})  # fmt: skip
    methods = {"gd": {"axes": {}, "settings": [], "hyperparameters": ["gamma"]}}
    table = Table(frame, records, {"methods": methods, "rel_gap": None})
    start = time.perf_counter()
    best = table.best("bits_up", 1e-6)
    seconds = time.perf_counter() - start
    assert best["median"].tolist() == [1 + np.flatnonzero(one <= 1e-6)[0]]
    assert seconds < 1  # a loop over the million records takes longer


def measured(rng=0):
    """A sweep without a known optimum, in which an accuracy was measured."""
    table = make(rng=rng, metrics=["accuracy"])
    table.lanes["f_star"] = np.nan
    random = np.random.default_rng(rng)
    records = table.records.drop(columns="grad_norm").assign(accuracy=random.random(len(table.records)))
    return Table(table.lanes, records, table.config)


def test_best_by_what_was_measured_last():
    """The largest accuracy, the least F; without an optimum."""
    for rng in range(3):
        table = measured(rng)
        assert table.outcomes == ["value", "accuracy"]
        for metric, better in (("accuracy", max), ("value", min)):
            worst = -math.inf if better is max else math.inf
            found = {}
            for config in table.lanes["config"].unique():
                ends = []
                for lane in np.flatnonzero(table.lanes["config"] == config):
                    own = table.records.loc[table.records["lane"] == lane, metric]
                    gone = table.lanes["status"][lane] == "diverged" or own.empty
                    ends.append(worst if gone else own.iloc[-1])
                found[config] = median(ends)
            row = table.best(metric).iloc[0]
            assert row["median"] == better(found.values())
            assert found[row["config"]] == row["median"]
            assert row["low"] <= row["median"] <= row["high"]


def test_best_cost_to_an_accuracy():
    table = measured()
    row = table.best("rounds", accuracy=0.8, by=())
    costs = {}
    for config in table.lanes["config"].unique():
        each = []
        for lane in np.flatnonzero(table.lanes["config"] == config):
            hit = table.trace(lane).reach(accuracy=0.8)
            each.append(hit["rounds"] if hit and table.lanes["status"][lane] != "diverged" else math.inf)
        costs[config] = median(each)
    assert row["median"].iloc[0] == min(costs.values())
    with pytest.raises(InputError, match="unknown metric 'accuracies'"):
        table.best("rounds", accuracies=0.8)
