"""The references of the error-feedback family: identities, hand-computed iterations, bits."""

from __future__ import annotations

import numpy as np
import pytest

from . import compressors, diana, feedback

N, D = 4, 6
RNG = np.random.default_rng(0)
CLIENTS = [(RNG.normal(size=(m, D)), 2.0 * RNG.normal(size=m)) for m in (7, 9, 8, 12)]
X0 = RNG.normal(size=D)
L_MAX = max(np.linalg.norm(A, 2) ** 2 / len(A) for A, _ in CLIENTS)
HP = {"gamma": 0.15 / L_MAX, "p": 3, "H": 3, "R": 2, "alpha": 0.4, "beta": 1.0, "eta": 1.0}
STEPS = 11
CHOICES = ["sign", "block_sign", "top_2", "keep_2", "qsgd"]
PAIRS = list(zip(CHOICES, ["keep_2", "qsgd", "top_2", "sign", "block_sign"], strict=True))
COMMON = ("sgd", "mem_sgd", "double_squeeze", "neolithic", "dore")


def exact(t, i, x):
    """The gradient of |A_i x - b_i|^2/(2 m_i)."""
    A, b = CLIENTS[i]
    return A.T @ (A @ x - b) / len(b)


def noisy(t, i, x, r=0):
    """Half the rows, drawn anew for every (t, i, r); t = -1 is a batch too."""
    A, b = CLIENTS[i]
    batch = np.random.default_rng([t + 1, i, r]).permutation(len(b))[: len(b) // 2]
    return A[batch].T @ (A[batch] @ x - b[batch]) / len(batch)


def keep_2(v, rng):
    return compressors.rand_k_unscaled(v, rng.permutation(len(v)) < 2)


TABLE = {
    "identity": lambda v, rng: v,
    "zero": lambda v, rng: 0.0 * v,
    "half": lambda v, rng: 0.5 * v,
    "sign": lambda v, rng: compressors.scaled_sign(v),
    "block_sign": lambda v, rng: compressors.block_sign(v, 4),
    "top_2": lambda v, rng: compressors.top_k(v, 2),
    "keep_2": keep_2,
    "qsgd": lambda v, rng: compressors.qsgd(v, rng.random(len(v)), 2),
}


def compress(up, down="identity", reset="identity"):
    """C by slot; its randomness depends on (t, i, slot) alone, so that two runs meet the same."""
    names = {"up": up, "down": down, "reset": reset}

    def call(t, i, slot, v):
        rng = np.random.default_rng([7, t + 1, i, *slot.encode()])
        return TABLE[names[slot.rstrip("0123456789")]](v, rng)

    return call


def run(method, up="identity", down="identity", reset="identity", steps=STEPS, grad=noisy, **changes):
    C = compress(up, down, reset)
    return feedback.run(method, grad, C, N, HP | changes, X0, steps)


def close(left, right, tol=1e-12):
    """Relative to the largest entry on the right."""
    np.testing.assert_allclose(left, right, rtol=0, atol=tol * max(1.0, np.max(np.abs(right))))


def same(left, right, key="x", tol=1e-12):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        close(a[key], b[key], tol)


def differ(left, right):
    assert np.max(np.abs(left[-1]["x"] - right[-1]["x"])) > 1e-6


def mean_gradient(t, models):
    return np.mean([noisy(t, i, x) for i, x in enumerate(models)], axis=0)


def models_before(states, t):
    """(n, d), the models at which the gradients of iteration t were taken."""
    if t == 0:
        return feedback.rows(X0, N)
    return states[t - 1].get("x_i", feedback.rows(states[t - 1]["x"], N))


def local_sgd(period, steps=STEPS):
    """The mean model after every iteration; the models are averaged after `period` steps."""
    y, result = [X0] * N, []
    for t in range(steps):
        y = [y[i] - HP["gamma"] * noisy(t, i, y[i]) for i in range(N)]
        y = [np.mean(y, axis=0)] * N if (t + 1) % period == 0 else y
        result.append({"x": np.mean(y, axis=0), "x_i": np.array(y)})
    return result


# Identities of LIEC-SGD, I1 to I6.


@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_liec_synchronising_always_is_sgd(up, down):
    same(run("liec_sgd", up, down, p=1), run("sgd"))
    differ(run("liec_sgd", up, down), run("sgd"))


@pytest.mark.parametrize("p", [1, 2, 3, 20])
def test_liec_without_compression_is_sgd(p):
    states = run("liec_sgd", p=p)
    same(states, run("sgd"))
    for state in states:
        close(state["x_i"], feedback.rows(state["x"], N))


@pytest.mark.parametrize("down", CHOICES)
@pytest.mark.parametrize("p", [2, 3])
def test_liec_that_sends_nothing_is_local_sgd(down, p):
    states = run("liec_sgd", "zero", down, p=p)
    same(states, local_sgd(p), "x_i")
    same(states, local_sgd(p))
    differ(states, run("sgd"))


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_liec_with_an_exact_downlink_is_cser_with_an_exact_reset(up, p):
    left, right = run("liec_sgd", up, p=p), run("cser", up, H=p)
    same(left, right, "x_i")
    same(left, right)
    if p > 1:
        assert np.ptp(left[0]["x_i"], axis=0).max() > 1e-3
        differ(left, run("cser", up, reset="top_2", H=p))


@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_liec_virtual_iterate_follows_the_mean_gradient(up, down):
    states, y = run("liec_sgd", up, down), X0
    for t, state in enumerate(states):
        y = y - HP["gamma"] * mean_gradient(t, models_before(states, t))
        close(state["x"] - HP["gamma"] * state["error"], y)
    assert np.any(states[-1]["e"])


@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_liec_models_differ_by_the_residuals_since_the_last_sync(up, down):
    states, C, drift = run("liec_sgd", up, down), compress(up, down), np.zeros((N, D))
    for t, state in enumerate(states):
        g = [noisy(t, i, x) for i, x in enumerate(models_before(states, t))]
        r = np.array([g[i] - C(t, i, "up", g[i]) for i in range(N)])
        drift = 0.0 * drift if (t + 1) % HP["p"] == 0 else drift + r - r.mean(axis=0)
        close(state["x_i"] - state["x"], -HP["gamma"] * drift)
        if (t + 1) % HP["p"] == 0:
            assert not np.any(state["e"])
            assert np.ptp(state["x_i"], axis=0).max() == 0.0


def test_a_new_step_size_moves_the_virtual_iterate():
    """By (gamma_old - gamma_new) e."""
    gammas = [HP["gamma"], HP["gamma"] / 10]
    first, second = run("liec_sgd", "sign", "top_2", steps=2, gamma=lambda t: gammas[t])
    before = first["x"] - gammas[0] * first["e"]
    expected = before + (gammas[0] - gammas[1]) * first["e"] - gammas[1] * mean_gradient(1, first["x_i"])
    close(second["x"] - gammas[1] * second["e"], expected)


# Identities between the methods, J1 to J3, J5, J6.


@pytest.mark.parametrize("method", ["mem_sgd", "double_squeeze", "neolithic"])
@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_virtual_iterate_follows_sgd(method, up, down):
    states, y = run(method, up, down), X0
    for t, state in enumerate(states):
        y = y - HP["gamma"] * mean_gradient(t, models_before(states, t))
        owed = np.mean(state["e_i"], axis=0) + (0.0 if method == "mem_sgd" else state["e"])
        close(state["x"] - HP["gamma"] * owed, y)
        close(state["error"], owed)
    assert np.any(states[-1]["error"])


@pytest.mark.parametrize("up", CHOICES)
def test_double_squeeze_with_an_exact_downlink_is_mem_sgd(up):
    left = run("double_squeeze", up)
    same(left, run("mem_sgd", up))
    same(left, run("mem_sgd", up), "e_i")
    differ(left, run("double_squeeze", up, "block_sign"))


@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_neolithic_with_one_round_is_double_squeeze(up, down):
    same(run("neolithic", up, down, R=1), run("double_squeeze", up, down), tol=0.0)
    differ(run("neolithic", up, down, R=2), run("double_squeeze", up, down))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_of_the_same_compressor_contract_as_their_power(rounds):
    """C(z) = z/2 leaves 2^-R, so that one message of 1 - 2^-R would have done; random rounds are distinct."""
    state = run("neolithic", "half", "half", steps=1, R=rounds)[0]
    g = [noisy(0, i, X0) for i in range(N)]
    close(state["e_i"], [2.0**-rounds * v for v in g])
    close(state["e"], 2.0**-rounds * (1.0 - 2.0**-rounds) * np.mean(g, axis=0))
    calls = []
    C = compress("half", "half")
    feedback.run("neolithic", noisy, lambda *call: calls.append(call[:3]) or C(*call), N, HP, X0, 1)
    assert sorted(calls) == sorted(
        [(0, i, s) for i in range(N) for s in ("up", "up1")] + [(0, 0, "down"), (0, 0, "down1")]
    )


@pytest.mark.parametrize("rounds", [1, 3])
def test_accumulated_gradients_are_means_of_draws(rounds):
    def averaged(t, i, x):
        return np.mean([noisy(t, i, x, r) for r in range(rounds)], axis=0)

    left = run("neolithic", "sign", "top_2", R=rounds, accumulate=True)
    same(left, run("neolithic", "sign", "top_2", R=rounds, grad=averaged))
    if rounds > 1:
        differ(left, run("neolithic", "sign", "top_2", R=rounds))


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("reset", ["sign", "keep_2", "zero"])
def test_cser_models_and_errors_share_one_part(up, reset):
    """x_i - e_i of the paper, with e_i = -gamma E_i; the mean model follows the mean gradient."""
    states, x = run("cser", up, reset=reset, H=2), X0
    for t, state in enumerate(states):
        common = state["x_i"] + HP["gamma"] * state["e_i"]
        close(common, feedback.rows(common[0], N))
        x = x - HP["gamma"] * mean_gradient(t, models_before(states, t))
        close(state["x"], x)
        close(state["error"], np.mean(state["e_i"], axis=0))


@pytest.mark.parametrize("period", [1, 2, 3])
def test_cser_that_sends_nothing_is_local_sgd(period):
    states = run("cser", "zero", H=period)
    same(states, local_sgd(period), "x_i")
    if period > 1:
        differ(states, run("cser", "sign", H=period))


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_dore_with_an_exact_downlink_is_diana(up, eta):
    hp, C = {"gamma": HP["gamma"], "alpha": HP["alpha"]}, compress(up)
    expected = diana.run(lambda i, x: exact(0, i, x), N, hp, X0, STEPS, lambda t, i, slot, v: C(t, i, "up", v))
    states = run("dore", up, grad=exact, eta=eta)
    same(states, expected)
    for a, b in zip(states, expected, strict=True):
        close(a["h_i"], b["H"])
        close(a["h"], b["h"])


@pytest.mark.parametrize(("up", "down"), PAIRS)
def test_dore_server_memory_is_the_mean_and_its_error_is_kept(up, down):
    """With beta = eta = 1, xh + e follows the estimated gradient."""
    states, C = run("dore", up, down), compress(up, down)
    h_i, h, y = np.zeros((N, D)), np.zeros(D), X0
    for t, state in enumerate(states):
        close(state["h"], np.mean(state["h_i"], axis=0))
        x = models_before(states, t)[0]
        y = y - HP["gamma"] * (h + np.mean([C(t, i, "up", noisy(t, i, x) - h_i[i]) for i in range(N)], axis=0))
        close(state["x"] + state["e"], y)
        h_i, h = state["h_i"], state["h"]
    assert np.any(states[-1]["e"])


@pytest.mark.parametrize("method", list(feedback.METHODS))
def test_without_compression_every_method_is_sgd(method):
    x = X0
    for t, state in enumerate(run(method)):
        x = x - HP["gamma"] * np.mean([noisy(t, i, x) for i in range(N)], axis=0)
        close(state["x"], x)
        assert np.array_equal(state["point"], state["x"])


# Hand-computed: two clients in one dimension, gradients x and 2 x - 4, C(z) = z/2 in every slot.


def line(t, i, x):
    return (1.0, 2.0)[i] * x - (0.0, 4.0)[i]


def by_hand(method, steps=2, **changes):
    hp = {"gamma": 0.5} | changes
    return feedback.run(method, line, compress("half", "half", "half"), 2, hp, [1.0], steps)


def test_liec_with_momentum_and_weight_decay_by_hand():
    first, second = by_hand("liec_sgd", p=2, mom=0.5, wd=0.5)
    assert first["e"] == [-0.125]
    assert first["x_i"].ravel().tolist() == [0.5625, 1.3125]
    assert first["buf_i"].ravel().tolist() == [0.875, -0.625]
    assert first["x"] == [0.9375]
    assert second["e"] == [0.0]
    assert second["buf_i"].ravel().tolist() == [0.375, -0.375]
    assert second["x_i"].ravel().tolist() == [0.75, 1.125]


def test_cser_by_hand():
    first, second = by_hand("cser", H=2)
    assert first["x_i"].ravel().tolist() == [0.875, 1.625]
    assert first["e_i"].ravel().tolist() == [0.5, -1.0]
    assert second["x_i"].ravel().tolist() == [0.9296875, 1.5078125]
    assert second["e_i"].ravel().tolist() == [0.46875, -0.6875]


def test_dore_by_hand():
    first, second = by_hand("dore", alpha=0.5, beta=0.5, eta=0.5)
    assert first["x"] == [1.03125]
    assert first["e"] == [0.0625]
    assert second["h_i"].ravel().tolist() == [0.4453125, -0.859375]
    assert second["h"] == [-0.20703125]
    assert second["e"] == [0.087890625]
    assert second["x"] == [1.0751953125]


@pytest.mark.parametrize("method", COMMON)
def test_momentum_and_weight_decay_act_after_decompression(method):
    """Without compression each is SGD with a heavy ball."""
    x, buf = X0, 0.0
    for t, state in enumerate(run(method, mom=0.7, wd=0.3)):
        buf = 0.7 * buf + np.mean([noisy(t, i, x) for i in range(N)], axis=0) + 0.3 * x
        x = x - HP["gamma"] * buf
        close(state["x"], x)
        close(state["buf"], buf)
    last = run(method, "sign", "sign", mom=0.7, wd=0.3)
    differ(last, run(method, "sign", "sign"))


@pytest.mark.parametrize("extra", [{"wd": 0.3}, {"mom": 0.7}])
def test_liec_of_period_one_is_sgd_with_the_same_optimiser(extra):
    """The models are equal, so that the local buffers are too."""
    same(run("liec_sgd", "sign", "top_2", p=1, **extra), run("sgd", **extra))


def test_a_reset_with_momentum_bounds_the_distance_of_the_models():
    """What the buffer makes of a residual is taken back by what it makes of the reset."""
    states = run("cser", "keep_2", grad=exact, H=2, mom=0.8, gamma=0.02 / L_MAX, steps=1200)
    early, late = (np.ptp(states[t]["x_i"], axis=0).max() for t in (39, -1))
    assert late < 2.0 * early


# Bits and continuation.


def still(t, i, x):
    return 0.0 * x


def message(blocks, size):
    """Scaled sign on `blocks` blocks of a vector of `size`, whatever the length of the run's own vectors."""
    return lambda slot, d: 32.0 * size if slot == "dense" else size + 32.0 * blocks


def metered(method, steps, blocks=1, size=11_171_146, **changes):
    bits, C = message(blocks, size), compress("sign", "sign", "sign")
    last = feedback.run(method, still, C, 2, HP | changes, np.ones(2), steps, bits)[-1]
    return last["bits_up"], last["bits_down"]


@pytest.mark.parametrize("blocks", [1, 10])
@pytest.mark.parametrize("size", [1000, 11_171_146])
def test_bits_per_iteration(blocks, size):
    dense, sign, T = 32.0 * size, size + 32.0 * blocks, 24

    def total(method, **changes):
        return tuple(value / T for value in metered(method, T, blocks, size, **changes))

    assert total("sgd") == (dense, dense)
    assert total("mem_sgd") == (sign, dense)
    assert total("cser", H=8) == (9 / 8 * sign, 9 / 8 * dense)
    assert total("cser", H=8, down="sparse") == (9 / 8 * sign, 9 / 8 * sign)
    assert total("double_squeeze") == total("dore") == (sign, sign)
    assert total("neolithic", R=3) == (3 * sign, 3 * sign)
    for p in (1, 2, 8, 24):
        for vectors in (1, 2):
            each = total("liec_sgd", p=p, sync_vectors=vectors)[0]
            assert each == pytest.approx((1 - 1 / p) * sign + 32 * vectors * size / p, rel=1e-14)
            assert total("liec_sgd", p=p, sync_vectors=vectors) == (each, each)


@pytest.mark.parametrize(("p", "T"), [(3, 11), (3, 12), (5, 4), (1, 7), (7, 20)])
def test_number_of_syncs(p, T):
    syncs = T // p
    assert metered("liec_sgd", T, 2, 500, p=p)[0] == (T - syncs) * (500 + 64) + syncs * 64 * 500
    assert metered("cser", T, 2, 500, H=p) == ((T + syncs) * (500 + 64), (T + syncs) * 32 * 500)


SAVINGS = [
    ("sgd", {}, "1.00"),
    ("mem_sgd", {}, "1.94"),
    ("cser", {"H": 8}, "1.72"),
    ("double_squeeze", {}, "32.00"),
    ("neolithic", {}, "16.00"),
    ("liec_sgd", {"p": 32}, "10.78"),
    ("liec_sgd", {"p": 100}, "19.63"),
    ("liec_sgd", {"p": 32, "sync_vectors": 1}, "16.25"),
    ("liec_sgd", {"p": 100, "sync_vectors": 1}, "24.43"),
]


@pytest.mark.parametrize(("method", "changes", "saving"), SAVINGS)
def test_savings_against_sgd(method, changes, saving):
    assert f"{64 * 11_171_146 * 800 / sum(metered(method, 800, **changes)):.2f}" == saving


@pytest.mark.parametrize("method", list(feedback.METHODS))
def test_runs_continue(method):
    C, whole = compress("sign", "keep_2", "top_2"), run(method, "sign", "keep_2", "top_2", mom=0.5, wd=0.1)
    hp = HP | {"mom": 0.5, "wd": 0.1}
    rest = feedback.run(method, noisy, C, N, hp, X0, STEPS - 4, state=whole[3])
    assert rest[-1]["t"] == whole[-1]["t"] == STEPS
    for key, value in whole[-1].items():
        assert np.array_equal(rest[-1][key], value), key


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("psgd", {}, "method: expected one of"),
        ("cser", {"down": "lean"}, "down: expected one of"),
        ("liec_sgd", {"sync_vectors": 3}, "sync_vectors: expected one of"),
        ("liec_sgd", {"sync_vectors": 1, "mom": 0.5}, "only without momentum"),
    ],
)
def test_bad_choices(method, changes, words):
    with pytest.raises(ValueError, match=words):
        feedback.run(method, noisy, compress("sign"), N, HP | changes, X0, 1)
