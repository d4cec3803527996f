"""Graphs by name, their matrices W and spectra, what is refused, and mixing with and without a matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.algorithms.frames import graphs
from fedjax_lc.algorithms.frames.gossip import Changing, dual_norm

REGULAR = ("ring", "torus", "complete", "exponential", "hypercube")
FAMILIES = (*REGULAR, "path", "star")
DRAWN = ("erdos_renyi:0.4", "regular:3")
TABLE = {  # of 16 nodes: edges, degrees, rho, beta, kappa_g
    "ring": (16, 2, 2, 0.05075, 1.33333, 26.274),
    "path": (15, 1, 2, 0.01281, 1.32052, 103.087),
    "star": (15, 1, 15, 0.06250, 1.00000, 16.000),
    "torus": (32, 4, 4, 0.40000, 1.60000, 4.000),
    "hypercube": (32, 4, 4, 0.40000, 1.60000, 4.000),
    "exponential": (56, 7, 7, 0.50000, 1.27245, 2.545),
    "complete": (120, 15, 15, 1.0, 1.0, 1.0),
}


def eigenvalues(made):
    return np.linalg.eigvalsh(made.W)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_of_sixteen_nodes(name):
    made = fl.topology(name, 16)
    degrees = made.degrees
    got = (made.gap, made.beta, made.kappa_g)
    assert (len(made.edges), degrees.min(), degrees.max()) == TABLE[name][:3]
    np.testing.assert_allclose(got, TABLE[name][3:], atol=6e-4)
    np.testing.assert_allclose(got[:2], TABLE[name][3:5], atol=6e-6)


def test_eigenvalues_in_closed_form():
    """G10, from formulas of their own."""
    cos = lambda n: np.cos(2 * np.pi * np.arange(n) / n)
    expected = {
        ("ring", 7): 1 / 3 + 2 / 3 * cos(7),
        ("star", 9): [1, 0, *[1 - 1 / 9] * 7],
        ("torus", 12): np.add.outer(1 / 5 + 2 / 5 * cos(3), 2 / 5 * cos(4)).ravel(),
        ("complete", 6): [1, *[0] * 5],
        ("hypercube", 8): [1 - 2 * bin(k).count("1") / 4 for k in range(8)],
    }
    for (name, n), values in expected.items():
        np.testing.assert_allclose(eigenvalues(fl.topology(name, n)), np.sort(values), atol=1e-13, err_msg=name)


@pytest.mark.parametrize("weights", ["metropolis", "max_degree", "laplacian"])
@pytest.mark.parametrize("name", [*FAMILIES, *DRAWN])
def test_the_spectrum_is_that_of_W(name, weights):
    """In closed form or not, lazy or not; W is symmetric, its rows sum to 1."""
    for n in (1, 2, 4, 8, 16) if name in FAMILIES else (8, 16):
        for lazy in (False, True):
            made = fl.topology(name, n, weights=weights, lazy=lazy)
            values = eigenvalues(made)
            np.testing.assert_allclose(made.W, made.W.T, atol=0)
            np.testing.assert_allclose(made.W.sum(axis=1), 1, atol=1e-15)
            if n > 1:
                np.testing.assert_allclose((made.beta, made.lmin), (1 - values[0], 1 - values[-2]), atol=1e-13)
                assert made.gap == pytest.approx(1 - max(abs(values[0]), abs(values[-2])), abs=1e-13)
                assert np.abs(values[:-1]).max() < 1
                assert not lazy or values[0] >= -1e-15


def test_weights():
    path = fl.topology("path", 4)
    np.testing.assert_allclose(path.W[0], [2 / 3, 1 / 3, 0, 0])
    star = fl.topology("star", 4, weights="max_degree", lazy=True)
    np.testing.assert_allclose(star.W[1], [1 / 8, 7 / 8, 0, 0])
    for name in (*REGULAR, "regular:3"):
        uniform, usual = fl.topology(name, 8, weights="uniform"), fl.topology(name, 8)
        assert uniform == usual
        assert hash(uniform) == hash(usual)
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4)]
    gaps = [fl.topology(edges, weights="laplacian").gap, fl.topology(edges, weights="max_degree").gap]
    assert gaps[0] > gaps[1]  # the best constant


def test_one_node_has_no_neighbours():
    for name in (*FAMILIES, *DRAWN, "one_peer_hypercube", "matching(ring)", "subgraph(star):0.5"):
        links = links_of(Nodes(1), name)
        np.testing.assert_array_equal(links.mix(jnp.ones((1, 3))), np.ones((1, 3)))
        assert links.hearers.tolist() == [0]
    assert (fl.topology("ring", 1).gap, fl.topology("ring", 1).kappa_g) == (1, 1)


def test_texts_are_read_and_spelled():
    made = fl.topology("erdos_renyi:0.3, seed=2, weights=max_degree, lazy=true", 10)
    assert str(made) == "erdos_renyi:0.3,seed=2,weights=max_degree,lazy=true"
    again = fl.topology("erdos_renyi:0.3", 10, weights="max_degree", lazy=True, key=2)
    assert made == fl.topology(str(made), 10) == again
    assert made != fl.topology("erdos_renyi:0.3,seed=3", 10)
    by_key = [fl.topology("erdos_renyi:0.3", 10, key=jax.random.key(seed)) for seed in (7, 7, 8)]
    assert by_key[0] == by_key[1] != by_key[2]
    assert fl.topology("ring:weights=metropolis", 5) is not None
    assert str(fl.topology("ring", 5)) == "ring"
    assert str(fl.topology("subgraph(regular:4):0.5", 8)) == "subgraph(regular:4):0.5"
    assert fl.topology(made) is made


@pytest.mark.parametrize("name", ["erdos_renyi:0.05", "regular:3"])
def test_drawn_graphs_are_connected_and_simple(name):
    for seed in range(5):
        made = fl.topology(name, 80, key=seed)
        i, j = made.edges.T
        assert np.all(i < j)
        assert len(np.unique(made.edges, axis=0)) == len(made.edges)
        assert graphs.is_connected(80, made.edges)
    if name == "regular:3":
        assert set(made.degrees) == {3}
    else:
        assert len(made.edges) == pytest.approx(0.05 * 80 * 79 / 2, rel=0.4)


def test_every_pair_is_an_edge_of_erdos_renyi_as_often_as_said():
    counts = np.zeros((5, 5))
    for seed in range(300):
        i, j = graphs.FAMILIES["erdos_renyi"][0](5, 0.7, seed).edges.T
        counts[i, j] += 1
    shares = counts[np.triu_indices(5, 1)] / 300
    assert shares.min() > 0.6  # given that it is connected
    assert shares.max() < 0.85


def test_edges_and_matrices_of_ones_own():
    made = fl.topology([(1, 0), (1, 2), (0, 1)])
    assert (made.n, made.edges.tolist(), made.degrees.tolist()) == (3, [[0, 1], [1, 2]], [1, 2, 1])
    assert made == fl.topology("path", 3)
    W = np.array([[0.5, 0.5, 0], [0.5, 0.2, 0.3], [0, 0.3, 0.7]])
    own = fl.topology(W)
    np.testing.assert_allclose(own.W, W, atol=1e-15)
    np.testing.assert_allclose(fl.topology(W, lazy=True).W, (np.eye(3) + W) / 2, atol=1e-15)
    assert own.beta == pytest.approx(1 - np.linalg.eigvalsh(W)[0])
    assert str(own).startswith("W of 3 nodes ")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fl.topology("rign", 4), "unknown topology 'rign': did you mean 'ring'?"),
        (lambda: fl.topology("ring"), "needs its number of nodes"),
        (lambda: fl.topology("ring", 0), "a whole number of nodes >= 1, got 0"),
        (lambda: fl.topology("ring:3", 4), "weights must be metropolis, uniform"),
        (lambda: fl.topology("ring:speed=3", 4), "unknown option of ring 'speed'"),
        (lambda: fl.topology("ring", 4, weights="best"), "unknown weights 'best'"),
        (lambda: fl.topology("ring", 4, key=1), "topology ring draws nothing"),
        (lambda: fl.topology("star", 4, weights="uniform"), "uniform weights are for regular graphs"),
        (lambda: fl.topology("hypercube", 12), "power of 2 as its number of nodes, got 12: take 8 or 16"),
        (lambda: fl.topology("one_peer_exponential", 6), "power of 2 as its number of nodes, got 6"),
        (lambda: fl.topology("erdos_renyi", 4), "needs p"),
        (lambda: fl.topology("erdos_renyi:1.5", 4), "p must be a probability in (0, 1]"),
        (lambda: fl.topology("erdos_renyi:0.01", 40), "disconnected in 200 draws"),
        (lambda: fl.topology("erdos_renyi:1e-300", 4), "disconnected in 200 draws"),
        (lambda: fl.topology("erdos_renyi:0.3", 9, key=-1), "key must be a whole number >= 0, got -1"),
        (lambda: fl.topology("erdos_renyi:0.3", 9, key="a"), "is a whole number or a JAX key, got 'a'"),
        (lambda: fl.topology("erdos_renyi:0.3,seed=1", 9, key=2), "gives seed, and so does seed=2"),
        (lambda: fl.topology("regular:3", 5), "regular:3 of 5 nodes cannot be"),
        (lambda: fl.topology("regular:8", 8), "at most 7"),
        (lambda: fl.topology("regular:1", 8), "disconnected in 200 draws"),
        (lambda: fl.topology("matching(matching(ring))", 4), "changes already"),
        (lambda: fl.topology("subgraph(ring)", 4), "needs p"),
        (lambda: fl.topology("matching(ring)", 4, lazy=True), "takes its options in its text"),
        (lambda: fl.topology([(0, 1), (2, 3)]), "disconnected"),
        (lambda: fl.topology([(0, 1), (1, 1)]), "a loop at node 1"),
        (lambda: fl.topology([(0, 4)], 3), "pairs of nodes 0..2"),
        (lambda: fl.topology([(0, 1)], 2, weights="best"), "unknown weights 'best'"),
        (lambda: fl.topology(np.array([[0.5, 0.5], [0.4, 0.6]])), "W is not symmetric, by up to 1.0e-01"),
        (lambda: fl.topology(np.array([[0.5, 0.4], [0.4, 0.6]])), "rows of W do not sum to 1, by up to 1.0e-01"),
        (lambda: fl.topology(np.eye(3)), "disconnected"),
        (lambda: fl.topology(np.array([[0.0, 1.0], [1.0, 0.0]])), "W has the eigenvalue -1 besides 1"),
        (lambda: fl.topology(np.array([[1.5, -0.5], [-0.5, 1.5]])), "W has the eigenvalue 2 besides 1"),
        (lambda: fl.topology(np.array([[np.nan, 1.0], [1.0, 0.0]])), "not finite"),
        (lambda: fl.topology(np.full((2, 2), 0.5), 3), "W is of 2 nodes, and 3 are asked for"),
        (lambda: fl.topology(np.full((2, 2), 0.5), weights="uniform"), "has its weights"),
        (lambda: fl.topology(np.full((2, 3), 0.5)), "or W (n, n)"),
        (lambda: fl.topology({"ring"}, 3), "a topology is a name such as ring"),
        (lambda: fl.topology([["a", "b"]]), "a topology is a name such as ring"),
        (lambda: fl.topology(fl.topology("ring", 4), 5), "is made already"),
        (lambda: fl.topology("matching(ring)", 4).gap, "changes from round to round"),
        (lambda: fl.topology("ring", 10_000).W, "is not shown as a matrix"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(make, said):
    with pytest.raises(fl.InputError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- mixing ---


@pytest.mark.parametrize(
    ("name", "n"),
    [("ring", 40), ("star", 400), ("erdos_renyi:0.02", 400), ("regular:20", 400), ("complete", 400)],
)
def test_a_large_graph_mixes_as_its_matrix_does(name, n):
    """By two neighbours at once, by links where degrees differ much, in a loop over many neighbours, as a matrix."""
    made = fl.topology(name, n)
    X = np.random.default_rng(0).normal(size=(n, 3))
    assert made.dense == (name == "complete")
    np.testing.assert_allclose(made.mix(jnp.asarray(X)), made.W @ X, atol=1e-14)
    np.testing.assert_allclose(jax.jit(made.pull)(jnp.asarray(X)), made.W @ X - X, atol=1e-14)
    np.testing.assert_allclose(jax.vmap(made.mix)(jnp.stack([X, 2 * X]))[1], 2 * made.W @ X, atol=1e-14)


@pytest.mark.parametrize("name", ["ring", "path", "star", "torus"])
def test_ten_thousand_nodes_need_memory_for_their_links_only(name):
    """By the shapes of the program: none is larger than the models, or the links' vectors, times two."""
    n, d = 10_000, 6
    made = fl.topology(name, n)
    jaxpr = jax.make_jaxpr(made.mix)(jax.ShapeDtypeStruct((n, d), np.float64))
    sizes = [np.prod(v.aval.shape) for eqn in jaxpr.eqns for v in (*eqn.invars, *eqn.outvars) if hasattr(v, "aval")]
    assert max(sizes) <= 2 * d * max(n, 2 * len(made.edges))
    assert max(np.size(const) for const in jaxpr.consts) <= 4 * n
    assert 0 < made.gap < 1
    assert made.neighbours.shape == (n, made.degrees.max()) if name != "star" else True


