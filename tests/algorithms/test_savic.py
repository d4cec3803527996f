"""SAVIC agrees with its slow reference in every variant, becomes what its limits are, and fits the closed forms."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_lc import algorithms, problems
from tests.algorithms.rounds import (
    CLIENTS,
    KEY,
    PROBLEM,
    REF,
    ROUNDS,
    SCHEDULE,
    SIZES,
    X0,
    D,
    N,
    Replayed,
    begin,
    close,
    differ,
    far,
    hyperparameters,
    step_keys,
    theirs_of,
    walk,
)
from tests.algorithms.shared import scan
from tests.quickly import QUICKLY
from tests.reference import savic

H, FLOATS = 3, 32 * D
PROBE = 4  # what a round's key is folded with for its probes
DIAGONAL = jnp.array([2.0, 0.7, 1.5, 1.1, 0.3])
BASE = {"alpha": 0.05, "beta": 0.9, "n_warm": 2}
STEP = dict.fromkeys(("adam", "rmsprop", "adagrad"), 0.03) | dict.fromkeys(("oasis", "adahessian"), 0.1)
BATCHES: dict[str, Any] = {"batch_size": 2, "b1": 0.6}
SOME = {"selection": "schedule", "schedule": SCHEDULE}
GRID = [{"rule": rule, "scaling": scaling, "b1": 0.3} for rule in STEP for scaling in savic.CHOICES["scaling"]]
OTHERS: list[dict[str, Any]] = [
    {"rule": "none", **SOME},
    {"rule": "fixed", "clip": "add", **BATCHES},
    {"rule": "fixed", "scaling": "local"},
    {"rule": "adam", "agg": "sq", "clip": "add", **BATCHES},
    {"rule": "oasis", "agg": "sq", **SOME},
    {"rule": "oasis", **BATCHES},
    {"rule": "adahessian", "shared_v": True, "clip": "add", **SOME},
    {"rule": "adahessian", "scaling": "local", "replacement": False, **BATCHES},
    {"rule": "oasis", "scaling": "local_sync", "cohort_size": 2, **BATCHES},
    {"rule": "adam", "scaling": "local", **SOME, "b1": 0.4},
    {"rule": "adam", "timing": "stale", **BATCHES},
    {"rule": "rmsprop", "timing": "stale", "agg": "sq"},
    {"rule": "oasis", "timing": "stale", "scaling": "local_sync", "b1": 0.5},
    {"rule": "adagrad", "timing": "stale", "scaling": "local"},
    {"rule": "adam", "lag": True, **SOME},
    {"rule": "adam", "lag": True, "scaling": "local_sync"},
]


def of(problem=PROBLEM, rule="adam", **changes):
    """Hyperparameters of a rule."""
    chosen = BASE | {"gamma": STEP.get(rule, 0.2), "D": DIAGONAL if rule == "fixed" else None} | changes
    return hyperparameters("savic", problem, rule=rule, **chosen)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICKLY)
def _probes(count, shared, keys):
    """(ROUNDS, H, count, n, d) +-1 vectors."""
    draw = lambda key: jax.random.rademacher(key, (D,), jnp.float64)

    def at(key, h, j):
        own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, PROBE), h), j)
        return jnp.tile(draw(own), (N, 1)) if shared else jax.vmap(draw)(PROBLEM.client_keys(own))

    each = jax.vmap(jax.vmap(jax.vmap(at, (None, None, 0)), (None, 0, None)), (0, None, None))
    return each(keys, jnp.arange(H), jnp.arange(count))


def probe(hp, members):
    """The reference's `probe(p, i, j)`: our vectors of the local step at which client i's p-th refresh falls."""
    drawn = np.asarray(_probes(hp.n_warm, hp.shared_v, step_keys(ROUNDS, KEY)))
    everywhere, often = hp.scaling == "global", range(H if hp.scaling == "local" else 1)
    when = [[(t, h) for t in range(ROUNDS) if everywhere or i in members[t] for h in often] for i in range(N)]
    return lambda p, i, j: drawn[(*when[i][p - 1], j, i)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "changes", GRID + OTHERS, ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items() if k != "schedule")
)
def test_agreement(changes):
    hp = of(**changes)
    replayed = Replayed(hp)
    told = theirs_of(hp) | {"H": H, "D": hp.D}
    theirs = savic.run(
        replayed,
        told,
        X0,
        ROUNDS,
        probe(hp, replayed.members),
        replayed.cohort if hp.schedule is not None or hp.cohort_size else None,
    )
    states, _, models = walk("savic", hp)
    want = {field: np.array([state[field] for state in theirs]) for field in ("x", "x_i", "mom", "D", "p")}
    differ(models[-1], models[-2])
    close(models, want["x"])
    stale = hp.timing == "stale"
    close(states.mom, want["mom"] if stale else want["mom"][:, 0])
    close(states.precond.D, want["D"])
    if stale:
        close(states.x_i, want["x_i"])
    if hp.rule not in ("none", "fixed"):
        np.testing.assert_array_equal(states.precond.p, want["p"])


# Other methods.


def test_rule_none_is_fedavg_of_unequal_steps_too():
    unequal = {"local_steps": jnp.array([1, 4, 2, 3], jnp.int32), "client_weights": "size"}
    fedavg = walk("fedavg", hyperparameters("fedavg", client_lr=0.2, server_lr=1.0, **unequal))[2]
    close(walk("savic", of(rule="none", **unequal))[2], fedavg)


def test_huge_alpha_is_local_sgd_with_gamma_over_alpha():
    """F6."""
    fedavg = walk("fedavg", hyperparameters("fedavg", client_lr=0.3, server_lr=1.0))[2]
    close(walk("savic", of(rule="adam", alpha=1e6, gamma=0.3e6))[2], fedavg)
    differ(walk("savic", of(rule="adam", gamma=0.3))[2], fedavg)


def test_adam_of_one_client_and_one_step_is_adam_of_optax():
    """F7: without momentum, alpha in the place of eps."""
    problem = problems.logistic_regression([CLIENTS[1]], l2=float(PROBLEM.strong)).replace(x0=PROBLEM.x0)
    rule = optax.scale_by_adam(b1=0.0, b2=0.9, eps=0.05)
    x, memory = X0, rule.init(X0)
    for model in walk("savic", of(problem, clip="add", local_steps=1), problem)[2]:
        direction, memory = rule.update(REF.grad(1, x), memory)
        x = x - 0.03 * np.asarray(direction)
        close(model, x)


def test_frozen_diagonal_is_fedavg_in_scaled_coordinates():
    """F8: y = Dhat^(1/2) x."""
    problem = quadratics()
    root = np.sqrt(np.asarray(DIAGONAL))
    Q, b = np.asarray(problem.Q) / np.outer(root, root), np.asarray(problem.b) / root
    scaled = problems.quadratic((Q + Q.transpose(0, 2, 1)) / 2, b).replace(x0=problem.x0 * root)
    fedavg = walk("fedavg", hyperparameters("fedavg", scaled, client_lr=0.1, server_lr=1.0), scaled)[2]
    close(walk("savic", of(problem, rule="fixed", gamma=0.1), problem)[2] * root, fedavg)


def test_lagging_adam_is_mimelite_with_a_strictly_frozen_denominator():
    adam = {"opt": "adam", "frozen": "strict", "b1": 0.0, "b2": 0.9, "eps": 0.05}
    lite = walk("mimelite", hyperparameters("mimelite", client_lr=0.03, server_lr=1.0, **adam))[2]
    close(walk("savic", of(clip="add", lag=True))[2], lite)
    differ(walk("savic", of(clip="add"))[2], lite)


def test_square_of_adams_diagonal_is_the_moment_corrected_for_its_rounds():
    states, _, models = walk("savic", of(b1=0.3))
    S = [np.mean([REF.grad(i, x) for i in range(N)], axis=0) for x in (X0, *models[:-1])]
    for t in range(ROUNDS):
        close(states.precond.D[t] ** 2, savic.corrected_moment(S[: t + 1], 0.9))


# Closed forms, of f_m(x) = (x - c_m)' A_m (x - c_m)/2.


def matrices(seed=0):
    """A (n, d, d) with eigenvalues from 0.3 on, c (n, d)."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(N, D, D))
    return factors @ factors.transpose(0, 2, 1) / D + 0.3 * np.eye(D), rng.normal(size=(N, D))


