"""The references of local and adaptive federated methods: identities, invariants, hand-computed rounds."""

from __future__ import annotations

import numpy as np
import pytest

from . import local, savic
from .test_reference_savic import X0, D, N, Quadratics, close, differ

EXACT, NOISY = Quadratics(), Quadratics(sigma=0.3)
HP = {"K": 3, "eta_l": 0.1, "eta_g": 0.7, "mu": 0.4, "eps": 0.05}
UNEQUAL = {"K": [1, 4, 2], "weights": [1.0, 2.0, 5.0]}


def run(method, problem=NOISY, rounds=4, x0=X0, cohort=None, compress=None, state=None, **changes):
    return local.run(method, problem, HP | changes, x0, rounds, cohort, compress, state)


def same(left, right, tol=1e-12):
    for a, b in zip(left, right, strict=True):
        close(a["x"], b["x"], tol)


def pair(t):
    return [[0, 1], [2, 0], [1, 2], [0, 2]][t % 4]


def identity(t, i, v):
    return v


def largest(t, i, v):
    """Top-1."""
    return np.where(np.arange(D) == np.argmax(np.abs(v)), v, 0.0)


class Line:
    """Two clients in one dimension, grad_i = a_i x - b_i: x and 2 x - 4."""

    n = 2

    def grad(self, t, i, h, x):
        return (1.0, 2.0)[i] * x - (0.0, 4.0)[i]


def line(method, rounds=1, x0=1.0, **changes):
    return local.run(method, Line(), changes, [x0], rounds)


# Identities.


@pytest.mark.parametrize("extra", [{}, UNEQUAL, {"cohort": pair}])
def test_prox_without_penalty_is_fedavg(extra):
    same(run("fedprox", mu=0.0, **extra), run("fedavg", **extra), 0.0)
    differ(run("fedprox", **extra)[-1]["x"], run("fedavg", **extra)[-1]["x"])


@pytest.mark.parametrize("option", ["I", "II"])
def test_scaffold_with_zero_controls_held_is_fedavg(option):
    state = local.init("scaffold", N, HP, X0)
    for t, expected in enumerate(run("fedavg", K=UNEQUAL["K"])):
        after = run("scaffold", rounds=1, option=option, K=UNEQUAL["K"], state=state)[0]
        close(after["x"], expected["x"], 1e-13)
        assert np.any(after["c"])
        state = state | {"x": after["x"], "t": t + 1}


@pytest.mark.parametrize(("option", "problem"), [("II", NOISY), ("I", EXACT)])
def test_scaffold_with_one_local_step_is_sgd(option, problem):
    """Full participation and eta_g = 1, since c = mean c_i."""
    x = X0
    for t, state in enumerate(run("scaffold", problem, K=1, eta_g=1.0, option=option)):
        x = x - 0.1 * np.mean([problem.grad(t, i, 0, x) for i in range(N)], axis=0)
        close(state["x"], x, 1e-13)


@pytest.mark.parametrize("extra", [{}, {"weights": UNEQUAL["weights"]}, {"cohort": pair}])
def test_nova_with_equal_steps_is_fedavg(extra):
    same(run("fednova", mu=0.0, **extra), run("fedavg", eta_g=1.0, **extra))
    same(run("fednova", **extra), run("fedprox", eta_g=1.0, **extra))
    differ(run("fednova", mu=0.0, K=UNEQUAL["K"])[-1]["x"], run("fedavg", eta_g=1.0, K=UNEQUAL["K"])[-1]["x"])


@pytest.mark.parametrize("method", ["fedadam", "fedadagrad", "fedyogi"])
def test_huge_tau_is_scaled_fedavg(method):
    tau = 1e9
    same(run(method, b1=0.0, b2=0.0, tau=tau, v0=0.0, eta_g=0.7 * tau), run("fedavg"), 1e-8)


def test_server_momentum_zero_is_fedavg():
    same(run("fedavgm", b1=0.0, **UNEQUAL), run("fedavg", **UNEQUAL), 0.0)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("extra", [{}, UNEQUAL, {"cohort": pair}])
def test_uncompressed_fedcams_is_fedams(form, extra):
    left = run("fedcams", form=form, compress=identity, **extra)
    same(left, run("fedams", form=form, **extra))
    close(left[-1]["e_i"], np.zeros((N, D)))
    differ(run("fedcams", form=form, compress=largest, **extra)[-1]["x"], left[-1]["x"])


