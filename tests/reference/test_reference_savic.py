"""The SAVIC reference: rules, options, the closed-form checks, Hutchinson's variance."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from . import local, savic

N, D = 3, 4
X0 = np.array([0.5, -1.0, 2.0, 0.3])
HP = {"gamma": 0.05, "H": 3, "alpha": 0.02, "beta": 0.9, "n_warm": 2}
RULES = [rule for rule in savic.RULES if rule != "fixed"]
FROZEN = {"rule": "fixed", "D": np.array([2.0, 0.7, 1.5, 1.1])}


class Quadratics:
    """f_m(x) = (x - c_m)' A_m (x - c_m)/2, gradients with noise of size sigma."""

    def __init__(self, n=N, sigma=0.0, identical=False, seed=0):
        rng, self.n, self.sigma = np.random.default_rng(seed), n, sigma
        factors = rng.normal(size=(n, D, D))
        self.A = factors @ factors.transpose(0, 2, 1) / D + 0.3 * np.eye(D)
        self.c = rng.normal(size=(n, D))
        if identical:
            self.A[:], self.c[:] = self.A[0], self.c[0]

    def grad(self, t, i, h, x):
        exact = self.A[i] @ (x - self.c[i])
        if h is None or self.sigma == 0:
            return exact
        return exact + self.sigma * np.random.default_rng([t, i, h]).normal(size=D)

    def hvp(self, t, i, h, x, v):
        return self.A[i] @ v


EXACT, NOISY = Quadratics(), Quadratics(sigma=0.3)


def probe(p, i, j):
    return np.random.default_rng([9, p, i, j]).choice([-1.0, 1.0], size=D)


def run(problem=NOISY, rounds=4, x0=X0, cohort=None, probe=probe, **changes):
    return savic.run(problem, HP | changes, x0, rounds, probe, cohort)


def close(left, right, tol=1e-12):
    np.testing.assert_allclose(left, right, rtol=0, atol=tol)


def differ(left, right):
    assert np.max(np.abs(left - right)) > 1e-6


def statistics(states, problem=NOISY, agg="grad", rule="adam"):
    """S_1, S_2, .. of global scaling, from the models at the round starts."""
    result = []
    for t, x in enumerate([X0, *[state["x"] for state in states[:-1]]]):
        if rule in savic.HESSIAN:
            count = HP["n_warm"] if t == 0 else 1
            probes = [[probe(t + 1, i, j) for j in range(count)] for i in range(problem.n)]
            s = [np.mean([v * (problem.A[i] @ v) for v in probes[i]], axis=0) for i in range(problem.n)]
        else:
            s = [problem.grad(t, i, 0, x) for i in range(problem.n)]
        result.append(np.mean(s, axis=0) if agg == "grad" else np.sqrt(np.mean(np.square(s), axis=0)))
    return result


# Rules.


@pytest.mark.parametrize("agg", ["grad", "sq"])
@pytest.mark.parametrize("rule", ["adam", "adahessian"])
def test_square_of_d_is_the_bias_corrected_moment(rule, agg):
    """The beta_t identity, which counts rounds and not local steps."""
    states = run(rule=rule, agg=agg)
    S = statistics(states, agg=agg, rule=rule)
    for t, state in enumerate(states):
        close(state["D"] ** 2, savic.corrected_moment(S[: t + 1], 0.9), 1e-13)
        assert state["p"] == t + 1


def test_other_rules_unrolled():
    states = run(rule="adagrad")
    for t, state in enumerate(states):
        close(state["D"], np.sqrt(np.sum(np.square(statistics(states)[: t + 1]), axis=0)))
    states = run(rule="rmsprop")
    S = statistics(states)
    close(states[0]["D"], np.abs(S[0]))
    close(states[2]["D"] ** 2, 0.81 * S[0] ** 2 + 0.09 * S[1] ** 2 + 0.1 * S[2] ** 2)
    states = run(rule="oasis")
    S = statistics(states, rule="oasis")
    close(states[2]["D"], 0.81 * S[0] + 0.09 * S[1] + 0.1 * S[2])


