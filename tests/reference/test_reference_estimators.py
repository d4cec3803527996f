"""The references of EF21, EControl and MARINA: identities, hand-computed iterations, messages."""

from __future__ import annotations

import numpy as np
import pytest

from . import ef21, estimators
from .test_reference_feedback import (
    CHOICES,
    CLIENTS,
    HP,
    L_MAX,
    X0,
    N,
    close,
    compress,
    differ,
    exact,
    line,
    noisy,
    same,
)

FIXED = ["sign", "block_sign", "top_2"]
EF21 = ("ef21", "ef21_bc", "ef21_sgdm")
STEPS = 9


def run(method, up="identity", down="identity", grad=noisy, steps=STEPS, coin=None, cohort=None, **changes):
    hp = HP | changes
    return estimators.run(method, grad, compress(up, down), N, hp, X0, steps, coin=coin, cohort=cohort)


def everyone(t):
    return range(N)


def pair(t):
    return np.random.default_rng([5, t]).permutation(N)[:2]


def always(t):
    return True


def never(t):
    return False


def sometimes(t):
    return np.random.default_rng([6, t]).random() < 0.3


def descent(grad, shift, extra=None):
    """x after each step, the first along grad(-1, x0), step t along grad(t - shift, x)."""
    extra = {"mom": 0.0, "wd": 0.0} | (extra or {})
    x, buf, result = X0, 0.0, []
    for t in range(STEPS):
        g = np.mean([grad(t - shift, i, x) for i in range(N)], axis=0)
        buf = extra["mom"] * buf + g + extra["wd"] * x
        x = x - HP["gamma"] * buf
        result.append({"x": x})
    return result


# Identities J4 and J6.


@pytest.mark.parametrize("up", FIXED)
def test_ef21_is_the_other_ef21_reference(up):
    C = compress(up)
    expected = ef21.run(
        lambda i, x: exact(0, i, x), N, {"gamma": HP["gamma"]}, X0, STEPS, lambda t, i, slot, v: C(t, i, "up", v)
    )
    same(run("ef21", up, grad=exact), expected)
    same(run("ef21", up, grad=exact), expected, "g")


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("start", ["dense", "compressed"])
def test_both_ways_with_an_exact_downlink_is_ef21(up, start):
    same(run("ef21_bc", up, init=start), run("ef21", up, init=start))
    same(run("ef21_bc", up, init=start), run("ef21", up, init=start), "g_i")
    differ(run("ef21_bc", up, "sign", init=start), run("ef21", up, init=start))


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("start", ["dense", "compressed"])
@pytest.mark.parametrize("double", [False, True])
def test_all_new_momentum_is_ef21(up, start, double):
    same(run("ef21_sgdm", up, eta=1.0, init=start, double=double), run("ef21", up, init=start))
    differ(run("ef21_sgdm", up, eta=0.5, init=start, double=double), run("ef21", up, init=start))


@pytest.mark.parametrize("up", FIXED)
def test_econtrol_without_its_error_is_ef21(up):
    same(run("econtrol", up, grad=exact, eta=0.0), run("ef21", up, grad=exact))
    differ(run("econtrol", up, grad=exact, eta=0.3), run("ef21", up, grad=exact))


@pytest.mark.parametrize("up", CHOICES)
def test_econtrol_without_its_error_is_ef21_one_draw_later(up):
    """EControl's step t meets the batch and the compressor of EF21's step t - 1; both start from the batch -1."""

    def late(t, i, x):
        return noisy(max(t - 1, -1), i, x)

    C = compress(up)
    left = estimators.run("econtrol", late, lambda t, *call: C(t - 1, *call), N, HP | {"eta": 0.0}, X0, STEPS)
    same(left, run("ef21", up))


