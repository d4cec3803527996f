"""The reference compressors, their enumeration, and the bit-packed codec."""

from __future__ import annotations

import math

import numpy as np
import pytest

from . import codec, compressors
from . import enumerate as outcomes_of
from .bits import BitReader, BitWriter, CodecError
from .entries import ORDERS

F32 = np.float32
DIMS = (1, 2, 5, 16, 33)


def vectors(d, seed=0):
    """Gaussian, one-hot, constant, decaying, with zeros, wide range, zero; float32."""
    rng = np.random.default_rng(seed)
    gaussian, one_hot = rng.normal(size=d), np.zeros(d)
    one_hot[d // 2] = -3.0
    with_zeros = np.where(np.arange(d) % 2, gaussian, 0.0)
    wide = gaussian * 10.0 ** rng.uniform(-30, 30, size=d)
    decaying = 0.5 ** np.arange(d) * 1.3
    return [a.astype(F32) for a in (gaussian, one_hot, np.ones(d), decaying, with_zeros, wide, np.zeros(d))]


def subset(rng, d, k):
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[:k]] = True
    return mask


def log2_bits(d):
    return math.ceil(math.log2(d))


def sizes(d):
    return sorted({1, math.ceil(d / 3), d})


def check(spec, value, bits, aux=None, exact_length=True):
    message = codec.encode(spec, value, aux)
    assert len(message[0]) == -(-message[1] // 8)
    back = codec.decode(spec, message, len(value))
    assert back.dtype == F32
    assert np.array_equal(back, value)
    assert message[1] == bits if exact_length else message[1] <= bits


# Compressors.


X = np.array([0.7, -2.0, 0.0, 1.25, -0.3])
ENUMERATED = [
    (outcomes_of.identity, 0.0, True),
    (lambda x: outcomes_of.rand_k(x, 1), 4.0, True),
    (lambda x: outcomes_of.rand_k(x, 2), 1.5, True),
    (lambda x: outcomes_of.rand_k(x, 5), 0.0, True),
    (outcomes_of.natural, 1 / 8, False),
    (outcomes_of.l1_select, 4.0, False),
    (lambda x: outcomes_of.bernoulli(x, 0.3), 1 / 0.3 - 1, True),
    (lambda x: outcomes_of.rand_k_natural(x, 2), 9 * 5 / (8 * 2) - 1, False),
    (lambda x: outcomes_of.natural_rand_k(x, 2), 9 * 5 / (8 * 2) - 1, False),
]


@pytest.mark.parametrize(("enumerate_all", "omega", "equality"), ENUMERATED)
def test_enumerated_outcomes_are_unbiased_with_variance_omega(enumerate_all, omega, equality):
    for x in (X, X[::-1] * 3, np.ones(5), np.eye(5)[3], np.zeros(5)):
        total, mean, variance = outcomes_of.moments(x, enumerate_all(x))
        assert total == pytest.approx(1, abs=1e-14)
        np.testing.assert_allclose(mean, x, atol=1e-13)
        assert variance <= omega * (x @ x) * (1 + 1e-12)
        if equality:
            assert variance == pytest.approx(omega * (x @ x), rel=1e-12, abs=1e-15)


def test_natural_is_tight_at_four_thirds_and_exact_at_powers_of_two():
    x = np.array([4 / 3, -8 / 3])
    assert outcomes_of.moments(x, outcomes_of.natural(x))[2] == pytest.approx((x @ x) / 8)
    powers = np.array([2.0**-126, -0.5, 1.0, 8.0, 0.0])
    assert np.array_equal(compressors.natural(powers, np.zeros(5)), powers)


def averaged(compressor, d, points=2000):
    """(mean output, mean |Q(x) - x|^2) over evenly spread uniforms: coordinates round independently."""
    draws = [compressor(np.full(d, (j + 0.5) / points)) for j in range(points)]
    return np.mean(draws, axis=0), draws


COORDINATEWISE = {
    "qsgd": (lambda x, u: compressors.qsgd(x, u, 3), lambda d: compressors.omega_qsgd(d, 3)),
    "qsgd_linf": (
        lambda x, u: compressors.qsgd(x, u, 4, math.inf),
        lambda d: compressors.omega_qsgd(d, 4, math.inf),
    ),
    "terngrad": (compressors.terngrad, compressors.omega_terngrad),
    "natural": (compressors.natural, lambda d: 1 / 8),
    "natural_dithering": (
        lambda x, u: compressors.natural_dithering(x, u, 4),
        lambda d: compressors.omega_natural_dithering(d, 4),
    ),
    "bernoulli": (lambda x, u: compressors.bernoulli_coordinates(x, u, 0.25), lambda d: 3.0),
}


@pytest.mark.parametrize("name", COORDINATEWISE)
def test_coordinatewise_compressors_are_unbiased_with_variance_omega(name):
    compressor, omega = COORDINATEWISE[name]
    for x in (X, np.array([1.0, 0.2, -0.2, 0.01]), np.zeros(3)):
        d = len(x)
        mean, draws = averaged(lambda u, x=x: compressor(x, u), d)
        spread = np.max(draws, axis=0) - np.min(draws, axis=0)
        assert np.all(np.abs(mean - x) <= spread / 2000 + 1e-12)
        variance = np.mean([np.sum((draw - x) ** 2) for draw in draws])
        assert variance <= omega(d) * (x @ x) * (1 + 2e-3)


def test_terngrad_is_tight_at_its_worst_vector():
    d = 4
    x = np.full(d, 1 / (1 + math.sqrt(d)))
    x[0] = 1.0
    _, draws = averaged(lambda u: compressors.terngrad(x, u), d)
    variance = np.mean([np.sum((draw - x) ** 2) for draw in draws])
    assert variance == pytest.approx(compressors.omega_terngrad(d) * (x @ x), rel=1e-3)


def test_edge_rules():
    assert np.array_equal(compressors.top_k(np.array([1.0, -1.0, 1.0, 1.0]), 2), [1, -1, 0, 0])
    assert np.array_equal(compressors.scaled_sign(np.array([0.0, -3.0])), [1.5, -1.5])
    assert np.array_equal(compressors.block_sign(np.array([1.0, -3.0, 4.0]), 2), [2, -2, 4])
    assert np.array_equal(compressors.qsgd(np.array([3.0]), [0.999], 2), [3])
    x = np.arange(6.0).reshape(2, 3)
    assert compressors.low_rank(x.ravel(), 2, 3, 2) == pytest.approx(x.ravel())
    for compressor, _ in COORDINATEWISE.values():
        assert not np.any(compressor(np.zeros(3), np.full(3, 0.1)))
    assert not np.any(compressors.l1_select(np.zeros(3), 0.5))
    assert compressors.norm(np.array([1e30, 1e-30], F32), 2) == pytest.approx(1e30)


def test_l1_select_follows_the_cumulative_weights():
    chosen = [int(np.flatnonzero(compressors.l1_select(X, u))[0]) for u in (0.0, 0.16, 0.17, 0.63, 0.64, 0.99)]
    assert chosen == [0, 0, 1, 1, 3, 4]


def test_composition_identities():
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=6)
    top = compressors.fcc(x, [lambda v: compressors.top_k(v, 2)] * 2)
    np.testing.assert_allclose(top, compressors.top_k(x, 4))
    np.testing.assert_allclose(compressors.induced(x, compressors.identity, lambda v: 7 * v), x)
    np.testing.assert_allclose(compressors.induced(x, compressors.zero, lambda v: 7 * v), 7 * x)
    mask = subset(rng, 6, 2)
    unscaled = compressors.contractive_form(compressors.rand_k(x, mask), compressors.omega_rand_k(6, 2))
    np.testing.assert_allclose(unscaled, compressors.rand_k_unscaled(x, mask))
    signs = compressors.on_support(x, mask, compressors.scaled_sign)
    assert np.array_equal(signs != 0, mask)


