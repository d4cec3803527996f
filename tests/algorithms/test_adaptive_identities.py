"""Low-rank, adaptive and two-way accelerated methods: who coincides with whom, where they rest, what they reach."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors, problems
from tests.algorithms.shared import KEY, quadratic_pair, walk
from tests.reference import two_way

N, D, KAPPA, STEPS, LONG = 4, 6, 8.0, 30, 1200
PROBLEM, REF = quadratic_pair(np.random.default_rng(0), N, D, KAPPA)
PROBLEM = PROBLEM.replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=D)))
A, B, STAR, X0 = np.asarray(PROBLEM.Q), np.asarray(PROBLEM.b), np.asarray(PROBLEM.attached), np.asarray(PROBLEM.x0)
STAR_GRADS = A @ STAR - B
#: the same with one minimiser for all
AGREED = PROBLEM.replace(b=jnp.asarray(A @ STAR))
L, MU = np.linalg.eigvalsh(A.mean(axis=0))[[-1, 0]]
G = 0.2 / L
DOWN = ["top_k:2", "rand_k_unscaled:2", "sign"]


def hparams(name, **given):
    ways = ("compressor", "downlink")
    parsed = {field: compressors.parse(value) if field in ways else value for field, value in given.items()}
    return algorithms.get(name).Hparams(**parsed)


def go(name, steps=STEPS, problem=PROBLEM, state=None, **given):
    """States, costs and points."""
    return walk(name, problem, hparams(name, **given), steps, state=state)


def points(name, **given):
    return go(name, **given)[2]


def close(got, want, tol=1e-10):
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=tol * max(1.0, np.abs(want).max()))


def apart(got, want):
    assert np.abs(got - want).max() > 1e-4


def gap(x):
    return float(np.sum((x - STAR) ** 2))


def started(name, hp):
    return algorithms.get(name).init(PROBLEM, hp, jax.random.fold_in(KEY, 2**32 - 1))


def gd(gamma):
    return points("gd", gamma=gamma)


# --- EF21-P ---


def test_ef21_p_without_compression_is_gradient_descent_dcgd_or_diana():
    close(points("ef21_p", compressor="identity", downlink="identity", gamma=G), gd(G))
    one = {"compressor": "rand_k:2", "gamma": G}
    close(points("ef21_p", downlink="identity", **one), points("qsgd", **one))
    close(points("ef21_p_diana", downlink="identity", beta=0.3, **one), points("diana", alpha=0.3, **one))


@pytest.mark.parametrize("down", DOWN)
def test_ef21_p_is_that_of_the_mean_gradient_without_learning(down):
    one = {"compressor": "identity", "downlink": down, "gamma": G}
    close(points("ef21_p_diana", beta=0.0, **one), points("ef21_p", **one))
    apart(points("ef21_p", **one), gd(G))


def test_what_clients_of_ef21_p_hold_is_classical_error_feedback():
    """w moves by messages of gamma times the gradient plus the error e = w - x; of odd compressors."""
    states = go("ef21_p", compressor="identity", downlink="top_k:2", gamma=G)[0]
    w, e = X0, np.zeros(D)
    for x, seen in zip(states.w, states.seen, strict=True):
        v = e + G * np.mean(A @ w - B, axis=0)
        m = np.where(np.argsort(np.argsort(-np.abs(v), kind="stable")) < 2, v, 0)
        w, e = w - m, v - m
        close(seen, w, 1e-12)
        close(seen - x, e, 1e-12)


def test_ef21_p_diana_is_mcm_that_learns_at_once():
    """alpha_dwn = 1, whatever the downlink."""
    one = {"compressor": "rand_k:2", "downlink": "rand_k:3", "gamma": G / 4}
    left, mid = go("ef21_p_diana", beta=0.3, **one), go("mcm", alpha_up=0.3, alpha_dwn=1.0, **one)
    close(left[0].w, mid[0].w, 1e-12)
    close(left[0].seen, mid[0].seen, 1e-12)


@pytest.mark.parametrize("down", DOWN)
def test_ef21_p_diana_rests_at_the_solution_and_reaches_it(down):
    hp = {"compressor": "rand_k:3", "downlink": down, "gamma": G, "beta": 0.5}
    first = started("ef21_p_diana", hparams("ef21_p_diana", **hp))
    star, grads = jnp.asarray(STAR), jnp.asarray(STAR_GRADS)
    first = first._replace(w=star, seen=star, up=first.up._replace(h_i=grads, h=0 * star))
    states = go("ef21_p_diana", state=first, **hp)[0]
    close(states.w, np.array([STAR] * STEPS), 1e-12)
    close(states.seen, np.array([STAR] * STEPS), 1e-12)
    assert gap(points("ef21_p_diana", steps=LONG, **hp)[-1]) < 1e-18


def test_ef21_p_alone_reaches_the_solution_and_with_compressed_gradients_it_stalls():
    one = {"downlink": "top_k:2", "gamma": G}
    assert gap(points("ef21_p", steps=LONG, compressor="identity", **one)[-1]) < 1e-18
    assert gap(points("ef21_p", steps=LONG, compressor="rand_k:3", **one)[-1]) > 1e-5
    assert gap(points("ef21_p", steps=LONG, problem=AGREED, compressor="rand_k:3", **one)[-1]) < 1e-18


@pytest.mark.parametrize("name", ["ef21_p", "ef21_p_diana"])
def test_theorems_of_ef21_p(name):
    """The Lyapunov function stays below its start times powers of the rate; random ones, as the mean over 32 seeds."""
    method, steps = algorithms.get(name), 200
    up = "identity" if name == "ef21_p" else "rand_k:2"
    hp = method.theory(PROBLEM, up, "top_k:2")
    # the bound of F itself: L and mu of the mean
    assert float(method.rate(PROBLEM, hp)) == pytest.approx(1 - hp.gamma * float(PROBLEM.strong) / 2, rel=1e-12)
    first = started(name, hp)
    f = lambda x: float(PROBLEM.value(jnp.asarray(x)))
    omega, told = (0.0, 2.0)[name == "ef21_p_diana"], {"gamma": hp.gamma}
    want = two_way.ef21_p_start(told, N, omega, X0, STAR, f(X0) - f(STAR), np.zeros((N, D)), STAR_GRADS)
    assert float(method.lyapunov(PROBLEM, hp, first)) == pytest.approx(want, rel=1e-12)
    V = jax.jit(jax.vmap(lambda state: method.lyapunov(PROBLEM, hp, state)))
    total = 0.0
    seeds = range(1 if name == "ef21_p" else 32)
    for seed in seeds:
        states = walk(name, PROBLEM, hp, steps, key=jax.random.key(seed), state=first)[0]
        total = total + np.asarray(V(jax.tree.map(jnp.asarray, states)))
    bound = float(method.lyapunov(PROBLEM, hp, first)) * float(method.rate(PROBLEM, hp)) ** np.arange(1, steps + 1)
    assert np.all(total / len(seeds) <= bound)


# --- 2Direction ---

EXACT = {"compressor": "identity", "downlink": "identity", "p": 1.0, "tau": 1.0, "beta": 1.0}


def test_two_direction_without_compression_is_accelerated_gradient_descent():
    states, _, x_all = go("two_direction", Lbar=L, mu=MU, **EXACT)
    x = u = X0
    i = 1.0
    for t, got in enumerate(x_all):
        c = L * i + MU
        theta = min(2 * c / (c + math.sqrt(c**2 + 4 * L * c)), 0.25)
        i = (1 - theta) * i
        y = theta * u + (1 - theta) * x
        u = ((1 - theta) * c * u + theta * (MU * y - np.mean(A @ y - B, axis=0))) / (L * i + MU)
        x = theta * u + (1 - theta) * x
        close(got, x)
        close(states.z[t], x)
        close(states.w[t], u)


def test_two_direction_keeps_its_means_and_predictions():
    one = {"compressor": "rand_k:2", "Lbar": 4 * L, "p": 0.4, "tau": 0.6, "beta": 0.5, "mu": MU}
    states = go("two_direction", downlink="identity", **one)[0]
    close(states.w, states.u, 1e-12)
    close(states.h, states.h_i.mean(axis=1), 1e-12)
    close(states.h_i[0].mean(axis=0), states.h[0], 1e-12)


def test_two_direction_rests_at_the_solution_and_reaches_it():
    hp = algorithms.get("two_direction").theory(PROBLEM, "rand_k:3", "top_k:2")
    star = jnp.asarray(STAR)
    first = started("two_direction", hp)._replace(
        **dict.fromkeys(("x", "u", "w", "z"), star), **dict.fromkeys(("k", "v", "h"), 0 * star),
        h_i=jnp.asarray(STAR_GRADS), t=jnp.ones((), jnp.int32),
    )  # fmt: skip
    states = walk("two_direction", PROBLEM, hp, STEPS, state=first)[0]
    for field in ("x", "u", "w", "z"):
        close(getattr(states, field), np.array([STAR] * STEPS), 1e-12)
    assert gap(walk("two_direction", PROBLEM, hp, LONG)[2][-1]) < 1e-16


# --- PowerSGD ---

VARIANTS = [
    {},
    {"rank": 2, "momentum": 0.4, "weight_decay": 0.1},
    {"variant": "alternating", "iters": 2, "min_rate": 0.0},
]


@pytest.mark.parametrize("hp", VARIANTS, ids=str)
def test_powersgd_of_many_clients_is_that_of_one_with_the_mean_gradient(hp):
    alone = problems.quadratic(A.mean(axis=0)[None], B.mean(axis=0)[None]).replace(x0=PROBLEM.x0)
    many, one = (go("powersgd", problem=problem, gamma=G, **{"min_rate": 0.0} | hp) for problem in (PROBLEM, alone))
    close(many[2], one[2])
    close(many[0].e, one[0].e)


@pytest.mark.parametrize("variant", ["paper", "alternating"])
def test_powersgd_less_its_error_follows_the_mean_gradient(variant):
    states, _, x_all = go("powersgd", gamma=G, variant=variant, min_rate=0.0)
    y = X0 - G * np.cumsum([np.mean(A @ x - B, axis=0) for x in [X0, *x_all[:-1]]], axis=0)
    close(x_all - G * states.e, y, 1e-12)
    apart(x_all, y)


def test_powersgd_of_full_rank_is_gradient_descent():
    close(points("powersgd", gamma=G, rank=2, min_rate=0.0), gd(G), 1e-11)


@pytest.mark.parametrize("hp", [{}, {"variant": "alternating"}], ids=str)
def test_powersgd_reaches_the_solution_where_mem_sgd_stalls(hp):
    """Though both send matrices of rank 1."""
    assert gap(points("powersgd", steps=LONG, gamma=G, min_rate=0.0, **hp)[-1]) < 1e-18
    assert gap(points("mem_sgd", steps=LONG, gamma=G, compressor="low_rank:1,rows=2")[-1]) > 1e-6


# --- SIDCo, policies ---


@pytest.mark.parametrize("text", ["threshold:0.4", "threshold:0.2,stages=2"])
def test_sidco_of_fixed_stages_is_mem_sgd_with_a_threshold(text):
    """Bit for bit; with the general memory it is not."""
    want = go("mem_sgd", gamma=G, compressor=text)
    for compressor in (text, text.replace("threshold", "sidco") + ",mode=0"):
        got = go("sidco", gamma=G, compressor=compressor)
        np.testing.assert_array_equal(got[2], want[2])
        np.testing.assert_array_equal(got[1].bits_up, want[1].bits_up)
    apart(points("sidco", gamma=G, compressor=text, ec_grad=0.8), want[2])


def test_sidco_stalls_where_clients_differ():
    one = {"gamma": 0.5 / L, "compressor": "sidco:0.4,mode=-2"}
    assert gap(points("sidco", steps=LONG, **one)[-1]) > 1e-6
    assert gap(points("sidco", steps=LONG, problem=AGREED, **one)[-1]) < 1e-18


def test_a_law_of_constant_numbers_is_top_k():
    same = "top_power_law:1,least=2,most=2"
    np.testing.assert_array_equal(
        points("mem_sgd", gamma=G, compressor=same), points("mem_sgd", gamma=G, compressor="top_k:2")
    )
    apart(points("mem_sgd", gamma=G, compressor="top_energy:0.8"), points("mem_sgd", gamma=G, compressor="top_k:2"))


@pytest.mark.parametrize("name", ["mem_sgd", "ef21", "double_squeeze"])
def test_the_price_is_what_the_numbers_of_entries_made_it(name):
    """log(lam_{t+1}/lam_t) = rate (mean k_t - k)/k, whatever the method, mean k_t being what was paid for."""
    k, rate, price = 2.5, 0.2, 0.7
    hp = {"compressor": f"top_price:{k},rate={rate},price={price}", "gamma": G / 4}
    hp |= {"downlink": "top_k:2"} if name == "double_squeeze" else {}
    states, costs, _ = go(name, steps=60, **hp)
    sent = np.diff(states.coding.log_price, prepend=np.log(price)) / rate * k + k
    start = 1 if name == "ef21" else 0  # its first message is dense
    np.testing.assert_allclose(costs.bits_up[start:], (32 + 3) * sent[start:], rtol=1e-5)
    assert len(np.unique(np.round(sent, 6))) > 3


def steps_to(name, problem, hp, steps, target=1e-10):
    x = walk(name, problem, hp, steps)[2]
    star = np.asarray(problem.attached)
    below = np.sum((x - star) ** 2, axis=1) <= target * np.sum(star**2)
    assert below[-1], name
    return int(np.argmax(below))


@pytest.mark.slow
def test_steps_grow_as_the_root_of_kappa_or_as_kappa():
    counts = {"two_direction": [], "ef21_p_diana": []}
    for kappa in (300.0, 3000.0):
        rng = np.random.default_rng(0)
        Q = np.array([np.diag(np.geomspace(1, kappa, 6))] * N) * np.linspace(0.9, 1.1, N)[:, None, None]
        b = np.sqrt(kappa) * rng.normal(size=(N, 6))
        star = np.linalg.solve(Q.mean(axis=0), b.mean(axis=0))
        problem = problems.quadratic(Q, b).replace(attached=jnp.asarray(star))
        hp = algorithms.get("two_direction").theory(problem, "rand_k:2", "top_k:2")
        counts["two_direction"].append(steps_to("two_direction", problem, hp, 60_000))
        hp = hparams("ef21_p_diana", compressor="rand_k:2", downlink="top_k:2", gamma=0.25 / kappa, beta=1 / 3)
        counts["ef21_p_diana"].append(steps_to("ef21_p_diana", problem, hp, 200_000))
    exponents = {name: math.log10(many / few) for name, (few, many) in counts.items()}
    assert 0.4 <= exponents["two_direction"] <= 0.6
    assert 0.85 <= exponents["ef21_p_diana"] <= 1.15
