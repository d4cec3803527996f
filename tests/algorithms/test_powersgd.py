"""PowerSGD beyond the contract: matrices, ranks and bits, zeros and dependent columns, lanes, refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.algorithms.powersgd import Sides, averaged, orth, pieces
from fedjax_lc.cli import main
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import walk
from tests.conftest import make_clients
from tests.contract.test_networks import make
from tests.quickly import compile_quickly

METHOD = algorithms.get("powersgd")


@pytest.fixture(scope="module")
def wide():
    """x is cut into a matrix (4, 6)."""
    return fl.problems.logistic_regression(make_clients(dim=24), kappa=30)


def hyperparameters(problem, **changes):
    return dataclasses.replace(METHOD.theory(problem), **changes)


def sizes(problem, **changes):
    return [(piece.a, piece.b, piece.r) for piece in pieces(problem, hyperparameters(problem, **changes))]


def test_parameters_are_matrices_with_their_outputs_as_rows(wide):
    """Vectors and what a message would not make smaller are sent as they are; each parameter may have a rank."""
    assert sizes(wide) == [(4, 6, 1)]
    assert sizes(wide, rank=4) == [(4, 6, 0)]
    assert sizes(wide, rank=9, min_rate=0.0) == [(4, 6, 4)]
    assert sizes(wide, rows=2) == [(2, 12, 1)]
    assert sizes(fl.problems.logistic_regression(make_clients(dim=7), kappa=30)) == [(1, 7, 0)]
    net = make(sizes=(6, 9))
    assert net.shapes == ((3,), (4, 3), (3,), (3, 3))
    assert sizes(net) == [(1, 3, 0), (3, 4, 1), (1, 3, 0), (3, 3, 1)]
    assert sizes(net, min_rate=1.6) == [(1, 3, 0), (3, 4, 1), (1, 3, 0), (3, 3, 0)]
    assert sizes(net, rank=(1, 2, 1, 3), min_rate=0.0) == [(1, 3, 0), (3, 4, 2), (1, 3, 0), (3, 3, 3)]
    assert sizes(net, variant="alternating", iters=4)[1] == (3, 4, 0)
    classes = [(features, np.arange(len(features)) % 3) for features, _ in make_clients(dim=6)]
    assert sizes(fl.problems.softmax_regression(classes, kappa=30)) == [(3, 6, 1)]


def test_a_piece_is_taken_out_and_put_back():
    net = make(sizes=(6, 9))
    x = jnp.arange(float(net.dim))
    kernel = pieces(net, hyperparameters(net))[1]
    np.testing.assert_array_equal(kernel.matrix(x), np.arange(3.0, 15.0).reshape(4, 3).T)
    np.testing.assert_array_equal(kernel.vector(kernel.matrix(x[None])), x[None, 3:15])


@pytest.mark.parametrize(
    ("changes", "bits", "trips"),
    [
        ({}, [32 * 10] * 4, 2),
        ({"rank": 2}, [32 * 20] * 4, 2),
        ({"variant": "alternating"}, [32 * 6, 32 * 4] * 2, 1),
        ({"variant": "alternating", "rank": 1, "iters": 3}, [32 * 16, 32 * 14] * 2, 3),
        ({"start_dense": 2}, [32 * 24] * 2 + [32 * 10] * 2, None),
        ({"start_dense": 2, "variant": "alternating"}, [32 * 24] * 2 + [32 * 6, 32 * 4], 1),
    ],
)
def test_bits_are_those_of_the_sides(wide, changes, bits, trips):
    _, costs, _ = walk("powersgd", wide, hyperparameters(wide, **changes), 4)
    np.testing.assert_array_equal(costs.bits_up, bits)
    np.testing.assert_array_equal(costs.bits_down, bits)
    np.testing.assert_array_equal(costs.rounds, [1, 1, 2, 2] if trips is None else trips)


def test_dense_steps_are_gradient_descent_and_leave_the_sides(wide):
    hp = hyperparameters(wide, start_dense=3)
    states, _, points = walk("powersgd", wide, hp, 5)
    x, P = wide.x0, states.sides[0].Q
    for t in range(3):
        x = x - hp.gamma * jnp.mean(wide.grads(x), axis=0)
        np.testing.assert_allclose(points[t], x, rtol=0, atol=1e-14)
    assert not np.any(states.e[:3])
    assert np.all(states.e[3:].any(axis=1))
    np.testing.assert_array_equal(P[0], P[2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_become_orthonormal_or_zero(dtype):
    """One that depends on those before it up to rounding, and one that is zero, become zero; tiny ones do not."""
    rng = np.random.default_rng(0)
    P = rng.normal(size=(9, 4)).astype(dtype)
    P[:, 2] = 1e-20 * P[:, 2]
    near = P[:, :1] + (1e-6 if dtype == "float64" else 1e-3) * P[:, 1:2]
    P = np.concatenate([P, near, 3 * P[:, :1] - P[:, 1:2], np.zeros((9, 1), dtype)], axis=1)
    made = np.asarray(orth(jnp.asarray(P)), np.float64)
    wanted = np.diag([1.0] * 4 + [0.0, 0, 0])
    np.testing.assert_allclose(made.T @ made, wanted, rtol=0, atol=10 * float(jnp.finfo(dtype).eps))
    np.testing.assert_allclose(made[:, 0], P[:, 0] / np.linalg.norm(P[:, 0]), rtol=1e-6)
    alone = np.asarray(orth(jnp.asarray(np.concatenate([P[:, :1], near], axis=1))), np.float64)
    np.testing.assert_allclose(alone.T @ alone, np.eye(2), rtol=0, atol=10 * float(jnp.finfo(dtype).eps))
    assert np.isnan(orth(jnp.full((2, 1), jnp.nan))).all()


@pytest.mark.parametrize("variant", ["paper", "alternating"])
def test_after_zeros_and_a_matrix_of_low_rank_nothing_is_blind(wide, variant):
    """Sides are not lost to a matrix of zeros, nor the second column to one of rank 1."""
    hp = hyperparameters(wide, variant=variant, rank=2, min_rate=0.0)
    rng = np.random.default_rng(1)
    sides = METHOD.init(wide, hp, jax.random.key(0)).sides
    run = jax.jit(lambda M, sides, t: averaged(wide, hp, M, M, sides, t))
    full = jnp.asarray((rng.normal(size=(4, 2)) @ rng.normal(size=(2, 6))).reshape(-1))
    low = jnp.asarray(np.outer(rng.normal(size=4), rng.normal(size=6)).reshape(-1))
    t = 0
    for M in [jnp.zeros(24)] * 2 + [low] * 3 + [full] * 4:
        sent = run(M, sides, jnp.int32(t))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(sent))
        sides, t = sent.sides, t + 1
    np.testing.assert_allclose(sent.out, full, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sent.left, 0, rtol=0, atol=1e-12)


def test_a_run_of_zero_gradients_stays():
    rows = [(np.zeros((3, 6)), np.zeros(3)), (np.zeros((4, 6)), np.zeros(4))]
    problem = fl.problems.least_squares(rows, l2=1.0)
    for variant in ("paper", "alternating"):
        hp = hyperparameters(problem, variant=variant, min_rate=0.0)
        states, _, points = walk("powersgd", problem, hp, 4)
        np.testing.assert_array_equal(points, 0)
        assert np.all(np.isfinite(states.sides[0].Q))


def test_each_error_drifts_and_the_mean_does_not(wide):
    """The run is the same; in the paper's variant e_i - mean e moves by g_i - mean g in every step."""
    once, each = (walk("powersgd", wide, hyperparameters(wide, errors=errors), 60) for errors in ("mean", "each"))
    np.testing.assert_allclose(each[2], once[2], rtol=0, atol=1e-10)
    np.testing.assert_allclose(each[0].e.mean(axis=1), once[0].e, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(each[1].bits_up, once[1].bits_up)
    spread = np.abs(each[0].e - each[0].e.mean(axis=1, keepdims=True)).max(axis=(1, 2))
    assert spread[-1] > 1.8 * spread[29] > 0
    state = jax.tree.map(lambda leaf: leaf[-1], each[0])
    owed = METHOD.error(wide, hyperparameters(wide, errors="each"), state)
    np.testing.assert_allclose(owed, once[0].e[-1], rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"variant": "alternating", "rank": 2, "momentum": 0.5, "start_dense": 3}])
