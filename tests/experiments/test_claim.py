"""Claims: bests of two sides and all of them, margins, standard errors, what was capped and what diverged."""

import math

import pytest

from experiments.kit.claim import Claim, Measured, check, in_order
from experiments.kit.contender import Contender
from fedjax_lc.core.errors import InputError

INF = math.inf
DIVERGED = Measured(INF)


def numbers(**by_label):
    """One statistic of curves, given as numbers, or (mean, error)."""
    as_measured = lambda v: v if isinstance(v, Measured) else Measured(*v) if isinstance(v, tuple) else Measured(v)
    return {"a number": {label: as_measured(value) for label, value in by_label.items()}}


@pytest.mark.parametrize(
    ("a", "b", "options", "verdict"),
    [
        (0.8, 0.9, {}, "holds"),
        (0.9, 0.8, {}, "does not hold"),
        (0.8, 0.8, {}, "undecided"),
        ((0.8, 0.01), (0.9, 0.01), {}, "holds"),
        ((0.8, 0.04), (0.9, 0.04), {}, "undecided"),
        ((0.8, 0.04), (0.9, 0.04), {"errors": 1}, "holds"),
        ((0.8, 0.04), (0.9, 0.04), {"doubt": "holds"}, "holds"),
        ((0.9, 0.01), (0.8, 0.01), {}, "does not hold"),
        ((0.9, 0.01), (0.8, 0.01), {"doubt": "holds"}, "does not hold"),
        (0.9, 0.88, {"margin": -0.03}, "holds"),
        (0.9, 0.86, {"margin": -0.03}, "does not hold"),
        (-3.0, -2.0, {"margin": 0.99}, "holds"),
        (-3.0, -2.0, {"margin": 1.01}, "does not hold"),
        (1.0, 0.95, {"times": 1.1}, "holds"),
        (1.0, 0.90, {"times": 1.1}, "does not hold"),
        ((1.0, 0.0), (0.95, 0.021), {"times": 1.1}, "undecided"),  # 0.045 is within two errors of 0.0231
        # what diverged is worse than everything, and in no order with what diverged too
        (-3.0, DIVERGED, {"margin": 1.0}, "holds"),
        (DIVERGED, -3.0, {"margin": -1.0}, "does not hold"),
        (DIVERGED, DIVERGED, {}, "undecided"),
        (DIVERGED, DIVERGED, {"doubt": "holds"}, "undecided"),
        # of what was capped, only what it had spent is known
        (10, Measured(INF, least=50), {}, "holds"),
        (10, Measured(INF, least=5), {}, "undecided (capped)"),
        (Measured(INF, least=90), 20, {}, "does not hold"),
        (Measured(INF, least=90), Measured(INF, least=20), {}, "undecided (capped)"),
    ],
)
def test_a_verdict_weighs_the_difference(a, b, options, verdict):
    assert Claim("a before b", ("a",), ("b",), **options).verdict(numbers(a=a, b=b)) == verdict


@pytest.mark.parametrize(
    ("a", "bounds", "verdict"),
    [
        (0.5, {"most": 0.6}, "holds"),
        (0.7, {"most": 0.6}, "does not hold"),
        (0.5, {"least": 0.4, "most": 0.6}, "holds"),
        (0.3, {"least": 0.4}, "does not hold"),
        (DIVERGED, {"most": 1.0}, "does not hold"),
        (DIVERGED, {"least": 0.5}, "undecided"),  # what diverged is nowhere
    ],
)
def test_a_number_lies_between_bounds(a, bounds, verdict):
    assert Claim("bounded", ("a",), **bounds).verdict(numbers(a=a)) == verdict
    both = numbers(a=a, b=0.55)
    assert Claim("bounded", ("a", "b"), **bounds).verdict(both) == verdict


def test_it_holds_for_all_pairs_or_for_the_best_of_each_side():
    given = numbers(**{"A, x": 10.0, "A, y": 40.0, "B": 20.0, "C": DIVERGED})
    assert Claim("all of A", ("A*",), ("B",)).verdict(given) == "does not hold"
    assert Claim("best A", ("A*",), ("B",), bests=True).verdict(given) == "holds"
    assert Claim("all that ends", ("A, x", "B"), ("A, y", "C")).verdict(given) == "holds"
    assert Claim("x before all", ("A, x",), ("*",)).verdict(given) == "holds"
    assert Claim("y before all", ("A, y",), ("*",), bests=True).verdict(given) == "does not hold"


def test_all_parts_of_a_claim_must_hold():
    given = {"gap": numbers(a=1, b=2, c=3)["a number"], "error": numbers(a=(1, 1), b=(2, 1), c=(9, 1))["a number"]}
    assert in_order("abc", "a", "b", "c").verdict(given) == "holds"
    assert in_order("acb", "a", "c", "b").verdict(given) == "does not hold"
    assert in_order("abc by errors", "a", "b", "c", statistic="error").verdict(given) == "undecided"
    both = Claim("both", ("a",), ("b",), also=[Claim("", ("a",), ("b",), "error")])
    assert both.verdict(given) == "undecided"


def test_claims_about_no_curve_are_refused():
    given = numbers(**{"A, x": 1, "B": 2})
    with pytest.raises(InputError, match=r"^claim 'C first' names no curve by 'C': have A, x, B$"):
        Claim("C first", ("C",), ("B",)).verdict(given)
    with pytest.raises(InputError, match=r"^claim 'itself' compares curves with themselves$"):
        Claim("itself", ("B",), ("B",)).verdict(given)
    curves = [Contender("gd"), Contender("sgd", note="late")]
    check(curves, [Claim("", ("GD",), ("SGD*",))])
    for claim in (Claim("", ("GD",), ("SGD",)), in_order("", "GD", "SGD")):
        with pytest.raises(InputError, match="names no curve by 'SGD'"):
            check(curves, [claim])
    with pytest.raises(InputError, match="unknown statistic 'bits'"):
        Claim("", ("A, x",), ("B",), "bits").verdict(given)
    with pytest.raises(InputError, match="different labels"):
        check([Contender("gd"), Contender("gd")], [])


def test_facts_as_files_have_them():
    assert Measured.of({"mean": 0.5, "error": None}, -1) == Measured(-0.5)
    assert Measured.of({"mean": 0.5, "error": 0.1}) == Measured(0.5, 0.1)
    assert Measured.of(None) == Measured.of({"mean": None, "error": None}) == DIVERGED
