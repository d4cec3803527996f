"""Low-rank, adaptive and two-way accelerated methods agree with their slow references, fed the same random draws."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors, problems
from fedjax_lc.compressors.budgets import allocate, water_filling
from tests.algorithms.shared import KEY, gradient_of_rows, purposes, replay, step_keys, walk
from tests.conftest import make_clients
from tests.contract.test_networks import make
from tests.reference import adaptive, powersgd, two_way
from tests.reference import problems as ref_problems

N, D, STEPS, L2 = 4, 6, 40, 0.5
CLIENTS = [(A, 2 * b + A.sum(axis=1)) for A, b in make_clients(dim=D)]
PROBLEM = problems.least_squares(CLIENTS, l2=L2).replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=D)))
REF = ref_problems.LeastSquares(CLIENTS, L2)
X0, L = np.asarray(PROBLEM.x0), REF.smooth_mean
BATCHES = {"batch_size": 2}
DENSE = 32.0 * D


def close(got, want, what="", tol=1e-12):
    """To `tol` of the largest entry."""
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=tol * max(1.0, np.abs(want).max()), err_msg=what)


def agree(mine, theirs, fields):
    """`fields` maps our fields, with dots, to those of the reference."""
    states, _, points = mine
    for field, other in {**fields, "": "point"}.items():
        got = points if not field else states
        for part in filter(None, field.split(".")):
            got = getattr(got, part)
        want = np.array([state[other] for state in theirs])
        assert np.ptp(want[1:] - want[:-1]) > 0, field
        close(got, want, field)


gradient = functools.partial(gradient_of_rows, PROBLEM, REF, CLIENTS)


def hparams(name, **given):
    ways = ("compressor", "downlink")
    parsed = {field: compressors.parse(value) if field in ways else value for field, value in given.items()}
    return algorithms.get(name).Hparams(**parsed)


def price(text):
    return float(compressors.parse(text)(KEY, PROBLEM.x0).bits)


# --- EF21-P ---


@pytest.mark.parametrize(
    ("form", "up", "down", "changes"),
    [
        ("plain", "identity", "top_k:2", {}),
        ("dcgd", "rand_k:2", "sign", BATCHES),
        ("diana", "qsgd:2", "rand_k_unscaled:3", BATCHES),
    ],
)
def test_ef21_p(form, up, down, changes):
    name = "ef21_p_diana" if form == "diana" else "ef21_p"
    given = {"compressor": up, "downlink": down, "gamma": 0.2 / L} | ({"beta": 0.4} if form == "diana" else {})
    hp, keys = hparams(name, **given, **changes), purposes(STEPS, 4)
    sent, told = replay(hp.compressor, keys[:, 1:2], N), replay(hp.downlink, keys[:, 2:3], 1)
    theirs = two_way.ef21_p(
        gradient(hp, keys[:, 0]), N, {"form": form, "gamma": 0.2 / L, "beta": 0.4}, X0, STEPS,
        sent, lambda t, v: told(t, 0, 0, v),
    )  # fmt: skip
    mine = walk(name, PROBLEM, hp, STEPS)
    agree(mine, theirs, {"w": "x", "seen": "w"} | ({"up.h_i": "h_i", "up.h": "h"} if form == "diana" else {}))
    np.testing.assert_array_equal(mine[1].bits_up, price(up))
    np.testing.assert_array_equal(mine[1].bits_down, price(down))


@pytest.mark.parametrize("up", ["identity", "rand_k:2"])
def test_theory_of_ef21_p(up):
    mu, delta, omega = L2, 2 / D, 0.0 if up == "identity" else 2.0
    for name, form in (("ef21_p", "dcgd" if omega else "plain"), ("ef21_p_diana", "diana")):
        hp = algorithms.get(name).theory(PROBLEM, up, "top_k:2")
        want = two_way.ef21_p_theory(form, N, delta, L, REF.smooth.max(), mu, omega)
        for field, value in want.items():
            assert getattr(hp, field) == pytest.approx(value, rel=1e-12)


# --- 2Direction ---


@pytest.mark.parametrize("form", ["inverse", "gamma"])
@pytest.mark.parametrize("mu", [L2, 0.0])
def test_two_direction(mu, form):
    """In the authors' form too."""
    hp = hparams(
        "two_direction", compressor="rand_k:2", downlink="top_k:2", Lbar=2 * L, p=0.4, tau=0.6, beta=0.5, mu=mu
    )
    keys = purposes(STEPS, 4)
    heads = np.asarray(jax.vmap(lambda key: jax.random.bernoulli(key, 0.4))(keys[:, 0]))
    assert 5 < heads.sum() < STEPS - 5
    up, down = replay(hp.compressor, keys[:, 1:3], N), replay(hp.downlink, keys[:, 3:], 1)
    told = {"Lbar": 2 * L, "p": 0.4, "tau": 0.6, "beta": 0.5, "mu": mu, "delta": 2 / D, "form": form}
    theirs = two_way.two_direction(
        gradient(hp, None), N, told, X0, STEPS, up, lambda t, v: down(t, 0, 0, v), lambda t: bool(heads[t])
    )
    mine = walk("two_direction", PROBLEM, hp, STEPS)
    same = ("x", "u", "w", "z", "k", "v", "h_i", "h")
    agree(mine, theirs, {field: field for field in same} | ({"i": "i"} if form == "inverse" else {}))
    first = np.arange(STEPS) == 0
    np.testing.assert_array_equal(mine[1].bits_up, 2 * price("rand_k:2") + DENSE * first)
    np.testing.assert_array_equal(mine[1].bits_down, price("top_k:2") + DENSE * (2 * heads + first))