def quadratics(A=None, c=None, noise=0.0):
    A, c = (given if given is not None else own for given, own in zip((A, c), matrices(), strict=True))
    return problems.quadratic(A, np.einsum("nde,ne->nd", A, c), noise=noise).replace(x0=PROBLEM.x0)


def test_means_of_alike_quadratics_do_not_depend_on_when_they_are_taken():
    """F1: 12 local steps of clients whose gradients differ by constants."""
    A, c = matrices()
    problem, found = quadratics(A[[0] * N], c), {}
    for steps in (1, 2, 3, 4, 6, 12):
        rounds = 12 // steps
        if rounds <= ROUNDS:
            found[steps] = walk("savic", of(problem, rule="fixed", gamma=0.1, local_steps=steps), problem)[2][
                rounds - 1
            ]
    assert len(found) == 5
    for x in found.values():
        close(x, found[2], 1e-13)
    other = quadratics(A, c)
    drift = [walk("savic", of(other, rule="fixed", gamma=0.1, local_steps=k), other)[2][12 // k - 1] for k in (2, 12)]
    differ(*drift, 1e-3)


@pytest.mark.parametrize("steps", [1, 4])
def test_limit_with_a_frozen_diagonal(steps):
    """F2."""
    A, c = matrices()
    problem = quadratics(A, c)
    state = far("savic", of(problem, rule="fixed", gamma=0.1, local_steps=steps), 3000 // steps, problem)
    limit = savic.frozen_limit(A, c, np.asarray(DIAGONAL), 0.1, steps)
    np.testing.assert_allclose(state.x, limit, rtol=0, atol=1e-10)
    x_star = savic.weighted_centre(A, c)
    close(x_star, limit) if steps == 1 else differ(x_star, limit, 1e-2)


def test_local_scaling_is_biased_even_without_local_steps():
    """F3: with diagonals of their own, which are held."""
    A, c = matrices()
    problem = quadratics(A, c)
    hp = of(problem, rule="fixed", scaling="local", gamma=0.1, local_steps=1)
    Dhat = np.random.default_rng(3).uniform(0.5, 2, (N, D))
    start = begin("savic", hp, problem)
    start = start._replace(precond=start.precond._replace(D=jnp.asarray(Dhat)))
    x = far("savic", hp, 1600, problem, start).x
    np.testing.assert_allclose(x, savic.local_scaling_limit(A, c, Dhat), rtol=0, atol=1e-10)
    differ(x, problem.x_star, 1e-2)


@pytest.mark.parametrize("scaling", ["global", "local_sync"])
def test_limit_of_exact_diagonals(scaling):
    """F3 for OASIS on diagonal Hessians: clients of their own scaling go to the mean of their centres."""
    A, c = matrices()
    A = np.array([np.diag(np.diag(a)) for a in A])
    problem = quadratics(A, c)
    hp = of(problem, rule="oasis", scaling=scaling, local_steps=1, gamma=0.5)
    x = far("savic", hp, 200, problem).x
    limit = {"global": savic.weighted_centre(A, c), "local_sync": c.mean(axis=0)}
    np.testing.assert_allclose(x, limit[scaling], rtol=0, atol=1e-10)
    differ(limit["global"], limit["local_sync"], 1e-2)


def test_largest_stable_step():
    """F4: clients all alike."""
    A, c = matrices()
    A, c = A[[0] * N], c[[0] * N]
    problem, largest = quadratics(A, c), savic.largest_step(A[0], np.asarray(DIAGONAL))
    away = [
        far("savic", of(problem, rule="fixed", gamma=share * largest), 400, problem).x - c[0] for share in (0.99, 1.01)
    ]
    assert np.abs(away[0]).max() < 1e-6
    assert np.abs(away[1]).max() > 1e6


@functools.cache
def _many(seeds):
    """ROUNDS rounds with the keys of many seeds."""
    one = scan("savic", ROUNDS).__wrapped__
    keys = jax.vmap(lambda key: step_keys(ROUNDS, key))(jax.random.split(KEY, seeds))
    program = jax.jit(jax.vmap(one, (None, None, None, 0)), compiler_options=QUICKLY)
    return lambda problem, hp: program(problem, hp, begin("savic", hp, problem), keys)


def standard_errors(samples, mean):
    """How many of its standard errors the mean of independent samples (seeds, ...) lies from `mean`, at most."""
    error = samples.std(axis=0) / np.sqrt(len(samples))
    return np.max(np.abs(samples.mean(axis=0) - mean) / error)


def test_noise_floor_is_proportional_to_gamma():
    """F5: of clients all alike and a diagonal A, coordinate j keeps the variance gamma^2 s^2/(M Dhat^2 (1 - q^2)) with
    q = 1 - gamma a/Dhat, nearly gamma s^2/(2 M a Dhat); that does not depend on H."""
    Dhat, sigma, seeds, floors = np.asarray(DIAGONAL), 0.5, 250, {}
    a = Dhat * np.linspace(0.5, 1, D)
    problem = quadratics(np.array([np.diag(a)] * N), np.zeros((N, D)), noise=2 * sigma).replace(x0=jnp.zeros(D))
    for gamma in (0.02, 0.04):
        hp = of(problem, rule="fixed", gamma=gamma, batch_size=4, local_steps=60)  # a batch of 4: half the noise
        squares = Dhat * np.asarray(_many(seeds)(problem, hp)[2])[:, -1] ** 2
        q = 1 - gamma * a / Dhat
        assert np.max(q ** (2 * 60 * ROUNDS)) < 1e-3
        exact = gamma**2 * sigma**2 / N / Dhat / (1 - q**2)
        assert standard_errors(squares, exact) < 4
        floors[gamma] = squares.sum(axis=1)
    ratio = floors[0.04].mean() / floors[0.02].mean()
    error = ratio * np.hypot(*(f.std() / f.mean() / np.sqrt(seeds) for f in floors.values()))
    assert abs(ratio - 2) < 4 * error + 0.05
    assert error < 0.2


# Hutchinson's diagonal.


@pytest.mark.parametrize("scaling", ["global", "local"])
def test_diagonal_hessians_are_estimated_exactly(scaling):
    """At every refresh, with one probe or more."""
    diagonals = np.random.default_rng(4).uniform(0.3, 3, (N, D))
    problem = quadratics(np.array([np.diag(a) for a in diagonals]))
    want = diagonals.mean(axis=0) if scaling == "global" else diagonals
    states, _, _ = walk("savic", of(problem, rule="oasis", scaling=scaling), problem)
    close(states.precond.D, np.broadcast_to(want, states.precond.D.shape))


@pytest.mark.parametrize(("n_warm", "shared_v"), [(1, False), (3, False), (1, True)])
def test_moments_of_hutchinsons_diagonal(n_warm, shared_v):
    """Unbiased; Var = sum_{j != i} A_ij^2/(M n) over clients with probes of their own, of the mean matrix if shared."""
    A, c = matrices()
    problem = quadratics(A, c)
    found = _many(4_000)(problem, of(problem, rule="oasis", n_warm=n_warm, shared_v=shared_v, local_steps=1, beta=0.0))[
        0
    ]
    first, second = np.moveaxis(np.asarray(found.precond.D[:, :2]), 1, 0)
    for D_p, probes in ((first, n_warm), (second, 1)):
        mean = np.diag(A.mean(axis=0))
        assert standard_errors(D_p, mean) < 4
        assert standard_errors((D_p - mean) ** 2, savic.hutchinson_variance(A, probes, shared_v)) < 4
    assert np.abs(np.corrcoef(first.T, second.T)[:D, D:]).max() < 5 / np.sqrt(4_000)  # of fresh probes


def test_probes_do_not_know_the_batch():
    """The diagonal from two of three rows and +-1 vectors that all clients share is unbiased: E h = diag Hess F. Their
    random bits would be the same in single precision, were their keys."""
    with jax.enable_x64(False):
        rows = np.array([[0.0], [1], [2]]) * np.array([[1, 1, 0.1, 0.1, 0.1]]), np.ones(3)
        problem = problems.logistic_regression([rows], l2=0.1, dtype="float32")
        hp = of(problem, rule="oasis", n_warm=1, shared_v=True, batch_size=2, replacement=False, local_steps=1)
        found = np.asarray(_many(4_000)(problem, hp)[0].precond.D[:, 0])
    assert standard_errors(found, np.diag(problem.hessian(problem.x0))) < 4.5


# Costs.


@pytest.mark.parametrize(
    ("changes", "vectors", "probes"),
    [
        ({"rule": "adam"}, 2, lambda t: 0),
        ({"rule": "adam", "timing": "stale"}, 2, lambda t: 0),
        ({"rule": "adam", "scaling": "local_sync"}, 1, lambda t: 0),
        ({"rule": "adam", "scaling": "local"}, 1, lambda t: 0),
        ({"rule": "none"}, 1, lambda t: 0),
        ({"rule": "fixed"}, 1, lambda t: 0),
        ({"rule": "oasis"}, 2, lambda t: 2 if t == 0 else 1),
        ({"rule": "adahessian", "scaling": "local_sync"}, 1, lambda t: 2 if t == 0 else 1),
        ({"rule": "adahessian", "scaling": "local"}, 1, lambda t: H + 1 if t == 0 else H),
        ({"rule": "oasis", "batch_size": 2}, 2, lambda t: 2 if t == 0 else 1),
    ],
)
def test_costs(changes, vectors, probes):
    """A statistic that is shared travels with the model, both ways; a probe costs two gradients of the same batch."""
    _, cost, _ = walk("savic", of(**changes))
    share = np.mean(2 / SIZES) if "batch_size" in changes else 1
    np.testing.assert_array_equal(cost.bits_up, vectors * FLOATS)
    np.testing.assert_array_equal(cost.bits_down, vectors * FLOATS)
    np.testing.assert_allclose(cost.grads, [(H + 2 * probes(t)) * share for t in range(ROUNDS)], rtol=1e-6)
    np.testing.assert_array_equal(cost.rounds, 1)


# Orderings.


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["fixed", "adahessian"])
def test_floor_is_zero_at_one_local_step_and_grows_with_more(rule):
    """At one gamma, without noise, on heterogeneous clients."""
    A, c = matrices()
    problem, gaps = quadratics(A, c), []
    for steps in (1, 2, 5, 15):
        hp = of(problem, rule=rule, gamma=0.1, local_steps=steps, alpha=0.3, beta=0.999)
        gaps.append(float(problem.value(far("savic", hp, 3000 // steps, problem).x)) - problem.f_star)
    assert abs(gaps[0]) < 1e-12
    assert np.all(np.diff(gaps) > 1e-5)


@functools.cache
def badly_scaled():
    """Logistic regression of 6 clients with their own optima, features of scales from 0.1 to 10."""
    rng, clients = np.random.default_rng(3), []
    for _ in range(6):
        own, A = rng.normal(size=6), rng.normal(size=(20, 6)) + 0.7 * rng.normal(size=6)
        clients.append((A * np.logspace(-1, 1, 6), np.where(A @ own + 0.3 * rng.normal(size=20) > 0, 1.0, -1.0)))
    return problems.logistic_regression(clients, l2=1e-3)


@functools.partial(jax.jit, static_argnums=4)
def _ends(problem, hp, gammas, keys, rounds):
    """(gammas, keys) F after so many rounds."""
    method = algorithms.get("savic")

    def end(gamma, key):
        own = dataclasses.replace(hp, gamma=gamma)
        one = lambda state, t: (method.step(problem, own, state, jax.random.fold_in(key, t))[0], None)
        return problem.value(jax.lax.scan(one, method.init(problem, own, key), jnp.arange(rounds))[0].x)

    return jax.vmap(jax.vmap(end, (None, 0)), (0, None))(gammas, keys)


@functools.cache
def tuned(seeds=3, **changes):
    """(mean, standard error) over seeds of log10 of the gap after 100 rounds of 5 steps, with the best of 12 gammas."""
    problem, gammas = badly_scaled(), jnp.logspace(-3, 0.3, 12)
    hp = hyperparameters("savic", problem, local_steps=5, alpha=1e-2, **({"beta": 0.99} | changes))
    gaps = np.asarray(_ends(problem, hp, gammas, jax.random.split(KEY, seeds), 100)) - problem.f_star
    gaps = np.log10(np.where(np.isfinite(gaps), gaps, np.inf))
    means = gaps.mean(axis=1)
    best = int(np.argmin(means))
    assert 0 < best < len(gammas) - 1
    return means[best], gaps[best].std(ddof=min(1, seeds - 1)) / np.sqrt(seeds)


def below(left, right, sigmas=3):
    assert left[0] + sigmas * np.hypot(left[1], right[1]) < right[0]


@pytest.mark.slow
def test_global_rules_end_below_local_sgd_and_those_of_the_hessian_lowest():
    plain = [tuned(seeds=1, rule="none", b1=b1) for b1 in (0.0, 0.9)]
    gradients = [tuned(seeds=1, rule=rule) for rule in ("adam", "rmsprop", "adagrad")]
    for hessian in (tuned(rule="oasis"), tuned(rule="adahessian")):
        for other in gradients + plain:
            below(hessian, other)
    for gradient in gradients:
        for other in plain:
            below(gradient, other)


@pytest.mark.parametrize("rule", ["adam", pytest.param("oasis", marks=pytest.mark.slow)])
def test_global_scaling_ends_below_local_scaling(rule):
    seeds = 1 if rule == "adam" else 5
    below(tuned(seeds=seeds, rule=rule), tuned(seeds=seeds, rule=rule, scaling="local_sync"))
