"""All outcomes of a compressor at small d: lists of (value, probability), probabilities summing to one."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from . import compressors


def identity(x):
    return [(x.copy(), 1.0)]


def subsets(d, k):
    """All boolean masks with k ones."""
    masks = []
    for chosen in combinations(range(d), k):
        mask = np.zeros(d, dtype=bool)
        mask[list(chosen)] = True
        masks.append(mask)
    return masks


def rand_k(x, k):
    masks = subsets(len(x), k)
    return [(compressors.rand_k(x, mask), 1.0 / len(masks)) for mask in masks]


def natural(x):
    """Every entry goes down or, with probability |x|/2^e - 1, up; impossible outcomes are left out."""
    per_entry = []
    for value in x:
        low, high = compressors.natural_entry(value, 1.0), compressors.natural_entry(value, -1.0)
        up = 0.0 if value == 0 else (value - low) / low
        choices = [(low, 1.0 - up)] + ([(high, up)] if up > 0 else [])
        per_entry.append(choices)
    outcomes = []
    for choice in product(*per_entry):
        probability = 1.0
        for _, q in choice:
            probability *= q
        outcomes.append((np.array([value for value, _ in choice]), probability))
    return outcomes


def l1_select(x):
    total = np.sum(np.abs(x))
    if total == 0:
        return [(0.0 * x, 1.0)]
    outcomes = []
    for i in range(len(x)):
        if x[i] != 0:
            value = 0.0 * x
            value[i] = total * np.sign(x[i])
            outcomes.append((value, abs(x[i]) / total))
    return outcomes


def bernoulli(x, p):
    return [(x / p, p), (0.0 * x, 1.0 - p)] if p < 1 else [(x.copy(), 1.0)]


def rand_k_natural(x, k):
    """natural(rand_k(x)): the kept entries are scaled by d/k first."""
    return then(rand_k(x, k), natural)


def natural_rand_k(x, k):
    """(d/k) times natural on the kept entries; the same omega, another law unless d/k is a power of two."""
    return then(natural(x), lambda y: rand_k(y, k))


def then(outcomes, compressor):
    """Outcomes of a second, independent compressor applied to each outcome of the first."""
    return [(z, q * r) for y, q in outcomes for z, r in compressor(y)]


def joint(per_client):
    """Independent clients: all ([value_1, .., value_n], probability)."""
    combined = []
    for choice in product(*per_client):
        probability = 1.0
        for _, q in choice:
            probability *= q
        combined.append(([value for value, _ in choice], probability))
    return combined


def moments(x, outcomes):
    """(sum of probabilities, E Q(x), E|Q(x) - x|^2)."""
    total, mean, variance = 0.0, 0.0 * x, 0.0
    for value, q in outcomes:
        total, mean, variance = total + q, mean + q * value, variance + q * float(np.sum((value - x) ** 2))
    return total, mean, variance