@pytest.mark.parametrize("problem", [EXACT, NOISY])
def test_mime_with_one_sgd_step_is_sgd_on_the_full_gradient(problem):
    """On any batch, since g_i(x; b) cancels; weighted, on the cohort."""
    w, x = np.array(UNEQUAL["weights"]), X0
    for t, state in enumerate(run("mime", problem, K=1, eta_g=1.0, weights=w, cohort=pair)):
        G = sum(w[i] * problem.grad(t, i, None, x) for i in pair(t)) / sum(w[pair(t)])
        x = x - 0.1 * G
        close(state["x"], x, 1e-13)


def test_mime_and_mimelite_agree_on_identical_full_batches():
    alike = Quadratics(identical=True)
    for opt in ("sgd", "adam"):
        same(run("mime", alike, opt=opt, rho=0.5), run("mimelite", alike, opt=opt, rho=0.5))
        differ(run("mime", EXACT, opt=opt)[-1]["x"], run("mimelite", EXACT, opt=opt)[-1]["x"])


def test_mimelite_without_momentum_is_fedavg():
    same(run("mimelite", **UNEQUAL), run("fedavg", **UNEQUAL))


def test_strict_mimelite_is_lagged_savic():
    """Full batches, b1 = 0, eps = alpha added outside the root."""
    hp = {"gamma": 0.1, "H": 3, "beta": 0.9, "alpha": 0.5, "clip": "add", "lag": True}
    adam = {"opt": "adam", "frozen": "strict", "b1": 0.0, "b2": 0.9, "eps": 0.5, "eta_g": 1.0}
    left, right = savic.run(EXACT, hp, X0, 6), run("mimelite", EXACT, rounds=6, **adam)
    same(left, right)
    for a, b in zip(left, right, strict=True):
        close(a["D"] ** 2, b["v"] / (1 - 0.9 ** b["count"]))
    differ(run("mimelite", EXACT, **adam | {"frozen": "fedjax"})[-1]["x"], left[3]["x"])


def test_adaalter_with_one_local_step_is_adagrad_that_lags():
    """The accumulator is a mean of squares and eps^2 is inside the root."""
    x, B2 = X0, np.full(D, 0.3)
    for t, state in enumerate(run("local_adaalter", K=1, v0=0.3)):
        g = np.array([NOISY.grad(t, i, 0, x) for i in range(N)])
        x = x - 0.1 * g.mean(axis=0) / np.sqrt(B2 + 0.05**2)
        B2 = B2 + (g**2).mean(axis=0)
        close(state["x"], x, 1e-13)
        close(state["B2"], B2, 1e-13)


# SCAFFOLD.


@pytest.mark.parametrize("option", ["I", "II"])
def test_control_is_the_mean_of_the_client_controls(option):
    for cohort in (None, pair):
        for state in run("scaffold", option=option, cohort=cohort, K=UNEQUAL["K"]):
            close(state["c"], state["c_i"].mean(axis=0), 1e-13)
            assert np.any(state["c"])


def test_scaffold_controls_are_mean_local_gradients():
    """Option II: (x - y)/(K eta) = mean of g(y_h) - c_i + c, so c_i+ is the mean of the gradients on the way."""
    before, after = run("scaffold")[1:3]
    ends = []
    for i in range(N):
        y, seen = before["x"], []
        for h in range(3):
            seen.append(NOISY.grad(2, i, h, y))
            y = y - 0.1 * (seen[-1] - before["c_i"][i] + before["c"])
        ends.append(y)
        close(after["c_i"][i], np.mean(seen, axis=0))
    close(after["x"], before["x"] + 0.7 * (np.mean(ends, axis=0) - before["x"]))
    first = run("scaffold", option="I", rounds=1)[0]
    close(first["c_i"], [NOISY.grad(0, i, None, X0) for i in range(N)], 0.0)


@pytest.mark.parametrize("option", ["I", "II"])
def test_scaffold_removes_the_drift(option):
    optimum = savic.weighted_centre(EXACT.A, EXACT.c)
    long = {"rounds": 150, "eta_g": 1.0}
    close(run("scaffold", EXACT, option=option, **long)[-1]["x"], optimum, 1e-6)
    close(run("scaffold", EXACT, option=option, cohort=pair, **long | {"rounds": 400})[-1]["x"], optimum, 1e-6)
    differ(run("fedavg", EXACT, **long)[-1]["x"], optimum)


