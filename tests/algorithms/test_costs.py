"""What a step is charged for, method by method, and the one-line errors of theory."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, problems
from fedjax_lc.algorithms import choose
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import walk

STEPS = 50  # as in test_agreement, so that both use the same compiled walks


def charged(name, problem, **choices):
    """Columns bits_up, bits_down, grads, rounds of STEPS steps, and which of them communicate."""
    _, cost, _ = walk(name, problem, algorithms.get(name).theory(problem, **choices), STEPS)
    return cost, cost.rounds > 0


@pytest.mark.parametrize("name", ["gd", "agd"])
def test_uncompressed_every_step(name, problem):
    cost, _ = charged(name, problem)
    np.testing.assert_array_equal(np.stack(cost, axis=1), [[160, 160, 1, 1]] * STEPS)


def test_scaffnew_pays_only_when_the_coin_says_so(problem):
    cost, talks = charged("scaffnew", problem)
    assert 0 < talks.sum() < STEPS
    np.testing.assert_array_equal(cost.grads, 1)
    np.testing.assert_array_equal(cost.bits_up, 160 * talks)
    np.testing.assert_array_equal(cost.bits_down, 160 * talks)


@pytest.mark.parametrize(("name", "up", "grads"), [("diana", 24, 1), ("adiana", 48, 2), ("fedcomgate", 24, 10)])
def test_one_or_two_messages_a_round(name, up, grads, problem):
    """rand-2 and natural of 5 coordinates: 2 (9 + 3) bits."""
    cost, _ = charged(name, problem, compressor="rand_k:2|natural")
    np.testing.assert_array_equal(np.stack(cost, axis=1), [[up, 160, grads, 1]] * STEPS)


def test_locodl_sends_one_message_when_the_coin_says_so(problem):
    cost, talks = charged("locodl", problem, compressor="rand_k:2|natural", p=0.5)
    assert 0 < talks.sum() < STEPS
    np.testing.assert_array_equal(cost.bits_up, 24 * talks)
    np.testing.assert_array_equal(cost.grads, 1)


@pytest.mark.parametrize(
    ("name", "choices"), [("ef21", {"compressor": "top_k:2"}), ("diana", {"compressor": "rand_k:2", "smart": True})]
)
def test_a_dense_first_message_has_one_price(name, choices, problem):
    """32 bits for each of 5 coordinates; then 2 (32 + 3) bits."""
    hp = algorithms.get(name).theory(problem, compressor=choices.pop("compressor"))
    cost = walk(name, problem, dataclasses.replace(hp, **choices), STEPS)[1]
    np.testing.assert_array_equal(cost.bits_up, [160] + [70] * (STEPS - 1))
    np.testing.assert_array_equal(cost.grads, 1)
    np.testing.assert_array_equal(cost.rounds, 1)


@pytest.mark.parametrize(("n", "d", "s"), [(4, 5, 2), (4, 5, 3), (7, 3, 2), (7, 3, 4)])
def test_compressed_scaffnew_counts_the_mean_or_the_largest_message(n, d, s):
    """32 s d / n or 32 ceil(s d / n), whichever clients the mask picks; s d below and above n."""
    rng = np.random.default_rng(0)
    problem = problems.quadratic(rng.uniform(1, 20, size=(n, d)), rng.normal(size=(n, d)))
    mean, talks = charged("compressed_scaffnew", problem, s=s)
    largest, _ = charged("compressed_scaffnew", problem, s=s, bits="max")
    np.testing.assert_allclose(mean.bits_up, 32 * s * d / n * talks, rtol=1e-6)
    np.testing.assert_array_equal(largest.bits_up, 32 * -(-s * d // n) * talks)
    np.testing.assert_array_equal(mean.bits_down, 32 * d * talks)


def test_tamuna_charges_its_cohort(problem):
    """3 of 4 clients: 32 s d up in all, and down the model to each and the masked entries of the new one."""
    cost, _ = charged("tamuna", problem, cohort_size=3)
    largest, _ = charged("tamuna", problem, cohort_size=3, bits="max")
    np.testing.assert_allclose(cost.bits_up, 32 * 2 * 5 / 4, rtol=1e-6)
    np.testing.assert_array_equal(largest.bits_up, 32 * 4)
    np.testing.assert_allclose(cost.bits_down, 32 * (3 * 5 + 2 * 5) / 4, rtol=1e-6)
    np.testing.assert_array_equal(cost.rounds, 1)
    steps = cost.grads * 4 / 3
    np.testing.assert_allclose(steps, np.round(steps), rtol=1e-6)


def test_five_gcs_cc_charges_its_cohort(problem):
    cost, _ = charged("five_gcs_cc", problem, compressor="rand_k:2", cohort_size=2, local_steps=7)
    np.testing.assert_array_equal(np.stack(cost, axis=1), [[70 / 2, 160 / 2, 8 / 2, 1]] * STEPS)


def test_every_client_is_sampled_about_equally(problem):
    """Clients whose control variate moves are the cohort; 3 of 4 in each round, each in about 3/4 of them."""
    states, _, _ = walk("tamuna", problem, algorithms.get("tamuna").theory(problem, cohort_size=3, s=3), 120)
    moved = np.any(np.diff(states.h, axis=0) != 0, axis=2)
    np.testing.assert_array_equal(moved.sum(axis=1), 3)
    np.testing.assert_allclose(moved.mean(axis=0), 3 / 4, atol=4 * np.sqrt(3 / 16 / 120))


def test_fedcomgate_takes_one_gradient_per_local_step(problem):
    cost, _ = charged("fedcomgate", problem, local_steps=4)
    np.testing.assert_array_equal(cost.grads, 4)


def test_tamuna_with_p_one_takes_one_local_step():
    """p = 1 is a legal corner of the geometric law."""
    steps = jax.vmap(lambda k: jax.random.geometric(k, 1.0, dtype=jnp.int32))(jax.random.split(jax.random.key(0), 1000))
    assert set(np.asarray(steps)) == {1}


@pytest.mark.parametrize(("name", "choices", "message"), [
    ("diana", {"compressor": "top_k:1"}, "biased"),
    ("locodl", {"compressor": "top_k:1"}, "biased"),
    ("adiana", {"compressor": "rand_k:9"}, "k"),
    ("ef21", {"compressor": "zero"}, "contraction"),
    ("agd", {"smooth": "men"}, "did you mean 'mean'"),
])  # fmt: skip
def test_theory_says_what_does_not_fit(name, choices, message, problem):
    with pytest.raises(InputError, match=message) as error:
        algorithms.get(name).theory(problem, **choices)
    assert "\n" not in str(error.value)


#: methods whose theory counts on mu
OF_MU = ("adiana", "agd", "cold", "compressed_scaffnew", "dyna_cold", "five_gcs_cc", "gd", "lead", "lessbit", "locodl",
         "scaffnew", "tamuna")  # fmt: skip
STEP_SIZES = ("gamma", "client_lr", "Lbar", "eta", "mu")


@pytest.mark.parametrize("name", algorithms.names())
def test_theory_asks_for_no_strong_convexity(name, clients):
    """Without it step sizes are numbers, one line says which of them rest on the mu that stands in, and only where a
    theorem would have one; no rate is then claimed."""
    flat, steep = (problems.logistic_regression(clients, **how) for how in ({"l2": 0.0}, {"kappa": 30}))
    algorithm = algorithms.get(name)
    hp, rule = algorithm.theory(flat), algorithm.working_rule(flat)
    assert 0 < next(getattr(hp, field) for field in STEP_SIZES if hasattr(hp, field)) < np.inf
    algorithm.check(flat, hp)
    assert algorithm.working_rule(steep) is None
    named = (
        [] if rule is None else re.match(".*convexity: (.*) from mu = L/25", rule)[1].replace(" and", ",").split(", ")
    )
    assert set(named) <= {field.name for field in dataclasses.fields(hp)}
    assert (name in OF_MU) == bool(named)
    assert algorithm.working_rule(flat, {field: getattr(hp, field) for field in named}) is None
    if algorithm.rate is not None:
        with pytest.raises(InputError, match="strongly convex"):
            algorithm.rate(flat, hp)


@pytest.mark.parametrize("name", ["compressed_scaffnew", "tamuna"])
def test_sharing_needs_two_clients(name, clients):
    with pytest.raises(InputError, match="at least 2 clients"):
        algorithms.get(name).theory(problems.logistic_regression(clients[:1], l2=0.1))


@pytest.mark.parametrize(("changes", "message"), [
    ({"s": 4}, "s whole and in 2..3, got 4"),
    ({"s": 1}, "s whole and in 2..3, got 1"),
    ({"s": 2.5}, "s whole and in 2..3, got 2.5"),
    ({"cohort_size": 5}, "cohort_size whole and in 1..4, got 5"),
    ({"cohort_size": 2.5}, "cohort_size whole and in 1..4, got 2.5"),
    ({"p": 0.0}, "p in \\(0, 1\\], got 0"),
    ({"gamma": -1.0}, "gamma > 0, got -1"),
])  # fmt: skip
def test_check_names_the_range(changes, message, problem):
    tamuna = algorithms.get("tamuna")
    hp = tamuna.theory(problem, cohort_size=3)
    tamuna.check(problem, hp)
    with pytest.raises(InputError, match=message):
        tamuna.check(problem, dataclasses.replace(hp, **changes))


def test_fractions_of_local_steps_are_refused(problem):
    method = algorithms.get("fedcomgate")
    hp = method.theory(problem)
    method.check(problem, dataclasses.replace(hp, local_steps=np.float32(3)))
    for steps in (2.5, np.inf, np.nan):
        with pytest.raises(InputError, match=rf"^fedcomgate needs local_steps whole and >= 1, got {steps:g}$"):
            method.check(problem, dataclasses.replace(hp, local_steps=steps))


def test_unknown_count_of_bits_is_an_error(problem):
    hp = algorithms.get("compressed_scaffnew").theory(problem, bits="maximum")
    with pytest.raises(InputError, match="did you mean 'max'"):
        walk("compressed_scaffnew", problem, hp, 1)


def test_unbiased_compressors_enter_error_feedback_scaled(problem):
    assert str(choose("rand_k:2", problem, contractive=True)) == "scaled(rand_k:2)"
    assert str(choose("identity", problem, contractive=True)) == "identity"
    assert str(choose("top_k:2", problem, contractive=True)) == "top_k:2"
    assert str(choose(None, problem, contractive=True)) == "top_k:2"
    assert str(choose(None, problem)) == "rand_k:2|natural"