@pytest.mark.parametrize("eta", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("up", CHOICES)
def test_econtrol_virtual_iterate_follows_sgd(up, eta):
    states, x, y = run("econtrol", up, eta=eta), X0, X0
    for t, state in enumerate(states):
        y = y - HP["gamma"] * np.mean([noisy(t, i, x) for i in range(N)], axis=0)
        close(state["x"] - HP["gamma"] * state["error"], y)
        x = state["x"]
    assert np.any(states[-1]["error"])


@pytest.mark.parametrize("up", CHOICES)
def test_marina_with_dense_rounds_only_is_gradient_descent(up):
    same(run("marina", up, coin=always, grad=exact), descent(exact, 0))
    same(run("pp_marina", up, coin=always, cohort=pair), run("marina", up, coin=always))
    differ(run("marina", up, coin=sometimes, grad=exact), descent(exact, 0))


@pytest.mark.parametrize("up", CHOICES)
@pytest.mark.parametrize("coin", [never, sometimes])
def test_partial_participation_of_everyone_is_marina(up, coin):
    same(run("pp_marina", up, coin=coin, cohort=everyone), run("marina", up, coin=coin))
    differ(run("pp_marina", up, coin=coin, cohort=pair), run("marina", up, coin=coin))


@pytest.mark.parametrize("method", [*EF21, "marina"])
@pytest.mark.parametrize("extra", [{}, {"mom": 0.6, "wd": 0.2}])
def test_without_compression_every_method_is_sgd(method, extra):
    """x moves first: step t goes along the batch of t - 1. MARINA's change is exact only on full gradients."""
    grad = exact if method == "marina" else noisy
    same(run(method, grad=grad, eta=1.0, coin=sometimes, **extra), descent(grad, 1, extra))


@pytest.mark.parametrize("extra", [{}, {"mom": 0.6, "wd": 0.2}])
def test_econtrol_without_compression_is_sgd(extra):
    same(run("econtrol", eta=0.4, **extra), descent(noisy, 0, extra))


@pytest.mark.parametrize("up", CHOICES)
def test_marina_takes_both_gradients_on_one_batch(up):
    """g += mean Q(grad(t, x+) - grad(t, x)), with the batch and the randomness of t."""
    states, C, x = run("marina", up, coin=never), compress(up), X0
    g = np.mean([noisy(-1, i, X0) for i in range(N)], axis=0)
    for t, state in enumerate(states):
        plus = x - HP["gamma"] * g
        g = g + np.mean([C(t, i, "up", noisy(t, i, plus) - noisy(t, i, x)) for i in range(N)], axis=0)
        x = plus
        close(state["x"], x)
        close(state["g"], g)


# Convergence to the optimum: the heterogeneous problem, full gradients.


HESSIANS = [A.T @ A / len(A) for A, _ in CLIENTS]
SHIFTS = [A.T @ b / len(A) for A, b in CLIENTS]
X_STAR = np.linalg.solve(sum(HESSIANS), sum(SHIFTS))


@pytest.mark.parametrize(
    ("method", "up", "extra"),
    [
        ("ef21", "top_2", {}),
        ("ef21", "keep_2", {"init": "compressed"}),
        ("ef21_bc", "top_2", {}),
        ("ef21_sgdm", "top_2", {"eta": 0.5}),
        ("ef21_sgdm", "sign", {"eta": 0.5, "double": True}),
        ("econtrol", "top_2", {"eta": 0.1}),
        ("marina", "qsgd", {}),
        ("pp_marina", "qsgd", {}),
    ],
)
def test_converges_to_the_optimum(method, up, extra):
    def cheap(t, i, x):
        return HESSIANS[i] @ x - SHIFTS[i]

    extra = extra | {"coin": sometimes, "cohort": pair, "gamma": 0.1 / L_MAX, "steps": 1500}
    last = run(method, up, "sign", grad=cheap, **extra)[-1]["x"]
    assert np.linalg.norm(last - X_STAR) < 1e-9 < np.linalg.norm(X0 - X_STAR)


# Hand-computed: two clients in one dimension, gradients x and 2 x - 4, C(z) = z/2 in every slot.


def by_hand(method, steps, **changes):
    coin, cohort = changes.pop("coin", never), changes.pop("cohort", None)
    hp = {"gamma": 0.5, "eta": 0.5} | changes
    C = compress("half", "half")
    return estimators.run(method, line, C, 2, hp, [1.0], steps, coin=coin, cohort=cohort)


def test_both_ways_by_hand():
    (state,) = by_hand("ef21_bc", 1)
    assert state["x"] == [1.25]
    assert state["g_i"].ravel().tolist() == [1.125, -1.75]
    assert state["g"] == [-0.40625]


@pytest.mark.parametrize(("method", "g"), [("ef21", -0.25), ("ef21_bc", -0.125), ("ef21_sgdm", -0.25)])
def test_compressed_start_by_hand(method, g):
    """C(1), C(-2), and their mean compressed once more where the server compresses."""
    (state,) = by_hand(method, 1, init="compressed")
    assert state["x"] == [1.0 - 0.5 * g]


def test_momentum_by_hand():
    first, second = by_hand("ef21_sgdm", 2)
    assert first["v_i"].ravel().tolist() == [1.125, -1.75]
    assert first["g_i"].ravel().tolist() == [1.0625, -1.875]
    assert second["x"] == [1.453125]


def test_double_momentum_by_hand():
    first, second = by_hand("ef21_sgdm", 2, double=True)
    assert first["v_i"].ravel().tolist() == [1.125, -1.75]
    assert first["u_i"].ravel().tolist() == [1.0625, -1.875]
    assert first["g_i"].ravel().tolist() == [1.03125, -1.9375]
    assert second["x"] == [1.4765625]
    assert second["u_i"].ravel().tolist() == [1.181640625, -1.63671875]
    assert second["g_i"].ravel().tolist() == [1.1064453125, -1.787109375]


def test_econtrol_by_hand():
    _, second, third = by_hand("econtrol", 3)
    assert second["x"] == [1.40625]
    assert second["e_i"].ravel().tolist() == [0.125, 0.25]
    assert third["h_i"].ravel().tolist() == [1.296875, -1.40625]
    assert third["e_i"].ravel().tolist() == [0.234375, 0.46875]
    assert third["x"] == [1.43359375]


def test_marina_by_hand():
    assert by_hand("marina", 1)[0]["g"] == [-0.3125]
    assert by_hand("marina", 1, coin=always)[0]["g"] == [-0.125]
    assert by_hand("pp_marina", 1, cohort=lambda t: [1])[0]["g"] == [-0.25]


# Messages.


def message(slot, d):
    return {"up": 10.0, "down": 7.0, "dense": 1000.0}[slot]


def metered(method, coin=sometimes, **changes):
    C = compress("sign", "sign")
    last = estimators.run(method, exact, C, N, HP | changes, X0, STEPS, message, coin, pair)[-1]
    return last["bits_up"], last["bits_down"]


@pytest.mark.parametrize(("start", "first"), [("dense", (1000, 1000)), ("compressed", (10, 7))])
def test_bits_with_the_start(start, first):
    up, dense = first[0] + 10 * STEPS, 1000 * STEPS
    assert metered("ef21", init=start) == (up, dense)
    assert metered("ef21_sgdm", init=start) == (up, dense)
    assert metered("ef21_bc", init=start) == (up, first[1] + 7 * STEPS)
    assert metered("econtrol", init=start) == (1000 + 10 * STEPS, dense)


def test_bits_of_marina():
    full = sum(sometimes(t) for t in range(STEPS))
    assert 0 < full < STEPS
    assert metered("marina") == (1000 * (1 + full) + 10 * (STEPS - full), 1000 * STEPS)
    assert metered("pp_marina") == (1000 * (1 + full) + 5 * (STEPS - full), 1000 * STEPS)


@pytest.mark.parametrize("method", list(estimators.METHODS))
def test_runs_continue(method):
    extra = {"eta": 0.4, "double": True, "mom": 0.3, "wd": 0.1}
    whole = run(method, "sign", "keep_2", coin=sometimes, cohort=pair, **extra)
    C, hp = compress("sign", "keep_2"), HP | extra
    rest = estimators.run(method, noisy, C, N, hp, X0, STEPS - 4, coin=sometimes, cohort=pair, state=whole[3])
    assert rest[-1]["t"] == whole[-1]["t"] == STEPS
    for key, value in whole[-1].items():
        assert np.array_equal(rest[-1][key], value), key


def test_bad_choices():
    with pytest.raises(ValueError, match="method: expected one of"):
        run("ef22")
    with pytest.raises(ValueError, match="init: expected one of"):
        run("ef21", init="zero")