def test_scaffold_absent_clients_keep_their_controls():
    before, after = run("scaffold", cohort=pair)[:2]
    assert np.array_equal(before["c_i"][1], after["c_i"][1])
    assert np.all(np.any(before["c_i"][[2, 0]] != after["c_i"][[2, 0]], axis=1))
    close(after["c"] - before["c"], (after["c_i"] - before["c_i"]).sum(axis=0) / N, 1e-13)


# FedNova.


def unrolled(tau, rho, mu, eta):
    """The weight of every gradient in (x - y)/eta, by feeding one unit gradient at a time."""
    result = []
    for k in range(tau):
        y = buf = 0.0
        for h in range(tau):
            buf = rho * buf + float(h == k) + mu * y
            y = y - eta * buf
        result.append(-y / eta)
    return result


@pytest.mark.parametrize("tau", [1, 2, 7])
@pytest.mark.parametrize(("rho", "mu"), [(0.0, 0.0), (0.9, 0.0), (0.3, 0.0), (0.0, 0.5), (0.0, 4.0)])
def test_nova_norms_are_unrolled_sums(tau, rho, mu):
    weights = unrolled(tau, rho, mu, 0.1)
    assert min(weights) > 0
    assert local.nova_norm(tau, rho, mu, 0.1) == pytest.approx(sum(weights), rel=1e-12)


@pytest.mark.parametrize("solver", [{"mu": 0.0}, {"mu": 0.0, "rho": 0.6}, {"mu": 0.5}])
def test_nova_normalises_constant_gradients(solver):
    """With g_i constant every d_i is g_i, and the step is tau_eff eta times the weighted mean gradient."""

    class Constant:
        n = N
        g = np.random.default_rng(2).normal(size=(N, D))

        def grad(self, t, i, h, x):
            return self.g[i]

    rho, mu, w = solver.get("rho", 0.0), solver["mu"], np.array(UNEQUAL["weights"]) / 8
    state = run("fednova", Constant(), rounds=1, **UNEQUAL, **solver)[0]
    tau_eff = sum(w[i] * sum(unrolled(UNEQUAL["K"][i], rho, mu, 0.1)) for i in range(N))
    close(state["x"], X0 - tau_eff * 0.1 * w @ Constant.g)
    with pytest.raises(ValueError, match="rho, mu"):
        run("fednova", rho=0.5)


# Hand-computed rounds. At x = 1 with eta_l = .1 and K = 2: y = (.81, 1.36), Delta = .085.


def test_fedavg_and_prox_rounds_by_hand():
    close(line("fedavg", K=2, eta_l=0.1)[0]["x"], [1.085], 1e-15)
    close(line("fedavg", K=2, eta_l=0.1, eta_g=2.0)[0]["x"], [1.17], 1e-15)
    close(line("fedavg", K=[1, 2], eta_l=0.1, weights=[3, 1])[0]["x"], [1 + 0.75 * -0.1 + 0.25 * 0.36], 1e-15)
    close(line("fedprox", K=2, eta_l=0.1, mu=1.0)[0]["x"], [1 + (-0.18 + 0.34) / 2], 1e-15)


def test_scaffold_rounds_by_hand():
    first, second = line("scaffold", rounds=2, K=2, eta_l=0.1)
    close(first["x"], [1.085])
    close(first["c_i"], [[0.95], [-1.8]])
    close(first["c"], [-0.425])
    x, y0, y1 = 1.085, 1.085, 1.085
    for _ in range(2):
        y0, y1 = y0 - 0.1 * (y0 - 0.95 - 0.425), y1 - 0.1 * (2 * y1 - 4 + 1.8 - 0.425)
    close(second["x"], [(y0 + y1) / 2])
    close(second["c_i"], [[0.95 + 0.425 + (x - y0) / 0.2], [-1.8 + 0.425 + (x - y1) / 0.2]])