def test_over_lanes_mixing_is_one_product():
    made = fl.topology("ring", 8)
    jaxpr = jax.make_jaxpr(jax.vmap(made.mix))(jnp.ones((5, 8, 3)))
    assert [eqn.primitive.name for eqn in jaxpr.eqns].count("dot_general") == 1


def test_w_is_exact_in_float32():
    X = jnp.ones((16, 2), jnp.float32)
    for name in FAMILIES:
        text = jax.jit(fl.topology(name, 16).mix).lower(X).as_text()
        assert "HIGHEST" in text
        np.testing.assert_allclose(fl.topology(name, 16).mix(X), 1, atol=3e-7)


def test_a_dual_norm_is_that_of_the_pseudoinverse():
    made, V = fl.topology("path", 5), np.random.default_rng(0).normal(size=(5, 3))
    V -= V.mean(axis=0)
    U = np.linalg.lstsq(np.eye(5) - made.W, V, rcond=None)[0]
    assert float(dual_norm(made, jnp.asarray(V))) == pytest.approx(np.sum(U * V), rel=1e-12)


# --- graphs that change ---


def links_of(problem, name, t=0, seed=0, participation=None):
    return Changing(topology=name, participation=participation).links(problem, t, jax.random.key(seed))


def matrix_of(links, n):
    return np.asarray(links.mix(jnp.eye(n)))


