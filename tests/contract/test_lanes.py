"""A lane of a sweep is the single run with its hyperparameters and key, for every method; see tests/test_sweep.py."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.results import ledger

STEP_SIZES = ("gamma", "eta", "client_lr")
FACTORS = (1.0, 0.6)
SEEDS = (0, 3)
STABLE = {"power_gossip": {"matrix": "vector"}}  #: rank 1 of a 3 x 2 matrix amplifies rounding, by 1e10 in 100 steps


@pytest.fixture(scope="module")
def tiny(problem):
    return problem.replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=problem.dim)))


def configurations(algorithm, problem):
    """Theory's hyperparameters and the same with smaller steps, where the method has any by these names."""
    hp = algorithm.theory(problem, **STABLE.get(algorithm.name, {}))
    name = next((name for name in STEP_SIZES if hasattr(hp, name)), None)
    return [dataclasses.replace(hp, **({name: factor * getattr(hp, name)} if name else {})) for factor in FACTORS]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", algorithms.names())
def test_a_lane_is_its_single_run(name, tiny):
    """Four lanes in three slots: some start with the others, some in a slot that another has left."""
    algorithm = algorithms.get(name)
    chosen, loop = configurations(algorithm, tiny), {"steps": 200, "every": 20, "measure": "distance"}
    table = fl.sweep(name, tiny, chosen, seeds=SEEDS, block_size=3, progress=False, **loop)
    assert len(table) == len(FACTORS) * len(SEEDS)
    for lane, (config, seed) in enumerate((c, s) for c in range(len(FACTORS)) for s in SEEDS):
        ours = table.trace(lane)
        alone = fl.run(name, tiny, chosen[config], jax.random.key(seed), progress=False, **loop)
        assert ours.status == alone.status == "finished"
        for cost in ("step", *ledger.COSTS):
            np.testing.assert_array_equal(getattr(ours, cost), getattr(alone, cost), err_msg=cost)
        np.testing.assert_allclose(ours.value, alone.value, rtol=1e-10)
        scale = np.linalg.norm(np.asarray(tiny.x0) - tiny.x_star)
        np.testing.assert_allclose(ours.metrics["distance"], alone.metrics["distance"], rtol=0, atol=1e-10 * scale)
        assert ours.initial["value"] == pytest.approx(alone.initial["value"], rel=1e-12)