def test_oasis_keeps_the_sign_of_d():
    problem = Quadratics()
    problem.A = -problem.A
    state = run(problem, rule="oasis", n_warm=40)[0]
    assert np.all(state["D"] < 0)
    close(state["Dhat"], np.maximum(HP["alpha"], -state["D"]))
    assert np.all(run(problem, rule="oasis", agg="sq")[0]["D"] > 0)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_weights_by_hand(beta):
    for rule in savic.FAMILIES:
        assert savic.beta_t(rule, beta, 1) == 0
    assert savic.beta_t("adam", beta, 2) == pytest.approx(beta / (1 + beta), abs=1e-13)
    assert savic.beta_t("oasis", beta, 2) == savic.beta_t("rmsprop", beta, 7) == beta
    for p in (1, 2, 50):
        assert 1 - savic.beta_t("adahessian", beta, p) == pytest.approx((1 - beta) / (1 - beta**p), abs=1e-13)
    with pytest.raises(ValueError, match="no weight"):
        savic.beta_t("adagrad", beta, 1)


@pytest.mark.parametrize("clip", ["max", "add"])
def test_clipping(clip):
    state = run(clip=clip, alpha=0.5)[-1]
    expected = np.maximum(0.5, state["D"]) if clip == "max" else 0.5 + state["D"]
    assert np.array_equal(state["Dhat"], expected)
    assert np.any(state["D"] < 0.5)


@pytest.mark.parametrize("clip", ["max", "add"])
@pytest.mark.parametrize("rule", sorted(savic.FAMILIES))
def test_drift_of_dhat_stays_below_the_constant(rule, clip):
    rng, alpha, Gamma = np.random.default_rng(5), 0.1, 2.0
    hp = savic.DEFAULTS | {"rule": rule, "beta": 0.6, "clip": clip, "alpha": alpha}
    C, old, largest = savic.drift_constant(savic.FAMILIES[rule], alpha, Gamma), np.zeros(50), 0.0
    for p in range(1, 60):
        S = Gamma * rng.uniform(-1, 1, size=50) * rng.choice([0.01, 1.0], size=50)
        new = savic.updated(hp, old, S, p)
        if p > 1:
            b = savic.beta_t(rule, 0.6, p)
            growth = savic.clipped(hp, new) / savic.clipped(hp, old)
            assert np.all(growth <= 1 + (1 - b) * C)
            largest = max(largest, growth.max())
        old = new
    assert largest > 1.5


# Hand-computed rounds.


class OneDimensional:
    """Two clients, grad_i = a_i x: a = 1, 3."""

    n = 2

    def grad(self, t, i, h, x):
        return (1.0, 3.0)[i] * x

    hvp = grad


def test_rounds_by_hand():
    """x0 = 1: g = (1, 3), Dhat = 2, y = (.9, .7), g = (.9, 2.1), y = (.81, .49); and so on."""
    hp = {"gamma": 0.2, "H": 2, "beta": 0.5}
    first, second = savic.run(OneDimensional(), hp, [1.0], 2)
    close(first["D"], [2.0])
    close(first["x"], [0.65], 1e-15)
    b = 1 / 3
    D2 = np.sqrt(b * 4 + (1 - b) * 1.3**2)
    close(second["D"], [D2])
    close(second["x"], [0.65 * ((1 - 0.2 / D2) ** 2 + (1 - 0.6 / D2) ** 2) / 2])
    local_sync = savic.run(OneDimensional(), hp | {"scaling": "local_sync"}, [1.0], 1)[0]
    close(local_sync["D"], [[1.0], [3.0]])
    close(local_sync["x"], [((1 - 0.2) ** 2 + (1 - 0.2) ** 2) / 2])
    each = savic.run(OneDimensional(), hp | {"scaling": "local"}, [1.0], 1)[0]
    y, D2 = 0.8, [np.sqrt((a**2 + 2 * (0.8 * a) ** 2) / 3) for a in (1, 3)]
    close(each["D"][:, 0], D2)
    close(each["x"], [np.mean([y - 0.2 * a * y / d for a, d in zip((1, 3), D2, strict=True)])])
    assert np.array_equal(each["p"], [2, 2])
    squares = savic.run(OneDimensional(), hp | {"agg": "sq"}, [1.0], 1)[0]
    close(squares["D"], [np.sqrt(5.0)])


def test_momentum_round_by_hand():
    """rule none, b1 = 1/2: mom = g/2, y = (.95, .85), mom = mom/2 + g/2, then the mean of both."""
    hp = {"gamma": 0.1, "H": 2, "rule": "none", "b1": 0.5}
    first, second = savic.run(OneDimensional(), hp, [1.0], 2)
    moms = [0.25 + 0.95 / 2, 0.75 + 3 * 0.85 / 2]
    close(first["mom"], [[np.mean(moms)]] * 2)
    close(first["x"], [np.mean([0.95 - 0.1 * moms[0], 0.85 - 0.1 * moms[1]])])
    x, m = first["x"][0], np.mean(moms)
    ends = []
    for a in (1, 3):
        m1 = m / 2 + a * x / 2
        y = x - 0.1 * m1
        ends.append(y - 0.1 * (m1 / 2 + a * y / 2))
    close(second["x"], [np.mean(ends)])


