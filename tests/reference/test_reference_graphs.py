"""Graphs and mixing matrices of the references: the table of the spec, eigenvalues in closed form, weights."""

from __future__ import annotations

import numpy as np
import pytest

from . import graphs
from .test_reference_gossip import close


@pytest.mark.parametrize(
    ("name", "count", "deg", "rho", "beta", "kappa"),
    [
        ("ring", 16, (2, 2), 0.05075, 1.33333, 26.274),
        ("path", 15, (1, 2), 0.01281, 1.32052, 103.087),
        ("star", 15, (1, 15), 0.06250, 1.0, 16.0),
        ("torus", 32, (4, 4), 0.4, 1.6, 4.0),
        ("hypercube", 32, (4, 4), 0.4, 1.6, 4.0),
        ("exponential", 56, (7, 7), 0.5, 1.27245, 2.545),
        ("complete", 120, (15, 15), 1.0, 1.0, 1.0),
    ],
)
def test_sixteen_nodes(name, count, deg, rho, beta, kappa):
    pairs = graphs.edges(name, 16)
    assert pairs == sorted(pairs)
    assert len(pairs) == count
    assert (min(graphs.degrees(16, pairs)), max(graphs.degrees(16, pairs))) == deg
    g = graphs.spectrum(graphs.mixing(16, pairs))
    assert (round(g["rho"], 5), round(g["beta"], 5)) == (rho, beta)
    assert round(g["kappa_g"], 3) == kappa


def eigenvalues(name, n):
    k = np.arange(n)
    if name == "ring":
        return 1 / 3 + 2 / 3 * np.cos(2 * np.pi * k / n)
    if name == "star":
        return np.array([1.0, 0.0] + [1 - 1 / n] * (n - 2))
    if name == "complete":
        return np.array([1.0] + [0.0] * (n - 1))
    if name == "torus":
        a, b = graphs.sides_of_torus(n)
        return np.array(
            [0.2 + 0.4 * (np.cos(2 * np.pi * i / a) + np.cos(2 * np.pi * j / b)) for i in range(a) for j in range(b)]
        )
    m = n.bit_length() - 1
    return np.array([1 - 2 * bin(i).count("1") / (m + 1) for i in range(n)])


@pytest.mark.parametrize(
    ("name", "n"),
    [("ring", 3), ("ring", 7), ("star", 5), ("complete", 6), ("torus", 9), ("torus", 12), ("hypercube", 8)],
)
def test_eigenvalues(name, n):
    got = np.linalg.eigvalsh(graphs.graph(name, n))
    np.testing.assert_allclose(got, np.sort(eigenvalues(name, n)), atol=1e-14)


def test_small_graphs():
    assert graphs.edges("ring", 2) == [(0, 1)]
    assert graphs.edges("torus", 5) == graphs.edges("ring", 5)
    assert graphs.edges("torus", 6) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (3, 5), (4, 5)]
    for name in graphs.GRAPHS:
        assert graphs.edges(name, 1) == []
        assert np.array_equal(graphs.graph(name, 1), [[1.0]])
    with pytest.raises(ValueError, match="power of two"):
        graphs.edges("hypercube", 6)


@pytest.mark.parametrize("name", graphs.GRAPHS)
@pytest.mark.parametrize("weights", graphs.WEIGHTS)
def test_weights(name, weights):
    pairs = graphs.edges(name, 8)
    if weights == "uniform" and name in ("path", "star"):
        with pytest.raises(ValueError, match="regular"):
            graphs.mixing(8, pairs, weights)
        return
    W = graphs.mixing(8, pairs, weights)
    assert np.array_equal(W, W.T)
    close(W.sum(axis=1), np.ones(8), 1e-15)
    assert graphs.spectrum(W)["rho"] > 0
    lazy = graphs.mixing(8, pairs, weights, lazy=True)
    close(np.linalg.eigvalsh(lazy), (1 + np.linalg.eigvalsh(W)) / 2, 1e-14)
    if weights == "uniform":
        assert np.array_equal(W, graphs.mixing(8, pairs))
    if weights == "laplacian":
        for factor in (0.97, 1.03):
            other = np.eye(8) - factor * (np.eye(8) - W)
            assert graphs.spectrum(other)["rho"] < graphs.spectrum(W)["rho"] + 1e-12


def test_random_graphs_are_redrawn_until_connected():
    asked = []

    def uniforms(attempt):
        asked.append(attempt)
        return np.ones(10) if attempt < 2 else np.random.default_rng(attempt).random(10)

    pairs = graphs.erdos(5, 0.7, uniforms)
    assert graphs.connected(5, pairs)
    assert asked[:3] == [0, 1, 2]


@pytest.mark.parametrize("name", ["hypercube", "exponential"])
@pytest.mark.parametrize("n", [2, 8, 16])
def test_one_peer_products_average_exactly(name, n):
    product = np.eye(n)
    for t in range(5, 5 + n.bit_length() - 1):
        product = graphs.one_peer(name, n, t) @ product
    close(product, np.full((n, n), 1 / n), 1e-15)
