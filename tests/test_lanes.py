"""Rules over lanes: `rarely` is its branch lane by lane, and `problem.grads` its loop, derivatives included."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.core.lanes import per_lane, plain, rarely
from fedjax_lc.core.platforms import BLOCKS
from tests.conftest import make_clients

D = 3


def coins(lanes, p, seed=0):
    return np.random.default_rng(seed).random(lanes) < p


def rows(lanes, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(lanes, D)))


def check_lane_by_lane(step, lanes, p, axes=(0, 0)):
    """vmap of step(coin, x) against NumPy's choice between step(True, x) and x."""
    heads, x = coins(lanes, p), rows(lanes)
    ours = jax.jit(jax.vmap(step, axes))(heads, x if axes[1] == 0 else x[0])
    alone = jax.jit(step)
    for lane in range(lanes):
        own = x[lane if axes[1] == 0 else 0]
        np.testing.assert_allclose(ours[lane], alone(True, own) if heads[lane] else own, rtol=1e-14)
    return heads


# --- rarely ---


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lanes", [1, 7, 33])
def test_rarely_is_the_branch_of_each_lane(lanes, p):
    """Sizes below, at and above a block's, with a last block that is not full."""
    heads = check_lane_by_lane(lambda coin, x: rarely(coin, lambda x: jnp.cumsum(x) + 1, x), lanes, p)
    assert heads.all() if p == 1 else not heads.any() if p == 0 else True


def test_rarely_with_a_p_of_each_lane():
    keys, p = jax.random.split(jax.random.key(0), 40), jnp.linspace(0, 1, 40)

    def step(key, p, x):
        return rarely(jax.random.bernoulli(key, p), lambda x: -x / p, x)

    ours, heads = jax.vmap(step)(keys, p, rows(40)), jax.vmap(jax.random.bernoulli)(keys, p)
    assert 10 < int(heads.sum()) < 30
    expected = jnp.where(heads[:, None], -rows(40) / jnp.where(p == 0, 1.0, p)[:, None], rows(40))
    np.testing.assert_allclose(ours, expected, rtol=1e-14)


def test_rarely_closes_over_traced_values_of_the_lane_and_of_all():
    """Arrays that `talk` closes over: one with lanes, one without, one constant of the host, and a traced index."""
    heads, x, gain, shared = coins(20, 0.5), rows(20), rows(20, seed=2), jnp.arange(3.0)

    def step(coin, x, gain, shared, lane):
        return rarely(coin, lambda x: gain * x + shared * np.full(D, 2.0) + lane, x)

    ours = jax.jit(jax.vmap(step, (0, 0, 0, None, 0)))(heads, x, gain, shared, jnp.arange(20))
    np.testing.assert_allclose(
        ours, np.where(heads[:, None], gain * x + 2 * shared[None] + np.arange(20)[:, None], x), rtol=1e-14
    )


def test_rarely_closes_over_keys():
    keys, heads, x = jax.random.split(jax.random.key(3), 20), coins(20, 0.4), rows(20)
    noise = lambda key: jax.random.normal(key, (D,))
    own = jax.vmap(lambda coin, key, x: rarely(coin, lambda x: x + noise(key), x))(heads, keys, x)
    np.testing.assert_allclose(own, jnp.where(heads[:, None], x + jax.vmap(noise)(keys), x), rtol=1e-14)
    one = jax.vmap(lambda coin, x: rarely(coin, lambda x: x + noise(keys[0]), x))(heads, x)
    np.testing.assert_allclose(one, jnp.where(heads[:, None], x + noise(keys[0])[None], x), rtol=1e-14)


def test_rarely_carries_a_key_in_its_operand():
    keys, heads = jax.random.split(jax.random.key(3), 20), coins(20, 0.4)
    ours = jax.vmap(lambda coin, key: rarely(coin, lambda key: jax.random.fold_in(key, 1), key))(heads, keys)
    expected = [jax.random.fold_in(key, 1) if head else key for head, key in zip(heads, keys, strict=True)]
    np.testing.assert_array_equal(jax.random.key_data(ours), [jax.random.key_data(key) for key in expected])


def test_rarely_repeats_an_operand_that_all_lanes_share():
    check_lane_by_lane(lambda coin, x: rarely(coin, lambda x: 2 * x, x), 20, 0.5, axes=(0, None))


def test_rarely_keeps_structure_and_kinds():
    """A talk whose numbers are of wider kinds than the operand's, in a nested operand."""
    operand = {"count": jnp.zeros(4, jnp.int32), "pair": (jnp.ones((4, 2), jnp.float32), jnp.zeros(4, bool))}
    talk = lambda it: {"count": it["count"] + 1, "pair": (it["pair"][0] * np.float64(3), ~it["pair"][1])}
    ours = jax.vmap(lambda coin, it: rarely(coin, talk, it))(jnp.array([True, False, False, True]), operand)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), ours) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), operand
    )
    np.testing.assert_array_equal(ours["count"], [1, 0, 0, 1])
    np.testing.assert_array_equal(ours["pair"][0], [[3, 3], [1, 1], [1, 1], [3, 3]])
    np.testing.assert_array_equal(ours["pair"][1], [True, False, False, True])


