"""`bench scale`: every part measures a tiny row, the peak is one's own, verdicts follow from the rows."""

import jax
import numpy as np
import pytest

from experiments.bench import SUITES, harness, scale
from experiments.bench.scale import PARTS, TINY, Sizes
from fedjax_lc.core.errors import InputError


def test_it_is_a_suite():
    assert SUITES["scale"] is scale
    assert list(PARTS) == [name for name in Sizes._fields if name in PARTS]


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(scale, "AGAIN", 0.0)
    monkeypatch.setattr(scale, "TURNS", 1)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_measures_a_row(part):
    number = getattr(TINY, part)
    rows = PARTS[part].measure(TINY, number[0] if isinstance(number, tuple) else number)
    if part == "devices" and len(jax.local_devices()) < number[0]:
        assert rows == []
    for row in rows:
        assert row["step_ms"] > 0
        assert row["predicted"] > 0
        assert row.get("measured", row.get("late")) >= 0
    if part == "ragged":
        assert [row["form"] for row in rows] == ["dense", "dense", "sparse", "sparse"]
        assert [row["partition"] for row in rows] == ["iid", "power_law:1.5"] * 2


def test_the_peak_is_that_of_the_measured_call_alone():
    """Sixteen megabytes that the second call takes, beside what is held; the first call's are over."""
    if jax.local_devices()[0].memory_stats():
        pytest.skip("a device reports the peak of the whole process")
    calls = []

    def go():
        calls.append(np.ones(2**25 if not calls else 2**21))  # 256 MB, then 16
        calls[-1] = calls[-1].size
        return 0.5, 7

    row = scale._row(go, np.zeros(10**6))
    assert row["step_ms"] == 500
    assert 8e6 + 12e6 < row["measured"] < 8e6 + 60e6


def test_the_bound_problem_is_a_problem():
    problem = scale.problem_of(5, 2, 9)
    assert (problem.n, problem.dim, problem.longest) == (5, 9, 2)
    curvature = [np.linalg.norm(A, 2) ** 2 / 2 / 4 + 0.1 for A in np.asarray(problem.features.array)]
    assert np.all(np.asarray(problem.smooth) >= curvature)


ROW = {"part": "lanes", "number": 10, "step_ms": 1.0, "block": 10}
MUCH = 10**9


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([ROW | {"predicted": MUCH, "measured": 1.19 * MUCH}], [True]),
        ([ROW | {"predicted": MUCH, "measured": 1.21 * MUCH}], [False]),
        ([ROW | {"predicted": MUCH, "measured": 0.8 * MUCH}], [False]),
        ([ROW | {"predicted": 10**6, "measured": 10**8}], []),  # too little to be judged
        ([{"part": "rounds", "number": 9, "step_ms": 1.0, "predicted": 1, "early": 100.0, "late": 104.0}], [True]),
        ([{"part": "rounds", "number": 9, "step_ms": 1.0, "predicted": 1, "early": 100.0, "late": 106.0}], [False]),
    ],
)
def test_verdicts_follow_from_the_rows(rows, expected):
    found = scale.targets({"rows": rows})
    assert [target.met for target in found] == expected
    about = {"written": "today", "versions": {"jax": "1"}, "command": "c", "device": "cpu", **harness.machine()}
    results = {"sizes": TINY._asdict(), "backend": "cpu", "rows": rows, "targets": [t.facts() for t in found], **about}
    printed = scale.text(results)
    assert PARTS[rows[0]["part"]].what in printed
    assert max(len(line) for line in printed.splitlines()) < 140


def test_a_power_law_is_held_to_the_even_split():
    even = {
        "part": "ragged",
        "number": 50,
        "step_ms": 1.0,
        "predicted": 1,
        "measured": 1,
        "data": 10,
        "partition": "iid",
        "form": "dense",
    }
    other = {"form": "sparse", "step_ms": 10.0}
    found = scale.targets(
        {"rows": [even, even | other, even | {"partition": "power_law:1.5", "step_ms": 1.6, "data": 14}]}
    )
    assert [(target.measured, target.met) for target in found] == [(1.6, False), (1.4, True)]
    assert found[0].what == "ragged 50 dense power_law:1.5: step / iid's"


def test_bad_input():
    with pytest.raises(InputError, match="parts are clients, dimension"):
        scale.run_scale(["memory"])