class Nodes:
    """What a topology asks of a problem."""

    def __init__(self, n):
        self.n = n


@pytest.mark.parametrize("name", ["one_peer_hypercube", "one_peer_exponential"])
@pytest.mark.parametrize("n", [2, 8, 16])
def test_one_peer_rounds_average_exactly(name, n):
    """G10: after log2 n rounds, from any of them on, all have the mean; in each round a node hears one other."""
    turns = n.bit_length() - 1
    for first in (0, 1):
        product = np.eye(n)
        for t in range(first, first + turns):
            W = matrix_of(links_of(Nodes(n), name, t), n)
            np.testing.assert_allclose(np.sort(W, axis=1)[:, -2:], 0.5, atol=0)
            np.testing.assert_allclose(W.sum(axis=0), 1, atol=0)
            np.testing.assert_allclose(W, W.T if "hyper" in name or n == 2 else W, atol=0)
            product = W @ product
        np.testing.assert_allclose(product, 1 / n, atol=1e-15)


@pytest.mark.parametrize("name", ["matching(complete)", "matching(ring)", "subgraph(torus):0.5"])
def test_drawn_rounds_are_doubly_stochastic_and_differ(name):
    n, seen = 12, set()
    for seed in range(6):
        links = links_of(Nodes(n), name, seed=seed)
        W = matrix_of(links, n)
        np.testing.assert_allclose(W, W.T, atol=0)
        np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-15)
        others = (W > 0).sum(axis=1) - 1
        np.testing.assert_array_equal(links.hearers, others)
        if name.startswith("matching"):
            assert set(others) <= {0, 1}
            assert others.sum() >= 2
        seen.add(W.tobytes())
    assert len(seen) > 1


def test_a_large_graph_that_changes_mixes_by_its_links():
    n, X = 300, np.random.default_rng(0).normal(size=(300, 2))
    links = links_of(Nodes(n), "subgraph(ring):0.5", seed=3)
    assert not links.graph.dense
    np.testing.assert_allclose(links.mix(jnp.asarray(X)), matrix_of(links, n) @ X, atol=1e-14)
    assert 100 < float(links.hearers.sum()) / 2 < 200


def test_who_stays_away_is_not_heard_and_hears_nobody():
    links = links_of(Nodes(8), "complete", participation=0.5, seed=1)
    W, active = matrix_of(links, 8), np.asarray(links.active)
    assert 0 < active.sum() < 8
    np.testing.assert_array_equal(W[~active], np.eye(8)[~active])
    np.testing.assert_array_equal(np.asarray(links.hearers)[active], active.sum() - 1)
    np.testing.assert_allclose(W.sum(axis=0), 1, atol=1e-15)