def test_stale_rounds_by_hand():
    """Gradients at the un-averaged models, then one common step with the new D, then H - 1 steps apart."""
    hp = {"gamma": 0.2, "H": 2, "beta": 0.5, "timing": "stale"}
    first, second = savic.run(OneDimensional(), hp, [1.0], 2)
    close(first["x"], [0.8])
    close(first["x_i"][:, 0], [0.8 - 0.2 * 0.8 / 2, 0.8 - 0.2 * 2.4 / 2])
    close(first["D"], [2.0])
    y = first["x_i"][:, 0]
    g = y * [1, 3]
    D2 = np.sqrt(4 / 3 + g.mean() ** 2 * 2 / 3)
    x = np.mean(y - 0.2 * g / D2)
    close(second["D"], [D2])
    close(second["x"], [x])
    close(second["x_i"][:, 0], [x - 0.2 * x / D2, x - 0.2 * 3 * x / D2])


# Closed-form checks.


def test_f1_identical_data_do_not_see_the_number_of_local_steps():
    class Shared(Quadratics):
        """One noise stream by global step and client, however the steps fall into rounds."""

        def grad(self, t, i, h, x):
            return super().grad(self.H * t + h, i, 0, x)

    ends = []
    for H in (1, 2, 6):
        problem = Shared(sigma=0.5, identical=True)
        problem.H = H
        states = run(problem, rounds=12 // H, H=H, gamma=0.3, **FROZEN)
        ends.append(states[-1]["x"])
    close(ends[1], ends[0])
    close(ends[2], ends[0])
    problem = Shared(sigma=0.5)
    problem.H = 2
    differ(run(problem, rounds=6, H=2, gamma=0.3, **FROZEN)[-1]["x"], ends[0])


@pytest.mark.parametrize("H", [1, 2, 5])
def test_f2_limit_of_frozen_scaling(H):
    states = run(EXACT, rounds=500 // H, H=H, gamma=0.4, **FROZEN)
    close(states[-1]["x"], savic.frozen_limit(EXACT.A, EXACT.c, FROZEN["D"], 0.4, H), 1e-10)
    optimum = savic.weighted_centre(EXACT.A, EXACT.c)
    assert (np.linalg.norm(states[-1]["x"] - optimum) < 1e-9) == (H == 1)


def test_f3_local_scaling_is_biased_at_one_local_step():
    Dhat = np.random.default_rng(1).uniform(0.5, 2, size=(N, D))
    frozen = {"rule": "fixed", "D": Dhat, "H": 1, "gamma": 0.3}
    for scaling in ("local", "local_sync"):
        last = run(EXACT, rounds=500, scaling=scaling, **frozen)[-1]["x"]
        close(last, savic.local_scaling_limit(EXACT.A, EXACT.c, Dhat), 1e-10)
    differ(last, savic.weighted_centre(EXACT.A, EXACT.c))


@pytest.mark.parametrize("H", [1, 3])
def test_f4_sharp_step_of_frozen_scaling(H):
    problem = Quadratics(identical=True)
    sharp = savic.largest_step(problem.A[0], FROZEN["D"])
    direction = np.linalg.eig(problem.A[0] / FROZEN["D"][:, None])
    assert sharp == pytest.approx(2 / direction[0].real.max())
    start = problem.c[0] + direction[1][:, direction[0].real.argmax()].real
    for factor, expected in ((0.99, 0.98), (1.01, 1.02)):
        states = run(problem, rounds=6, x0=start, H=H, gamma=factor * sharp, **FROZEN)
        growth = np.linalg.norm(states[-1]["x"] - problem.c[0]) / np.linalg.norm(start - problem.c[0])
        assert growth == pytest.approx(expected ** (6 * H), rel=1e-9)


def test_f5_noise_floor_doubles_with_gamma():
    class Wide:
        n = 1

        def grad(self, t, i, h, x):
            return x + np.random.default_rng([t, i, h]).normal(size=2000)

    floors = []
    for gamma in (0.05, 0.1):
        states = run(Wide(), rounds=60, x0=np.zeros(2000), gamma=gamma, rule="fixed", D=np.full(2000, 0.5))
        floors.append(np.mean([np.mean(state["x"] ** 2) for state in states[20:]]))
        a = gamma / 0.5
        assert floors[-1] == pytest.approx(a**2 / (1 - (1 - a) ** 2), rel=0.1)
    assert floors[1] / floors[0] == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("rule", ["adam", "rmsprop", "adagrad", "oasis", "adahessian", "fixed"])
@pytest.mark.parametrize("scaling", ["global", "local_sync", "local"])
def test_f6_huge_alpha_is_local_sgd(rule, scaling):
    alpha = 1e6
    scaled = run(rule=rule, scaling=scaling, alpha=alpha, gamma=0.05 * alpha, D=np.ones(D))
    close(scaled[-1]["x"], run(rule="none")[-1]["x"])
    fedavg = local.run("fedavg", NOISY, {"K": 3, "eta_l": 0.05}, X0, 4)
    close(scaled[-1]["x"], fedavg[-1]["x"])


def test_f7_one_client_is_adam_without_momentum():
    """optax's scale_by_adam(b1=0, b2=beta, eps=alpha): g/(sqrt(v/(1-beta^t)) + alpha)."""
    alone = Quadratics(n=1, sigma=0.3)
    x, v = X0, 0.0
    for scaling in ("global", "local_sync", "local"):
        x, v = X0, 0.0
        for t, state in enumerate(run(alone, H=1, clip="add", scaling=scaling, rounds=9)):
            g = alone.grad(t, 0, 0, x)
            v = 0.9 * v + 0.1 * g**2
            x = x - 0.05 * g / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 0.02)
            close(state["x"], x, 1e-13)


def test_f8_frozen_scaling_is_preconditioned_fedavg():
    class Preconditioned(Quadratics):
        def grad(self, t, i, h, x):
            return super().grad(t, i, h, x) / FROZEN["D"]

    left = run(**FROZEN)
    right = local.run("fedavg", Preconditioned(sigma=0.3), {"K": 3, "eta_l": 0.05}, X0, 4)
    for a, b in zip(left, right, strict=True):
        close(a["x"], b["x"], 1e-13)


def test_local_scaling_is_local_adam_that_keeps_its_moments():
    hp = {"K": 3, "eta_l": 0.05, "b1": 0.0, "b2": 0.9, "eps": 0.02, "moments": "keep"}
    left, right = run(scaling="local", clip="add"), local.run("local_adam", NOISY, hp, X0, 4)
    for a, b in zip(left, right, strict=True):
        close(a["x"], b["x"])
        assert np.array_equal(a["p"], b["count_i"])


# Options.


def test_options_differ():
    base = run()[-1]["x"]
    for change in (
        {"agg": "sq"},
        {"scaling": "local_sync"},
        {"scaling": "local"},
        {"timing": "stale"},
        {"clip": "add"},
        {"b1": 0.5},
        {"lag": True},
        *[{"rule": rule} for rule in RULES if rule != "adam"],
    ):
        differ(run(**change)[-1]["x"], base)


@pytest.mark.parametrize("scaling", ["global", "local_sync", "local"])
@pytest.mark.parametrize("rule", RULES)
def test_stale_is_fresh_at_one_local_step(rule, scaling):
    fresh, stale = (run(rule=rule, scaling=scaling, H=1, b1=0.3, timing=timing) for timing in ("fresh", "stale"))
    for a, b in zip(fresh, stale, strict=True):
        for key in a:
            close(a[key], b[key], 1e-13)


@pytest.mark.parametrize("timing", ["fresh", "stale"])
@pytest.mark.parametrize("scaling", ["global", "local_sync", "local"])
@pytest.mark.parametrize("rule", RULES)
def test_one_client_has_one_scaling(rule, scaling, timing):
    alone = Quadratics(n=1, sigma=0.3)
    H = 1 if scaling == "local" else 3
    left, right = (run(alone, rule=rule, H=H, timing=timing, scaling=s) for s in ("global", scaling))
    close(left[-1]["x"], right[-1]["x"])
    close(left[-1]["D"], right[-1]["D"].reshape(-1))
    close(left[-1]["x_i"], right[-1]["x_i"])


@pytest.mark.parametrize("scaling", ["global", "local_sync"])
def test_lag_divides_by_the_scaling_of_the_round_before(scaling):
    before, after = run(lag=True, scaling=scaling)[1:3]
    ends = []
    for i in range(N):
        y = before["x"]
        for h in range(3):
            y = y - 0.05 * NOISY.grad(2, i, h, y) / np.broadcast_to(before["Dhat"], (N, D))[i]
        ends.append(y)
    close(after["x"], np.mean(ends, axis=0))
    first = run(lag=True, scaling=scaling, rounds=1, alpha=2.0)[0]
    close(first["x"], run(rule="none", gamma=0.025, rounds=1)[0]["x"])


def test_probe_counts():
    def calls(**changes):
        seen = []

        def counting(p, i, j):
            seen.append((int(p), i, j))
            return probe(p, i, j)

        run(rounds=2, probe=counting, rule="oasis", **changes)
        return seen

    warm = [(1, i, j) for i in range(N) for j in range(2)]
    assert calls() == calls(scaling="local_sync") == [*warm, *[(2, i, 0) for i in range(N)]]
    assert calls(scaling="local") == [*warm, *[(p, i, 0) for p in range(2, 7) for i in range(N)]]


def test_cohorts():
    """The mean, the statistic and the local counters see the cohort only."""

    def cohort(t):
        return [[0, 2], [1], [1, 2]][t]

    states = run(cohort=cohort, scaling="local_sync", b1=0.2, rounds=3)
    assert np.array_equal(states[-1]["p"], [1, 2, 2])
    assert np.array_equal(states[1]["D"][[0, 2]], states[0]["D"][[0, 2]])
    close(states[1]["D"][1], np.abs(NOISY.grad(1, 1, 0, states[0]["x"])))
    assert all(np.array_equal(state[key][0], state[key][1]) for state in states for key in ("x_i", "mom"))
    shared = run(cohort=cohort, rounds=1, H=1)[0]
    g = (NOISY.grad(0, 0, 0, X0) + NOISY.grad(0, 2, 0, X0)) / 2
    close(shared["x"], X0 - 0.05 * g / np.maximum(0.02, np.abs(g)))
    everyone = run(cohort=lambda t: [0, 1, 2])
    assert np.array_equal(everyone[-1]["x"], run()[-1]["x"])


@pytest.mark.parametrize("timing", ["fresh", "stale"])
def test_a_state_can_be_continued(timing):
    hp = HP | {"timing": timing, "rule": "oasis", "b1": 0.4}
    whole, first = (savic.run(NOISY, hp, X0, rounds, probe) for rounds in (4, 2))
    last = savic.run(NOISY, hp, X0, 2, probe, state=first[-1])[-1]
    assert all(np.array_equal(last[key], whole[-1][key]) for key in whole[-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "adams"},
        {"alpha": 0.0},
        {"timing": "stale", "cohort": lambda t: [0]},
        {"timing": "stale", "lag": True},
        {"scaling": "local", "lag": True},
    ],
)
def test_bad_options(changes):
    with pytest.raises(ValueError):
        run(**changes)