def test_joint_compressors():
    rng = np.random.default_rng(2)
    X_rows = rng.normal(size=(3, 7))
    mask = subset(rng, 7, 2)
    shared = compressors.shared_rand_k(X_rows, mask)
    np.testing.assert_allclose(shared.mean(axis=0), compressors.rand_k(X_rows.mean(axis=0), mask))
    same = np.tile(X_rows[0], (3, 1))
    np.testing.assert_allclose(compressors.perm_k(same, rng.permutation(9)).mean(axis=0), X_rows[0])


def test_sidco_hits_its_ratio_on_a_laplace_sample():
    x = np.random.default_rng(3).laplace(size=200_000)
    for fit in ("exponential", "pareto", "gamma"):
        for stages in (1, 3):
            tau = compressors.sidco_threshold(x, 0.01, stages, fit)
            assert np.mean(np.abs(x) > tau) == pytest.approx(0.01, rel=0.1)
            assert compressors.sidco_threshold(4 * x, 0.01, stages, fit) == pytest.approx(4 * tau)


def test_power_sgd_step_is_exact_on_low_rank_means():
    rng = np.random.default_rng(4)
    matrices = [rng.normal(size=(5, 1)) @ rng.normal(size=(1, 4)) for _ in range(2)]
    out, _ = compressors.power_sgd(matrices, rng.normal(size=(4, 2)))
    np.testing.assert_allclose(out, sum(matrices) / 2, atol=1e-12)