def test_a_lane_is_its_single_run(wide, changes, monkeypatch):
    compile_quickly(monkeypatch)
    hp = hyperparameters(wide, **changes)
    chosen = [dataclasses.replace(hp, gamma=factor * hp.gamma) for factor in (0.3, 0.2)]
    table = fl.sweep("powersgd", wide, chosen, seeds=2, steps=40, every=10, progress=False)
    for lane, (config, seed) in enumerate((c, s) for c in range(2) for s in range(2)):
        alone = fl.run("powersgd", wide, chosen[config], seed, steps=40, every=10, progress=False)
        np.testing.assert_array_equal(table.trace(lane).bits_up, alone.bits_up)
        np.testing.assert_allclose(table.trace(lane).value, alone.value, rtol=1e-10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 0}, "powersgd needs rank whole and >= 1, got 0"),
        ({"rank": (1, 2)}, "powersgd needs one rank, or 1 of them, one for each parameter, got (1, 2)"),
        ({"rank": 5}, "powersgd's rank is at most that of the largest matrix, 4, got 5"),
        ({"rows": 2, "rank": (3,)}, "powersgd's rank is at most that of the largest matrix, 2, got 3"),
        ({"rows": 5}, "powersgd needs rows as a divisor of d = 24, got 5"),
        ({"iters": 2}, "iters belongs to the alternating variant, got 2: give variant=alternating too"),
        ({"iters": 10**9}, "powersgd needs iters whole and in 1..100, got 1e+09"),
        ({"start_dense": 10**12}, "powersgd needs start_dense whole and in 1..1000000000, got 1e+12"),
        ({"variant": "papers"}, "did you mean 'paper'?"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(wide, changes, said):
    with pytest.raises(InputError) as caught:
        METHOD.check(wide, hyperparameters(wide, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_for_vectors():
    net = make(sizes=(6, 9))
    with pytest.raises(InputError, match=r"rows as left out, as the problem has matrices, got 3"):
        METHOD.check(net, hyperparameters(net, rows=3))


def test_ranks_come_from_the_command_line(refused):
    assert "one rank, or 1 of them" in refused("run", "powersgd", "--rank", "1x2", "--steps", "10")
    assert "largest matrix, 5, got 999" in refused("run", "powersgd", "--rank", "999", "--steps", "10")


def test_one_rank_on_the_command_line_is_that_of_all_parameters(tmp_path):
    words = ["--data", "digits", "--model", "mlp:hidden=4", "--steps", "2", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["run", "powersgd", "--rank", "2", *words]) == 0
    assert fl.Trace.load(tmp_path / "out").config["hyperparameters"]["rank"] == 2


def test_sides_are_of_the_matrices_that_are_compressed(wide):
    state = METHOD.init(wide, METHOD.theory(wide), jax.random.key(0))
    assert isinstance(state.sides[0], Sides)
    assert state.sides[0].P is None
    assert state.sides[0].Q.shape == (6, 1)
