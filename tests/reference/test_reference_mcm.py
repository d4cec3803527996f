"""The MCM reference: identities between methods, fixed points, memories, participation, bits."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from . import compressors, mcm

N, D = 4, 5
SIZES = (6, 9, 7, 12)
MEMORY_METHODS = [m for m in mcm.METHODS if m not in mcm.MEMORYLESS]
STATIONARY = [m for m in MEMORY_METHODS if m != "mc"]


class LeastSquares:
    """F_i(x) = |X_i x - y_i|^2/n_i, every client with its own minimiser; `batch` lists rows."""

    def __init__(self, n=N, seed=0):
        rng, self.n, self.clients = np.random.default_rng(seed), n, []
        for m in SIZES[:n]:
            X = rng.normal(size=(m, D))
            self.clients.append((X, X @ rng.normal(size=D) + 0.3 * rng.normal(size=m)))

    def grad(self, t, i, x, batch=None):
        X, y = self.clients[i]
        X, y = (X, y) if batch is None else (X[batch], y[batch])
        return 2.0 * X.T @ (X @ x - y) / len(y)

    def optimum(self):
        hessian = sum(X.T @ X / len(y) for X, y in self.clients)
        return np.linalg.solve(hessian, sum(X.T @ y / len(y) for X, y in self.clients))


PROBLEM = LeastSquares()
X_STAR = PROBLEM.optimum()
L = np.mean(mcm.frobenius_smoothness("lsr", PROBLEM.clients))
ALPHA = mcm.alpha_repo(compressors.omega_qsgd(D, 1))
HP = {"gamma": 0.5 / L, "alpha_up": ALPHA, "alpha_dwn": 0.7 * ALPHA, "c_ef": 0.3, "smart": True, "groups": 2}
X0 = np.array([0.5, -1.0, 2.0, 0.1, -0.3])
ZERO = np.zeros(D)


def quantize(s, direction):
    """C_s whose uniforms depend on (t, key) alone, so that two runs meet the same ones."""

    def compress(t, key, v):
        u = np.random.default_rng([direction, t, key]).random(len(v))
        return mcm.quantizer(v, u, s)

    return compress


UP, DOWN, EXACT = quantize(1, 0), quantize(1, 1), quantize(0, 0)


def batch(t, i):
    return np.random.default_rng([2, t, i]).permutation(SIZES[i])[:3]


def half(t):
    """S_t: two of the four clients."""
    return np.random.default_rng([3, t]).permutation(N) < 2


def run(method, x0=X0, steps=7, up=UP, down=DOWN, problem=PROBLEM, active=None, **changes):
    return mcm.run(method, problem, HP | changes, x0, steps, up, down, batch, active)


def assert_same(left, right, tol, keys=("w", "what", "point")):
    for a, b in zip(left, right, strict=True):
        for key in keys:
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=tol, err_msg=key)


def assert_differ(left, right):
    assert np.max(np.abs(left[-1]["w"] - right[-1]["w"])) > 1e-6


# Quantizer and constants.


def outcomes(x, s):
    """Every outcome of the quantizer itself, reached by uniforms on both sides of the rounding points."""
    f = np.modf(s * np.abs(x) / np.linalg.norm(x))[0]
    result = []
    for ups in product([False, True], repeat=len(x)):
        chosen = np.array(ups)
        u = np.where(chosen, 1 - f / 2, (1 - f) / 2)
        result.append((mcm.quantizer(x, u, s), np.prod(np.where(chosen, f, 1 - f))))
    return result


@pytest.mark.parametrize("s", [1, 2, 5])
@pytest.mark.parametrize("x", [X0, np.array([3.0, 0.0, -0.1]), np.ones(4)])
def test_quantizer_is_unbiased_with_the_exact_variance(s, x):
    possible = [(value, q) for value, q in outcomes(x, s) if q > 0]
    mean = sum(q * value for value, q in possible)
    variance = sum(q * np.sum((value - x) ** 2) for value, q in possible)
    assert sum(q for _, q in possible) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(mean, x, rtol=0, atol=1e-12)
    assert variance == pytest.approx(mcm.quantizer_variance(x, s), abs=1e-12)
    assert variance <= compressors.omega_qsgd(len(x), s) * np.sum(x**2) + 1e-12
    if s == 1:
        l1, l2 = np.sum(np.abs(x)), np.linalg.norm(x)
        assert variance == pytest.approx(l1 * l2 - l2**2, abs=1e-12)


def test_quantizer_edges():
    assert np.array_equal(mcm.quantizer(ZERO, np.full(D, 0.9), 1), ZERO)
    assert np.array_equal(mcm.quantizer(X0, np.full(D, 0.9), 0), X0)
    single = np.array([0.0, -3.0, 0.0])
    assert np.array_equal(mcm.quantizer(single, np.array([0.0, 0.5, 0.999]), 2), single)
    assert mcm.quantizer_variance(single, 2) == 0.0


BITS = [  # d, repository formula, QSGD formula, uncompressed, all for 20 workers at s = 1
    (2, "229.8", "880.0", "1280"),
    (20, "1035.7", "1451.0", "12800"),
    (66, "2238.4", "2248.5", "42240"),
    (69, "2302.7", "2290.4", "44160"),
    (82, "2569.5", "2463.6", "52480"),
    (124, "3336.3", "2957.1", "79360"),
    (301, "5802.1", "4515.8", "192640"),
]


@pytest.mark.parametrize(("d", "repo", "qsgd", "plain"), BITS)
def test_bits_table(d, repo, qsgd, plain):
    assert f"{mcm.bits_repo(1, d, 20):.1f}" == repo
    assert f"{20 * mcm.qsgd_bits(1, d):.1f}" == qsgd
    assert f"{mcm.bits_repo(0, d, 20):.0f}" == f"{20 * mcm.qsgd_bits(0, d):.0f}" == plain


def test_constants():
    assert mcm.alpha_repo(3.0) == 1 / 8
    assert mcm.alpha_repo(3.0, c=0.5) == 1 / 2
    X = np.array([[1.0, 2.0], [0.0, 1.0]])  # X^T X = [[1, 2], [2, 5]], Frobenius norm sqrt(34)
    clients = [(X, None), (np.array([[3.0, 4.0]]), None)]
    np.testing.assert_allclose(mcm.frobenius_smoothness("lsr", clients), [34**0.5, 50], rtol=1e-15)
    np.testing.assert_allclose(mcm.frobenius_smoothness("logistic", clients), [34**0.5 / 8, 25 / 4], rtol=1e-15)


# Identities between methods.


@pytest.mark.parametrize("method", mcm.METHODS)
def test_without_compression_every_method_is_sgd(method):
    assert_same(run(method, up=EXACT, down=EXACT), run("sgd"), 1e-12)
    if method != "sgd":
        assert_differ(run(method), run("sgd"))


@pytest.mark.parametrize("method", [m for m in MEMORY_METHODS if m != "diana"])
def test_without_downlink_compression_memory_methods_are_diana(method):
    assert_same(run(method, down=EXACT), run("diana"), 1e-12, keys=("w", "what", "h_i", "h"))
    assert_differ(run(method), run("diana"))


def test_without_downlink_compression_biqsgd_is_qsgd():
    assert_same(run("biqsgd", down=EXACT), run("qsgd"), 1e-12)


@pytest.mark.parametrize(("with_memory", "without"), [("diana", "qsgd"), ("artemis", "biqsgd")])
def test_alpha_up_zero_removes_the_memory(with_memory, without):
    assert_same(run(with_memory, alpha_up=0.0, smart=False), run(without), 1e-12)
    assert_differ(run(with_memory, smart=False), run(without))


def test_dore_without_error_feedback_is_artemis():
    assert_same(run("dore", c_ef=0.0), run("artemis"), 0.0)
    assert_differ(run("dore"), run("artemis"))


def test_double_squeeze_without_error_feedback_is_biqsgd():
    assert_same(run("double_squeeze", c_ef=0.0), run("biqsgd"), 0.0)
    assert_differ(run("double_squeeze"), run("biqsgd"))


def test_mc_is_mcm_with_alpha_dwn_zero_from_zero():
    assert_same(run("mcm", x0=ZERO, alpha_dwn=0.0), run("mc", x0=ZERO), 0.0)
    assert_differ(run("mcm", x0=ZERO), run("mc", x0=ZERO))


@pytest.mark.parametrize("participation", [{}, {"active": half, "pp": 0.5}])
def test_groups_reach_from_mcm_to_rand_mcm(participation):
    keys = ("w", "what", "h_i", "H")
    assert_same(run("rand_mcm_g", groups=1, **participation), run("mcm", **participation), 0.0, keys)
    assert_same(run("rand_mcm_g", groups=N, **participation), run("rand_mcm", **participation), 0.0, keys)
    assert_differ(run("rand_mcm_g", **participation), run("mcm", **participation))
    assert_differ(run("rand_mcm_g", **participation), run("rand_mcm", **participation))


def test_groups_share_rows():
    last = run("rand_mcm_g")[-1]
    for key in ("what", "H"):
        assert np.array_equal(last[key][0], last[key][1])
        assert np.array_equal(last[key][2], last[key][3])
        assert not np.allclose(last[key][1], last[key][2])


@pytest.mark.parametrize("method", ["rand_mcm", "rand_mcm_1mem", "rand_mcm_reset"])
def test_one_client_makes_rand_mcm_and_mcm_equal(method):
    alone = LeastSquares(n=1)
    assert_same(run(method, problem=alone), run("mcm", problem=alone), 0.0, keys=("w", "what", "h", "H"))


# Order of the updates.


def test_mcm_round_by_hand():
    """Gradients at what_i, the old h_i in ghat, the old H in Om and in what."""
    before, after = run("mcm")[4:6]
    q = [UP(5, i, PROBLEM.grad(5, i, before["what"][i], batch(5, i)) - before["h_i"][i]) for i in range(N)]
    w = before["w"] - HP["gamma"] * (before["h"] + sum(q) / N)
    Om = DOWN(5, 0, w - before["H"][0])
    np.testing.assert_allclose(after["w"], w, atol=1e-13)
    np.testing.assert_allclose(after["h_i"], before["h_i"] + ALPHA * np.array(q), atol=1e-13)
    np.testing.assert_allclose(after["what"], [before["H"][0] + Om] * N, atol=1e-13)
    np.testing.assert_allclose(after["H"], [before["H"][0] + HP["alpha_dwn"] * Om] * N, atol=1e-13)


def test_dore_and_double_squeeze_rounds_by_hand():
    for method in ("dore", "double_squeeze"):
        before, after = run(method)[4:6]
        g = [PROBLEM.grad(5, i, before["w"], batch(5, i)) for i in range(N)]
        if method == "dore":
            ghat = before["h"] + sum(UP(5, i, g[i] - before["h_i"][i]) for i in range(N)) / N
        else:
            v_i = [g[i] + 0.3 * before["e_i"][i] for i in range(N)]
            ghat = sum(UP(5, i, v_i[i]) for i in range(N)) / N
            np.testing.assert_allclose(after["e_i"], [v_i[i] - UP(5, i, v_i[i]) for i in range(N)], atol=1e-13)
        v = ghat + 0.3 * before["e"]
        np.testing.assert_allclose(after["e"], v - DOWN(5, 0, v), atol=1e-13)
        np.testing.assert_allclose(after["w"], before["w"] - HP["gamma"] * DOWN(5, 0, v), atol=1e-13)


def test_ghost_and_artemis_nd_rounds_by_hand():
    for method, base in (("ghost", "w"), ("artemis_nd", "what")):
        before, after = run(method)[4:6]
        ghat = (before["w"] - after["w"]) / HP["gamma"]
        start = before["w"] if base == "w" else before["what"][0]
        expected = start - HP["gamma"] * DOWN(5, 0, ghat)
        np.testing.assert_allclose(after["what"], [expected] * N, atol=1e-12)


@pytest.mark.parametrize("method", ["rand_mcm_1mem", "rand_mcm_reset"])
def test_worker_copies_drift_until_they_are_reset(method):
    states = run(method, steps=10)
    for t in range(1, 10):
        before, after = states[t - 1], states[t]
        Om = np.array([DOWN(t, i, after["w"] - before["H_server"]) for i in range(N)])
        reset = method == "rand_mcm_reset" and t in (4, 8)
        start = np.array([before["H_server"]] * N) if reset else before["H"]
        assert np.max(np.abs(before["H"] - before["H_server"])) > 1e-3
        np.testing.assert_allclose(after["what"], start + Om, atol=1e-13)
        np.testing.assert_allclose(after["H"], start + HP["alpha_dwn"] * Om, atol=1e-13)
        np.testing.assert_allclose(
            after["H_server"], before["H_server"] + HP["alpha_dwn"] * Om.mean(axis=0), atol=1e-13
        )


@pytest.mark.parametrize("method", MEMORY_METHODS)
def test_smart_initialisation_makes_the_first_uplink_exact(method):
    sent = []

    def up(t, i, v):
        sent.append(UP(t, i, v))
        return sent[-1]

    first = run(method, x0=ZERO, steps=1, up=up, down=EXACT, gamma=1.0)[0]
    g = [PROBLEM.grad(0, i, ZERO, batch(0, i)) for i in range(N)]
    assert len(sent) == N
    assert not np.any(sent)
    assert np.array_equal(first["w"], -(((g[0] + g[1]) + g[2]) + g[3]) / N)
    assert np.array_equal(first["h_i"], g)
    sent.clear()
    run(method, x0=ZERO, steps=1, up=up, smart=False)
    assert np.any(sent)


# Fixed points and convergence, full batch.


def at_the_optimum(method):
    h_i = np.array([PROBLEM.grad(0, i, X_STAR) for i in range(N)])
    assert np.min(np.linalg.norm(h_i, axis=1)) > 0.1
    state = mcm.init(method, N, HP, X_STAR)
    return state | ({"h_i": h_i, "h": h_i.mean(axis=0)} if "h_i" in state else {}) | {"t": 1}


@pytest.mark.parametrize("method", mcm.METHODS)
def test_optimum_is_stationary_exactly_for_the_memory_methods(method):
    start = at_the_optimum(method)
    last = mcm.run(method, PROBLEM, HP, X_STAR, 6, UP, DOWN, state=start)[-1]
    moved = max(np.max(np.abs(last[key] - start[key])) for key in start if key != "t")
    if method in [*STATIONARY, "sgd"]:
        assert moved <= 1e-13
    else:
        assert moved > 1e-3


@pytest.mark.parametrize("method", ["diana", "artemis", "dore", "mcm", "rand_mcm", "rand_mcm_g", "ghost"])
def test_memory_methods_converge_on_heterogeneous_clients(method):
    hp = HP | {"c_ef": HP["gamma"]}
    last = mcm.run(method, PROBLEM, hp, ZERO, 600, UP, DOWN)[-1]
    assert np.linalg.norm(last["w"] - X_STAR) < 1e-7


@pytest.mark.parametrize("method", ["qsgd", "biqsgd", "double_squeeze"])
def test_methods_without_memory_saturate(method):
    last = mcm.run(method, PROBLEM, HP | {"c_ef": HP["gamma"]}, ZERO, 400, UP, DOWN)[-1]
    assert 1e-3 < np.linalg.norm(last["w"] - X_STAR) < 10


# Partial participation.


@pytest.mark.parametrize("memories", ["all", "one"])
@pytest.mark.parametrize("method", mcm.METHODS)
def test_probability_one_is_full_participation_without_smart_initialisation(method, memories):
    everyone = run(method, active=lambda t: np.ones(N, bool), pp=1.0, memories=memories)
    plain = run(method, smart=False)
    keys = [key for key in everyone[0] if key != "t"]
    assert_same(everyone, plain, 1e-12, keys)
    if method in MEMORY_METHODS:
        assert_differ(everyone, run(method))


@pytest.mark.parametrize("memories", ["all", "one"])
def test_estimate_is_unbiased_over_the_active_set(memories):
    """E over all 2^N sets, the empty one included, with the quantizer's draws held fixed."""
    pp, rng = 0.3, np.random.default_rng(4)
    h_i = rng.normal(size=(N, D))
    start = mcm.init("diana", N, HP, X0) | {"h_i": h_i, "h": h_i.mean(axis=0), "t": 1}
    full = mcm.run("diana", PROBLEM, HP, X0, 1, UP, DOWN, batch, state=start)[0]
    mean, mean_h = 0.0, 0.0
    for members in product([False, True], repeat=N):
        hp = HP | {"pp": pp, "memories": memories}
        state = mcm.run("diana", PROBLEM, hp, X0, 1, UP, DOWN, batch, lambda t, s=members: s, start)[0]
        probability = pp ** sum(members) * (1 - pp) ** (N - sum(members))
        mean, mean_h = mean + probability * state["w"], mean_h + probability * state["h"]
    np.testing.assert_allclose(mean, full["w"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(mean_h, full["h"] if memories == "one" else start["h"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", mcm.METHODS)
def test_inactive_clients_neither_send_nor_move_nor_receive(method):
    senders = []

    def up(t, i, v):
        senders.append((t, i))
        return UP(t, i, v)

    states = run(method, up=up, active=half, pp=0.5)
    if method != "sgd":
        assert sorted(senders) == [(t, i) for t in range(7) for i in range(N) if half(t)[i]]
    masks = {"h_i": half, "e_i": half}
    if method in ("rand_mcm", "rand_mcm_1mem", "rand_mcm_reset"):
        masks |= {"what": lambda t: half(t + 1), "H": lambda t: half(t + 1)}
    for key in masks.keys() & states[0].keys():
        moves = []
        for t in range(1, 7):
            inactive = np.logical_not(masks[key](t))
            assert np.array_equal(states[t][key][inactive], states[t - 1][key][inactive])
            moves.append(np.any(states[t][key] != states[t - 1][key], axis=1))
        assert np.all(np.any(moves, axis=0))
    if method == "mcm":
        assert all(np.any(a["H"] != b["H"]) and np.all(b["H"] == b["H"][0]) for a, b in pairwise(states))


def test_a_group_moves_as_a_whole_if_any_member_is_active():
    states = run("rand_mcm_g", active=lambda t: np.arange(N) == t % N, pp=0.25)
    for t in range(1, 7):
        old, new, g = states[t - 1], states[t], (t + 1) % N // 2
        moved, still = [2 * g, 2 * g + 1], [2 - 2 * g, 3 - 2 * g]
        Om = DOWN(t, g, new["w"] - old["H"][2 * g])
        np.testing.assert_allclose(new["what"][moved], old["H"][moved] + Om, atol=1e-13)
        np.testing.assert_allclose(new["H"][moved], old["H"][moved] + HP["alpha_dwn"] * Om, atol=1e-13)
        for key in ("what", "H"):
            assert np.array_equal(new[key][still], old[key][still])


def test_one_server_memory_moves_by_the_active_messages():
    before, after = run("rand_mcm_1mem", active=half, pp=0.4)[4:6]
    Om = [DOWN(5, i, after["w"] - before["H_server"]) for i in np.flatnonzero(half(6))]
    np.testing.assert_allclose(after["H_server"], before["H_server"] + HP["alpha_dwn"] * sum(Om) / 1.6, atol=1e-13)


@pytest.mark.parametrize("method", mcm.METHODS)
def test_nobody_may_be_active(method):
    """Empty sets are left out by the redraw; here MCM still broadcasts and nothing of a client moves."""
    start = run(method)[-1]
    hp = HP | {"pp": 0.5}
    last = mcm.run(method, PROBLEM, hp, X0, 1, UP, DOWN, batch, lambda t: np.zeros(N, bool), start)[0]
    assert all(np.array_equal(last[key], start[key]) for key in {"h_i", "e_i"} & start.keys())
    if method not in ("dore", "double_squeeze"):
        np.testing.assert_array_equal(last["w"], start["w"])
    if method in mcm.MODEL:
        assert np.array_equal(last["H"], start["H"]) == (method != "mcm")


def test_single_server_memory_by_hand():
    """PP2: ghat = h + sum q_i/(pp N), h moves by alpha_up times the same sum."""
    before, after = run("diana", active=half, pp=0.4, memories="one")[4:6]
    members = np.flatnonzero(half(5))
    q = [UP(5, i, PROBLEM.grad(5, i, before["w"], batch(5, i)) - before["h_i"][i]) for i in members]
    np.testing.assert_allclose(after["h"], before["h"] + ALPHA * sum(q) / 1.6, atol=1e-13)
    np.testing.assert_allclose(after["w"], before["w"] - HP["gamma"] * (before["h"] + sum(q) / 1.6), atol=1e-13)
    assert np.max(np.abs(after["h"] - after["h_i"].mean(axis=0))) > 1e-3


# Step sizes, averages, batches, states.


def test_gamma_may_depend_on_the_round():
    def gamma(t):
        return 0.2 / np.sqrt(t + 1)

    states = run("sgd", gamma=gamma)
    for t in range(1, 7):
        g = [PROBLEM.grad(t, i, states[t - 1]["w"], batch(t, i)) for i in range(N)]
        np.testing.assert_allclose(states[t]["w"], states[t - 1]["w"] - gamma(t) * sum(g) / N, atol=1e-13)


def test_averages():
    plain = [state["w"] for state in run("mcm")]
    every = run("mcm", average_every=1)
    np.testing.assert_allclose(every[-1]["point"], np.mean([X0, *plain], axis=0), atol=1e-13)
    third = run("mcm", average_every=3)
    after_three = X0 * 3 / 4 + plain[2] / 4
    expected = [X0, X0, *[after_three] * 3, *[after_three * 6 / 7 + plain[5] / 7] * 2]
    np.testing.assert_allclose([state["point"] for state in third], expected, atol=1e-13)
    assert all(np.array_equal(state["w"], w) for state, w in zip(third, plain, strict=True))


def test_batches_may_be_closed_over():
    class Closed(LeastSquares):
        def grad(self, t, i, x):
            return super().grad(t, i, x, batch(t, i))

    closed = mcm.run("mcm", Closed(), HP, X0, 7, UP, DOWN)
    assert_same(closed, run("mcm"), 0.0)
    assert_differ(closed, mcm.run("mcm", PROBLEM, HP, X0, 7, UP, DOWN))


@pytest.mark.parametrize("method", mcm.METHODS)
def test_a_state_can_be_continued(method):
    whole = run(method, average_every=2)
    hp = HP | {"average_every": 2}
    first = mcm.run(method, PROBLEM, hp, X0, 3, UP, DOWN, batch)
    rest = mcm.run(method, PROBLEM, hp, X0, 4, UP, DOWN, batch, state=first[-1])
    assert_same(first + rest, whole, 0.0, [key for key in whole[0] if key != "t"])


def test_states_hold_what_the_method_has():
    extra = {m: set(run(m, steps=1)[0]) - {"t", "w", "what", "point"} for m in mcm.METHODS}
    assert extra["sgd"] == extra["qsgd"] == extra["biqsgd"] == set()
    assert extra["diana"] == extra["artemis"] == extra["ghost"] == extra["mc"] == extra["artemis_nd"] == {"h_i", "h"}
    assert extra["mcm"] == extra["rand_mcm"] == extra["rand_mcm_g"] == {"h_i", "h", "H"}
    assert extra["rand_mcm_1mem"] == extra["rand_mcm_reset"] == {"h_i", "h", "H", "H_server"}
    assert extra["dore"] == {"h_i", "h", "e"}
    assert extra["double_squeeze"] == {"e", "e_i"}
    with pytest.raises(ValueError, match="method: expected one of"):
        run("mcmm")