def test_server_optimisers_by_hand():
    Delta, plain = 0.085, {"K": 2, "eta_l": 0.1, "eta_g": 0.5}
    m, v0 = 0.1 * Delta, 1e-6
    moments = {
        "fedadagrad": v0 + Delta**2,
        "fedadam": 0.99 * v0 + 0.01 * Delta**2,
        "fedyogi": v0 + 0.01 * Delta**2,
    }
    for method, v in moments.items():
        state = line(method, **plain)[0]
        close(state["v"], [v], 1e-16)
        close(state["x"], [1 + 0.5 * m / (np.sqrt(v) + 1e-3)])
    close(line("fedyogi", v0=1.0, **plain)[0]["v"], [1 - 0.01 * Delta**2], 1e-16)
    first, second = line("fedavgm", rounds=2, **plain)
    close(first["m"], [Delta])
    x = first["x"][0]
    second_delta = ((0.81 - 1) * x + (0.64 - 1) * (x - 2)) / 2
    close(second["m"], [0.9 * Delta + second_delta])
    close(second["x"], [x + 0.5 * (0.9 * Delta + second_delta)])


def test_ams_rounds_by_hand():
    Delta, plain = 0.085, {"K": 2, "eta_l": 0.1, "eta_g": 0.5, "b1": 0.8, "b2": 0.75}
    v = 0.25 * Delta**2
    paper = line("fedams", eps=1e-3, **plain)[0]
    close(paper["vmax"], [v])
    close(paper["x"], [1 + 0.5 * 0.2 * Delta / np.sqrt(v)])
    close(line("fedams", eps=1e-2, **plain)[0]["vmax"], [1e-2])
    first, second = line("fedams", rounds=2, form="code", eps=1e-2, **plain)
    close(first["vmax"], [v])
    close(first["x"], [1 + 0.5 * Delta / (Delta + 1e-2)])
    d2 = (-0.19 * first["x"] - 0.36 * (first["x"] - 2)) / 2
    v2 = 0.75 * v + 0.25 * d2**2
    m2 = 0.8 * 0.2 * Delta + 0.2 * d2
    close(second["vmax"], np.maximum(v, v2))
    root = np.sqrt(np.maximum(v, v2) / (1 - 0.75**2))
    close(second["x"], first["x"] + 0.5 * m2 / (1 - 0.8**2) / (root + 1e-2))
    close(line("fedams", form="code", **plain | {"b2": 0.99})[0]["vmax"], [1e-3])


def test_fedcams_errors_wait_for_their_client():
    before, after = run("fedcams", cohort=pair, compress=largest)[:2]
    assert np.array_equal(before["e_i"][1], after["e_i"][1])
    assert np.count_nonzero(after["e_i"][0]) == D - 1
    for i in (2, 0):
        y = before["x"]
        for h in range(3):
            y = y - 0.1 * NOISY.grad(1, i, h, y)
        v = before["e_i"][i] + y - before["x"]
        close(after["e_i"][i], v - largest(1, i, v), 1e-13)


def test_mime_momentum_round_by_hand():
    """Full batches, rho = 1/2: m = G = -.5 after round one; round two uses m/2 at both of its steps."""
    first, second = line("mimelite", rounds=2, K=2, eta_l=0.1, rho=0.5)
    close(first["m"], [(1 - 2) / 2])
    x, m = first["x"][0], -0.5
    y0 = y1 = x
    for _ in range(2):
        y0, y1 = y0 - 0.1 * (y0 + m / 2), y1 - 0.1 * (2 * y1 - 4 + m / 2)
    close(second["x"], [(y0 + y1) / 2])
    close(second["m"], [m / 2 + (3 * x - 4) / 2])
    full, (y0, y1) = line("mime", rounds=1, K=2, eta_l=0.1)[0], (1.05, 1.05)
    y0, y1 = y0 - 0.1 * (y0 - 1 - 0.5), y1 - 0.1 * (2 * y1 - 2 - 0.5)
    close(full["x"], [(y0 + y1) / 2])


@pytest.mark.parametrize("frozen", ["fedjax", "strict"])
def test_frozen_adam_step_by_hand(frozen):
    """Second round, one local step: fedjax mixes g^2 into the root of that step, strict does not."""
    hp = {"opt": "adam", "frozen": frozen, "K": 1, "eta_l": 0.1, "b1": 0.5, "b2": 0.75, "eps": 0.2}
    first, second = line("mimelite", rounds=2, **hp)
    close(first["m"], [-0.25])
    close(first["v"], [0.25 * 0.25])
    if frozen == "strict":
        close(first["x"], [1 - 0.1 * (1 - 2) / 2 / 0.2])
    else:
        close(first["x"], [1 - 0.1 * (1 / 1.2 - 2 / 2.2) / 2])
    x, ends = first["x"][0], []
    for g in (x, 2 * x - 4):
        m = (0.5 * -0.25 + 0.5 * g) / 0.75
        v = 0.0625 / 0.25 if frozen == "strict" else (0.75 * 0.0625 + 0.25 * g**2) / (1 - 0.75**2)
        ends.append(x - 0.1 * m / (np.sqrt(v) + 0.2))
    close(second["x"], [np.mean(ends)])
    close(second["v"], [0.75 * 0.0625 + 0.25 * ((3 * x - 4) / 2) ** 2])


