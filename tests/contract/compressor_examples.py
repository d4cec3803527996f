"""One record or more for each registered compressor: what its messages must look like, at d = 12 with 3 clients."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

D, N_CLIENTS = 12, 3
INDEX = {
    "log2": lambda k, d: k * math.ceil(math.log2(d)),
    "binom": lambda k, d: math.ceil(math.log2(math.comb(d, k))),
    "int32": lambda k, d: 32 * k,
    "none": lambda k, d: 0,
}


def kept(value: np.ndarray) -> int:
    return int(np.count_nonzero(value))


@dataclasses.dataclass(frozen=True)
class Example:
    """A spelling and what is known of it.

    bits(value, index): the price of a message by the catalogue, index a function (k, d) -> bits.
    levels(x, value): what every output must satisfy.
    full: a spelling that is exactly the identity at d = 12, None where there is none.
    one: a spelling for d = 1, and whether that is the identity.
    exact: the variance equals omega |x|^2 (or (1 - delta) |x|^2) for every x.
    worst: an x where the constant is reached.
    """

    spec: str
    bits: Callable[[np.ndarray, Callable[[int, int], int]], float]
    levels: Callable[[np.ndarray, np.ndarray], bool]
    full: str | None
    one: tuple[str, bool]
    exact: bool = False
    worst: Callable[[int], np.ndarray] | None = None


def one_hot(d: int) -> np.ndarray:
    return 3.0 * np.eye(d)[d // 2]


def constant(d: int) -> np.ndarray:
    return np.full(d, 1.5)


def subset_of(factor: float, k: int | None = None) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Every entry is zero or factor times the input's, at most k are sent."""

    def check(x: np.ndarray, value: np.ndarray) -> bool:
        sent = value != 0
        return bool(np.allclose(value[sent], factor * x[sent], rtol=1e-14)) and (k is None or kept(value) <= k)

    return check


def top(k: int) -> Callable[[np.ndarray, np.ndarray], bool]:
    def check(x: np.ndarray, value: np.ndarray) -> bool:
        order = sorted(range(len(x)), key=lambda j: (-abs(x[j]), j))[:k]
        return set(np.flatnonzero(value)) <= set(order) and np.array_equal(value[order], x[order])

    return check