# Codec.


def test_bits_round_trip():
    writer = BitWriter()
    for number, width in ((5, 3), (0, 0), (1, 1), (2**40 + 3, 41)):
        writer.write(number, width)
    writer.write_float(-0.1)
    data, nbits = writer.finish()
    assert nbits == 77
    assert len(data) == 10
    reader = BitReader(data, nbits)
    assert [reader.read(width) for width in (3, 0, 1, 41)] == [5, 0, 1, 2**40 + 3]
    assert reader.read_float() == F32(-0.1)
    assert reader.left() == 0
    with pytest.raises(CodecError):
        BitWriter().write(8, 3)


@pytest.mark.parametrize("d", DIMS)
def test_dense_messages(d):
    rng = np.random.default_rng(d)
    for x in vectors(d):
        check("float32", x, 32 * d)
        check("natural", compressors.natural(x, rng.random(d)), 9 * d)
        check("sign", compressors.scaled_sign(x), 32 + d)
        check("zero", compressors.zero(x), 0)
        for size in (1, 4, d):
            blocks = [min(size, d - start) for start in range(0, d, size)]
            spec = {"kind": "blocks", "sizes": blocks, "inner": "sign"}
            check(spec, compressors.block_sign(x, size), d + 32 * len(blocks))


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("s", [1, 2, 3, 4, 7, 16])
def test_level_messages_with_and_without_the_norm(d, s):
    rng, bits = np.random.default_rng(d), 32 + d * (1 + math.ceil(math.log2(s + 1)))
    for x in vectors(d):
        for q in (2, math.inf):
            nrm, u = F32(compressors.norm(x, q)), rng.random(d)
            scaled = np.minimum(s * np.abs(x) / (nrm if nrm else F32(1)), s)
            levels = np.floor(scaled) + (u < scaled - np.floor(scaled))
            for order, rule in ORDERS.items():
                value = np.sign(x) * rule(nrm, levels.astype(F32), F32(s))
                spec = {"kind": "levels", "s": s, "order": order}
                check(spec, value, bits, nrm)
                check(spec, value, bits)
            dithered = compressors.natural_dithering(x, u, s, q)
            check({"kind": "dithering", "s": s}, dithered, bits)


@pytest.mark.parametrize("d", DIMS)
def test_ternary_messages(d):
    rng = np.random.default_rng(d)
    for x in vectors(d):
        value = compressors.terngrad(x, rng.random(d))
        check("ternary", value, 32 + 2 * d)
        check({"kind": "ternary", "base3": True}, value, 32 + math.ceil(d * math.log2(3)))
        check("ternary", value, 32 + 2 * d, np.max(np.abs(x)))


INDEX = {
    "log2": lambda d, k: k * log2_bits(d),
    "int32": lambda d, k: 32 * k,
    "binom": lambda d, k: math.ceil(math.log2(math.comb(d, k))),
    "none": lambda d, k: 0,
}


@pytest.mark.parametrize("index", INDEX)
@pytest.mark.parametrize("d", DIMS)
def test_sparse_messages(d, index):
    rng = np.random.default_rng(d)
    for k in sizes(d):
        for x in vectors(d):
            mask, u, extra = subset(rng, d, k), rng.random(d), INDEX[index](d, k)
            spec = {"kind": "sparse", "k": k, "index": index}
            spec |= {"support": mask} if index == "none" else {}
            check(spec, compressors.rand_k_unscaled(x, mask), 32 * k + extra)
            scaled = compressors.rand_k(x, mask)
            check(spec, scaled, 32 * k + extra)
            check(spec | {"entry": "natural"}, compressors.natural(scaled, u), 9 * k + extra)
            signs = compressors.on_support(x, mask, compressors.scaled_sign)
            check(spec | {"entry": "sign"}, signs, k + 32 + extra)
            levels = compressors.on_support(x, mask, lambda y, u=u: compressors.terngrad(y, u[: len(y)]))
            check(spec | {"entry": "ternary"}, levels, 32 + 2 * k + extra)
            if index != "none":
                check(spec, compressors.top_k(x, k), 32 * k + extra)


def test_scaled_powers_of_two():
    """(d/k) natural(x_S), and natural / (1 + omega): the factor is known to both ends."""
    rng, d, k = np.random.default_rng(0), 7, 3
    for x in vectors(d)[:5]:
        mask = subset(rng, d, k)
        kept = compressors.natural(compressors.rand_k_unscaled(x, mask), rng.random(d))
        spec = {"kind": "sparse", "k": k, "index": "log2", "entry": {"kind": "natural", "scale": d / k}}
        check(spec, kept * F32(d / k), 9 * k + 3 * k)
        value = F32(8 / 9) * compressors.natural(x, rng.random(d))
        check({"kind": "scaled", "factor": 8 / 9, "inner": "natural"}, value, 9 * d)


