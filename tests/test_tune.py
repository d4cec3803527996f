"""`fl.tune`: who goes on, at what cost, and that it is the same numbers as without a race."""

import functools

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from fedjax_lc.running import programs
from fedjax_lc.sweeping import tune as tuning
from tests.test_sweep_parts import interrupt_after

BUDGET = {"bits_up": 9_000}
SPACE = {"gamma": "theory*loguniform:0.02:50", "compressor": "rand_k:2; natural"}
OPTIONS = {"num": 18, "budget": BUDGET, "rel_gap": 1e-4, "every": 1, "steps": 1_000, "block_size": 6, "progress": False}


@pytest.fixture(scope="module")
def quadratic():
    """Four clients, d = 6, condition number 20."""
    rng = np.random.default_rng(0)
    hessians = np.stack([np.diag(np.linspace(1, 20, 6)) + i / 10 * np.eye(6) for i in range(4)])
    return fl.problems.quadratic(hessians, rng.normal(size=(4, 6)))


@pytest.fixture(scope="module")
def table(quadratic):
    before = programs.compile_count()
    table = fl.tune("diana", quadratic, SPACE, **OPTIONS)
    table.config["compiled"] = programs.compile_count() - before
    return table


@pytest.fixture(scope="module")
def uninterrupted(quadratic):
    return fl.tune("diana", quadratic, SPACE, rungs=1, **OPTIONS)


def test_a_program_is_compiled_once_for_all_budgets(table, uninterrupted, quadratic):
    """One for each of the two structures, whatever the budgets, their number and the ratio between them."""
    assert table.config["compiled"] == 2
    before = programs.compile_count()
    other = {**OPTIONS, "budget": {"bits_up": 3_000}}
    fl.tune("diana", quadratic, SPACE, halving=2, rungs=2, **other)
    assert programs.compile_count() == before


def test_who_goes_on_is_bit_for_bit_what_it_is_without_a_race(table, uninterrupted):
    """And those that were given up are its beginning: to the first record at which their budget is spent."""
    assert set(uninterrupted.lanes["status"]) == {"target", "finished", "diverged"}
    dropped = table.lanes["status"] == "dropped"
    assert 0 < dropped.sum() < len(table)
    budgets = [rung["bits_up"] for rung in table.config["tuning"]["budgets"]]
    for lane in range(len(table)):
        ours, theirs = (
            each.records[each.records["lane"] == lane].drop(columns="seconds") for each in (table, uninterrupted)
        )
        if not dropped[lane]:
            assert len(ours) == len(theirs)
            assert table.lanes["status"][lane] == uninterrupted.lanes["status"][lane]
        assert ours.reset_index(drop=True).equals(theirs[: len(ours)].reset_index(drop=True))
        if dropped[lane]:
            spent = ours["bits_up"].to_numpy()
            assert any(spent[-1] >= limit > (spent[-2] if len(spent) > 1 else 0) for limit in budgets[:-1])


def test_it_finds_what_a_fine_grid_finds_for_less(table, quadratic):
    theory = functools.partial(fl.algorithms.get("diana").theory, quadratic)
    fine = fl.grid(theory, gamma=fl.times("log:0.02:50:24"), compressor=["rand_k:2", "natural"])
    swept = fl.sweep("diana", quadratic, fine, **{name: value for name, value in OPTIONS.items() if name != "num"})
    ours, theirs = table.best("bits_up").iloc[0], swept.best("bits_up").iloc[0]
    assert ours["compressor"] == theirs["compressor"]
    assert ours["median"] <= 1.25 * theirs["median"]
    spent = swept.records.groupby("lane")["bits_up"].last().sum()
    assert table.config["tuning"]["spent"]["bits_up"] < spent / 3


def test_the_counts_and_budgets_of_the_race(table):
    facts = table.config["tuning"]
    assert facts["configurations"] == [18, 6, 2]
    assert [rung["bits_up"] for rung in facts["budgets"]] == pytest.approx([1_000, 3_000, 9_000])
    last = table.records.groupby("lane")["bits_up"].last()
    assert facts["spent"]["bits_up"] == last.sum()
    assert sorted(last)[-3] < 9_000  # at most two had the whole budget