# Hutchinson.


@pytest.mark.parametrize("shared", [False, True])
def test_hutchinson_mean_and_variance_by_enumeration(shared):
    """All +-1 vectors of two clients: the mean over clients is unbiased with the stated variance."""
    A = EXACT.A[:2]
    signs = [np.array(v) for v in product([-1.0, 1.0], repeat=D)]
    pairs = [(v, v) for v in signs] if shared else list(product(signs, signs))
    problem = Quadratics(n=2)
    estimates = []
    for pair in pairs:
        hp = HP | {"rule": "oasis", "n_warm": 1, "H": 1}
        state = savic.run(problem, hp, X0, 1, lambda p, i, j, pair=pair: pair[i])[0]
        estimates.append(state["D"])
    close(problem.A, EXACT.A[:2])
    close(np.mean(estimates, axis=0), np.diag(A.mean(axis=0)))
    close(np.var(estimates, axis=0), savic.hutchinson_variance(A, shared=shared))
    close(savic.hutchinson_variance(A, 4, shared) * 4, savic.hutchinson_variance(A, 1, shared))


def test_diagonal_hessians_are_estimated_exactly():
    problem = Quadratics()
    problem.A = np.array([np.diag(np.diag(a)) for a in problem.A])
    diagonal = np.diag(problem.A.mean(axis=0))
    assert not np.any(savic.hutchinson_variance(problem.A))
    for rule in savic.HESSIAN:
        for state in run(problem, rule=rule):
            close(state["D"], diagonal)
        close(run(problem, rule=rule, scaling="local")[-1]["D"], [np.diag(a) for a in problem.A])
