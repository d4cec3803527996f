"""The references of low-rank, adaptive and two-way accelerated methods: identities, measured numbers, fixed points."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from . import adaptive, compressors, feedback, mcm, powersgd, problems, two_way
from .test_reference_gossip import KAPPA, close, quadratics

N, D = 4, 6
A, B = quadratics(N, D, KAPPA, seed=5)
STAR = np.linalg.solve(A.mean(axis=0), B.mean(axis=0))
STAR_GRADS = A @ STAR - B
L = np.linalg.eigvalsh(A.mean(axis=0))[-1]
MU = np.linalg.eigvalsh(A.mean(axis=0))[0]
X0 = np.random.default_rng(1).normal(size=D)
STEPS = 30


def exact(t, i, x):
    return A[i] @ x - B[i]


def noisy(t, i, x):
    return A[i] @ x - B[i] + np.random.default_rng([9, t + 1, i]).normal(size=D)


def average(grad):
    return lambda t, i, x: np.mean([grad(t, j, x) for j in range(N)], axis=0)


def same(left, right, key="x", tol=1e-10):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        close(a[key], b[key], tol)


def gap(state):
    return float(np.sum((state["x"] - STAR) ** 2))


def value(x):
    return np.mean([0.5 * x @ A[i] @ x - B[i] @ x for i in range(N)])


# PowerSGD.

SHAPES = [(2, 2), (2,)]
VARIANTS = ["paper", "alternating"]


def side(rank, shapes=SHAPES, seed=3):
    def draw(place):
        a, b = shapes[place]
        rng = np.random.default_rng([seed, place])
        return rng.normal(size=(a, min(rank, a, b))), rng.normal(size=(b, min(rank, a, b)))

    return draw


def power(grad=noisy, n=N, steps=STEPS, rank=1, shapes=SHAPES, **hp):
    hp = {"gamma": 0.3 / L, "rank": rank} | hp
    return powersgd.run(grad, n, hp, X0, steps, shapes, side(rank, shapes))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("hp", [{}, {"mom": 0.5, "wd": 0.1}, {"iters": 2, "start_dense": 3}])
def test_powersgd_depends_on_the_mean_alone(variant, hp):
    if variant == "paper":
        hp = hp | {"iters": 1}
    mean = power(variant=variant, **hp)
    each = power(variant=variant, errors="each", **hp)
    same(mean, power(average(noisy), 1, variant=variant, **hp))
    same(mean, each)
    for a, b in zip(mean, each, strict=True):
        close(np.mean(b["e"], axis=0), a["e"][0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_powersgd_less_its_error_follows_the_mean_gradient(variant):
    y, x, kept = X0, X0, np.zeros(D)
    for t, state in enumerate(power(variant=variant)):
        g = average(noisy)(t, 0, x)
        y, x = y - 0.3 / L * g, state["x"]
        close(x - 0.3 / L * state["e"][0], y, 1e-12)
        close(state["out"] + state["e"][0], g + kept, 1e-12)
        kept = state["e"][0]


@pytest.mark.parametrize(
    ("variant", "hp", "rank"),
    [("paper", {}, 1), ("paper", {"rank": 2}, 2), ("alternating", {"iters": 2}, 1), ("alternating", {"iters": 3}, 2)],
)
def test_rank_of_what_is_applied(variant, hp, rank):
    """At most the rank times the inner iterations; an odd one finds the side that an even one left."""
    shapes = [(3, 4)]
    start = np.zeros(12)
    grad = lambda t, i, x: np.random.default_rng([t, i]).normal(size=12)
    states = powersgd.run(
        grad, N, {"gamma": 0.1, "variant": variant} | hp, start, 5, shapes, side(hp.get("rank", 1), shapes)
    )
    for state in states:
        assert np.linalg.matrix_rank(state["out"].reshape(3, 4), tol=1e-9) == rank


def test_powersgd_of_full_rank_is_gradient_descent():
    x = X0
    for t, state in enumerate(power(rank=2, variant="paper")):
        x = x - 0.3 / L * average(noisy)(t, 0, x)
        close(state["x"], x, 1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rank", [1, 2])
def test_one_matrix_again_and_again_gives_its_best_approximation(variant, rank):
    M = np.random.default_rng(8).normal(size=(4, 5))
    sides, step = side(rank, [(4, 5)])(0), powersgd.paper if variant == "paper" else powersgd.alternating
    for c in range(300):
        out, _, sides, _ = step({"iters": 1}, [M], sides, c)
    left, singular, right = np.linalg.svd(M)
    close(out, (left[:, :rank] * singular[:rank]) @ right[:rank], 1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_powersgd_reaches_the_optimum_of_different_clients(variant):
    """MEM-SGD with the best rank-1 approximation of each worker's own matrix stalls."""
    assert gap(power(exact, steps=800, variant=variant, shapes=[(2, 3)])[-1]) < 1e-18
    C = lambda t, i, slot, v: compressors.low_rank(v, 2, 3, 1)
    last = feedback.run("mem_sgd", exact, C, N, {"gamma": 0.3 / L}, X0, 800)[-1]
    assert gap(last) > 1e-5


