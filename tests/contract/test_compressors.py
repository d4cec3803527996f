"""Every registered compressor through the same checks: bias, variance, contraction, support, bits, edges, keys."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import compressors
from fedjax_lc.core import pytree
from tests.contract.compressor_examples import EXAMPLES, INDEX, N_CLIENTS, D, constant, one_hot

DRAWS = 4000
SUMS = ("qsgd", "dithering", "sign", "l1_select", "low_rank")
JOINT = ("perm_k", "shared_rand_k")
ABSOLUTE = ("top_price", "top_power_law")
by_spec = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.spec)


def vectors(d: int = D) -> dict[str, np.ndarray]:
    gaussian = np.random.default_rng(0).normal(size=d)
    return {
        "gaussian": gaussian,
        "one-hot": one_hot(d),
        "constant": constant(d),
        "decaying": 1.3 * 0.5 ** np.arange(d),
        "zeros": np.where(np.arange(d) % 2, gaussian, 0.0),
    }


@functools.cache
def parsed(spec: str, d: int = D) -> compressors.Compressor:
    c = compressors.parse(spec)
    c.validate(d)
    return c


@functools.cache
def one(spec: str, d: int = D):
    """(key, x) -> (value, bits), compiled once for each spelling and dtype."""
    c = parsed(spec, d)

    @jax.jit
    def run(key, x):
        message = c(key, x)
        return message.value, message.bits

    return run


@functools.cache
def many(spec: str):
    """x -> values (DRAWS, d) and bits (DRAWS,), of independent draws (a few if there is no randomness)."""
    number = 8 if parsed(spec).deterministic else DRAWS
    keys = jax.random.split(jax.random.key(7), number)

    @jax.jit
    def sample(keys, x):
        message = jax.vmap(parsed(spec), (0, None))(keys, x)
        return message.value, jnp.broadcast_to(jnp.asarray(message.bits, jnp.float32), (number,))

    return lambda x: tuple(map(np.asarray, sample(keys, x)))


@functools.cache
def drawn(spec: str, name: str):
    """(x, values, bits) for one of the vectors."""
    x = vectors()[name]
    return x, *many(spec)(x)


def samples(spec: str):
    return {name: drawn(spec, name) for name in vectors()}


def error(values: np.ndarray, x: np.ndarray) -> float:
    """E |C(x) - x|^2 / |x|^2 over the draws."""
    return float(np.mean(np.sum((values - x) ** 2, axis=1)) / np.sum(x**2))


def unbiased(c: compressors.Compressor) -> bool:
    return bool(np.isfinite(c.omega(D)))


def test_every_registered_compressor_has_an_example():
    assert set(compressors.names()) <= {compressors.parse(e.spec).name for e in EXAMPLES}


def test_every_registered_compressor_says_what_it_is():
    for name in compressors.names():
        assert compressors.parse.__globals__["REGISTRY"][name].__doc__, name


@by_spec
def test_string_form_round_trips(example):
    c = parsed(example.spec)
    assert str(c) == example.spec
    assert compressors.parse(str(c)) == c


@by_spec
def test_constants_are_certificates(example):
    """omega is finite or inf, delta in [0, 1], and neither is a placeholder that the other contradicts."""
    c = parsed(example.spec)
    omega, delta = float(c.omega(D)), float(c.delta(D))
    assert omega >= 0
    assert 0 <= delta <= 1
    assert delta >= 1 - omega or c.omega(D) == 0


@by_spec
def test_mean_is_x_when_unbiased(example):
    """T1."""
    if not unbiased(parsed(example.spec)):
        return
    for x, values, _ in samples(example.spec).values():
        spread = np.sqrt(np.sum(np.var(values, axis=0)) / len(values))
        assert np.linalg.norm(values.mean(axis=0) - x) <= 4 * spread + 1e-13 * np.linalg.norm(x)


@by_spec
def test_second_moment_within_the_constant(example):
    """T2 and T3: at most omega and 1 - delta, equal where that is exact."""
    c = parsed(example.spec)
    bound, slack = (c.omega(D), 1.05) if unbiased(c) else (1 - c.delta(D), 1.02)
    for name, (x, values, _) in samples(example.spec).items():
        ratio = error(values, x)
        assert ratio <= bound * (1 if c.deterministic else slack) + 1e-12, name
        if example.exact:
            assert ratio == pytest.approx(bound, rel=0.05, abs=1e-12), name


@by_spec
def test_constant_is_reached_at_the_worst_case(example):
    if example.worst is None:
        return
    c = parsed(example.spec)
    bound = c.omega(D) if unbiased(c) else 1 - c.delta(D)
    x = example.worst(D)
    assert error(many(example.spec)(x)[0], x) == pytest.approx(bound, rel=0.05)


@by_spec
def test_support_and_levels(example):
    """T4."""
    for name, (x, values, _) in samples(example.spec).items():
        assert all(example.levels(x, value) for value in values[:100]), name


@pytest.mark.sampled(2)
@by_spec
def test_bits_are_the_catalogues(example):
    """T5: under each index convention; messages of random size are priced by what each of them holds."""
    c, x = parsed(example.spec), vectors()["gaussian"]
    assert all(str(parsed(str(other))) == str(other) for other in (compressors.with_index(c, i) for i in INDEX))
    for index in INDEX:
        price = pricing(compressors.with_index(c, index))
        free = D if index == "none" and getattr(c, "per", "") == "entry" else 0
        for seed in range(3):
            value, _ = one(example.spec)(jax.random.key(seed), x)
            wanted = example.bits(np.asarray(value), INDEX[index]) - free
            assert float(price(jax.random.key(seed), x)) == pytest.approx(wanted, rel=1e-6), index


def pricing(c: compressors.Compressor):
    """(key, x) -> bits; compiled only where the bits depend on them."""
    seen = []

    def price(key, x):
        seen.append(c(key, x).bits)
        return jnp.asarray(seen[-1], jnp.float32)

    jax.eval_shape(price, jax.random.key(0), jnp.zeros(D))
    fixed = seen[0]
    return (lambda key, x: fixed) if isinstance(fixed, int | float) else jax.jit(price)


@by_spec
def test_zero_vector_stays_exactly_zero(example):
    """T6."""
    values, bits = many(example.spec)(np.zeros(D))
    assert np.array_equal(values, np.zeros_like(values))
    assert np.all(np.isfinite(bits))


@by_spec
def test_full_size_is_the_identity(example):
    """T7: k = d, p = 1, full rank."""
    if example.full is None:
        return
    x = vectors()["gaussian"]
    value, _ = one(example.full)(jax.random.key(2), x)
    if example.full.startswith(("low_rank", "compensated")):
        np.testing.assert_allclose(value, x, rtol=1e-12)
    else:
        np.testing.assert_array_equal(value, x)


@by_spec
def test_dimension_one(example):
    """T8."""
    spec, identity = example.one
    for size in (1.7, -0.3, 0.0):
        value, bits = one(spec, 1)(jax.random.key(3), np.array([size]))
        assert np.all(np.isfinite([*value, bits]))
        if identity or size == 0:
            np.testing.assert_allclose(value, [size], rtol=1e-15)


@by_spec
def test_result_does_not_depend_on_vmap(example):
    """T9 and T13, on ties as well: a vmap and a loop give the same, bit for bit unless a norm is summed in it."""
    c = parsed(example.spec)
    keys = jax.random.split(jax.random.key(7), 8 if c.deterministic else DRAWS)
    rounding = 1e-14 if any(name in example.spec for name in SUMS) else 0
    for name in ("constant", "gaussian"):
        x, values, bits = drawn(example.spec, name)
        for j in (0, 1, 2, 0):
            value, price = one(example.spec)(keys[j], x)
            np.testing.assert_allclose(value, values[j], rtol=rounding, atol=0 if rounding == 0 else 1e-15)
            assert float(bits[j]) == pytest.approx(float(price), rel=1e-6)


@pytest.mark.sampled(2)
@by_spec
def test_result_does_not_depend_on_jit(example):
    """T13."""
    x, key = vectors()["gaussian"], jax.random.key(4)
    with jax.disable_jit():
        message = parsed(example.spec)(key, jnp.asarray(x))
    np.testing.assert_allclose(message.value, one(example.spec)(key, x)[0], rtol=1e-13, atol=1e-15)


@by_spec
def test_deterministic_ones_ignore_the_key_and_others_do_not(example):
    _, values, _ = drawn(example.spec, "gaussian")
    assert bool(np.all(values == values[0])) == parsed(example.spec).deterministic


@by_spec
@pytest.mark.parametrize("factor", [4.0, 2.0**-9, -1.0])
def test_scale_equivariance(example, factor):
    """T10: under powers of two and, sgn(0) aside, under -1; budgets in absolute terms under -1 alone."""
    if parsed(example.spec).name in ABSOLUTE and factor != -1:
        return
    x, key = vectors()["gaussian"], jax.random.key(5)
    scaled, _ = one(example.spec)(key, factor * x)
    np.testing.assert_allclose(scaled, factor * one(example.spec)(key, x)[0], rtol=1e-12, atol=1e-15)


@by_spec
def test_traced_numbers_give_the_same(example):
    """k, p, s, ratio traced equal the same numbers as constants, values, bits and constants alike."""
    c = parsed(example.spec)
    x, key = vectors()["gaussian"], jax.random.key(6)

    @jax.jit
    def run(c, key, x):
        message = c(key, x)
        return message.value, message.bits, (c.omega(D), c.delta(D), c.omega_av(D, N_CLIENTS))

    value, bits, constants = run(pytree.cast(c, jnp.float64), key, x)
    wanted, price = one(example.spec)(key, x)
    np.testing.assert_array_equal(value, wanted)
    assert float(bits) == pytest.approx(float(price), rel=1e-6)
    fixed = np.array([float(c.omega(D)), float(c.delta(D)), float(c.omega_av(D, N_CLIENTS))])
    np.testing.assert_allclose(np.array(constants, float), fixed, rtol=1e-12)


@by_spec
def test_dtype_is_kept(example):
    """T18 with it: entries of 1e-30 and 1e30, subnormals, and a float32 message from float32 input."""
    wide = np.array([1e30, 1e-30, -1e30, 1e-40, 0.0, -3e-45, 1.0, 1e15, -1e-15, 2e30, 1e-38, -7e29], np.float32)
    for x in (wide, wide[::-1] * np.float32(1e-30), np.full(D, 1e-42, np.float32), np.full(D, 3e36, np.float32)):
        value, bits = one(example.spec)(jax.random.key(8), x)
        assert value.dtype == jnp.float32
        assert np.all(np.isfinite([*value, bits])), x
    draws = jax.eval_shape(lambda key: parsed(example.spec).draw(key, D, jnp.float32), jax.random.key(0))
    assert all(leaf.dtype in (jnp.float32, jnp.uint32, jnp.bool_) for leaf in jax.tree.leaves(draws))
    assert one(example.spec)(jax.random.key(8), np.ones(D))[0].dtype == jnp.float64


@by_spec
def test_nan_and_inf_are_not_hidden(example):
    if example.spec == "zero":
        return
    for bad in (np.nan, np.inf):
        x = vectors()["gaussian"]
        x[5] = bad
        values, _ = many(example.spec)(x)
        assert not np.all(np.isfinite(values)), bad


@by_spec
def test_error_feedback_loses_nothing(example):
    """T16: what is sent and what is kept back add up bit for bit where entries are sent as they are."""
    if not parsed(example.spec).projects:
        return
    for x, values, _ in samples(example.spec).values():
        np.testing.assert_array_equal(values + (x - values), np.broadcast_to(x, values.shape))


@by_spec
def test_no_key_is_used_twice(example):
    """T14: parts, rounds, blocks, clients and steps all draw numbers of their own."""
    c = parsed(example.spec)
    if c.deterministic or c.name in JOINT:
        return
    draw = jax.jit(lambda t: c.draws(jax.random.fold_in(jax.random.key(0), t), N_CLIENTS, D, jnp.float64))
    words = []
    for t in range(2):
        for leaf in map(np.asarray, jax.tree.leaves(draw(t))):
            # Uniforms back to the 32 bits they were made of; the first number of each row.
            whole = leaf if leaf.dtype == np.uint32 else np.round(leaf * 2.0**32 - 0.5)
            words += [float(word) for word in whole.reshape(-1, leaf.shape[-1])[:, 0]]
    assert len(words) >= 2 * N_CLIENTS
    assert len(set(words)) == len(words)


@pytest.mark.sampled(2)
@by_spec
def test_clients_errors_and_their_mean(example):
    """T11 and omega_av: equal inputs are compressed independently; E|mean error|^2 <= (omega_av / n) sum |x_i|^2."""
    c = parsed(example.spec)
    if not unbiased(c):
        return

    @jax.jit
    def sample(keys, X):
        message = jax.vmap(c.joint, (0, None))(keys, X)
        assert message.bits.shape == (DRAWS, N_CLIENTS)
        return message.value

    keys = jax.random.split(jax.random.key(10), DRAWS)
    x = vectors()["gaussian"]
    equal = np.broadcast_to(x, (N_CLIENTS, D))
    opposed = np.stack([x, -x, np.zeros(D)])
    for X in (equal, opposed, np.random.default_rng(2).normal(size=(N_CLIENTS, D))):
        errors = np.asarray(sample(keys, X)) - X
        mean = np.mean(np.sum(errors.mean(axis=1) ** 2, axis=1))
        assert mean <= 1.05 * c.omega_av(D, N_CLIENTS) / N_CLIENTS * np.sum(X**2) + 1e-12
        if c.name not in JOINT and not c.deterministic:
            first, second = errors[:, 0], errors[:, 1]
            together = np.sqrt(np.sum(first**2) * np.sum(second**2))
            assert not np.array_equal(first, second)
            assert abs(np.sum(first * second)) <= 4 / np.sqrt(DRAWS) * together
