"""Grids and samples of configurations: order, names of fields, theory computed again, draws, and every error line."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import qmc

import fedjax_lc as fl
from fedjax_lc.compressors import Compressor, Natural, parse
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Scalar
from fedjax_lc.sweeping.axes import Span, Times, loguniform, parse_axis, times, uniform
from fedjax_lc.sweeping.grid import Grid, grid, sample


@pytree.dataclass
class Hparams:
    gamma: float
    p: float
    compressor: Compressor
    s: Scalar = 2  # a number that may be traced, whole in the base
    local_steps: int = pytree.static(4)
    bits: str = pytree.static("mean")
    own: bool = pytree.static(False)
    cohort_size: int | None = pytree.static(None)


HP = Hparams(gamma=0.5, p=0.25, compressor=parse("rand_k:2|natural"))
CALLS: list[dict] = []


def theory(compressor: Compressor | str | None = None, local_steps: int = 4, p: str | float = "theory") -> Hparams:
    """A made-up theory in which every choice moves gamma."""
    CALLS.append({"compressor": compressor, "local_steps": local_steps, "p": p})
    chosen = parse(compressor or "rand_k:2|natural")
    p = {"theory": 0.25, "balanced": 0.5}.get(p) or float(p)
    gamma = 1 / (1 + float(chosen.omega(8))) / local_steps
    return Hparams(gamma=gamma, p=p, compressor=chosen, local_steps=local_steps)


def values(found, path):
    return [functools.reduce(getattr, path.split("."), hp) for hp in found]


def one_line(text, call, *args, **axes):
    with pytest.raises(InputError) as caught:
        call(*args, **axes)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- grids


def test_row_major_order_with_the_last_axis_fastest():
    found = grid(HP, p=[0.1, 0.2], gamma=[3.0, 1.0, 2.0])
    assert len(found) == 6
    assert [(hp.p, hp.gamma) for hp in found] == [(p, g) for p in (0.1, 0.2) for g in (3.0, 1.0, 2.0)]
    assert found.axes == {"p": (0.1, 0.2), "gamma": (3.0, 1.0, 2.0)}
    assert list(found.axes) == ["p", "gamma"]
    assert found.settings == tuple({"p": hp.p, "gamma": hp.gamma} for hp in found)
    assert all(hp.compressor == HP.compressor and hp.local_steps == 4 for hp in found)


def test_order_is_the_order_given_even_where_the_last_axis_is_applied_first():
    found = grid(theory, **{"compressor.k": [1, 2], "gamma": times([1, 2]), "compressor": "rand_k:4; top_k:4"})
    assert list(found.axes) == ["compressor.k", "gamma/theory", "compressor"]
    assert [str(hp.compressor) for hp in found][:3] == ["rand_k:1", "top_k:1", "rand_k:1"]


def test_no_axis_is_the_base_itself():
    assert grid(HP) == Grid((HP,), {}, ({},))
    assert list(grid(theory)) == [theory()]


def test_one_value_makes_an_axis_of_one():
    found = grid(HP, gamma=0.3, compressor=Natural(), own=True)
    assert found.axes == {"gamma": (0.3,), "compressor": ("natural",), "own": (True,)}


@pytest.mark.parametrize("given", [np.array([0.1, 0.2]), jnp.array([0.1, 0.2]), (x for x in (0.1, 0.2)), "0.1, 0.2"])
def test_numbers_come_out_plain(given):
    found = grid(HP, gamma=given)
    assert values(found, "gamma") == [0.1, 0.2]
    assert {type(value) for value in [*values(found, "gamma"), *found.axes["gamma"]]} == {float}


def test_numbers_have_the_kind_of_the_base():
    assert [type(value) for value in values(grid(HP, gamma=[1, 0.5]), "gamma")] == [float, float]
    whole = grid(HP, local_steps=np.array([1.0, 2.0]), **{"compressor.k": range(1, 4), "s": [2, 3]})
    assert {type(value) for name in ("local_steps", "compressor.first.k", "s") for value in values(whole, name)} == {
        int
    }
    # A float field whose base happens to be whole keeps fractions.
    assert values(grid(pytree.replace(HP, gamma=1), gamma="log:0.25:1:3"), "gamma") == [0.25, 0.5, 1.0]
    assert values(grid(pytree.replace(HP, gamma=1), gamma=times([0.25, 2])), "gamma") == [0.25, 2]


def test_words_and_truth_values():
    found = grid(HP, bits="mean, max", own="true, false")
    assert found.axes == {"bits": ("mean", "max"), "own": (True, False)}
    assert values(found, "own") == [True, False, True, False]


def test_schedules_are_words():
    base = functools.partial(
        fl.algorithms.get("fedavg").theory, fl.problems.quadratic(np.ones((2, 3)), np.ones((2, 3)))
    )
    found = grid(base, client_schedule=["constant", "cosine:10"])
    assert values(found, "client_schedule") == ["constant", "cosine:10"]


@pytest.mark.parametrize("given", [[2, None], "2, None"])
def test_none_is_a_value_where_the_annotation_admits_it(given):
    found = grid(HP, cohort_size=given, gamma=[0.1])
    assert found.axes == {"cohort_size": (2, "None"), "gamma": (0.1,)}
    assert found.settings[1] == {"cohort_size": "None", "gamma": 0.1}
    assert values(found, "cohort_size") == [2, None]
    assert set(values(sample(HP, 20, cohort_size=given), "cohort_size")) == {2, None}
    default = grid(theory, compressor=[None, "natural"])
    assert list(default) == [theory(), theory("natural")]
    one_line("axis cohort_size has None twice", grid, HP, cohort_size=[None, None])
    one_line("takes finite numbers or None, got 'x'", grid, HP, cohort_size="2, x")


def test_compressors_as_objects_or_strings():
    found = grid(HP, compressor=["rand_k:1|natural", Natural()])
    assert values(found, "compressor") == [parse("rand_k:1|natural"), Natural()]
    assert found.axes == {"compressor": ("rand_k:1|natural", "natural")}
    assert found.settings[1] == {"compressor": "natural"}


# ---- nested fields


@pytest.mark.parametrize("name", ["compressor.first.k", "compressor.k", "compressor__k", "compressor__first__k"])
def test_nested_fields_by_path_or_by_their_one_name(name):
    found = grid(HP, **{name: [1, 3]})
    assert [str(c) for c in values(found, "compressor")] == ["rand_k:1|natural", "rand_k:3|natural"]
    assert list(found.axes) == [name.replace("__", ".")]


def test_a_field_that_is_there_wins_over_one_deeper():
    hp = pytree.replace(HP, compressor=parse("scaled(rand_k:2)"))
    assert str(grid(hp, compressor__inner="natural").hparams[0].compressor) == "scaled(natural)"
    assert grid(hp, compressor__k=[1]).hparams[0].compressor.inner.k == 1


def test_nested_errors():
    two = pytree.replace(HP, compressor=parse("rand_k:2|rand_k:1"))
    one_line("compressor.first.k or compressor.second.k: write one of them in full", grid, two, compressor__k=[1])
    one_line("did you mean 'compressor.first.k'", grid, HP, k=[1])
    one_line("one field, compressor.first.k", grid, HP, compressor__k=[1], compressor__first__k=[2])
    one_line("given twice", grid, HP, **{"compressor__k": [1], "compressor.k": [2]})
    one_line("(compressor is natural)", grid, HP, compressor="rand_k:1; natural", compressor__k=[1])


def test_whole_compressors_come_before_what_is_inside():
    found = grid(HP, compressor__k=[1, 3], compressor="rand_k:2; top_k:2")
    assert [str(c) for c in values(found, "compressor")] == ["rand_k:1", "top_k:1", "rand_k:3", "top_k:3"]
    without = pytree.replace(HP, compressor=Natural())
    assert grid(without, compressor__k=[3], compressor="rand_k:2").hparams == grid(HP, compressor="rand_k:3").hparams


# ---- theory and multipliers


def test_choices_of_the_base_are_passed_so_theory_follows():
    found = grid(theory, compressor="rand_k:1; rand_k:4", local_steps=[2, 4], p="theory, balanced, 1")
    expected = [theory(c, h, p) for c in ("rand_k:1", "rand_k:4") for h in (2, 4) for p in ("theory", "balanced", 1)]
    assert list(found) == expected
    assert found.axes["p"] == ("theory", "balanced", 1)
    assert type(found.hparams[2].p) is float


def test_other_axes_replace_fields_and_theory_does_not_follow():
    found = grid(theory, gamma=[7.0], compressor__k=[1])
    assert found.hparams[0] == pytree.replace(theory(), gamma=7.0, compressor=parse("rand_k:1|natural"))


def test_theory_is_computed_once_for_each_choice():
    CALLS.clear()
    found = grid(theory, compressor="rand_k:1; natural", gamma=np.linspace(0.1, 1, 20))
    assert len(found) == 40
    assert len(CALLS) <= 3  # the two choices, and the default that axes are held against


def test_times_multiplies_each_configurations_own_value():
    found = grid(theory, compressor="rand_k:1; natural", gamma=times([0.5, 2]))
    assert found.axes == {"compressor": ("rand_k:1", "natural"), "gamma/theory": (0.5, 2)}
    assert found.settings[3] == {"compressor": "natural", "gamma/theory": 2}
    own = [theory("rand_k:1").gamma, theory("natural").gamma]
    assert own[0] != own[1]
    assert values(found, "gamma") == [0.5 * own[0], 2 * own[0], 0.5 * own[1], 2 * own[1]]


def test_times_of_plain_hyperparameters_and_of_nested_fields():
    found = grid(HP, gamma="theory*0.5, 4", compressor__k=times([0.5, 1, 2]))
    assert list(found.axes) == ["gamma/theory", "compressor.k/theory"]
    assert values(found, "gamma") == [0.25] * 3 + [2.0] * 3
    assert values(found, "compressor.first.k") == [1, 2, 4] * 2
    assert {type(k) for k in values(found, "compressor.first.k")} == {int}


def test_times_of_a_choice_is_passed_on():
    found = grid(theory, local_steps=times([0.5, 2]), compressor=["natural"])
    assert list(found) == [theory("natural", 2), theory("natural", 8)]
    own = grid(lambda s=None: pytree.replace(HP, s=s or 2), s=times([1, 2]))
    assert [repr(s) for s in values(own, "s")] == ["2", "4"]


def test_times_errors():
    one_line("needs a number, got rand_k:2|natural", grid, HP, compressor=times([1]))
    one_line("needs a number, got 'mean'", grid, HP, bits="theory*1,2")
    one_line("0.3 times the base's value is 1.2, not a whole number", grid, HP, local_steps=times([0.3]))
    one_line("takes finite numbers, got 'natural'", grid, HP, gamma="theory*natural")
    one_line("multiplies twice", grid, HP, gamma="theory*theory*2")
    one_line("axis gamma/theory is empty", grid, HP, gamma=times([]))


@pytest.mark.parametrize("name", fl.algorithms.names())
def test_every_method_multiplies_its_theory(name, problem):
    method = fl.algorithms.get(name)
    base = functools.partial(method.theory, problem)
    number = next(f.name for f in dataclasses.fields(method.Hparams) if isinstance(getattr(base(), f.name), float))
    found = grid(base, **{number: times([0.25, 1])})
    assert found.hparams[1] == base()
    assert getattr(found.hparams[0], number) == getattr(base(), number) / 4


def test_the_methods_theory_follows_compressor_and_p(problem):
    method = fl.algorithms.get("locodl")
    found = grid(functools.partial(method.theory, problem), compressor="rand_k:1|natural; natural", p="balanced, 0.3")
    expected = [method.theory(problem, c, p) for c in ("rand_k:1|natural", "natural") for p in ("balanced", 0.3)]
    assert list(found) == expected
    for hp in found:
        method.check(problem, hp)


# ---- tree structure


def test_numbers_never_change_the_tree_structure():
    found = grid(HP, gamma=[1, 0.5], p="linear:0.1:1:3", s=[2, 3], compressor__k="log:1:64:4")
    assert len({jax.tree.structure(hp) for hp in found}) == 1
    leaves = zip(*map(jax.tree.leaves, found), strict=True)
    assert all(len(set(map(type, same))) == 1 for same in leaves)
    drawn = sample(theory, 20, gamma="theory*loguniform:0.1:10", p="uniform:0.1:0.9", compressor__k="uniform:1:8")
    assert len({jax.tree.structure(hp) for hp in drawn}) == 1


def test_choices_and_compressors_do():
    found = grid(HP, local_steps=[1, 2], compressor="rand_k:1; rand_k:2; natural", gamma=[0.1, 0.2])
    assert len({jax.tree.structure(hp) for hp in found}) == 4


# ---- strings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1, 0.3, 1", (0.1, 0.3, 1)),
        ("-1e-3", (-1e-3,)),
        ("linear:0:1:3", Span(0, 1, False, 3)),
        (" log : 0.25:4: 9", Span(0.25, 4, True, 9)),
        ("uniform:0.1:1", uniform(0.1, 1)),
        ("loguniform:0.1:1", loguniform(0.1, 1)),
        ("theory * log:0.25:4:9", Times(Span(0.25, 4, True, 9))),
        ("theory*loguniform:0.25:4", times(loguniform(0.25, 4))),
        ("theory*0.5,1", Times((0.5, 1))),
        ("theory, balanced", ("theory", "balanced")),
        ("rand_k:1|natural; natural", ("rand_k:1|natural", "natural")),
        ("rand_k:4,index=binom", ("rand_k:4,index=binom",)),
        ("rand_k:4,index=binom; natural", ("rand_k:4,index=binom", "natural")),
        ("induced(rand_k:1;natural); identity", ("induced(rand_k:1;natural)", "identity")),
        ("identity, natural", ("identity", "natural")),
    ],
)
def test_string_forms(text, expected):
    assert parse_axis(text) == expected


def test_spaced_values():
    assert values(grid(HP, gamma="linear:0.1:0.5:5"), "gamma") == [0.1, 0.2, 0.3, 0.4, 0.5]
    log = values(grid(HP, gamma="log:0.25:4:9"), "gamma")
    assert (log[0], log[4], log[8]) == (0.25, 1.0, 4.0)
    np.testing.assert_allclose(log, np.geomspace(0.25, 4, 9), rtol=1e-14)
    assert values(grid(HP, gamma="log:2:4:1"), "gamma") == [2.0]


def test_spaced_values_of_whole_fields_are_distinct_whole_numbers():
    assert grid(HP, compressor__k="log:1:64:7").axes == {"compressor.k": (1, 2, 4, 8, 16, 32, 64)}
    assert grid(HP, local_steps="log:1:4:9").axes == {"local_steps": (1, 2, 3, 4)}
    assert grid(theory, local_steps="linear:1:3:3").axes == {"local_steps": (1, 2, 3)}
    assert grid(HP, gamma="log:1:4:9").axes["gamma"][1] == pytest.approx(2**0.25)
    multipliers = grid(pytree.replace(HP, gamma=8), gamma="theory*log:1:4:3").axes["gamma/theory"]
    assert multipliers == (1, 2, 4)


# ---- samples


@pytest.mark.parametrize("method", ["random", "sobol", "halton", "latin"])
@pytest.mark.parametrize("num", [1, 7, 16])
def test_samples_are_reproducible_and_inside_their_bounds(method, num):
    axes = {"gamma": loguniform(0.01, 10), "p": "uniform:0.2:0.4", "compressor": ["rand_k:1", "natural"]}
    found = sample(HP, num, method=method, seed=3, **axes)
    assert len(found) == num
    assert found.axes == {}
    assert found == sample(HP, num, method=method, seed=3, **axes)
    assert found != sample(HP, num, method=method, seed=4, **axes)
    for hp, setting in zip(found, found.settings, strict=True):
        assert setting == {"gamma": hp.gamma, "p": hp.p, "compressor": str(hp.compressor)}
        assert 0.01 <= hp.gamma <= 10
        assert 0.2 <= hp.p <= 0.4
        assert type(hp.gamma) is float


def test_loguniform_is_uniform_in_the_logarithm_and_choices_are_equally_likely():
    found = sample(HP, 300, method="latin", gamma=loguniform(0.01, 100), compressor="rand_k:1; rand_k:2; natural")
    exponents = np.floor(np.log10(values(found, "gamma"))).astype(int)
    assert [int(np.sum(exponents == e)) for e in (-2, -1, 0, 1)] == [75] * 4
    labels = [setting["compressor"] for setting in found.settings]
    assert [labels.count(label) for label in ("rand_k:1", "rand_k:2", "natural")] == [100] * 3


def test_whole_numbers_are_drawn_equally_likely_ends_included():
    found = sample(HP, 400, method="latin", compressor__k=uniform(1, 4), local_steps=loguniform(1, 3))
    k, steps = values(found, "compressor.first.k"), values(found, "local_steps")
    assert [k.count(v) for v in (1, 2, 3, 4)] == [100] * 4
    shares = np.array([steps.count(v) for v in (1, 2, 3)]) / 400
    np.testing.assert_allclose(shares, np.log([2, 3 / 2, 4 / 3]) / np.log(4), atol=0.005)
    assert {type(v) for v in k + steps} == {int}


def test_samples_of_multipliers_follow_theory():
    found = sample(theory, 32, gamma=times(loguniform(0.5, 2)), compressor="rand_k:1; natural")
    for hp, setting in zip(found, found.settings, strict=True):
        assert 0.5 <= setting["gamma/theory"] <= 2
        assert hp.gamma == setting["gamma/theory"] * theory(setting["compressor"]).gamma
    assert len({setting["gamma/theory"] for setting in found.settings}) == 32
    multipliers = [setting["s/theory"] for setting in sample(HP, 8, s=times(uniform(1, 4))).settings]
    assert all(not multiplier.is_integer() for multiplier in multipliers)


def test_low_discrepancy_is_lower_than_that_of_random_draws():
    def discrepancy(method, seed):
        found = sample(HP, 100, method=method, seed=seed, gamma=uniform(0, 1), p=uniform(0, 1))
        return qmc.discrepancy(np.array([(hp.gamma, hp.p) for hp in found]))

    worst = {m: max(discrepancy(m, seed) for seed in range(8)) for m in ("sobol", "halton", "latin")}
    random = [discrepancy("random", seed) for seed in range(8)]
    assert worst["latin"] < np.median(random)
    assert max(worst["sobol"], worst["halton"]) < min(random) / 2


def test_values_and_spaced_strings_are_choices_of_a_sample():
    found = sample(HP, 30, gamma="log:1:4:3", p=[0.1, 0.2])
    assert set(values(found, "gamma")) == {1.0, 2.0, 4.0}
    assert set(values(found, "p")) == {0.1, 0.2}


def test_sample_errors():
    one_line("at least one axis", sample, HP, 4)
    one_line("at least 1, got 0", sample, HP, 0, gamma=uniform(0, 1))
    one_line("at least 1, got 2.5", sample, HP, 2.5, gamma=uniform(0, 1))
    one_line("whole seed, at least 0, got -1", sample, HP, 4, seed=-1, gamma=uniform(0, 1))
    one_line("unknown sampling method 'sobl': did you mean 'sobol'", sample, HP, 4, method="sobl", gamma=uniform(0, 1))
    one_line("takes whole numbers, got 1.5", sample, HP, 4, local_steps=uniform(1.5, 3))
    one_line("takes compressors such as rand_k:1, got 0", sample, HP, 4, compressor=uniform(0, 1))
    one_line("takes words, got 0", sample, HP, 4, bits=uniform(0, 1))


# ---- errors


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        ({"gama": [1]}, "unknown hyperparameter 'gama': did you mean 'gamma'"),
        ({"gamma": []}, "axis gamma is empty: give at least one value"),
        ({"gamma": ""}, "axis '' is empty"),
        ({"gamma": "0.1,,2"}, "has an empty value"),
        ({"compressor": "natural;"}, "has an empty value"),
        ({"gamma": [0.1, 0.1]}, "axis gamma has 0.1 twice"),
        ({"gamma": [1, 1.0]}, "axis gamma has 1.0 twice"),
        ({"compressor": ["rand_k:1", "rand_k:k=1"]}, "axis compressor has rand_k:1 twice"),
        ({"gamma": ["a"]}, "axis gamma takes finite numbers, got 'a'"),
        ({"gamma": "0.1, x"}, "axis gamma takes finite numbers, got 'x'"),
        ({"gamma": [True]}, "axis gamma takes finite numbers, got True"),
        ({"gamma": [float("nan")]}, "axis gamma takes finite numbers, got nan"),
        ({"gamma": [None]}, "axis gamma takes finite numbers, got None"),
        ({"gamma": np.ones((2, 2))}, "axis gamma takes finite numbers, got array"),
        ({"gamma": None}, "takes a list of values"),
        ({"gamma": {0.1, 0.2}}, "takes a list of values"),
        ({"gamma": Natural()}, "axis gamma takes finite numbers, got natural"),
        ({"compressor": [1]}, "takes compressors such as rand_k:1, got 1"),
        ({"compressor": "rand_kk:1"}, "unknown compressor 'rand_kk': did you mean 'rand_k'"),
        ({"own": [2]}, "axis own takes true or false, got 2"),
        ({"bits": [2]}, "axis bits takes words, got 2"),
        ({"local_steps": [1.5]}, "axis local_steps takes whole numbers, got 1.5"),
        ({"local_steps": "log:0.5:4:3"}, "axis local_steps takes whole numbers, got 0.5"),
        ({"gamma": "log:1:0.1:3"}, "needs lo < hi, got 1 and 0.1"),
        ({"gamma": "linear:1:1:3"}, "needs lo < hi, got 1 and 1"),
        ({"gamma": "log:0:1:3"}, "needs lo > 0, got 0"),
        ({"gamma": "linear:0:1:0"}, "at least 1, got 0"),
        ({"gamma": "linear:0:1:2.5"}, "at least 1, got 2.5"),
        ({"gamma": "linear:0:inf:2"}, "finite numbers as its ends, got 0 and inf"),
        ({"gamma": "log:a:1:2"}, "finite numbers as its ends, got 'a' and 1"),
        ({"gamma": "log:0.1:1"}, "must be log:LO:HI:NUM, got 2 of its 3 numbers"),
        ({"gamma": "uniform:0.1:1:3"}, "must be uniform:LO:HI, got 3 of its 2 numbers"),
        ({"gamma": uniform(0.1, 1)}, "axis gamma is uniform:0.1:1: only sample() draws"),
        ({"gamma": times(loguniform(0.1, 1))}, "axis gamma is loguniform:0.1:1: only sample() draws"),
    ],
)
def test_a_bad_axis_is_one_line(axes, text):
    one_line(text, grid, HP, **axes)


def test_bad_ranges_are_one_line():
    one_line("needs lo < hi, got 2 and 1", uniform, 2, 1)
    one_line("needs lo > 0, got 0", loguniform, 0, 1)
    one_line("finite numbers as its ends", uniform, "a", 1)


def test_a_bad_base_is_one_line():
    one_line("got 'locodl'", grid, "locodl", gamma=[1])
    one_line("needs problem: use functools.partial", grid, fl.algorithms.get("locodl").theory, gamma=[1])
    one_line("must return hyperparameters, got 3", grid, lambda: 3, gamma=[1])
    one_line("does not take p=foo", grid, theory, p="foo")
    one_line("choice", grid, theory, choice=[1])


# ---- Grid.of


def test_grid_of():
    found = grid(HP, gamma=[0.1, 0.2])
    assert Grid.of(found) is found
    assert Grid.of(HP) == Grid((HP,), {}, ({},))
    assert Grid.of(list(found)) == Grid(found.hparams, {}, ({}, {}))
    one_line("at least one configuration", Grid.of, [])
    one_line("got 3", Grid.of, [HP, 3])
    one_line("got 3", Grid.of, 3)
    one_line("several kinds", Grid.of, [HP, Natural()])