def test_errors_of_each_worker_drift_apart():
    """By g_i - mean g in every step of the paper's variant."""
    states = power(exact, steps=400, errors="each", variant="paper", shapes=[(2, 3)])
    drift = (states[-1]["e"] - states[-2]["e"]) - np.mean(states[-1]["e"] - states[-2]["e"], axis=0)
    close(drift, STAR_GRADS, 1e-6)
    assert np.max(np.abs(states[-1]["e"])) > 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_gradients_give_zeros(variant):
    for state in power(lambda t, i, x: 0.0 * x, steps=4, variant=variant):
        close(state["x"], X0, 0)


def test_momentum_of_powersgd_by_hand():
    """All dense: m = out at first, then lam m + out; x -= gamma (out + m)."""
    first, second = power(average(noisy), 1, 2, shapes=[(6,)], mom=0.5, wd=0.1, gamma=0.2)
    u = average(noisy)(0, 0, X0) + 0.1 * X0
    close(first["x"], X0 - 0.2 * 2 * u, 1e-14)
    new = average(noisy)(1, 0, first["x"]) + 0.1 * first["x"]
    close(second["x"], first["x"] - 0.2 * (2 * new + 0.5 * u), 1e-14)


def test_bits_of_powersgd():
    hp = {"shapes": [(2, 3)]}
    assert [s["bits_up"] for s in power(steps=2, **hp)] == [160, 320]
    assert [s["bits_up"] for s in power(steps=2, variant="alternating", **hp)] == [96, 160]
    assert [s["bits_up"] for s in power(steps=2, variant="alternating", iters=2, **hp)] == [160, 320]
    assert [s["bits_up"] for s in power(steps=2, start_dense=1, **hp)] == [192, 352]
    assert [s["bits_up"] for s in power(steps=1, min_rate=1.3, **hp)] == [192]


# SIDCo.


