"""The reference loops: problems, convergence with theory parameters, fixed points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from . import (
    adiana,
    agd,
    compressed_scaffnew,
    diana,
    ef21,
    fedcomgate,
    five_gcs_cc,
    gd,
    locodl,
    masks,
    problems,
    scaffnew,
    tamuna,
)
from .cases import (
    KAPPA,
    MU,
    OMEGA,
    PROBLEM,
    STAR_GRADS,
    X0,
    X_STAR,
    D,
    N,
    assert_converged,
    coins,
    compress_with,
    heterogeneous_quadratic,
    ragged_logistic,
    random_masks,
)

# Problems.


def softmax_problem():
    rng = np.random.default_rng(5)
    clients = [(rng.normal(size=(m, 2)), rng.integers(0, 3, m)) for m in (3, 5)]
    return problems.SoftmaxRegression(clients, num_classes=3, l2=0.1)


def least_squares_problem():
    rng = np.random.default_rng(6)
    return problems.LeastSquares([(rng.normal(size=(m, 3)), rng.normal(size=m)) for m in (2, 6, 1)], l2=0.3)


ALL_PROBLEMS = [ragged_logistic, softmax_problem, least_squares_problem, lambda: PROBLEM]


@pytest.mark.parametrize("make", ALL_PROBLEMS)
def test_gradient_and_hessian_are_derivatives_of_the_value(make):
    problem, rng, h = make(), np.random.default_rng(7), 1e-5
    x, direction = rng.normal(size=problem.dim), rng.normal(size=problem.dim)
    slope = (problem.value(x + h * direction) - problem.value(x - h * direction)) / (2 * h)
    assert slope == pytest.approx(direction @ problem.full_grad(x), rel=1e-6)
    change = (problem.full_grad(x + h * direction) - problem.full_grad(x - h * direction)) / (2 * h)
    np.testing.assert_allclose(change, problem.full_hess(x) @ direction, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", ALL_PROBLEMS)
def test_curvature_lies_between_l2_and_the_constants(make):
    problem, rng = make(), np.random.default_rng(8)
    for x in [np.zeros(problem.dim), *rng.normal(size=(5, problem.dim))]:
        for i in range(problem.n):
            spectrum = np.linalg.eigvalsh(problem.hess(i, x))
            assert problem.l2 - 1e-9 <= spectrum[0]
            assert spectrum[-1] <= problem.smooth[i] + 1e-9
        assert np.linalg.eigvalsh(problem.full_hess(x))[-1] <= problem.smooth_mean + 1e-9
    assert problem.smooth_mean <= problem.smooth.mean() + 1e-9


@pytest.mark.parametrize("make", ALL_PROBLEMS)
def test_newton_reaches_the_optimum(make):
    problem = make()
    scale = 1 + np.linalg.norm(problem.full_grad(np.zeros(problem.dim)))
    assert np.linalg.norm(problem.full_grad(problem.optimum())) <= 1e-14 * scale


def test_weights_replace_the_plain_mean():
    plain = ragged_logistic()
    weights = [4 / 12, 1 / 12, 7 / 12]
    weighted = problems.LogisticRegression(plain.clients, plain.l2, weights)
    pooled = [tuple(np.concatenate(parts) for parts in zip(*plain.clients, strict=True))]
    whole = problems.LogisticRegression(pooled, plain.l2)
    x = np.array([0.3, -1.0, 0.5])
    np.testing.assert_allclose(weighted.full_grad(x), whole.full_grad(x), rtol=1e-13)


# Convergence with theory parameters.


def test_gd_and_agd_converge():
    assert_converged(gd.run(PROBLEM.grad, N, gd.theory(KAPPA, MU), X0, 300))
    assert_converged(agd.run(PROBLEM.grad, N, agd.theory(KAPPA, MU), X0, 150))


def test_agd_keeps_its_rate_where_the_conditioning_is_felt():
    """F(x_t) - F* <= (1 - 1/sqrt(kappa))^t (F(x_0) - F* + (mu/2)|x_0 - x*|^2) for Nesterov's constant momentum."""
    kappa, spectrum = 400.0, np.array([0.0, 2.0, 30.0, 399.0])
    clients = [(np.diag(spectrum), shift * np.array([1.0, 2.0, -3.0, 4.0])) for shift in (1.0, 3.0)]
    problem = problems.Quadratic(clients, l2=1.0)
    x_star = problem.optimum()
    f_star, factor = problem.value(x_star), 1 - 1 / np.sqrt(kappa)
    start = problem.value(np.zeros(4)) - f_star + 0.5 * x_star @ x_star
    states = agd.run(problem.grad, 2, agd.theory(kappa, 1.0), np.zeros(4), 400)
    for t, state in enumerate(states, start=1):
        assert problem.value(state["x"]) - f_star <= factor**t * start + 1e-12