@pytest.mark.parametrize("moments", ["reset", "average", "keep"])
def test_local_adam_by_hand(moments):
    hp = {"K": 1, "eta_l": 0.1, "b1": 0.5, "b2": 0.75, "eps": 0.2, "moments": moments}
    first, second = line("local_adam", rounds=2, **hp)
    close(first["x"], [1 - 0.1 * (1 / 1.2 - 2 / 2.2) / 2])
    m, v, count = np.array([0.5, -1.0]), np.array([0.25, 1.0]), 1
    if moments == "average":
        m, v = np.full(2, m.mean()), np.full(2, v.mean())
    if moments == "reset":
        m, v, count = np.zeros(2), np.zeros(2), 0
    close(first["m_i"][:, 0], m)
    close(first["v_i"][:, 0], v)
    g = np.array([first["x"][0], 2 * first["x"][0] - 4])
    m, v, count = 0.5 * m + 0.5 * g, 0.75 * v + 0.25 * g**2, count + 1
    step = m / (1 - 0.5**count) / (np.sqrt(v / (1 - 0.75**count)) + 0.2)
    close(second["x"], [first["x"][0] - 0.1 * step.mean()])
    if moments == "average":
        with pytest.raises(ValueError, match="equal local steps"):
            line("local_adam", **hp | {"K": [1, 2]})


def test_local_adaalter_by_hand():
    """The root keeps the B2 of the last average and adds eps^2 once per step."""
    first, second = line("local_adaalter", rounds=2, K=2, eta_l=0.1, eps=0.5, v0=1.0)
    ends, squares, x, B2 = [], [], 1.0, 1.0
    for after in (first, second):
        ends, squares = [], []
        for a, b in ((1, 0), (2, 4)):
            g0 = a * x - b
            y = x - 0.1 * g0 / np.sqrt(B2 + 0.25)
            g1 = a * y - b
            ends.append(y - 0.1 * g1 / np.sqrt(B2 + 0.5))
            squares.append(B2 + g0**2 + g1**2)
        x, B2 = np.mean(ends), np.mean(squares)
        close(after["x"], [x])
        close(after["B2"], [B2])


# Cohorts, states.


@pytest.mark.parametrize("method", local.ROUNDS)
def test_cohorts_and_weights(method):
    """A cohort is the problem of its members alone; scaffold, whose c also counts the others, divides by N there."""
    members, weights = [2, 0], [1.0, 2.0, 5.0]

    class Members(Quadratics):
        n = 2

        def __init__(self):
            super().__init__(sigma=0.3)
            self.n = 2

        def grad(self, t, i, h, x):
            return super().grad(t, members[i], h, x)

    some = run(method, cohort=lambda t: members, compress=largest, mu=0.0, weights=weights, rounds=3)
    alone = run(method, Members(), compress=largest, mu=0.0, weights=[5.0, 1.0], rounds=3)
    if method == "scaffold":
        close(some[0]["x"], alone[0]["x"])
        close(some[0]["c"] * N, alone[0]["c"] * 2)
        return
    same(some, alone)
    differ(some[-1]["x"], run(method, compress=largest, mu=0.0, rounds=3)[-1]["x"])


@pytest.mark.parametrize("method", local.ROUNDS)
def test_a_state_can_be_continued(method):
    changes = {"cohort": pair, "compress": largest, "mu": 0.0, "opt": "adam", "moments": "keep"}
    whole = run(method, **changes)
    last = run(method, rounds=2, state=run(method, rounds=2, **changes)[-1], **changes)[-1]
    assert all(np.array_equal(last[key], whole[-1][key]) for key in whole[-1])
    assert whole[-1].keys() == local.init(method, N, local.DEFAULTS | HP | {"opt": "adam"}, X0).keys()


def test_bad_options():
    with pytest.raises(ValueError, match="method: expected one of"):
        run("fedsgd")
    with pytest.raises(ValueError, match="form: expected one of"):
        run("fedams", form="book")
