"""EF21-P and 2Direction beyond the contract: what is refused, what is paid, and 2Direction in float32."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from tests.algorithms.shared import walk
from tests.conftest import make_clients


def test_ef21_p_has_a_rate_only_where_gradients_are_sent_as_they_are(problem):
    method = algorithms.get("ef21_p")
    hp = method.theory(problem)
    assert method.rate(problem, hp) == 1 - hp.gamma * float(problem.strong) / 2
    compressed = method.theory(problem, compressor="rand_k:1")
    assert compressed.gamma < hp.gamma
    assert method.rate(problem, compressed) == np.inf
    assert method.rate(problem, method.theory(problem, scale=2)) == np.inf


@pytest.mark.parametrize("name", ["ef21_p", "ef21_p_diana"])
def test_scale_multiplies_the_step_size(name, problem):
    once, more = (algorithms.get(name).theory(problem, scale=scale) for scale in (1, 16))
    assert more.gamma == 16 * once.gamma


def test_two_direction_pays_for_its_start_and_for_its_coin(problem):
    """The first step brings dense gradients up and their mean down; the coin sends z and k."""
    hp = algorithms.get("two_direction").theory(problem, "rand_k:2", "top_k:1")
    states, costs, _ = walk("two_direction", problem, hp, 200)
    dense, message = 32 * problem.dim, 2 * (32 + 3)
    np.testing.assert_array_equal(costs.bits_up - 2 * message, [dense, *[0] * 199])
    np.testing.assert_array_equal(costs.rounds, [2, *[1] * 199])
    np.testing.assert_array_equal(costs.grads, 2)
    moved = np.any(np.diff(states.z, axis=0, prepend=states.z[:1] + 1) != 0, axis=1)  # of the first one, the price says
    moved[0] = costs.bits_down[0] > 2 * dense
    np.testing.assert_array_equal(costs.bits_down, (32 + 3) + 2 * dense * moved + dense * (np.arange(200) == 0))
    assert moved.mean() == pytest.approx(hp.p, abs=4 * np.sqrt(hp.p * (1 - hp.p) / 200))


@pytest.mark.parametrize("mu", ["strong", 0.0])
def test_two_direction_stays_finite_in_float32(mu):
    """Gamma would have overflowed after some thousand steps; 1/Gamma underflows where mu > 0, and nothing happens."""
    problem = fl.problems.logistic_regression(make_clients(dim=8), kappa=100, dtype="float32")
    hp = algorithms.get("two_direction").theory(problem)
    hp = hp if mu == "strong" else dataclasses.replace(hp, mu=mu)
    trace = fl.run("two_direction", problem, hp, steps=10_000, every=1000, progress=False)
    assert trace.status == "finished"
    assert np.all(trace.rel_gap < 1e-5)
    assert trace.state.i.dtype == jnp.float32
    assert (trace.state.i < 1e-30) == (mu == "strong")