@pytest.mark.parametrize(("up", "down"), [("rand_k:2", "top_k:2"), ("identity", "identity"), ("rand_k:1", "top_k:5")])
def test_theory_of_two_direction(up, down):
    omega = {"identity": 0.0, "rand_k:2": 2.0, "rand_k:1": 5.0}[up]
    delta = {"identity": 1.0, "top_k:2": 2 / D, "top_k:5": 5 / D}[down]
    hp = algorithms.get("two_direction").theory(PROBLEM, up, down, c0=0.5)
    want = two_way.two_direction_theory(N, delta, omega, L, REF.smooth.max(), c0=0.5)
    for field in ("Lbar", "p", "tau", "beta"):
        assert getattr(hp, field) == pytest.approx(want[field], rel=1e-12)


# --- PowerSGD ---

SOFTMAX_CLIENTS = [(A[:, :4], np.arange(len(b)) % 3) for A, b in CLIENTS]
SOFTMAX = problems.softmax_regression(SOFTMAX_CLIENTS, l2=L2)
SOFTMAX = SOFTMAX.replace(x0=jnp.asarray(np.random.default_rng(4).normal(size=12)))


def powered(problem, grad, shapes, x0=None, **given):
    """(our states, costs and points; the reference's states), both with our first sides."""
    hp = algorithms.get("powersgd").Hparams(gamma=0.3 / float(problem.smooth_mean), **given)
    first = algorithms.get("powersgd").init(problem, hp, jax.random.fold_in(KEY, 2**32 - 1))
    sides = iter([(side.P if side.P is None else np.asarray(side.P), np.asarray(side.Q)) for side in first.sides])
    start = {place: next(sides) for place, shape in enumerate(shapes) if len(shape) == 2 and len(first.sides)}
    told = {
        name: getattr(hp, name) for name in ("gamma", "rank", "variant", "errors", "iters", "start_dense", "min_rate")
    }
    told |= {"mom": hp.momentum or 0.0, "wd": hp.weight_decay or 0.0, "start_dense": hp.start_dense or 0}
    theirs = powersgd.run(
        grad, N, told, np.asarray(problem.x0) if x0 is None else x0, STEPS, shapes, lambda place: start[place]
    )
    return walk("powersgd", problem, hp, STEPS, state=first), theirs