def test_it_is_made_again_from_its_seed_and_goes_on_where_it_was_stopped(table, quadratic, tmp_path):
    """Stopped within the second budget: the lanes on their way go on, and none runs a step twice."""
    with pytest.MonkeyPatch.context() as patch:
        sweeps = []
        once = tuning.sweep

        def second_is_stopped(*arguments, **options):
            sweeps.append(options["budget"])
            with pytest.MonkeyPatch.context() as inner:
                if len(sweeps) == 2:
                    interrupt_after(inner, 2)
                return once(*arguments, **options)

        patch.setattr(tuning, "sweep", second_is_stopped)
        halfway = fl.tune("diana", quadratic, SPACE, out=tmp_path / "out", **OPTIONS)
    assert (halfway.lanes["status"] == "interrupted").any()
    assert not (tmp_path / "out" / "lanes.parquet").exists()
    whole = fl.tune("diana", quadratic, SPACE, out=tmp_path / "out", **OPTIONS)
    for again in (
        whole,
        fl.Table.load(tmp_path / "out"),
        fl.tune("diana", quadratic, SPACE, out=tmp_path / "out", **OPTIONS),
    ):
        assert again.lanes.drop(columns="seconds").equals(table.lanes.drop(columns="seconds"))
        assert again.records.drop(columns="seconds").equals(table.records.drop(columns="seconds"))
    assert not [*tmp_path.rglob("states-*")]  # nothing goes on any more
    with pytest.raises(InputError, match=r"already holds a different tune \(other budgets, halving\): choose another"):
        fl.tune("diana", quadratic, SPACE, out=tmp_path / "out", halving=2, **OPTIONS)
    with pytest.raises(InputError, match="already holds a different sweep"):
        fl.tune("diana", quadratic, SPACE, out=tmp_path / "out", seed=1, **OPTIONS)


def test_other_seeds_draw_other_configurations(quadratic, table):
    other = fl.tune("diana", quadratic, SPACE, seed=1, **OPTIONS)
    assert not other.lanes["gamma/theory"].equals(table.lanes["gamma/theory"])


@pytest.mark.parametrize(("metric", "best"), [("value", "least"), ("accuracy_of_x", "greatest")])
def test_without_a_target_the_end_decides(quadratic, metric, best):
    """The lowest F, or the highest accuracy, at the budget; all seeds of a configuration go on together."""
    grid = fl.grid(fl.algorithms.get("gd").theory(quadratic), gamma=fl.times([0.01, 0.1, 0.3, 1.0, 500.0]))
    measure = {"accuracy_of_x": lambda problem, hp, state: -problem.value(state.x)}
    table = fl.tune("gd", quadratic, grid, budget={"rounds": 16}, halving=2, metric=metric, seeds=2, every=2,
                    measure=measure, progress=False)  # fmt: skip
    status = [set(lanes["status"]) for _, lanes in table.lanes.groupby("config")]
    assert status == [{"dropped"}, {"dropped"}, {"dropped"}, {"finished"}, {"diverged"}]
    made = table.records.groupby("lane")["rounds"].last().to_numpy()[::2]
    assert made[:4].tolist() == [4, 4, 8, 16]
    assert table.best(metric)["gamma/theory"].item() == 1.0
    assert (table.best(metric, by="config")["reached"] > 0).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"budget": {}}, "tune needs a budget that all configurations share: give one, as in budget="),
        ({"budget": {"bits": 1}}, "unknown budget 'bits'"),
        ({"halving": 1}, "halving must be a number > 1, got 1: for one budget only give rungs=1"),
        ({"rungs": 0}, "rungs must be a whole number >= 1, got 0"),
        ({"metric": "bits_up", "rel_gap": None}, "metric bits_up is a cost to a target: give rel_gap"),
        ({"metric": "loss"}, "unknown metric 'loss'"),
        ({"space": {}}, "sample needs at least one axis"),
        ({"space": None}, "num is for a space to draw from, and the configurations are given"),
        ({"shard": "1/2"}, "unknown option of tune 'shard'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(quadratic, wrong, line, tmp_path):
    options = {"space": SPACE, "out": tmp_path / "out"} | OPTIONS | wrong
    with pytest.raises(InputError, match=line):
        fl.tune("diana", quadratic, options.pop("space"), **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_refused(quadratic, tmp_path):
    fl.sweep("gd", quadratic, out=tmp_path, steps=10, progress=False)
    with pytest.raises(InputError, match="holds something else than a tune: choose another folder"):
        fl.tune("diana", quadratic, SPACE, out=tmp_path, **OPTIONS)
