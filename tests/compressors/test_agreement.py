"""The same explicit randomness through the package and through the slow NumPy references, coordinate by coordinate."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc.compressors import Threshold, parse
from tests.reference import compressors as slow

RNG = np.random.default_rng(5)
VECTORS = [
    RNG.normal(size=12),
    np.where(np.arange(12) % 3 == 0, 0.0, RNG.normal(size=12)),
    RNG.normal(size=12) * 10.0 ** RNG.uniform(-12, 12, size=12),
    np.full(12, -1.5),
]
U = RNG.random(12)
WORDS = RNG.integers(0, 2**32, 12, dtype=np.uint32)
SUBSET = np.isin(np.arange(12), np.argsort(WORDS)[:4])
CASES = [
    ("identity", None, slow.identity),
    ("zero", None, slow.zero),
    ("natural", U, lambda x: slow.natural(x, U)),
    ("bernoulli:0.4", U[:1], lambda x: slow.bernoulli(x, U[0], 0.4)),
    ("bernoulli:0.4,per=entry", U, lambda x: slow.bernoulli_coordinates(x, U, 0.4)),
    ("rand_k:4", WORDS, lambda x: slow.rand_k(x, SUBSET)),
    ("rand_k_unscaled:4", WORDS, lambda x: slow.rand_k_unscaled(x, SUBSET)),
    ("shared_rand_k:4", SUBSET, lambda x: slow.rand_k(x, SUBSET)),
    ("top_k:4", None, lambda x: slow.top_k(x, 4)),
    ("l1_select", U[:1], lambda x: slow.l1_select(x, U[0])),
    ("l1_select:biased", U[:1], lambda x: slow.l1_select_biased(x, U[0])),
    ("qsgd:3", U, lambda x: slow.qsgd(x, U, 3)),
    ("dithering:3,norm=inf", U, lambda x: slow.qsgd(x, U, 3, math.inf)),
    ("dithering:3,norm=1", U, lambda x: slow.qsgd(x, U, 3, 1)),
    ("ternary", U, lambda x: slow.terngrad(x, U)),
    ("natural_dithering:3", U, lambda x: slow.natural_dithering(x, U, 3)),
    ("natural_dithering:3,q=inf", U, lambda x: slow.natural_dithering(x, U, 3, math.inf)),
    ("sign", None, slow.scaled_sign),
    ("block_sign:5", None, lambda x: slow.block_sign(x, 5)),
    ("low_rank:2,rows=3", None, lambda x: slow.low_rank(x, 3, 4, 2)),
    ("scaled(natural)", U, lambda x: slow.contractive_form(slow.natural(x, U), 1 / 8)),
    ("rand_k:4|natural", (WORDS, U), lambda x: slow.natural(slow.rand_k(x, SUBSET), U)),
    ("top_k:4|sign", (None, None), lambda x: slow.on_support(x, slow.top_k_subset(x, 4), slow.scaled_sign)),
    (
        "induced(top_k:3;rand_k:4)",
        (None, WORDS),
        lambda x: slow.induced(x, lambda y: slow.top_k(y, 3), lambda y: slow.rand_k(y, SUBSET)),
    ),
    ("fcc(sign):3", None, lambda x: slow.fcc(x, [slow.scaled_sign] * 3)),
]


@pytest.mark.parametrize(("spec", "u", "reference"), CASES, ids=[case[0] for case in CASES])
def test_agrees_with_the_reference(spec, u, reference):
    run = jax.jit(lambda x, u: parse(spec).apply(x, u).value)
    for x in VECTORS:
        np.testing.assert_allclose(run(x, u), reference(x), rtol=1e-12, atol=1e-13 * np.max(np.abs(x)))


def test_perm_k_agrees_with_the_reference():
    X = RNG.normal(size=(5, 12))
    order = RNG.permutation(15)
    dealt = np.zeros(15, int)
    dealt[order] = np.repeat(np.arange(5), 3)
    masks = dealt[None, :12] == np.arange(5)[:, None]
    value = jax.vmap(lambda x, u: parse("perm_k:5").apply(x, u).value)(X, masks)
    np.testing.assert_allclose(value, slow.perm_k(X, order), rtol=1e-15)


@pytest.mark.parametrize("fit", ["exponential", "pareto", "gamma"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_thresholds_agree_with_the_reference(fit, stages):
    """Also for a ratio above the first stage's, where one stage is used."""
    x = np.random.default_rng(6).laplace(size=200)
    values = np.abs(x) / np.max(np.abs(x))
    run = jax.jit(lambda c, x: (c.tau(jnp.abs(x) / jnp.max(jnp.abs(x)), x == x), c.apply(x, None).value))
    for ratio in (0.3, 0.1, 0.02):
        tau, value = run(Threshold(ratio, fit, stages), x)
        assert float(tau) == pytest.approx(slow.sidco_threshold(values, ratio, stages, fit), rel=1e-9)
        np.testing.assert_array_equal(value, slow.threshold(x, float(tau) * np.max(np.abs(x))))


@pytest.mark.parametrize("fit", ["exponential", "pareto", "gamma"])
@pytest.mark.parametrize("stages", [1, 3])
def test_thresholds_hit_their_ratio_on_a_laplace_sample(fit, stages):
    x = np.random.default_rng(7).laplace(size=100_000)
    run = jax.jit(lambda c, x: c.apply(x, None).value)
    for ratio in (0.2, 0.05, 0.01):
        assert np.mean(np.asarray(run(Threshold(ratio, fit, stages), x)) != 0) == pytest.approx(ratio, rel=0.06)


def test_thresholds_are_scale_equivariant_and_survive_ties():
    for fit in ("exponential", "pareto", "gamma"):
        run = jax.jit(lambda x, fit=fit: parse(f"threshold:0.2,fit={fit},stages=3").apply(x, None).value)
        x = np.random.default_rng(8).laplace(size=50)
        np.testing.assert_array_equal(run(2.0**-40 * x), 2.0**-40 * np.asarray(run(x)))
        for ties in (np.ones(50), np.zeros(50), np.eye(50)[3], np.where(np.arange(50) < 25, 2.0, 0.0)):
            kept = np.asarray(run(ties))
            assert np.all(np.isfinite(kept))
            assert set(np.flatnonzero(kept)) <= set(np.flatnonzero(ties))
        assert np.isnan(np.asarray(run(np.where(np.arange(50) == 3, np.nan, x)))[3])


def test_natural_at_powers_of_two_and_beside_them():
    """Powers are exact whatever the draw; the float below 2^e goes down to 2^(e-1) with the right chance."""
    powers = 2.0 ** np.arange(-60, 60)
    run = jax.jit(lambda x, u: parse("natural").apply(x, u).value)
    for u in (1e-10, 0.5, 1 - 1e-10):
        np.testing.assert_array_equal(run(powers, np.full(120, u)), powers)
    below = np.nextafter(powers, 0)
    np.testing.assert_array_equal(run(below, np.full(120, 0.999)), powers)
    assert jnp.all(run(below, np.full(120, 1.0)) == powers / 2)
