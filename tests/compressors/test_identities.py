"""Identities between compressors: the catalogue's compositions, joint compressors, exact enumeration, trees."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from fedjax_lc import compressors
from fedjax_lc.compressors import parse
from fedjax_lc.compressors.joint import _padded
from fedjax_lc.core.errors import InputError

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=12))


def value(spec, x=X, key=KEY):
    return np.asarray(jax.jit(lambda key, x: parse(spec)(key, x).value)(key, x))


def same(a, b, rtol=1e-14):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15)


# Compositions.


def test_fcc_of_one_round_is_the_compressor():
    u = parse("fcc(rand_k_unscaled:4):1").draw(KEY, 12, X.dtype)
    once = parse("fcc(rand_k_unscaled:4):1").apply(X, u)
    np.testing.assert_array_equal(once.value, parse("rand_k_unscaled:4").apply(X, u[0]).value)
    assert float(once.bits) == parse("rand_k_unscaled:4").apply(X, u[0]).bits


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_fcc_of_top_k_is_top_rk(rounds):
    np.testing.assert_array_equal(value(f"fcc(top_k:3):{rounds}"), value(f"top_k:{3 * rounds}"))


def test_induced_with_identity_and_with_zero():
    np.testing.assert_array_equal(value("induced(identity;rand_k:2)"), X)
    c = parse("induced(zero;natural)")
    u = c.draw(KEY, 12, X.dtype)
    np.testing.assert_array_equal(c.apply(X, u).value, parse("natural").apply(X, u[1]).value)
    assert c.omega(12) == parse("natural").omega(12)


def test_scaled_rand_k_is_unscaled_rand_k():
    same(value("scaled(rand_k:4)"), value("rand_k_unscaled:4"))
    assert parse("scaled(rand_k:4)").delta(12) == pytest.approx(parse("rand_k_unscaled:4").delta(12))


def test_ternary_is_one_level_of_the_max_norm():
    np.testing.assert_array_equal(value("ternary"), value("dithering:1,norm=inf"))


def test_a_percentage_of_d_is_a_number_of_entries():
    np.testing.assert_array_equal(value("rand_k:30%"), value("rand_k:4"))
    assert parse("rand_k:30%").entries(12) == 4
    assert parse("rand_k:1%").entries(12) == 1
    assert int(jax.jit(lambda c: c.entries(12))(parse("rand_k:30%"))) == 4


def test_qsgd_is_dithering():
    np.testing.assert_array_equal(value("qsgd:3"), value("dithering:3"))
    assert parse("qsgd:3").omega(12) == parse("dithering:3").omega(12) == min(12 / 9, math.sqrt(12) / 3)


def test_block_sign_is_sign_per_block():
    same(value("block_sign:5"), value("per_block(sign):5"))
    same(value("block_sign:12"), value("sign"))


def test_chain_constants():
    assert parse("rand_k:4|natural").omega(12) == pytest.approx(9 / 8 * 3 - 1)
    assert parse("rand_k:4|natural").omega_av(12, 5) == pytest.approx((9 / 8 * 3 - 1) / 5)
    assert parse("top_k:4|sign").delta(12) == pytest.approx(4 / 12 * 1 / 4)
    assert parse("top_k:4|natural").delta(12) == pytest.approx(4 / 12 * 7 / 8)
    assert parse("rand_k:8|natural").delta(12) == pytest.approx(1 - (9 / 8 * 12 / 8 - 1))
    # A scaled first is no projection, two contractions in a row have no general constant.
    assert parse("rand_k:8|sign").delta(12) == 0
    assert parse("sign|top_k:2").delta(12) == 0
    assert math.isinf(parse("top_k:4|natural").omega(12))


def test_other_constants():
    assert parse("ternary").omega(16) == 1.5
    assert parse("natural_dithering:4").omega(12) == pytest.approx(1 / 8 + 12 / 64)
    assert parse("natural_dithering:1,q=inf").omega(16) == pytest.approx(1 / 8 + 4)
    assert parse("dithering:2,norm=inf").omega(16) == pytest.approx(1)
    assert parse("dithering:2,norm=1").omega(16) == pytest.approx(7.5)
    assert parse("induced(top_k:3;rand_k:4)").omega(12) == pytest.approx(0.75 * 2)
    assert parse("fcc(top_k:3):2").delta(12) == pytest.approx(1 - 0.75**2)
    assert parse("fcc(natural):2").omega(12) == pytest.approx(1 / 64)
    assert parse("scaled(natural)").delta(12) == pytest.approx(8 / 9)
    assert parse("per_block(rand_k:2):3x4x5").omega(12) == pytest.approx(1.5)
    assert parse("per_block(sign):3x4x5").delta(12) == pytest.approx(1 / 5)
    assert parse("low_rank:1,rows=3").delta(12) == pytest.approx(1 / 3)
    assert parse("shared_rand_k:3").omega_av(12, 7) == parse("shared_rand_k:3").omega(12) == 3


def test_scaled_sign_contracts_by_exactly_its_share():
    for x in (X, jnp.where(jnp.arange(12) % 3 == 0, 0, X)):
        err = jnp.sum((value("sign", x) - x) ** 2)
        delta = jnp.sum(jnp.abs(x)) ** 2 / (12 * jnp.sum(x**2))
        same(err, (1 - delta) * jnp.sum(x**2))


def test_low_rank_is_the_best_approximation():
    x = np.asarray(X)
    left, s, right = np.linalg.svd(x.reshape(3, 4), full_matrices=False)
    same(value("low_rank:2,rows=3"), ((left[:, :2] * s[:2]) @ right[:2]).reshape(-1), rtol=1e-12)


def test_after_a_sparsifier_only_kept_entries_exist():
    """Block size |S|, top-k of kept entries only, and zeros among the kept ones stay kept."""
    x = jnp.asarray([3.0, -1.0, 0.5, 0.0, 2.0, 0.0])
    same(value("top_k:3|sign", x), [2, -2, 0, 0, 2, 0])
    message = jax.jit(parse("rand_k_unscaled:4|top_k:4"))(KEY, x)
    np.testing.assert_array_equal(message.value, value("rand_k_unscaled:4", x, jax.random.split(KEY)[0]))
    assert int(jnp.sum(message.sent)) == 4
    coin = parse("bernoulli:0.5,per=entry|rand_k:4")
    u = (jnp.array([0.1, 0.9, 0.1, 0.9, 0.9, 0.9]), jnp.arange(6, dtype=jnp.uint32))
    same(coin.apply(x, u).value, 2 * x * jnp.array([1, 0, 1, 0, 0, 0]))
    assert float(coin.apply(x, u).bits) == 6 + 2 * (32 + 3)


# All outcomes.


@pytest.mark.parametrize(("spec", "factor"), [("rand_k:2", 2.0), ("rand_k_unscaled:2", 1.0)])
def test_rand_k_enumerated(spec, factor):
    x, c = np.asarray(X[:4]), parse(spec)
    keys = [jnp.where(jnp.isin(jnp.arange(4), jnp.array(s)), 0, 1) for s in itertools.combinations(range(4), 2)]
    outcomes = np.stack([c.apply(jnp.asarray(x), key.astype(jnp.uint32)).value for key in keys])
    same(outcomes.mean(axis=0), x * factor / 2)
    second = np.mean(np.sum((outcomes - x) ** 2, axis=1)) / np.sum(x**2)
    same(second, c.omega(4) if factor == 2 else 1 - c.delta(4))


def test_bernoulli_enumerated():
    x, c = X[:3], parse("bernoulli:0.3,per=entry")
    mean, second = 0.0, 0.0
    for coins in itertools.product([0, 1], repeat=3):
        chance = 0.3 ** sum(coins) * 0.7 ** (3 - sum(coins))
        out = c.apply(x, jnp.where(jnp.array(coins) == 1, 0.1, 0.9)).value
        mean, second = mean + chance * out, second + chance * jnp.sum((out - x) ** 2)
    same(mean, x)
    same(second / jnp.sum(x**2), c.omega(3))


# Joint compressors.


def test_shared_rand_k_is_linear_with_one_mask():
    A = jnp.asarray(np.random.default_rng(1).normal(size=(5, 12)))
    message = jax.jit(parse("shared_rand_k:3").joint)(KEY, A)
    assert len({tuple(row) for row in np.asarray(message.value != 0)}) == 1
    same(message.value.mean(axis=0), value("shared_rand_k:3", A.mean(axis=0)))
    np.testing.assert_array_equal(message.bits, 96)


@pytest.mark.parametrize(("n", "d"), [(3, 12), (5, 12), (12, 12), (24, 12), (7, 3), (1, 4), (4, 1)])
def test_perm_k_deals_every_coordinate(n, d):
    """Blocks are disjoint and cover all coordinates, equal inputs are recovered exactly where n <= d or d divides n."""
    A = jnp.broadcast_to(X[:d], (n, d))
    message = jax.jit(parse(f"perm_k:{n}").joint)(KEY, A)
    owners = np.sum(np.asarray(message.sent), axis=0)
    np.testing.assert_array_equal(np.sum(np.asarray(message.sent), axis=1) * 32, message.bits)
    if n <= d:
        np.testing.assert_array_equal(owners, 1)
    else:
        assert np.all(np.abs(owners - n / d) < 1)
        np.testing.assert_array_equal(message.bits, 32)
    if n <= d or n % d == 0:
        same(message.value.mean(axis=0), X[:d])


@pytest.mark.parametrize(("n", "d"), [(2, 4), (3, 4), (4, 4), (4, 2), (3, 2), (2, 3)])
def test_perm_k_enumerated(n, d):
    """Over all permutations: unbiased, omega exact, omega_av certified and reached at inputs that sum to zero."""
    c = parse(f"perm_k:{n}")
    A = np.random.default_rng(n * d).normal(size=(n, d))
    centred = A - A.mean(axis=0)
    messages = jax.jit(jax.vmap(lambda x, u: c.apply(x, u).value))
    errors, of_mean, of_centred_mean = [], [], []
    for order in itertools.permutations(range(_padded(n, d))):
        dealt = np.array(order) % min(n, d)
        masks = dealt[None, :d] == np.arange(n)[:, None] if n <= d else dealt[:n, None] == np.arange(d)[None, :]
        errors.append(np.asarray(messages(A, masks)) - A)
        of_mean.append(np.sum(errors[-1].mean(axis=0) ** 2))
        of_centred_mean.append(np.sum((np.asarray(messages(centred, masks)) - centred).mean(axis=0) ** 2))
    np.testing.assert_allclose(np.mean(errors, axis=0), np.zeros((n, d)), atol=1e-14)
    same(np.mean([np.sum(e**2, axis=1) for e in errors], axis=0), c.omega(d) * np.sum(A**2, axis=1), rtol=1e-12)
    assert np.mean(of_mean) <= c.omega_av(d, n) / n * np.sum(A**2) * (1 + 1e-12)
    if n <= d or n % d == 0:
        same(np.mean(of_centred_mean), c.omega_av(d, n) / n * np.sum(centred**2), rtol=1e-12)


def test_perm_k_draws_uniform_owners():
    draw = jax.jit(jax.vmap(lambda key: parse("perm_k:5").draws(key, 5, 12, jnp.float32)))
    shares = np.mean(draw(jax.random.split(KEY, 4000)), axis=0)
    assert np.max(np.abs(shares - 0.2)) < 4.5 * math.sqrt(0.2 * 0.8 / 4000)


def test_perm_k_knows_its_clients():
    with pytest.raises(InputError) as caught:
        parse("perm_k:3").joint(KEY, jnp.ones((4, 12)))
    assert str(caught.value) == "perm_k:3 is for 3 clients, got 4: write perm_k:4"


def test_joint_rows_are_single_messages():
    """The default gives client i the key of index i."""
    A = jnp.asarray(np.random.default_rng(2).normal(size=(3, 12)))
    for spec in ("rand_k:4", "qsgd:2", "bernoulli:0.5"):
        rows = [value(spec, x, key) for key, x in zip(jax.random.split(KEY, 3), A, strict=True)]
        same(parse(spec).joint(KEY, A).value, jnp.stack(rows))


def test_joint_parts_keep_their_shared_draws():
    """A shared mask stays shared inside a chain, in rounds and in blocks."""
    A = jnp.asarray(np.random.default_rng(3).normal(size=(4, 12)))
    for spec in ("shared_rand_k:3|natural", "fcc(shared_rand_k:3):2", "per_block(shared_rand_k:2):5x7"):
        nonzero = np.asarray(jax.jit(parse(spec).joint)(KEY, A).value != 0)
        assert len({tuple(row) for row in nonzero}) == 1


# Trees.


def test_layers_of_a_tree_are_blocks():
    """T17: scalar, vector and matrix leaves; one leaf of zeros; structure and dtype come back."""
    tree = {"w": jnp.arange(6.0, dtype=jnp.float32).reshape(2, 3), "b": jnp.zeros(4, jnp.float32), "s": jnp.float32(-2)}
    flat, unravel = ravel_pytree(tree)
    sizes = "x".join(str(leaf.size) for leaf in jax.tree.leaves(tree))
    out = unravel(parse(f"per_block(sign):{sizes}")(KEY, flat).value)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(out))
    same(out["w"], np.full((2, 3), 2.5), rtol=1e-6)
    same(out["s"], -2)
    np.testing.assert_array_equal(out["b"], 0)


def test_swept_numbers_are_leaves_and_choices_are_structure():
    a, b = parse("rand_k:4|qsgd:2"), parse("rand_k:5|qsgd:3")
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.leaves(a) == [4, 2]
    assert jax.tree.structure(parse("rand_k:4,index=none")) != jax.tree.structure(parse("rand_k:4"))
    stacked = jax.tree.map(lambda *numbers: jnp.asarray(numbers), a, b)
    swept = jax.jit(jax.vmap(lambda c: c(KEY, X).value))(stacked)
    same(swept[0], a(KEY, X).value)
    same(swept[1], b(KEY, X).value)


def test_registry_takes_a_new_compressor():
    from fedjax_lc.compressors.parse import REGISTRY
    from fedjax_lc.core import pytree

    @pytree.dataclass
    class Halve(compressors.Compressor):
        name = "halve"

        def apply(self, x, u, sent=None):
            return compressors.Message(x / 2, x.shape[-1], 32, 0, 0, sent)

    compressors.register(Halve)
    try:
        assert "halve" in compressors.names()
        same(value("top_k:3|halve"), np.asarray(value("top_k:3")) / 2)
    finally:
        del REGISTRY["halve"]