def test_gd_contracts_by_its_rate():
    hp = gd.theory(KAPPA, MU)
    states = gd.run(PROBLEM.grad, N, hp, X0, 20)
    errors = [np.sum(X_STAR**2)] + [np.sum((state["x"] - X_STAR) ** 2) for state in states]
    rate = gd.rate(hp, KAPPA, MU)
    assert rate == pytest.approx((1 - 2 / (KAPPA + 1)) ** 2)
    assert all(new <= rate * old + 1e-28 for old, new in pairwise(errors))


@pytest.mark.parametrize("choice", ["theory", "balanced"])
@pytest.mark.parametrize("name", OMEGA)
def test_locodl_converges_and_keeps_the_dual_sum(name, choice):
    hp = locodl.theory(KAPPA, MU, OMEGA[name], OMEGA[name] / N, choice)
    states = locodl.run(PROBLEM.grad, N, hp, MU, X0, 3600, coins(hp["p"]), compress_with(name))
    assert_converged(states)
    assert max(np.max(np.abs(s["U"].mean(axis=0) + s["v"])) for s in states) <= 1e-13


@pytest.mark.parametrize("name", OMEGA)
def test_diana_converges(name):
    hp = diana.theory(KAPPA, OMEGA[name], N)
    assert_converged(diana.run(PROBLEM.grad, N, hp, X0, 500, compress_with(name)))


@pytest.mark.parametrize(("name", "steps"), [("identity", 200), ("natural", 500), ("rand_2", 1800)])
def test_adiana_converges(name, steps):
    hp = adiana.theory(KAPPA, MU, OMEGA[name], N)
    assert_converged(adiana.run(PROBLEM.grad, N, hp, X0, steps, coins(hp["p"]), compress_with(name)))


def test_adiana_anchor_takes_the_old_y():
    hp, flips = adiana.theory(KAPPA, MU, 0.0, N), [False, True, False, True]
    states = adiana.run(PROBLEM.grad, N, hp, X0, 4, lambda t: flips[t], compress_with("identity"))
    assert np.array_equal(states[1]["w"], states[0]["y"])
    assert np.array_equal(states[2]["w"], states[1]["w"])
    assert np.array_equal(states[3]["w"], states[2]["y"])


def test_adiana_parameters_without_compression():
    hp = adiana.theory(KAPPA, MU, 0.0, N)
    assert (hp["eta"], hp["p"], hp["alpha"]) == (1 / (2 * KAPPA), 1.0, 1.0)


@pytest.mark.parametrize("name", ["top_1", "rand_2"])
def test_ef21_converges(name):
    alpha = 1 / D if name == "top_1" else 1 / (1 + OMEGA[name])
    draw = compress_with(name)

    def contractive(t, i, slot, v):
        return draw(t, i, slot, v) if name == "top_1" else draw(t, i, slot, v) / (1 + OMEGA[name])

    hp = ef21.theory(PROBLEM.smooth_mean, PROBLEM.smooth, MU, alpha)
    states = ef21.run(PROBLEM.grad, N, hp, X0, 1000, contractive)
    assert_converged(states)
    np.testing.assert_allclose(states[-1]["g"], states[-1]["G"].mean(axis=0), atol=1e-12)


def test_scaffnew_converges():
    hp = scaffnew.theory(KAPPA, MU)
    assert_converged(scaffnew.run(PROBLEM.grad, N, hp, X0, 1200, coins(hp["p"])))


