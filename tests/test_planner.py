"""The planner: lanes that fit, even blocks, and what a real program's lanes take."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import fedjax_lc as fl
from experiments.bench.scale import problem_of
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.memory import size
from fedjax_lc.sweeping import blocks, planner


class Machine:
    """A program of `fixed` bytes and `lane` bytes a lane, as `measure` finds it; it remembers what was compiled."""

    def __init__(self, lane, fixed, devices=1):
        self.lane, self.fixed, self.devices, self.tried = lane, fixed, devices, []

    def __call__(self, block):
        if len(self.tried) > 20:
            raise RuntimeError(f"compiled again and again: {self.tried}")
        self.tried.append(block)
        return self.fixed + self.lane * block // self.devices


def test_all_lanes_in_one_block_where_they_fit():
    machine = Machine(100, 1000)
    plan = planner.plan(50, (100, 1000), machine, memory=6000)
    assert (plan.block, plan.lane_bytes, machine.tried) == (50, 100, [50])
    assert str(plan) == "50 lanes in one block; 100 B a lane, 6 kB of 6 kB"


def test_what_fits_by_the_first_guess_in_even_blocks():
    machine = Machine(100, 1000)
    plan = planner.plan(50, (100, 1000), machine, memory=5000)
    assert (plan.block, machine.tried) == (25, [25])  # 40 fit: two blocks of 25, not 40 and 10
    assert str(plan).startswith("50 lanes 25 side by side, saved in 1 part;")


def test_shrinks_once_to_what_was_measured():
    machine = Machine(300, 1000)
    plan = planner.plan(50, (100, 1000), machine, memory=6000)
    assert machine.tried == [50, 13]  # 16 fit: four blocks of 13
    assert (plan.block, plan.lane_bytes) == (13, 300)


def test_shrinks_further_where_bytes_do_not_follow_the_lanes():
    """Lanes that seem to cost less than they do: every try is smaller than the one before."""
    tried = []

    def measure(block):
        tried.append(block)
        return 1000 * block + 900 * (block > 2)

    assert planner.plan(8, (500, 0), measure, memory=3000).block <= 2
    assert tried == sorted(set(tried), reverse=True)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("guess", [(1, 1), (10**9, 10**9)])
def test_one_lane_that_does_not_fit_is_refused(guess, devices):
    with pytest.raises(InputError) as caught:
        planner.plan(50, guess, Machine(10**9, 10**6, devices), memory=10**8, devices=devices)
    assert str(caught.value) == (
        f"{devices} lanes side by side need 1 GB and 100 MB may be used: "
        "use fewer (block_size), more memory, or float32"
    )


def test_the_plan_counts_bytes_on_each_device():
    plan = planner.plan(40, (100, 1000), Machine(100, 1000, 4), memory=3000, devices=4)
    assert (plan.block, plan.lane_bytes) == (40, 100)
    assert str(plan).endswith("100 B a lane, 2 kB of 3 kB on each of 4 devices")


def test_a_block_size_is_taken_or_refused():
    assert planner.plan(50, (1, 0), Machine(100, 0), block_size=7, memory=1000).block == 7
    with pytest.raises(InputError, match=r"^11 lanes side by side need 1.1 kB and 1 kB may be used"):
        planner.plan(50, (1, 0), Machine(100, 0), block_size=11, memory=1000)


@pytest.mark.parametrize("lanes", [1, 7, 8, 9, 50, 333])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_blocks_are_multiples_of_the_devices_and_hold_every_lane(lanes, devices):
    for memory in (1200, 2500, 10**6):
        plan = planner.plan(lanes, (100, 1000), Machine(100, 1000, devices), memory=memory, devices=devices)
        assert plan.block % devices == 0
        assert 1000 + plan.lane_bytes * plan.block // devices <= memory
        waves = -(-lanes // plan.block)
        assert waves * plan.block - lanes < waves * devices + devices  # even: no wave is mostly empty
        assert planner.part_size(lanes, plan.block) == min(lanes, 4 * plan.block)


@pytest.mark.parametrize("devices", [1, 2])
def test_no_more_lanes_than_pay(devices):
    plan = planner.plan(100 * devices, (1, 0), Machine(1, 0, devices), memory=10**9, most=16, devices=devices)
    assert plan.block == 15 * devices  # seven blocks of 15 on each


def test_what_was_planned_before_is_taken_again_where_it_fits():
    machine = Machine(100, 1000)
    assert planner.plan(50, (100, 1000), machine, memory=4000, begun=30).block == 30
    assert planner.plan(50, (100, 1000), machine, memory=3900, begun=30).block == 25
    assert planner.plan(50, (1, 0), machine, memory=10**9, most=5, begun=30).block == 30


def test_a_device_without_room_for_the_size_asked_for_is_one_line():
    with pytest.raises(InputError, match=r"^the device has no room to compile 7 lanes side by side: use fewer"):
        planner.plan(50, (1, 0), lambda block: None, block_size=7, memory=10**9)


def test_memory_that_is_not_told_is_not_shown():
    assert str(planner.plan(5, (100, 0), Machine(100, 0), memory=planner.UNKNOWN)).endswith("100 B a lane, 500 B")


def test_a_device_without_room_to_compile_gets_fewer_lanes():
    tried = []

    def measure(block):
        tried.append(block)
        return None if block > 20 else 100 * block

    assert planner.plan(100, (1, 0), measure, memory=10**9).block <= 20
    assert tried == sorted(tried, reverse=True)
    assert len(tried) < 5


@pytest.mark.parametrize(("number", "text"), [(12, "12 B"), (1_230_000, "1.23 MB"), (5e12, "5e+03 GB")])
def test_sizes_for_people(number, text):
    assert size(number) == text


def test_predicted_bytes_grow_with_the_lanes(monkeypatch):
    """States that outweigh the rest: n d = 40,000 numbers a lane, in several copies."""
    plans = []
    monkeypatch.setattr(planner, "plan", lambda *a, plan=planner.plan, **k: plans.append(plan(*a, **k)) or plans[-1])
    client = (np.random.default_rng(0).normal(size=(2, 200)), np.array([1.0, -1.0]))
    wide = fl.problems.logistic_regression([client] * 200, l2=0.1, f_star=0.0, dtype="float32")
    hp = fl.algorithms.get("diana").theory(wide)
    for block in (4, 16):
        fl.sweep("diana", wide, hp, seeds=16, steps=1, every=1, block_size=block, progress=False)
    state = 4 * 200 * 200
    for plan in plans:
        assert plan.fixed_bytes >= wide.features.array.nbytes
        assert 2 * state < plan.lane_bytes < 20 * state
    fewer, more = (plan.block * plan.lane_bytes for plan in plans)
    assert more / fewer == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("method", ["gd", "scaffold", "scaffnew", "mem_sgd"])
def test_plans_say_what_xla_says(monkeypatch, method):
    """Of methods whose sums YNNPACK computes entry by entry, which takes no memory."""
    plans, programs = [], []

    def measured(compiled, memory_bytes=blocks.memory_bytes):
        programs.append(compiled.memory_analysis())
        return memory_bytes(compiled)

    monkeypatch.setattr(planner, "plan", lambda *a, plan=planner.plan, **k: plans.append(plan(*a, **k)) or plans[-1])
    monkeypatch.setattr(blocks, "memory_bytes", measured)
    problem = problem_of(20, 2, 300)
    fl.sweep(method, problem, seeds=8, steps=1, every=1, progress=False)
    (plan,), usage = plans, programs[-1]
    known = usage.argument_size_in_bytes + usage.output_size_in_bytes + usage.temp_size_in_bytes
    known -= usage.alias_size_in_bytes
    assert known <= plan.fixed_bytes + plan.block * plan.lane_bytes + 8 <= 1.1 * known


def test_the_records_of_a_chunk_are_gone_before_the_next_one(monkeypatch, problem):
    """They would be held twice, and again in NumPy."""
    alive = []

    def advance(self, count, advance=blocks.Block._advance):
        shape = (self.program.capacity, self.size, 2, 4)
        alive.append(sum(array.shape == shape for array in jax.live_arrays()))
        return advance(self, count)

    monkeypatch.setattr(blocks.Block, "_advance", advance)
    fl.sweep("gd", problem, seeds=3, steps=12, every=2, progress=False)
    assert len(alive) > 1
    assert set(alive) == {0}
