"""FedAvg and its family agree with their slow references, fed the same draws, and become each other in limits."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_lc import problems
from fedjax_lc.compressors import parse
from tests.algorithms.rounds import (
    CLIENTS,
    PROBLEM,
    REF,
    SCHEDULE,
    SIZES,
    X0,
    N,
    Replayed,
    begin,
    close,
    differ,
    hyperparameters,
    messages,
    reference,
    theirs_of,
    walk,
)
from tests.reference import local

ADAPTIVE = {"client_lr": 0.4, "server_lr": 0.1, "b1": 0.6, "b2": 0.9, "tau": 0.03, "v0": 0.01}
MIME = {"client_lr": 0.15, "server_lr": 0.8, "b1": 0.6, "b2": 0.9, "eps": 0.05}
AMS = {"client_lr": 0.4, "server_lr": 0.1, "b1": 0.6, "b2": 0.9, "eps": 0.01}
BASE: dict[str, dict[str, Any]] = {
    "fedavg": {"client_lr": 0.4, "server_lr": 0.8},
    "fedprox": {"client_lr": 0.4, "server_lr": 0.8, "mu": 0.3},
    "fedavgm": {"client_lr": 0.4, "server_lr": 0.5, "b1": 0.6},
    "fedadagrad": ADAPTIVE,
    "fedadam": ADAPTIVE,
    "fedyogi": ADAPTIVE,
    "scaffold": {"client_lr": 0.3, "server_lr": 0.8},
    "fednova": {"client_lr": 0.4},
    "mime": MIME,
    "mimelite": MIME,
    "local_adam": {"client_lr": 0.1, "b1": 0.6, "b2": 0.9, "eps": 0.05},
    "local_adaalter": {"client_lr": 0.3, "eps": 0.5, "v0": 0.2},
    "fedams": AMS,
    "fedcams": AMS | {"compressor": parse("top_k:2")},
}
UNEQUAL = {"local_steps": jnp.array([1, 4, 2, 3], jnp.int32)}
THREE, ONE = jnp.full(N, 3, jnp.int32), jnp.full(N, 1, jnp.int32)
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "unequal": UNEQUAL | {"client_weights": "size"},
    "batches": UNEQUAL | {"client_weights": "size", "batch_size": 2, "replacement": False},
    "cohort": {"cohort_size": 2, "batch_size": 2},
    "schedule": UNEQUAL | {"selection": "schedule", "schedule": SCHEDULE},
    "epochs": {"local_epochs": 2, "batch_size": 2, "selection": "schedule", "schedule": SCHEDULE},
    "size": {"cohort_size": 2, "selection": "size"},
    "bernoulli": {"cohort_size": 2, "selection": "bernoulli"},
}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((name, "unequal", {}) for name in BASE),
    *((name, "full", {}) for name in ("fedavg", "fedadagrad", "fedadam", "fedyogi", "scaffold", "mime")),
    ("fedavg", "batches", {}),
    ("fedavg", "cohort", {}),
    ("fedavg", "epochs", {}),
    ("fedavg", "size", {}),
    ("fedprox", "schedule", {}),
    ("fedavgm", "bernoulli", {}),
    ("scaffold", "schedule", {}),
    ("scaffold", "cohort", {"option": "I"}),
    ("scaffold", "epochs", {}),
    ("scaffold", "batches", {}),
    ("fednova", "epochs", {}),
    ("fednova", "unequal", {"solver": "momentum", "rho": 0.7}),
    ("fednova", "unequal", {"solver": "prox", "mu": 0.4}),
    ("mime", "batches", {}),
    ("mime", "unequal", {"opt": "adam"}),
    ("mime", "cohort", {"opt": "adam", "frozen": "strict"}),
    ("mimelite", "full", {"opt": "adam", "frozen": "strict"}),
    ("mimelite", "schedule", {"opt": "adam"}),
    ("local_adam", "cohort", {"moments": "average"}),
    ("local_adam", "schedule", {"moments": "keep"}),
    ("local_adaalter", "cohort", {}),
    ("fedams", "unequal", {"form": "code"}),
    ("fedcams", "schedule", {}),
    ("fedcams", "cohort", {"form": "code", "compressor": parse("sign")}),
]


def of(name, variant="full", **changes):
    """Hyperparameters. SCAFFOLD's reference knows plain means only."""
    chosen = VARIANTS[variant] | changes
    if name == "scaffold":
        chosen = {field: value for field, value in chosen.items() if field != "client_weights"}
    return hyperparameters(name, **(BASE[name] | chosen))


def points(name, variant="full", **changes):
    """(ROUNDS, d) our models."""
    return walk(name, of(name, variant, **changes))[2]