def powersgd_agrees(mine, theirs, hp):
    states, costs, points = mine
    close(points, [state["point"] for state in theirs], "point")
    e = states.e if hp.get("errors") == "each" else states.e[:, None]
    close(e, [state["e"] for state in theirs], "errors")
    for way in ("bits_up", "bits_down"):
        np.testing.assert_array_equal(np.cumsum(getattr(costs, way), dtype=float), [state[way] for state in theirs])


@pytest.mark.parametrize(
    "hp",
    [
        {},
        {"rank": 2, "errors": "each", "batch_size": 2, "rows": 3},
        {"momentum": 0.5, "weight_decay": 0.1, "start_dense": 3},
        {"variant": "alternating", "errors": "each", "batch_size": 2},
        {"variant": "alternating", "iters": 3, "start_dense": 2, "momentum": 0.3},
        {"min_rate": 2.0},
    ],
    ids=str,
)
def test_powersgd(hp):
    keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(step_keys(STEPS))
    grad = gradient(algorithms.get("powersgd").Hparams(gamma=1.0, **hp), keys)
    powersgd_agrees(*powered(PROBLEM, grad, [(hp.get("rows", 2), D // hp.get("rows", 2))], **hp), hp)


@pytest.mark.parametrize("hp", [{"rank": 2}, {"variant": "alternating", "iters": 2, "errors": "each"}], ids=str)
def test_powersgd_of_a_matrix_has_its_outputs_as_rows(hp):
    """The reference's vectors are those of the transposed matrix."""
    turned = lambda x, rows: np.swapaxes(np.reshape(x, (*np.shape(x)[:-1], rows, -1)), -1, -2).reshape(np.shape(x))
    ref = ref_problems.SoftmaxRegression(SOFTMAX_CLIENTS, 3, L2)
    grad = lambda t, i, x: turned(ref.grad(i, turned(x, 3)), 4)
    mine, theirs = powered(SOFTMAX, grad, [(3, 4)], turned(SOFTMAX.x0, 4), **hp)
    told = [state | {"point": turned(state["point"], 3), "e": turned(state["e"], 3)} for state in theirs]
    early = lambda tree: jax.tree.map(lambda leaf: leaf[:20], tree)  # later, rounding grows where ranks nearly fall
    powersgd_agrees(early(mine), told[:20], hp)


# --- SIDCo ---

WIDE_CLIENTS = [(A, b) for A, b in make_clients((30, 40, 25, 35), dim=60, seed=3)]
WIDE = problems.least_squares(WIDE_CLIENTS, l2=L2)
WIDE_REF = ref_problems.LeastSquares(WIDE_CLIENTS, L2)


@pytest.mark.parametrize(
    ("mode", "fit"), [(-1, "gamma"), (-2, "exponential"), (-3, "pareto"), (-3, "exponential"), (-2, "pareto")]
)
def test_sidco(mode, fit):
    """The stages of every client follow what it kept."""
    hp = hparams(
        "sidco", compressor=f"sidco:0.1,fit={fit},mode={mode},every=3,stages=2", gamma=0.2 / WIDE_REF.smooth_mean
    )
    hp = dataclasses.replace(hp, ec_grad=0.9, ec_mem=0.05) if mode == -2 else hp
    told = {"ratio": 0.1, "fit": fit, "mode": mode, "every": 3, "stages": 2, "gamma": hp.gamma}
    told |= {"ec_grad": hp.ec_grad, "ec_mem": hp.ec_mem}
    theirs = adaptive.sidco(lambda t, i, x: WIDE_REF.grad(i, x), N, told, np.asarray(WIDE.x0), STEPS, width=32 + 6)
    states, costs, points = walk("sidco", WIDE, hp, STEPS)
    close(points, [state["point"] for state in theirs], "point")
    close(states.up, [state["e_i"] for state in theirs], "errors")
    for field in ("stages", "calls", "last", "direction"):
        want = np.array([[stage[field] for stage in state["stage"]] for state in theirs])
        close(getattr(states.coding, field), want, field)
    assert np.ptp(states.coding.stages) > 0
    np.testing.assert_allclose(np.cumsum(costs.bits_up), [state["bits_up"] for state in theirs], rtol=1e-6)


# --- policies ---

POLICIES = {
    "top_energy:0.8": (lambda v, state: adaptive.energy(v, 0.8), None),
    "top_per_bit:40,each=35": (lambda v, state: adaptive.per_bit(v, 40, 35), None),
    "top_price:2.5,rate=0.3,price=0.7": (
        adaptive.price,
        (0.7, lambda lam, ks: adaptive.next_price(lam, ks, 2.5, 0.3)),
    ),
    "top_price:2.5,rate=0.3,price=0.7,growth=1.1": (
        lambda v, state: adaptive.price(v, state[0], 1.1 ** state[1]),
        ((0.7, 0), lambda state, ks: (adaptive.next_price(state[0], ks, 2.5, 0.3), state[1] + 1)),
    ),
    "top_power_law:0.8,s=0.5,least=1,most=4,growth=1.05": (
        lambda v, t: int(np.clip(np.round(0.8 * (1.05**t * (v @ v)) ** (1 / 1.5)), 1, 4)),
        (0, lambda t, ks: t + 1),
    ),
}


@pytest.mark.parametrize("text", POLICIES)
def test_policies_of_mem_sgd(text):
    policy, state = POLICIES[text]
    hp = hparams("mem_sgd", compressor=text, gamma=0.2 / L)
    theirs = adaptive.mem_sgd(lambda t, i, x: REF.grad(i, x), N, {"gamma": 0.2 / L}, X0, STEPS, policy, state)
    states, costs, points = walk("mem_sgd", PROBLEM, hp, STEPS)
    close(points, [s["point"] for s in theirs], "point")
    close(states.up, [s["e_i"] for s in theirs], "errors")
    ks = np.array([np.mean(s["ks"]) for s in theirs])
    assert len(np.unique(ks)) > 2
    price = 32.0 * text.startswith("top_price")
    np.testing.assert_allclose(costs.bits_up, (32 + 3) * ks, rtol=1e-6)
    np.testing.assert_allclose(costs.bits_down, DENSE + price, rtol=1e-6)


def test_policies_of_the_best_allocation():
    rng = np.random.default_rng(6)
    for K in (5, 17, 30):
        V, w = rng.normal(size=(6, 5)), rng.random(6)
        assert allocate(V**2, w, K).tolist() == adaptive.allocate(V, w, K)
        E, s = rng.exponential(size=6), 0.6
        got = water_filling(w * E, s, 1, 5, max(K, 6))
        close(got, adaptive.power_law(E, w, s, max(K, 6), 1, 5), tol=1e-9)


def test_equal_counts_are_equal_shares_in_any_order():
    """A share of 23/18 after the counts 8, 8, 7 and again after 7, 9, 7: what follows does not depend on rounding."""
    sidco, told = (
        compressors.parse("sidco:0.1,mode=-3,every=3,stages=2"),
        adaptive.SIDCO | {"ratio": 0.1, "mode": -3, "every": 3},
    )
    for order in ((8, 8, 7, 7, 9, 7), (8, 7, 8, 9, 7, 7), (9, 7, 7, 7, 8, 8)):
        ours, theirs = jax.tree.map(lambda leaf: leaf[0], sidco.start(1, 60, jnp.float32)), adaptive.fresh_stage(2)
        for kept in order:
            ours = sidco._adapted(jnp.int32(kept), 60, ours)
            theirs = adaptive.adapted(told, theirs, kept, 60)
        assert (int(ours.stages), int(ours.direction)) == (theirs["stages"], theirs["direction"])
        assert ours.last == np.float32(23 / 18)


def test_without_a_mode_stages_stay():
    sidco = compressors.parse("sidco:0.1,mode=0,every=2,stages=6")
    state = jax.tree.map(lambda leaf: leaf[0], sidco.start(1, 60, jnp.float32))
    for kept in (1, 2, 30, 40):
        state = sidco._adapted(jnp.int32(kept), 60, state)
    assert state.stages == 6


# --- EoRA ---


@pytest.mark.parametrize("base", ["zero", "qsgd:3", "top_k:3", "natural"])
@pytest.mark.parametrize("weighed", [False, True])
def test_compensated(base, weighed):
    """The value of the reference, whose base is our message, and its bits and the factors'."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(20, 4)) * np.arange(1, 5)
    G, M = X.T @ X / 20 if weighed else None, rng.normal(size=(3, 4))
    inner = compressors.parse(base)
    for rank in (1, 2, 3):
        ours = compressors.Compensated(inner, rank, 3, None if G is None else jnp.asarray(G))
        message, before = ours(KEY, jnp.asarray(M.ravel())), inner(KEY, jnp.asarray(M.ravel()))
        want, left, right = adaptive.compensated(M, np.asarray(before.value).reshape(3, 4), rank, G)
        close(np.asarray(message.value).reshape(3, 4), want, tol=1e-10)
        assert float(message.bits) == pytest.approx(float(before.bits) + 32 * (left.size + right.size))
        if rank == 3:
            close(message.value, M.ravel(), tol=1e-10)


def test_certificate_of_compensated():
    of = lambda text, metric=None: float(dataclasses.replace(compressors.parse(text), metric=metric).delta(12))
    assert of("compensated(zero):1,rows=3") == pytest.approx(adaptive.compensated_delta(3, 4, 1))
    assert of("compensated(top_k:6):1,rows=3") == pytest.approx(adaptive.compensated_delta(3, 4, 1, 0.5))
    assert of("compensated(top_k:6):1,rows=3", jnp.eye(4)) == 0


def test_compensated_as_a_downlink_of_ef21_p():
    """In the metric of the inputs of a linear model, where no contraction is claimed, it reaches the solution."""
    X = np.random.default_rng(9).normal(size=(20, 3))
    down = compressors.Compensated(compressors.parse("zero"), 1, 2, jnp.asarray(X.T @ X / 20))
    hp = algorithms.get("ef21_p").Hparams(compressors.parse("identity"), down, 0.1 / L)
    ends = walk("ef21_p", PROBLEM, hp, 1500)[2][-1]
    close(ends, REF.optimum(), tol=1e-9)


def test_powersgd_of_a_network():
    """Kernels have their outputs as rows, vectors are dense; the reference's vectors have the kernels turned."""
    net = make(sizes=(6, 9, 5, 7)).replace(x0=jnp.asarray(np.random.default_rng(9).normal(size=27) / 2))
    shapes, order = [(3,), (3, 4), (3,), (3, 3)], np.arange(27)
    order[3:15], order[18:] = order[3:15].reshape(4, 3).T.ravel(), order[18:].reshape(3, 3).T.ravel()
    back, x0 = np.argsort(order), np.asarray(net.x0)
    hp = algorithms.get("powersgd").Hparams(gamma=0.3, rank=(1, 2, 1, 1), min_rate=0.0, errors="each")
    first = algorithms.get("powersgd").init(net, hp, jax.random.fold_in(KEY, 2**32 - 1))
    grads = jax.jit(lambda i, x: net.grads(x)[i])
    grad = lambda t, i, x: np.asarray(grads(i, x[back]))[order]
    sides = {1: first.sides[0], 3: first.sides[1]}
    side = lambda place: (None, np.asarray(sides[place].Q))
    told = {"gamma": 0.3, "rank": 2, "errors": "each"}
    with pytest.raises(ValueError, match="shapes"):  # ranks differ here: one for each parameter
        powersgd.run(grad, N, told | {"rank": (1, 2)}, x0[order], 1, shapes, side)
    theirs = powersgd.run(grad, N, told | {"rank": (1, 2, 1, 1)}, x0[order], 10, shapes, side)
    states, costs, points = walk("powersgd", net, hp, 10, state=first)
    close(points, [state["point"][back] for state in theirs])
    close(states.e, [state["e"][:, back] for state in theirs])
    np.testing.assert_array_equal(np.cumsum(costs.bits_up, dtype=float), [state["bits_up"] for state in theirs])