def fewest_holding(share: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    """The fewest of the largest entries that hold this share of the squares."""

    def check(x: np.ndarray, value: np.ndarray) -> bool:
        sums = np.cumsum(np.sort(x**2)[::-1])
        return kept(value) == int(np.sum(sums < share * sums[-1])) + 1 and top(kept(value))(x, value)

    return check


def signs_kept(x: np.ndarray, value: np.ndarray) -> bool:
    return bool(np.all(x * value >= 0))


def neighbours(x: np.ndarray, value: np.ndarray) -> bool:
    """Zero, or one of the two powers of two around the input."""
    low = 2.0 ** np.floor(np.log2(np.where(x == 0, 1, np.abs(x))))
    powers = np.isclose(np.abs(value), low, rtol=1e-15) | np.isclose(np.abs(value), 2 * low, rtol=1e-15)
    return bool(np.all(np.where(x == 0, value == 0, powers))) and signs_kept(x, value)


def multiples(s: int, q: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    """s value / |x|_q is a whole number of [-s, s], one of the two around s x / |x|_q."""

    def check(x: np.ndarray, value: np.ndarray) -> bool:
        nrm = np.linalg.norm(x, q)
        level, want = s * np.abs(value) / nrm, s * np.abs(x) / nrm
        whole = np.allclose(level, np.rint(level), atol=1e-12) and np.all(level <= s + 1e-12)
        return bool(whole and np.all(np.abs(level - want) < 1)) and signs_kept(x, value)

    return check


def dithered(s: int, q: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    levels = np.array([0.0] + [2.0 ** (1 - j) for j in range(s, 0, -1)])

    def check(x: np.ndarray, value: np.ndarray) -> bool:
        part = np.abs(value) / np.linalg.norm(x, q)
        return bool(np.all(np.min(np.abs(part[:, None] - levels[None, :]), axis=1) < 1e-14)) and signs_kept(x, value)

    return check


def one_modulus(sizes: list[int]) -> Callable[[np.ndarray, np.ndarray], bool]:
    def check(x: np.ndarray, value: np.ndarray) -> bool:
        starts = np.cumsum([0, *sizes])
        blocks = [slice(a, b) for a, b in itertools.pairwise(starts)]
        scales = all(np.allclose(np.abs(value[b]), np.mean(np.abs(x[b])), rtol=1e-14) for b in blocks)
        return scales and np.array_equal(value < 0, (x < 0) & (value != 0))

    return check


def rank_at_most(r: int, rows: int) -> Callable[[np.ndarray, np.ndarray], bool]:
    return lambda x, value: int(np.linalg.matrix_rank(value.reshape(rows, -1), tol=1e-12)) <= r


def natural_worst(d: int) -> np.ndarray:
    return 4 / 3 * 2.0 ** np.arange(d)


def ternary_worst(d: int) -> np.ndarray:
    return np.where(np.arange(d) == 0, 1.0, 1 / (1 + math.sqrt(d)))


EXAMPLES = [
    Example("identity", lambda v, i: 32 * D, subset_of(1), "identity", ("identity", True), exact=True),
    Example("zero", lambda v, i: 0, lambda x, v: not np.any(v), None, ("zero", False)),
    Example("natural", lambda v, i: 9 * D, neighbours, None, ("natural", False), worst=natural_worst),
    Example(
        "bernoulli:0.4",
        lambda v, i: 32 * D if np.any(v) else 0,
        lambda x, v: not np.any(v) or np.allclose(v, x / 0.4),
        "bernoulli:1",
        ("bernoulli:0.4", False),
        exact=True,
    ),
    Example(
        "bernoulli:0.4,per=entry",
        lambda v, i: 32 * kept(v) + D,
        subset_of(1 / 0.4),
        "bernoulli:1,per=entry",
        ("bernoulli:0.4,per=entry", False),
        exact=True,
    ),
    Example(
        "rand_k:4",
        lambda v, i: 4 * 32 + i(4, D),
        subset_of(3, 4),
        "rand_k:12",
        ("rand_k:1", True),
        exact=True,
    ),
    Example(
        "rand_k_unscaled:4",
        lambda v, i: 4 * 32 + i(4, D),
        subset_of(1, 4),
        "rand_k_unscaled:12",
        ("rand_k_unscaled:1", True),
        exact=True,
    ),
    Example("top_k:4", lambda v, i: 4 * 32 + i(4, D), top(4), "top_k:12", ("top_k:1", True), worst=constant),
    Example(
        "l1_select",
        lambda v, i: 32 + i(1, D),
        lambda x, v: kept(v) == 1 and math.isclose(np.sum(np.abs(v)), np.sum(np.abs(x))) and signs_kept(x, v),
        None,
        ("l1_select", True),
        worst=constant,
    ),
    Example(
        "l1_select:biased",
        lambda v, i: 32 + i(1, D),
        subset_of(1, 1),
        None,
        ("l1_select:biased", True),
        worst=constant,
    ),
    Example(
        "threshold:0.3", lambda v, i: 32 * kept(v) + i(kept(v), D), subset_of(1), "threshold:1", ("threshold:1", True)
    ),
    Example(
        "threshold:0.2,fit=pareto,stages=2",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        subset_of(1),
        "threshold:1,fit=pareto",
        ("threshold:1,fit=pareto,stages=2", True),
    ),
    Example(
        "threshold:0.3,fit=gamma",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        subset_of(1),
        "threshold:1,fit=gamma",
        ("threshold:1,fit=gamma", True),
    ),
    Example("sidco:0.3", lambda v, i: 32 * kept(v) + i(kept(v), D), subset_of(1), "sidco:1", ("sidco:1", True)),
    Example(
        "sidco:0.1,fit=pareto,stages=3,mode=-3,most=4",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        subset_of(1),
        "sidco:1,fit=pareto",
        ("sidco:1,fit=gamma", True),
    ),
    Example(
        "top_energy:0.8",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        fewest_holding(0.8),
        "top_energy:1",
        ("top_energy:0.8", True),
    ),
    Example(
        "top_per_bit:40",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        lambda x, v: top(max(1, kept(v)))(x, v),
        "top_per_bit:1000000000000000000",
        ("top_per_bit:0", True),
    ),
    Example(
        "top_price:4,price=0.25",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        lambda x, v: np.array_equal(v != 0, np.abs(x) > 0.5) or kept(v) <= 1,
        "top_price:12,price=1e-08",
        ("top_price:1", True),
    ),
    Example(
        "top_power_law:2,least=2,most=7",
        lambda v, i: 32 * kept(v) + i(kept(v), D),
        lambda x, v: top(7)(x, v) or top(max(2, min(7, round(2 * math.sqrt(np.sum(x**2))))))(x, v),
        "top_power_law:1,least=12",
        ("top_power_law:1", True),
        worst=lambda d: np.full(d, 1e-3),
    ),
    Example("qsgd:3", lambda v, i: 32 + 3 * D, multiples(3, 2), None, ("qsgd:3", True)),
    Example(
        "qsgd:4,code=elias",
        lambda v, i: 32 + (3 + 1.5 * math.log2(56 / 29.856406460551018)) * 29.856406460551018,
        multiples(4, 2),
        None,
        ("qsgd:4", True),
    ),
    Example(
        "dithering:4,norm=inf", lambda v, i: 32 + 4 * D, multiples(4, np.inf), None, ("dithering:4,norm=inf", True)
    ),
    Example(
        "dithering:1,norm=1",
        lambda v, i: 32 + 2 * D,
        multiples(1, 1),
        None,
        ("dithering:1,norm=1", True),
        worst=constant,
    ),
    Example("ternary", lambda v, i: 32 + 2 * D, multiples(1, np.inf), None, ("ternary", True), worst=ternary_worst),
    Example("ternary:base3", lambda v, i: 32 + 20, multiples(1, np.inf), None, ("ternary:base3", True)),
    Example("natural_dithering:3", lambda v, i: 32 + 3 * D, dithered(3, 2), None, ("natural_dithering:3", True)),
    Example(
        "natural_dithering:4,q=inf",
        lambda v, i: 32 + 4 * D,
        dithered(4, np.inf),
        None,
        ("natural_dithering:4,q=inf", True),
    ),
    Example("sign", lambda v, i: 32 + D, one_modulus([D]), None, ("sign", True), worst=one_hot),
    Example(
        "block_sign:5",
        lambda v, i: 3 * 32 + D,
        one_modulus([5, 5, 2]),
        "block_sign:1",
        ("block_sign:5", True),
        worst=one_hot,
    ),
    Example(
        "shared_rand_k:4",
        lambda v, i: 4 * 32,
        subset_of(3, 4),
        "shared_rand_k:12",
        ("shared_rand_k:1", True),
        exact=True,
    ),
    Example("perm_k:3", lambda v, i: 32 * 4, subset_of(3, 4), None, ("perm_k:3", True), exact=True),
    Example(
        "low_rank:1,rows=3",
        lambda v, i: 32 * (3 + 4),
        rank_at_most(1, 3),
        "low_rank:3,rows=3",
        ("low_rank:1,rows=1", True),
        worst=lambda d: np.eye(3, d // 3).reshape(-1),
    ),
    Example(
        "compensated(sign):1,rows=3",
        lambda v, i: 32 + D + 32 * (3 + 4),
        lambda x, v: rank_at_most(1, 3)(x, v - np.mean(np.abs(x)) * np.where(x < 0, -1, 1)),
        "compensated(sign):3,rows=3",
        ("compensated(sign):1,rows=1", True),
    ),
    Example(
        "compensated(zero):2,rows=4",
        lambda v, i: 32 * 2 * (4 + 3),
        rank_at_most(2, 4),
        "compensated(zero):3,rows=4",
        ("compensated(zero):1,rows=1", True),
        worst=lambda d: np.eye(4, 3).reshape(-1),
    ),
    Example(
        "compensated(top_k:3|qsgd:4):1,rows=3",
        lambda v, i: 3 * 4 + 32 + i(3, D) + 32 * (3 + 4),
        lambda x, v: True,
        "compensated(top_k:3|qsgd:4):3,rows=3",
        ("compensated(top_k:1|qsgd:4):1,rows=1", True),
    ),
    Example(
        "scaled(rand_k:4)",
        lambda v, i: 4 * 32 + i(4, D),
        subset_of(1, 4),
        "scaled(rand_k:12)",
        ("scaled(qsgd:1)", False),
        exact=True,
    ),
    Example(
        "induced(top_k:2;rand_k:5)",
        lambda v, i: 7 * 32 + i(2, D) + i(5, D),
        lambda x, v: kept(v) <= 7,
        "induced(top_k:2;rand_k:12)",
        ("induced(top_k:1;natural)", True),
        worst=constant,
    ),
    Example(
        "fcc(top_k:2):2",
        lambda v, i: 4 * 32 + 2 * i(2, D),
        top(4),
        "fcc(top_k:6):2",
        ("fcc(top_k:1):2", True),
        worst=constant,
    ),
    Example(
        "fcc(rand_k_unscaled:4):2",
        lambda v, i: 8 * 32 + 2 * i(4, D),
        subset_of(1, 8),
        "fcc(rand_k_unscaled:12):2",
        ("fcc(rand_k_unscaled:1):1", True),
        exact=True,
    ),
    Example(
        "per_block(rand_k:2|natural):5x7",
        lambda v, i: 4 * 9 + i(2, 5) + i(2, 7),
        lambda x, v: kept(v) <= 4 and signs_kept(x, v),
        "per_block(rand_k:100%):5x7",
        ("per_block(rand_k:1):1", True),
    ),
    Example(
        "rand_k:4|natural",
        lambda v, i: 4 * 9 + i(4, D),
        lambda x, v: neighbours(np.where(v == 0, 0, 3 * x), v),
        None,
        ("rand_k:1|natural", False),
    ),
    Example(
        "top_k:5|sign",
        lambda v, i: 32 + 5 + i(5, D),
        lambda x, v: kept(v) <= 5 and len(set(np.round(np.abs(v[v != 0]), 12))) == 1,
        None,
        ("top_k:1|sign", True),
    ),
    Example(
        "top_k:6|rand_k_unscaled:3|qsgd:2",
        lambda v, i: 32 + 3 * 3 + i(6, D) + i(3, D),
        lambda x, v: kept(v) <= 3 and signs_kept(x, v),
        None,
        ("top_k:1|rand_k_unscaled:1|qsgd:2", True),
    ),
]