def fields(name, hp):
    """What of our state is what of the reference's."""
    moments = {"s.m": "m", "s.v": "v"}
    if name in ("mime", "mimelite"):
        return {"x": "x", "s.m": "m"} | ({"s.v": "v", "s.updates": "count"} if hp.opt == "adam" else {})
    if name == "local_adam":
        own = {"s.m": "m_i", "s.v": "v_i", "s.steps": "count_i"}
        return {"x": "x"} | (own if hp.moments != "reset" else {})
    return {
        "fedavgm": {"x": "x", "m": "m"},
        **{adaptive: {"x": "x", "m": "m", "v": "v"} for adaptive in ("fedadagrad", "fedadam", "fedyogi")},
        "scaffold": {"x": "x", "c": "c", "c_i": "c_i"},
        "local_adaalter": {"x": "x", "B2": "B2"},
        "fedams": {"x": "x", "s.vmax": "vmax", **moments},
        "fedcams": {"x": "x", "s.vmax": "vmax", "e_i": "e_i", **moments},
    }.get(name, {"x": "x"})


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "variant", "changes"), CASES)
def test_agreement(name, variant, changes):
    hp = of(name, variant, **changes)
    theirs = reference(name, hp, messages(hp.compressor) if name == "fedcams" else None)
    states, _, models = walk(name, hp)
    close(models, [state["x"] for state in theirs])
    differ(models[-1], models[-2])
    for ours, other in fields(name, hp).items():
        want = np.array([state[other] for state in theirs])
        got = operator.attrgetter(ours)(states)
        close(got, want[:, 0] if want.ndim > got.ndim else want, message=ours)


@pytest.mark.parametrize(("compressor", "variant"), [("rand_k:2|natural", "full"), ("top_k:2", "bernoulli")])
def test_agreement_of_compressed_changes(compressor, variant):
    """x + eta_g sum_i w_i C(y_i - x)."""
    hp = of("fedavg", variant, compressor=parse(compressor))
    replayed, told, compress, x = Replayed(hp), local.DEFAULTS | theirs_of(hp), messages(hp.compressor), X0
    for t, model in enumerate(walk("fedavg", hp)[2]):
        w, state = local.weights(told, N, replayed.cohort(t)), {"t": t, "x": x}
        change = {i: compress(t, i, local.trained(replayed, told, state, i) - x) for i in w}
        x = x + told["eta_g"] * local.weighted(w, change)
        close(model, x)


def test_agreement_of_a_server_optimiser_of_optax():
    hp = hyperparameters("fedopt", choices={"server": "adam"}, client_lr=0.4, server_lr=0.1, **VARIANTS["unequal"])
    replayed, told, x = Replayed(hp), local.DEFAULTS | theirs_of(hp), X0
    server = optax.adam(0.1)
    memory = server.init(x)
    for t, model in enumerate(walk("fedopt", hp)[2]):
        w = local.weights(told, N, range(N))
        Delta = local.delta(replayed, told | {"rho": 0.0}, {"t": t, "x": x}, w)
        updates, memory = server.update(-Delta, memory)
        x = x + np.asarray(updates)
        close(model, x)


# One method as the limit of another.


@pytest.mark.parametrize(("name", "changes"), [("fedprox", {"mu": 0.0}), ("fedavgm", {"b1": 0.0})])
def test_without_its_term_it_is_fedavg(name, changes):
    want = points("fedavg", "unequal")
    close(points(name, "unequal", server_lr=0.8, **changes), want)
    differ(points(name, "unequal", server_lr=0.8), want)


def test_fedopt_with_sgd_is_fedavg():
    hp = hyperparameters("fedopt", choices={"server": "sgd"}, client_lr=0.4, server_lr=0.8)
    close(walk("fedopt", hp)[2], points("fedavg"))


@pytest.mark.parametrize("changes", [{}, {"solver": "momentum"}, {"solver": "prox"}])
def test_fednova_with_equal_steps_is_fedavg(changes):
    """Of any number; and with rho or mu zero."""
    want = points("fedavg", "unequal", server_lr=1.0, local_steps=THREE)
    close(points("fednova", "unequal", local_steps=THREE, **changes), want)
    differ(points("fednova", "unequal", **changes), points("fedavg", "unequal", server_lr=1.0))