@pytest.mark.parametrize("d", DIMS)
def test_selection_coin_and_mask_messages(d):
    rng = np.random.default_rng(d)
    for x in vectors(d):
        one = {"kind": "sparse", "k": 1, "index": "log2"}
        check(one, compressors.l1_select(x, rng.random()), 32 + log2_bits(d))
        check(one, compressors.l1_select_biased(x, rng.random()), 32 + log2_bits(d))
        check("bernoulli", compressors.bernoulli(x, 0.1, F32(0.5)), 32 * d if np.any(x) else 0)
        check("bernoulli", compressors.bernoulli(x, 0.9, F32(0.5)), 0)
        kept = compressors.bernoulli_coordinates(x, rng.random(d), 0.5)
        check({"kind": "bitmap"}, kept, d + 32 * np.count_nonzero(kept))


@pytest.mark.parametrize("index", ["log2", "int32", "binom"])
@pytest.mark.parametrize("d", DIMS)
def test_threshold_messages_find_their_count_from_the_length(d, index):
    for x in vectors(d):
        for tau in (0.0, 0.5, 1e9):
            value = compressors.threshold(x, tau)
            kept = np.count_nonzero(value)
            check({"kind": "threshold", "index": index}, value, 32 * kept + INDEX[index](d, kept))


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 4), (6, 2)])
def test_low_rank_messages(a, b):
    for x in vectors(a * b)[:5]:
        for r in range(1, min(a, b) + 1):
            left, right = (f.astype(F32) for f in compressors.low_rank_factors(x, a, b, r))
            spec = {"kind": "low_rank", "a": a, "b": b, "r": r}
            check(spec, (left @ right.T).ravel(), 32 * r * (a + b), (left, right))
            message = codec.encode(spec, (left @ right.T).ravel())
            assert message[1] == 32 * r * (a + b)


def test_perm_k_messages_with_padding():
    n, d = 3, 7
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(F32)
    order = np.random.default_rng(1).permutation(9)
    for i, value in enumerate(compressors.perm_k(rows, order)):
        support = np.isin(np.arange(d), order[3 * i : 3 * i + 3])
        spec = {"kind": "sparse", "index": "none", "support": support}
        check(spec, value, 32 * math.ceil(d / n), exact_length=False)


def test_sums_of_messages():
    d, rng = 8, np.random.default_rng(0)
    for x in vectors(d)[:5]:
        first = compressors.top_k(x, 2)
        second = compressors.natural(x - first, rng.random(d))
        spec = {"kind": "sum", "parts": [{"kind": "sparse", "k": 2, "index": "log2"}, "natural"]}
        check(spec, first + second, 2 * 35 + 9 * d, [(first, None), (second, None)])


def test_messages_that_cannot_carry_a_value_are_refused():
    good = np.array([1.0, -2.0, 0.5], F32)
    for spec, value in (
        ("natural", np.array([3.0], F32)),
        ("natural", np.array([2.0**-127], F32)),
        ("zero", good),
        ("sign", good),
        ("ternary", good),
        ({"kind": "levels", "s": 3}, np.array([1.0, 0.3], F32)),
        ({"kind": "dithering", "s": 1}, good),
        ({"kind": "sparse", "k": 2, "index": "log2"}, good),
        ({"kind": "sparse", "index": "none", "support": np.array([1, 1, 0], bool)}, good),
        ({"kind": "threshold", "index": "none"}, good),
        ("float32", good.astype(float)),
        ("float32", np.array([np.nan], F32)),
    ):
        with pytest.raises(CodecError):
            codec.encode(spec, value)


def test_decoder_refuses_messages_of_the_wrong_length():
    data, nbits = codec.encode("natural", np.ones(3, F32))
    with pytest.raises(CodecError):
        codec.decode("natural", (data, nbits), 2)
    with pytest.raises(CodecError):
        codec.decode("natural", (data, nbits), 4)


def test_combinadics_number_all_subsets():
    d, k = 7, 3
    seen = set()
    for mask in outcomes_of.subsets(d, k):
        data, nbits = codec.encode({"kind": "sparse", "k": k, "index": "binom"}, mask.astype(F32))
        seen.add(data[0] >> 2)
        assert nbits == 6 + 32 * k
    assert seen == set(range(math.comb(d, k)))