@pytest.mark.parametrize("n", [5, 13])
def test_compressed_scaffnew_converges_in_both_mask_regimes(n):
    problem = heterogeneous_quadratic(n, D, KAPPA, seed=1)
    hp = compressed_scaffnew.theory(KAPPA, MU, n, D)
    assert (hp["s"] * D >= n) == (n == 5)
    draw = random_masks(D, n, hp["s"])
    states = compressed_scaffnew.run(problem.grad, n, hp, X0, 2400, coins(hp["p"]), draw)
    assert_converged(states, x_star=problem.optimum())


@pytest.mark.parametrize("c", [2, 3, 5])
def test_tamuna_converges(c):
    hp = tamuna.theory(KAPPA, MU, N, D, c)
    rng = np.random.default_rng(4)
    states = tamuna.run(
        PROBLEM.grad,
        N,
        hp,
        X0,
        1000,
        cohort=lambda t: rng.permutation(N)[:c],
        local_steps=lambda t: rng.geometric(hp["p"]),
        mask=random_masks(D, c, hp["s"]),
    )
    assert_converged(states)


@pytest.mark.parametrize("name", ["identity", "natural"])
@pytest.mark.parametrize("local_steps", [1, 5])
def test_fedcomgate_converges_for_small_omega(name, local_steps):
    hp = fedcomgate.theory(KAPPA, OMEGA[name], N, local_steps)
    assert_converged(fedcomgate.run(PROBLEM.grad, N, hp, X0, 200, compress_with(name)))


def test_fedcomgate_with_own_differences_stops_away_from_the_optimum():
    """mean delta_i collects the compression errors and no longer vanishes, which moves the fixed point."""
    hp = fedcomgate.theory(KAPPA, OMEGA["natural"], N, 5) | {"own": True}
    last = fedcomgate.run(PROBLEM.grad, N, hp, X0, 400, compress_with("natural"))[-1]
    assert np.linalg.norm(last["point"] - X_STAR) > 1e-4
    np.testing.assert_allclose(PROBLEM.full_grad(last["w"]), last["delta"].mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("name", ["identity", "rand_1", "natural"])
@pytest.mark.parametrize(
    ("inner_steps", "accelerate", "start"),
    [(10, True, "previous"), (20, False, "xhat"), (1, False, "previous")],
)
def test_five_gcs_cc_converges(name, inner_steps, accelerate, start):
    hp = five_gcs_cc.theory(KAPPA, MU, OMEGA[name], N, inner_steps, accelerate, start)
    assert_converged(five_gcs_cc.run(PROBLEM.grad, N, hp, X0, 230, compress_with(name)))


def test_five_gcs_with_participation_converges():
    hp = five_gcs_cc.theory(KAPPA, MU, 0.0, N, 10, True, safe=False, cohort_size=2)
    rng = np.random.default_rng(4)
    draw = compress_with("identity")
    assert_converged(five_gcs_cc.run(PROBLEM.grad, N, hp, X0, 400, draw, lambda t: rng.permutation(N)[:2]))


def test_methods_stay_at_the_optimum():
    """Fixed points: x = x*, control variates = gradients at x*, for compressors with C(0) = 0."""
    draw = compress_with("rand_2")

    def compress(i, slot, v):
        return draw(0, i, slot, v)

    hp = locodl.theory(KAPPA, MU, 1.0, 1.0 / N)
    U = np.array(STAR_GRADS) - MU / 2 * X_STAR
    state = {"X": np.array([X_STAR] * N), "U": U, "y": X_STAR, "v": MU / 2 * X_STAR}
    for coin in (False, True, True):
        state = locodl.step(PROBLEM.grad, N, hp, MU, state, coin, compress)
    assert locodl.lyapunov(hp, state, X_STAR, STAR_GRADS, MU) <= 1e-24
    state = {"X": np.array([X_STAR] * N), "H": np.array(STAR_GRADS), "server": X_STAR}
    cs = compressed_scaffnew.theory(KAPPA, MU, N, D)
    state = compressed_scaffnew.step(
        PROBLEM.grad, N, cs, state, True, lambda: masks.mask(D, N, cs["s"], [3, 0, 1, 4, 2])
    )
    assert compressed_scaffnew.lyapunov(cs, state, X_STAR, STAR_GRADS) <= 1e-24