def test_one_coin_for_all_lanes_stays_a_branch():
    def text(axis):
        step = lambda coin, x: rarely(coin, jnp.cumsum, x)
        coin = jnp.array(True) if axis is None else jnp.ones(8, bool)
        return str(jax.make_jaxpr(jax.vmap(step, (axis, 0)))(coin, rows(8)))

    shared, own = text(None), text(0)
    assert "cond[" in shared
    assert "while[" not in shared
    assert "while[" in own
    for coin in (True, False):
        ours = jax.vmap(lambda x, coin=coin: rarely(jnp.array(coin), jnp.cumsum, x))(rows(8))
        np.testing.assert_allclose(ours, np.cumsum(rows(8), 1) if coin else rows(8), rtol=1e-14)


@pytest.mark.parametrize("lanes", [5, 16, 40])
@pytest.mark.parametrize("talkers", [0, 1, 4, 5])
def test_only_blocks_of_talkers_are_computed(lanes, talkers):
    said = []

    def talk(x):
        jax.debug.callback(lambda _: said.append(1), x[0])
        return x + 1

    heads = np.zeros(lanes, bool)
    heads[np.random.default_rng(0).permutation(lanes)[:talkers]] = True
    x = jax.jit(jax.vmap(lambda coin, x: rarely(coin, talk, x)))(heads, rows(lanes))
    jax.block_until_ready(x)
    jax.effects_barrier()
    block = -(-lanes // BLOCKS["cpu"])
    assert len(said) == block * -(-talkers // block)
    np.testing.assert_array_equal(x, np.asarray(rows(lanes)) + heads[:, None])


def test_forward_derivatives_go_through_rarely():
    heads, x, v, gain = coins(20, 0.5), rows(20), rows(20, seed=2), rows(20, seed=3)

    def steps(x, gain):
        return jax.vmap(lambda coin, x, g: rarely(coin, lambda x: jnp.sin(g * x), x))(heads, x, gain)

    ours, tangent = jax.jvp(steps, (x, gain), (v, 2 * v))
    chosen = heads[:, None]
    np.testing.assert_allclose(ours, np.where(chosen, np.sin(gain * x), x), rtol=1e-14)
    expected = np.where(chosen, np.cos(gain * x) * (gain * v + 2 * v * x), v)
    np.testing.assert_allclose(tangent, expected, rtol=1e-13)

    def own(coin, x, g, v):  # inside a lane, JAX needs the rules out of the way
        with plain():
            return jax.jvp(lambda x, g: rarely(coin, lambda x: jnp.sin(g * x), x), (x, g), (v, 2 * v))[1]

    np.testing.assert_allclose(jax.vmap(own)(heads, x, gain, v), expected, rtol=1e-13)


@pytest.mark.parametrize("head", [True, False])
def test_reverse_mode_within_plain(head):
    def loss(x):
        with plain():
            return jnp.sum(rarely(jnp.array(head), lambda x: x**2, x))

    np.testing.assert_allclose(jax.grad(loss)(rows(1)[0]), 2 * rows(1)[0] if head else np.ones(D), rtol=1e-14)


def test_plain_ends_with_its_block():
    """An error inside leaves no trace either."""

    def fail():
        with plain():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "custom_vmap" in str(jax.make_jaxpr(lambda x: rarely(x[0] > 0, jnp.sin, x))(rows(1)[0]))


def test_a_whole_step_can_be_differentiated_within_plain(problem):
    """LoCoDL, five steps, some with communication: d F / d gamma by reverse mode and by central differences."""
    algorithm = fl.algorithms.get("locodl")
    hp, key = algorithm.theory(problem, compressor="rand_k:2"), jax.random.key(1)
    assert any(jax.random.bernoulli(jax.random.split(jax.random.fold_in(key, t))[0], hp.p) for t in range(5))

    @jax.jit
    def loss(gamma):
        own = dataclasses.replace(hp, gamma=gamma)

        def step(state, t):
            return algorithm.step(problem, own, state, jax.random.fold_in(key, t))[0], None

        with plain():
            state = jax.lax.scan(step, algorithm.init(problem, own, key), jnp.arange(5))[0]
            return problem.value(algorithm.point(problem, own, state))

    gamma, h = hp.gamma, 1e-5 * hp.gamma
    slope = (loss(gamma + h) - loss(gamma - h)) / (2 * h)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(jax.grad(loss)(gamma), slope, rtol=1e-7)


# --- per_lane and the gradients of problems ---


def test_per_lane_uses_many_for_lanes_that_differ_in_x_alone():
    used = []
    one = lambda A, x: A @ x

    def many(A, xs):
        used.append(True)
        return xs @ A.T

    product, A, x = per_lane(one, many), rows(4), rows(6)
    np.testing.assert_allclose(product(A, x[0]), A @ x[0], rtol=1e-14)
    assert not used
    np.testing.assert_allclose(jax.vmap(product, (None, 0))(A, x), jax.vmap(one, (None, 0))(A, x), rtol=1e-13)
    assert used
    used.clear()
    stacked = jnp.stack([A * i for i in range(6)])
    np.testing.assert_allclose(jax.vmap(product)(stacked, x), jax.vmap(one)(stacked, x), rtol=1e-13)
    np.testing.assert_allclose(
        jax.vmap(product, (0, None))(stacked, x[0]), jax.vmap(one, (0, None))(stacked, x[0]), rtol=1e-13
    )
    with plain():
        jax.vmap(product, (None, 0))(A, x)
    assert not used


KINDS = ("logistic", "least_squares", "softmax", "quadratic")


@functools.cache
def example(kind, dtype="float64"):
    rng = np.random.default_rng(4)
    if kind == "quadratic":
        Q = rng.normal(size=(4, D, D))
        return fl.problems.quadratic(Q @ Q.transpose(0, 2, 1), rng.normal(size=(4, D)), dtype=dtype)
    if kind == "softmax":
        return fl.problems.softmax_regression(make_clients(dim=2, labels=(0, 1, 2)), l2=0.1, dtype=dtype)
    make = {"logistic": fl.problems.logistic_regression, "least_squares": fl.problems.least_squares}[kind]
    return make(make_clients(dim=D), l2=0.1, dtype=dtype)


def points(problem, own, lanes=5, seed=5):
    """(lanes, d), or (lanes, n, d) where every client has its own."""
    shape = (lanes, problem.n, problem.dim) if own else (lanes, problem.dim)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), problem.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_over_lanes_are_those_of_a_loop(kind, own, dtype):
    problem = example(kind, dtype)
    X = points(problem, own)
    ours = jax.jit(jax.vmap(problem.grads))(X)
    assert ours.dtype == problem.dtype
    assert ours.shape == (5, problem.n, problem.dim)
    alone = jax.jit(problem.grads)
    expected = np.stack([alone(x) for x in X])
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    slopes = jax.jit(jax.jacrev(problem.values))
    by_autodiff = np.stack([slopes(x) for x in X])  # (lanes, n, d), or (lanes, n, n, d) where clients have their own x
    expected = np.einsum("lnnd->lnd", by_autodiff) if own else by_autodiff
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_lanes_that_differ_in_data(kind):
    """Lanes with a problem of their own, and one x for all or for each."""
    problem = example(kind)
    name = "b" if kind == "quadratic" else "features"
    leaf = getattr(problem, name)
    each = [jax.tree.map(lambda array, c=c: array * c, leaf) for c in (1.0, 0.5, 2.0)]
    several = jax.tree.map(lambda *arrays: jnp.stack(arrays), *each)
    grads = jax.jit(lambda leaf, x: dataclasses.replace(problem, **{name: leaf}).grads(x))
    X = points(problem, own=True, lanes=3)
    expected = np.stack([grads(one, x) for one, x in zip(each, X, strict=True)])
    np.testing.assert_allclose(jax.vmap(grads)(several, X), expected, rtol=1e-12, atol=1e-14)
    expected = np.stack([grads(one, X[0]) for one in each])
    np.testing.assert_allclose(jax.vmap(grads, (0, None))(several, X[0]), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_gradients_over_lanes_are_hessian_products(kind, own):
    problem = example(kind)
    X, V, h = points(problem, own), points(problem, own, seed=6), 1e-5
    lanes = jax.jit(jax.vmap(problem.grads))
    tangent = jax.jit(lambda X, V: jax.jvp(jax.vmap(problem.grads), (X,), (V,))[1])(X, V)
    products = jax.jit(jax.vmap(problem.hvps))(X, V)
    np.testing.assert_allclose(tangent, products, rtol=1e-11, atol=1e-13)

    def inside(x, v):
        with plain():
            return jax.jvp(problem.grads, (x,), (v,))[1]

    np.testing.assert_allclose(jax.jit(jax.vmap(inside))(X, V), products, rtol=1e-11, atol=1e-13)
    slopes = (lanes(X + h * V) - lanes(X - h * V)) / (2 * h)
    np.testing.assert_allclose(products, slopes, rtol=0, atol=1e-8 * float(jnp.max(jnp.abs(slopes))))


def test_gradients_can_be_differentiated_backwards_within_plain(problem):
    x, v = points(problem, own=False)[:2]

    def along(x):
        with plain():
            return jnp.vdot(jnp.mean(problem.grads(x), axis=0), v)

    np.testing.assert_allclose(jax.grad(along)(x), jnp.mean(problem.hvps(x, v), axis=0), rtol=1e-12)