def tails(kind, size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.laplace(size=size) if kind == "laplace" else rng.normal(size=size)


@pytest.mark.parametrize("fit", ["exponential", "pareto", "gamma"])
@pytest.mark.parametrize("ratio", [0.1, 0.01])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_share_kept_of_laplace_numbers(fit, ratio, stages):
    """Within 2 %, with 4 stages 3 %, measured on 2e5 numbers; a sampling error of 1 % at .01 comes on top."""
    v = tails("laplace", 200_000)
    tau = compressors.sidco_threshold(v, ratio, stages, fit)
    assert abs(np.mean(np.abs(v) > tau) / ratio - 1) < 0.05


@pytest.mark.parametrize(
    ("fit", "shares"), [("exponential", [0.0, 0.1, 0.69, 1.06]), ("pareto", [6.8, 1.21, 0.90, 0.90])]
)
def test_share_kept_of_gaussian_numbers(fit, shares):
    """Measured on 4e6 numbers; on 2e5 the share has an error of a tenth of its root."""
    v = tails("gaussian", 200_000)
    got = [np.mean(np.abs(v) > compressors.sidco_threshold(v, 1e-3, s, fit)) / 1e-3 for s in (1, 2, 3, 4)]
    np.testing.assert_allclose(got, shares, rtol=0.1, atol=0.03)


@pytest.mark.parametrize("mode", [-1, -2, -3])
def test_stages_settle_where_the_ratio_is_met(mode):
    """Four, from one, with 1.06 to 1.11 of the entries asked for."""
    hp, stage, kept = adaptive.SIDCO | {"ratio": 1e-3, "mode": mode}, adaptive.fresh_stage(), []
    for t in range(60):
        v = tails("gaussian", 20_000, seed=t)
        count = int(np.sum(adaptive.sidco_message(hp, v, stage["stages"]) != 0))
        stage = adaptive.adapted(hp, stage, count, len(v))
        kept.append(count / 20)
    assert stage["stages"] == 4
    assert 1.0 < np.mean(kept[30:]) < 1.2


def test_stages_by_hand():
    hp = adaptive.SIDCO | {"ratio": 0.1, "every": 2, "mode": -1}
    a = adaptive.fresh_stage()
    a = adaptive.adapted(hp, a, 0, 10)
    assert a == {"stages": 1, "total": 0, "calls": 1, "last": 0.0, "direction": 1}
    a = adaptive.adapted(hp, a, 1, 10)
    assert a == {"stages": 2, "total": 0, "calls": 0, "last": 0.5, "direction": 1}
    for _ in range(2):
        a = adaptive.adapted(hp, a, 3, 10)
    assert (a["stages"], a["last"]) == (1, 3.0)
    for _ in range(2):
        a = adaptive.adapted(hp, a, 3, 10)
    assert a["stages"] == 1
    turned = adaptive.adapted(hp | {"mode": -2, "every": 1}, a | {"last": 1.5}, 4, 10)
    assert (turned["direction"], turned["stages"]) == (-1, 2)
    kept = adaptive.adapted(hp | {"mode": -3, "every": 1}, a | {"last": 1.5}, 1, 10)
    assert (kept["direction"], kept["stages"]) == (1, 1)
    most = adaptive.adapted(hp | {"every": 1}, a | {"stages": 4}, 0, 10)
    assert most["stages"] == math.ceil(math.log2(10))


def test_sidco_of_one_stage_is_mem_sgd_with_a_threshold():
    hp = {"gamma": 0.1 / L, "ratio": 0.4}
    C = lambda t, i, slot, v: compressors.threshold(v, compressors.sidco_threshold(v, 0.4))
    same(adaptive.sidco(noisy, N, hp, X0, STEPS), feedback.run("mem_sgd", noisy, C, N, hp, X0, STEPS), tol=0)


def test_sidco_with_general_memory():
    """Off the kept entries e = ec_grad v + ec_mem e, on them 0."""
    hp = {"gamma": 0.1 / L, "ratio": 0.4, "ec_grad": 0.5, "ec_mem": 0.25}
    first, second = adaptive.sidco(exact, N, hp, X0, 2)
    v = np.array([exact(1, i, first["x"]) for i in range(N)]) + first["e_i"]
    for i in range(N):
        tau = compressors.sidco_threshold(v[i], 0.4)
        want = [
            0.0 if abs(value) > tau else 0.5 * value + 0.25 * old
            for value, old in zip(v[i], first["e_i"][i], strict=True)
        ]
        close(second["e_i"][i], want, 1e-14)


def test_sidco_stalls_where_clients_differ():
    hp = {"gamma": 0.5 / L, "ratio": 0.4, "mode": -2}
    assert gap(adaptive.sidco(exact, N, hp, X0, 400)[-1]) > 1e-5
    grad = lambda t, i, x: A[i] @ (x - STAR)
    assert gap(adaptive.sidco(grad, N, hp, X0, 400)[-1]) < 1e-20


# Policies.


def test_policies_by_hand():
    v = np.array([1.0, -3.0, 2.0, 0.0])
    assert [adaptive.energy(v, share) for share in (0.0, 9 / 14, 0.65, 13 / 14, 1.0)] == [0, 1, 2, 2, 3]
    assert adaptive.energy(0 * v, 0.5) == 0
    assert [adaptive.per_bit(v, header, 1) for header in (0, 1, 8, 1000)] == [1, 1, 2, 3]
    assert [adaptive.price(v, lam) for lam in (100, 9, 8.9, 3.9, 0.5)] == [1, 1, 1, 2, 3]
    assert adaptive.price(v, 3.9, w=0.9) == 1


def test_energy_is_a_contraction():
    rng = np.random.default_rng(0)
    for share in (0.2, 0.8):
        for v in rng.normal(size=(20, 9)):
            k = adaptive.energy(v, share)
            assert np.sum((v - compressors.top_k(v, k)) ** 2) <= (1 - share) * np.sum(v**2)
            assert np.sum((v - compressors.top_k(v, k - 1)) ** 2) > (1 - share) * np.sum(v**2)


def test_allocation_is_the_exact_optimum_and_one_price():
    rng = np.random.default_rng(1)
    for _ in range(5):
        V, w = rng.normal(size=(3, 4)), rng.random(3)
        gains = np.sort([w[t] * x**2 for t in range(3) for x in V[t]])[::-1]
        for K in range(3, 11):
            ks = adaptive.allocate(V, w, K)
            best = min(adaptive.tails(V, w, ks) for ks in product(range(5), repeat=3) if sum(ks) <= K)
            assert adaptive.tails(V, w, ks) == pytest.approx(best, rel=1e-8)
            assert sum(ks) == K
            priced = [adaptive.price(V[t], (gains[K - 1] + gains[K]) / 2, w[t]) for t in range(3)]
            assert priced == [max(1, k) for k in ks]


def test_price_identity():
    """sum_t (mean k_t - kbar)/kbar = log(lam_T/lam_0)/rate."""
    kbar, rate, lam = 2.5, 0.3, 0.7
    state = (lam, lambda lam, ks: adaptive.next_price(lam, ks, kbar, rate))
    states = adaptive.mem_sgd(noisy, N, {"gamma": 0.1 / L}, X0, 40, adaptive.price, state)
    total = sum((np.mean(s["ks"]) - kbar) / kbar for s in states)
    assert total == pytest.approx(math.log(states[-1]["state"] / lam) / rate, abs=1e-8)
    assert len({tuple(s["ks"]) for s in states}) > 3
    assert np.mean([np.mean(s["ks"]) for s in states[10:]]) == pytest.approx(kbar, rel=0.2)


def test_a_constant_policy_is_top_k():
    C = lambda t, i, slot, v: compressors.top_k(v, 2)
    right = feedback.run("mem_sgd", noisy, C, N, {"gamma": 0.1 / L}, X0, STEPS)
    same(adaptive.mem_sgd(noisy, N, {"gamma": 0.1 / L}, X0, STEPS, lambda v, state: 2), right, tol=0)


@pytest.mark.parametrize("K", [20, 33, 50])
def test_power_law_beats_its_neighbours(K):
    rng, s, kmin, kmax, d = np.random.default_rng(2), 0.7, 1.0, 9.0, 10
    E, w = rng.exponential(size=8) * 5, rng.random(8)
    tail = lambda k: sum(w[t] * E[t] * (k[t] / d) ** -s for t in range(8))
    k = adaptive.power_law(E, w, s, K, kmin, kmax)
    assert k.sum() == pytest.approx(K, rel=1e-12)
    for a, b in product(range(8), repeat=2):
        other = k.copy()
        other[a], other[b] = other[a] + 0.01, other[b] - 0.01
        if a != b and other.max() <= kmax and other.min() >= kmin:
            assert tail(other) > tail(k)


def test_the_schedule_of_steps_decides_how_k_grows():
    """7.8 times from first to last at a constant step, 1.02 at 2/(mu (t + c))."""
    mu, s, T, L = 1.0, 1.0, 40, 20.0
    constant = adaptive.schedule_weights([0.1] * T, mu)
    assert constant == pytest.approx([0.01 * w for w in adaptive.weights(T, 0.1, mu)])
    falling = adaptive.schedule_weights([2 / (mu * (t + 2 * L)) for t in range(T)], mu)
    k = [adaptive.power_law([1.0] * T, w, s, 40 * T, 0.1, 1e6) for w in (constant, falling)]
    assert np.all(np.diff(k[0]) > 0)
    assert k[0][-1] / k[0][0] == pytest.approx(0.9 ** (-(T - 1) / 2), rel=1e-9)
    assert k[1].max() / k[1].min() < 1.05


def test_one_step_of_selection_falls_as_proved():
    """f(x+) - f* <= (1 - g mu)(f(x) - f*) + (g/2) tail, for one client and every selection."""
    H, rng = A[0], np.random.default_rng(3)
    low, high = np.linalg.eigvalsh(H)[[0, -1]]
    f = lambda z: 0.5 * z @ H @ z
    for g in (0.3 / high, 1 / high):
        for _ in range(10):
            x = rng.normal(size=D)
            for k in range(D + 1):
                v = H @ x
                c = compressors.rand_k_unscaled(v, rng.permutation(D) < k)
                assert f(x - g * c) <= (1 - g * low) * f(x) + g / 2 * np.sum((v - c) ** 2) + 1e-12


# EF21-P.


def keep(t, slot, v, k):
    return compressors.rand_k_unscaled(v, np.random.default_rng([1, t, slot]).permutation(len(v)) < k)


def rand_2(t, i, slot, v):
    return compressors.rand_k(v, np.random.default_rng([2, t + 1, i, slot]).permutation(len(v)) < 2)


UP = {"identity": lambda t, i, slot, v: v, "rand_2": rand_2}
DOWN = {
    "identity": lambda t, v: v,
    "top_2": lambda t, v: compressors.top_k(v, 2),
    "sign": lambda t, v: compressors.scaled_sign(v),
    "keep_2": lambda t, v: keep(t, 0, v, 2),
}


def ef21_p(form="plain", up="identity", down="top_2", grad=noisy, steps=STEPS, **hp):
    hp = {"form": form, "gamma": 0.1 / L, "beta": 1 / 3} | hp
    return two_way.ef21_p(grad, N, hp, X0, steps, UP[up], DOWN[down])


@pytest.mark.parametrize("form", ["plain", "dcgd", "diana"])
def test_ef21_p_without_compression_is_gradient_descent(form):
    x = X0
    for t, state in enumerate(ef21_p(form, "identity", "identity")):
        x = x - 0.1 / L * average(noisy)(t, 0, x)
        close(state["x"], x)
        close(state["w"], x)


@pytest.mark.parametrize("down", ["top_2", "keep_2"])
def test_ef21_p_with_an_exact_uplink(down):
    same(ef21_p("dcgd", down=down), ef21_p(down=down), tol=1e-12)
    same(ef21_p("diana", down=down, beta=0.0), ef21_p(down=down), tol=1e-12)


def test_what_the_clients_hold_is_classical_error_feedback():
    """e = w - x; messages of the gradient plus the error, for odd compressors."""
    gamma = 0.1 / L
    w, e = X0, np.zeros(D)
    for t, state in enumerate(ef21_p()):
        v = e + gamma * average(noisy)(t, 0, w)
        m = compressors.top_k(v, 2)
        w, e = w - m, v - m
        close(state["w"], w, 1e-12)
        close(state["w"] - state["x"], e, 1e-12)


def test_ef21_p_diana_is_the_recursion_of_mcm():
    """At alpha_dwn = 1, with a contractive downlink."""

    class Noisy(problems.Quadratic):
        def grad(self, t, i, x):
            return noisy(t, i, x)

    hp = {"gamma": 0.1 / L, "alpha_up": 1 / 3, "alpha_dwn": 1.0, "smart": False}
    problem = Noisy(list(zip(A, B, strict=True)))
    right = mcm.run(
        "mcm", problem, hp, X0, STEPS, lambda t, i, v: rand_2(t, i, 0, v), lambda t, g, v: compressors.top_k(v, 2)
    )
    left = ef21_p("diana", "rand_2")
    for a, b in zip(left, right, strict=True):
        close(a["x"], b["w"], 1e-12)
        close(a["w"], b["what"][0], 1e-12)
        close(a["h_i"], b["h_i"], 1e-12)


@pytest.mark.parametrize("down", ["top_2", "keep_2", "sign"])
def test_ef21_p_fixed_point_and_convergence(down):
    start = {"t": 0, "x": STAR, "w": STAR, "h_i": STAR_GRADS, "h": 0 * STAR}
    hp = {"form": "diana", "gamma": 0.3 / L, "beta": 1 / 3}
    last = two_way.ef21_p(exact, N, hp, X0, 20, UP["rand_2"], DOWN[down], state=start)[-1]
    close(last["x"], STAR, 1e-12)
    assert gap(ef21_p("diana", "rand_2", down, exact, 1500)[-1]) < 1e-20
    assert gap(ef21_p("plain", "identity", down, exact, 1000)[-1]) < 1e-20


def test_dcgd_stalls_unless_the_clients_agree():
    hp = {"gamma": 0.2 / L}
    assert gap(ef21_p("dcgd", "rand_2", grad=exact, steps=500, **hp)[-1]) > 1e-5
    assert gap(ef21_p("dcgd", "rand_2", grad=lambda t, i, x: A[i] @ (x - STAR), steps=800, **hp)[-1]) < 1e-20


@pytest.mark.parametrize("form", ["plain", "diana"])
def test_theorems_of_ef21_p(form):
    """The left side stays under its bound, DIANA's over a mean of 20 runs."""
    delta, omega, seeds = 2 / D, (D / 2 - 1 if form == "diana" else 0.0), 20 if form == "diana" else 1
    Lmax = max(np.linalg.eigvalsh(a)[-1] for a in A)
    hp = {"form": form} | two_way.ef21_p_theory(form, N, delta, L, Lmax, MU, omega)
    f_star, steps, total = value(STAR), 150, 0.0
    start = two_way.ef21_p_start(hp, N, omega, X0, STAR, value(X0) - f_star, np.zeros((N, D)), STAR_GRADS)
    for seed in range(seeds):
        up = lambda t, i, slot, v, seed=seed: rand_2(1000 * seed + t, i, 0, v) if form == "diana" else v
        states = two_way.ef21_p(exact, N, hp, X0, steps, up, DOWN["top_2"])
        total = total + np.array([two_way.ef21_p_left(hp, s["x"], STAR, value(s["x"]) - f_star) for s in states])
    bound = start * (1 - hp["gamma"] * MU / 2) ** np.arange(1, steps + 1)
    assert np.all(total / seeds <= bound)


# 2Direction.


def two_direction(
    up="rand_2", down="top_2", grad=noisy, steps=STEPS, form="inverse", delta=2 / D, omega=D / 2 - 1, **hp
):
    Lmax = max(np.linalg.eigvalsh(a)[-1] for a in A)
    theory = two_way.two_direction_theory(N, delta, omega, L, Lmax)
    hp = theory | {"mu": MU, "form": form} | hp
    coin = lambda t: np.random.default_rng([3, t]).random() < hp["p"]
    return two_way.two_direction(grad, N, hp, X0, steps, UP[up], DOWN[down], coin)


@pytest.mark.parametrize("mu", [0.0, MU])
def test_two_forms_of_two_direction(mu):
    left, right = two_direction(steps=80, mu=mu), two_direction(steps=80, mu=mu, form="gamma")
    for key in ("x", "w", "z", "u", "h"):
        same(left, right, key)
    close([1 / s["i"] for s in left], [s["Gamma"] for s in right])


def test_two_direction_without_compression_is_accelerated_gradient_descent():
    states = two_direction("identity", "identity", delta=1.0, omega=0.0)
    hp = two_way.two_direction_theory(N, 1.0, 0.0, L, 0.0)
    assert (hp["p"], hp["tau"], hp["beta"], hp["Lbar"]) == (1.0, 1.0, 1.0, L)
    x = u = X0
    i = 1.0
    for t, state in enumerate(states):
        c = L * i + MU
        theta = min(2 * c / (c + math.sqrt(c**2 + 4 * L * c)), 0.25)
        i = (1 - theta) * i
        y = theta * u + (1 - theta) * x
        u = ((1 - theta) * c * u + theta * (MU * y - average(noisy)(t, 0, y))) / (L * i + MU)
        x = theta * u + (1 - theta) * x
        for key, want in {"x": x, "z": x, "u": u, "w": u}.items():
            close(state[key], want)


def test_memories_of_two_direction():
    for state in two_direction(down="identity"):
        close(state["h"], np.mean(state["h_i"], axis=0), 1e-12)
        close(state["w"], state["u"], 1e-12)


def test_two_direction_rests_at_the_optimum_and_reaches_it():
    start = dict.fromkeys(("u", "w", "z", "x", "point"), STAR) | {"t": 0, "h_i": STAR_GRADS, "i": 1.0}
    start |= dict.fromkeys(("h", "k", "v"), 0.0 * STAR)
    hp = two_way.two_direction_theory(N, 2 / D, D / 2 - 1, L, KAPPA) | {"mu": MU}
    for state in two_way.two_direction(exact, N, hp, X0, 20, rand_2, DOWN["top_2"], lambda t: t % 3 == 0, state=start):
        close(state["x"], STAR, 1e-12)
    assert gap(two_direction(grad=exact, steps=1500)[-1]) < 1e-16


def test_gamma_overflows_where_its_inverse_does_not():
    hp = two_way.two_direction_theory(N, 1.0, 0.0, L, 0.0) | {"mu": MU}
    run = lambda form, start: two_way.two_direction(
        exact, N, hp | {"form": form}, X0, 5, UP["identity"], DOWN["identity"], lambda t: True,
        state=two_way.two_direction_init(exact, N, X0) | {"Gamma": start, "i": 1 / start},
    )[-1]["x"]  # fmt: skip
    assert np.all(np.isfinite(run("inverse", 1e308)))
    with np.errstate(all="ignore"):
        assert not np.all(np.isfinite(run("gamma", 1e308)))


@pytest.mark.slow
def test_growth_of_steps_with_kappa():
    """P2: a square root for 2Direction, linear for EF21-P + DIANA."""
    counts = {"2d": [], "ef": []}
    for kappa in (1e2, 1e3):
        H = np.array([np.diag(np.geomspace(1, kappa, 6))] * N) * np.linspace(0.9, 1.1, N)[:, None, None]
        b = np.random.default_rng(0).normal(size=(N, 6)) * np.sqrt(kappa)
        star, L = np.linalg.solve(H.mean(axis=0), b.mean(axis=0)), kappa
        grad = lambda t, i, x, H=H, b=b: H[i] @ x - b[i]
        start = np.zeros(6)
        done = lambda s, star=star: np.sum((s["x"] - star) ** 2) < 1e-10 * np.sum(star**2)
        hp = two_way.two_direction_theory(N, 1 / 3, 2.0, L, 1.1 * L, c0=1.0) | {"mu": 1.0}
        coin = lambda t, p=hp["p"]: np.random.default_rng([3, t]).random() < p
        state, t = two_way.two_direction_init(grad, N, start), 0
        while not done(state):
            state, t = two_way.two_direction_step(hp, grad, N, state, rand_2, DOWN["top_2"], coin), t + 1
        counts["2d"].append(t)
        hp = {"form": "diana", "beta": 1 / 3, "gamma": 0.25 / L}
        state, t = two_way.ef21_p_init(hp, grad, N, start), 0
        while not done(state):
            state, t = two_way.ef21_p_step(hp, grad, N, state, rand_2, DOWN["top_2"]), t + 1
        counts["ef"].append(t)
    exponent = {name: math.log10(many / few) for name, (few, many) in counts.items()}
    assert 0.4 <= exponent["2d"] <= 0.6
    assert 0.85 <= exponent["ef"] <= 1.15


# EoRA.


def moment(b, seed=0):
    X = np.random.default_rng(seed).normal(size=(20, b)) * np.arange(1, b + 1)
    return X.T @ X / 20


def rough(M):
    return np.round(M)


@pytest.mark.parametrize("r", [1, 2])
def test_compensation_without_data_is_the_best_approximation_of_the_residual(r):
    M = np.random.default_rng(0).normal(size=(4, 5))
    value, left, right = adaptive.compensated(M, rough(M), r)
    close(value, rough(M) + compressors.low_rank((M - rough(M)).ravel(), 4, 5, r).reshape(4, 5))
    assert (left.shape, right.shape) == ((4, r), (r, 5))
    close(adaptive.compensated(M, rough(M), r, 3.0 * np.eye(5))[0], value)


def test_compensation_minimises_the_error_on_the_data():
    rng = np.random.default_rng(1)
    M, G = rng.normal(size=(4, 5)), moment(5)
    S, inverse = adaptive.metric(G)
    close(S @ S.T, G)
    close(S @ inverse, np.eye(5))
    base = rough(M)
    error = lambda value: np.trace((M - value) @ G @ (M - value).T)
    value, left, right = adaptive.compensated(M, base, 2, G)
    singular = np.linalg.svd((M - base) @ S, compute_uv=False)
    assert error(value) == pytest.approx(np.sum(singular[2:] ** 2), rel=1e-10)
    assert error(value) <= (1 - 2 / 4) * error(base)
    close(adaptive.compensated(M, base, 2, 7.0 * G)[0], value)
    close(adaptive.compensated(M, base, 4, G)[0], M)
    for _ in range(30):
        other = base + (left + 1e-3 * rng.normal(size=left.shape)) @ (right + 1e-3 * rng.normal(size=right.shape))
        assert error(other) > error(value)


def test_contraction_of_compensation():
    rng, worst = np.random.default_rng(2), 0.0
    for _ in range(100):
        M = rng.normal(size=(3, 4))
        base = compressors.top_k(M.ravel(), 6).reshape(3, 4)
        value, *_ = adaptive.compensated(M, base, 1)
        worst = max(worst, np.sum((M - value) ** 2) / np.sum(M**2))
    assert worst <= 1 - adaptive.compensated_delta(3, 4, 1, 6 / 12)
    assert adaptive.compensated_delta(3, 4, 1) == pytest.approx(1 / 3)
    assert adaptive.compensated_delta(3, 4, 1, multiple_of_identity=False) == 0


def test_compensation_as_a_downlink_converges():
    G = moment(3)
    down = lambda t, v: adaptive.compensated(v.reshape(2, 3), np.zeros((2, 3)), 1, G)[0].ravel()
    hp = {"form": "plain", "gamma": 0.1 / L}
    assert gap(two_way.ef21_p(exact, N, hp, X0, 1000, UP["identity"], down)[-1]) < 1e-20


@pytest.mark.parametrize("hp", [{"variant": "swift"}, {"errors": "some"}])
def test_bad_choices(hp):
    with pytest.raises(ValueError, match="expected one of"):
        power(**hp)
