"""The building blocks: choosing k of d, random bits, norms, the price of indices."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc.compressors.base import index_cost
from fedjax_lc.compressors.draws import random_bits, uniform
from fedjax_lc.compressors.levels import norm
from fedjax_lc.compressors.select import smallest


def by_sorting(keys, k):
    mask = np.zeros(len(keys), bool)
    mask[np.argsort(keys, kind="stable")[:k]] = True
    return mask


def key_sets(d, dtype):
    rng, top = np.random.default_rng(d), dtype(np.iinfo(dtype).max)
    yield rng.integers(0, top, d, dtype=dtype, endpoint=True)
    yield rng.integers(0, 3, d, dtype=dtype)
    yield np.zeros(d, dtype)
    yield np.full(d, top, dtype)
    yield (top - rng.integers(0, 5, d, dtype=dtype)).astype(dtype)
    yield np.where(np.arange(d) % 2, top, 0).astype(dtype)
    yield (dtype(1) << (np.arange(d) % np.iinfo(dtype).bits).astype(dtype)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("d", [1, 2, 24, 25, 123])
def test_smallest_is_the_head_of_a_stable_sort(d, dtype):
    """For any keys and k, traced and vmapped, with ties to the lowest index."""
    choose = jax.jit(jax.vmap(smallest))
    rows = [(keys, k) for keys in key_sets(d, dtype) for k in sorted({1, 2, d // 2, d - 1, d, d + 3})]
    got = choose(np.stack([keys for keys, _ in rows]), np.array([k for _, k in rows]))
    for mask, (keys, k) in zip(got, rows, strict=True):
        np.testing.assert_array_equal(mask, by_sorting(keys, k))


def test_smallest_is_uniform_over_subsets():
    """Every one of 30 entries is among 6 chosen a fifth of the time."""
    choose = jax.jit(jax.vmap(lambda key: smallest(random_bits(key, 30), 6)))
    shares = np.mean(choose(jax.random.split(jax.random.key(0), 3000)), axis=0)
    assert np.max(np.abs(shares - 0.2)) < 4.5 * math.sqrt(0.2 * 0.8 / 3000)


@pytest.mark.parametrize("d", [1, 2, 7, 1000])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey, lambda s: jax.random.key(s, impl="rbg")])
def test_random_bits_are_jax_s(d, make):
    key = make(3)
    np.testing.assert_array_equal(random_bits(key, d), jax.random.bits(key, (d,), jnp.uint32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_uniforms_lie_strictly_inside_and_fill_the_interval(dtype):
    u = np.asarray(uniform(jax.random.key(0), 100_000, dtype))
    assert u.dtype == dtype
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / len(u))


@pytest.mark.parametrize("q", [1, 2, 3, math.inf])
def test_norms_neither_overflow_nor_underflow(q):
    x = np.array([3e30, -4e30, 1e-30, 0], np.float32)
    assert float(norm(jnp.asarray(x), q)) == pytest.approx(float(np.linalg.norm(x.astype(float), q)), rel=1e-6)
    assert float(norm(jnp.asarray(x[2:]), q)) == pytest.approx(1e-30, rel=1e-6)
    assert float(norm(jnp.zeros(3), q)) == 0
    assert math.isnan(float(norm(jnp.array([1.0, math.nan]), q)))


@pytest.mark.parametrize("d", [1, 2, 3, 12, 123, 1000])
def test_index_prices(d):
    """For every k, whole or traced; binom is exact."""
    for k in {1, 2, d // 2, d - 1, d} - {0}:
        if k > d:
            continue
        wanted = {
            "none": 0,
            "seed": 32,
            "log2": k * math.ceil(math.log2(d)),
            "int32": 32 * k,
            "binom": (math.comb(d, k) - 1).bit_length(),
            "mask": d,
        }
        for convention, bits in wanted.items():
            assert index_cost(convention, k, d) == bits
            assert float(index_cost(convention, jnp.float32(k), d)) == bits