def test_fednova_of_equal_proximal_steps_is_fedprox():
    equal = {"local_steps": THREE, "mu": 0.4}
    close(points("fednova", "unequal", solver="prox", **equal), points("fedprox", "unequal", server_lr=1.0, **equal))


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_huge_tau_is_scaled_fedavg(name):
    """sqrt(v) + tau is tau to within 1e-9."""
    tau = 1e9
    got = points(name, b1=0.0, b2=0.0, v0=0.0, tau=tau, server_lr=0.8 * tau)
    np.testing.assert_allclose(got, points("fedavg"), rtol=0, atol=1e-7)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_fedcams_without_compression_is_fedams(form):
    hp = of("fedcams", "unequal", form=form, compressor=parse("identity"))
    states, _, models = walk("fedcams", hp)
    close(models, points("fedams", "unequal", form=form))
    np.testing.assert_allclose(states.e_i, 0, atol=1e-15)


@pytest.mark.parametrize("option", ["I", "II"])
def test_scaffold_whose_variates_are_held_at_zero_is_fedavg(option):
    """A round from every model of FedAvg. Option I renews c_i to the gradient at x, II to the mean along the way."""
    hp, models = of("scaffold", option=option, client_lr=0.4), np.concatenate([X0[None], points("fedavg")])
    replayed, told = Replayed(hp), theirs_of(hp) | {"rho": 0.0, "mu": 0.0}
    zero = begin("scaffold", hp)
    for x, want in pairwise(models):
        states, _, _ = walk("scaffold", hp, state=zero._replace(x=jnp.asarray(x)))
        close(states.x[0], want)
        along = [(x - local.trained(replayed, told, {"t": 0, "x": x}, i)) / (3 * 0.4) for i in range(N)]
        close(states.c_i[0], along if option == "II" else [REF.grad(i, x) for i in range(N)])


@pytest.mark.parametrize(("variant", "option"), [("full", "I"), ("full", "II"), ("batches", "II")])
def test_scaffold_of_one_local_step_is_sgd(variant, option):
    """Everybody takes part and eta_g = 1, since c = mean c_i."""
    steps = ONE if variant == "batches" else 1
    hp = of("scaffold", variant, option=option, local_steps=steps, server_lr=1.0)
    replayed, x = Replayed(hp), X0
    for t, model in enumerate(walk("scaffold", hp)[2]):
        x = x - 0.3 * np.mean([replayed.grad(t, i, 0, x) for i in range(N)], axis=0)
        close(model, x)


@pytest.mark.parametrize("variant", ["full", "batches"])
def test_mime_of_one_sgd_step_is_momentum_on_the_full_gradient(variant):
    """On any batch, since a client's two gradients cancel: at x every correction is G - g_i(x)."""
    steps, shares = (ONE, SIZES / SIZES.sum()) if variant == "batches" else (1, np.full(N, 1 / N))
    x, buffer = X0, 0
    for model in points("mime", variant, local_steps=steps, server_lr=1.0):
        buffer = shares @ np.array([REF.grad(i, x) for i in range(N)]) + 0.6 * buffer
        x = x - 0.15 * buffer
        close(model, x)


@pytest.fixture(scope="module")
def alike():
    """Four times the second client, in the arrays' shapes of PROBLEM."""
    problem = problems.logistic_regression([CLIENTS[1]] * N, l2=float(PROBLEM.strong))
    return problem.replace(x0=PROBLEM.x0)


@pytest.mark.parametrize("changes", [{}, {"opt": "adam", "frozen": "strict"}])
def test_mime_and_mimelite_agree_on_equal_clients(changes, alike):
    mime, lite = (walk(name, of(name, **changes), alike)[2] for name in ("mime", "mimelite"))
    close(mime, lite)
    differ(points("mime", **changes), points("mimelite", **changes))


def test_local_adam_with_averaged_moments_is_adam_on_equal_clients(alike):
    hp = of("local_adam", moments="average")
    models = walk("local_adam", hp, alike)[2]
    optimiser = optax.adam(0.1, b1=0.6, b2=0.9, eps=0.05)
    x, memory = X0, optimiser.init(X0)
    for model in models:
        for _ in range(3):
            updates, memory = optimiser.update(REF.grad(1, x), memory)
            x = x + np.asarray(updates)
        close(model, x)


def test_adaalter_of_one_local_step_is_adagrad_that_lags():
    """Its accumulator is of mean squares, one round late, with eps^2 inside the root."""
    hp = of("local_adaalter", "unequal", local_steps=ONE)
    replayed, x, B2, shares = Replayed(hp), X0, 0.2, SIZES / SIZES.sum()
    for t, model in enumerate(walk("local_adaalter", hp)[2]):
        g = np.array([replayed.grad(t, i, 0, x) for i in range(N)])
        x = x - 0.3 * (shares @ g) / np.sqrt(B2 + 0.5**2)
        B2 = B2 + shares @ g**2
        close(model, x)
