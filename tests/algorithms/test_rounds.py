"""Who takes part in a round, what is theirs, what they pay, how long they train and with which step sizes."""

from __future__ import annotations

import dataclasses
import functools
from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_lc import algorithms, problems
from fedjax_lc.algorithms.frames import local, schedules
from fedjax_lc.algorithms.frames.local import Local, select
from fedjax_lc.compressors import parse
from fedjax_lc.core.errors import InputError
from tests.algorithms.rounds import (
    COHORTS,
    KEY,
    PROBLEM,
    REF,
    ROUNDS,
    SCHEDULE,
    SIZES,
    D,
    L,
    N,
    Replayed,
    begin,
    close,
    differ,
    far,
    hyperparameters,
    walk,
)
from tests.conftest import make_clients

FLOATS = 32 * D  # bits of a vector


@functools.cache
def ran(name, cohort, choices=(), **changes):
    """(hyperparameters, states with the first one in front, costs) of ROUNDS rounds."""
    hp = hyperparameters(name, choices=choices, **(COHORTS[cohort] | changes))
    first = begin(name, hp)
    states, cost, _ = walk(name, hp, state=first)
    return hp, jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], b]), first, states), cost


def members(hp):
    """(ROUNDS, n) who takes part."""
    return np.array([np.isin(np.arange(N), there) for there in Replayed(hp).members])


# Who takes part.


@functools.partial(jax.jit, static_argnums=0)
def _drawn(n, sizes, who, keys):
    problem = SimpleNamespace(n=n, sizes=sizes)
    ids, present = jax.vmap(lambda key: select(problem, who, jnp.int32(0), key))(keys)
    taken = jnp.ones(ids.shape, bool) if present is None else present
    return jax.vmap(lambda row, there: jnp.zeros(n, jnp.int32).at[row].add(there))(ids, taken)


def drawn(sizes, draws=20_000, **who):
    """(draws, n) how often each client stands in each of so many cohorts."""
    sizes = jnp.asarray(sizes, jnp.int32)
    return np.asarray(_drawn(len(sizes), sizes, Local(**who), jax.random.split(KEY, draws)))


def near(found, chance, draws=20_000, sigmas=4):
    np.testing.assert_array_less(np.abs(found - chance), sigmas * np.sqrt(chance * (1 - chance) / draws) + 1e-12)


def pairs(times):
    """Shares of cohorts in which both of two clients stand."""
    together = times.T @ times / len(times)
    return together[np.triu_indices(len(together), 1)]


@pytest.mark.slow
def test_uniform_cohorts_are_of_distinct_clients_and_all_sets_alike():
    times = drawn([1] * 6, cohort_size=3)
    assert times.max() == 1
    assert np.all(times.sum(axis=1) == 3)
    near(times.mean(axis=0), np.full(6, 1 / 2))
    codes, counts = np.unique(times @ 2 ** np.arange(6), return_counts=True)
    assert len(codes) == 20
    near(counts / len(times), np.full(20, 1 / 20))


@pytest.mark.parametrize("c", [1, 2])
def test_cohorts_by_size_go_one_after_the_other_by_their_rows(c):
    """A first client with chance m_i/N, a second one so from the others; one row in a thousand is not forgotten."""
    sizes = np.array([1, 20, 30, 49])
    times = drawn(sizes, cohort_size=c, selection="size")
    assert times.max() == 1
    assert np.all(times.sum(axis=1) == c)
    chance = np.zeros(4)
    for order in permutations(range(4), c):
        left, p = sizes.sum(), 1.0
        for i in order:
            p, left = p * sizes[i] / left, left - sizes[i]
        chance[list(order)] += p
    assert np.all(np.diff(chance) > 0)
    near(times.mean(axis=0), chance)


@pytest.mark.parametrize("n", [6, 60])
def test_bernoulli_clients_come_independently(n):
    """Each with chance c/n, two of them with its square, given that somebody comes."""
    p = 2 / n
    somebody = 1 - (1 - p) ** n
    times = drawn([1] * n, cohort_size=2, selection="bernoulli")
    assert times.max() == 1
    assert times.sum(axis=1).min() == 1
    near(times.mean(axis=0), np.full(n, p / somebody))
    near(pairs(times), np.full(n * (n - 1) // 2, p**2 / somebody), sigmas=5)


def test_a_schedule_names_the_clients_of_each_round_and_begins_anew():
    hp, states, _ = ran("scaffold", "schedule")
    there = np.array([np.isin(np.arange(N), SCHEDULE[t % len(SCHEDULE)]) for t in range(ROUNDS)])
    np.testing.assert_array_equal(members(hp), there)
    np.testing.assert_array_equal(np.any(states.c_i[1:] != states.c_i[:-1], axis=2), there)


# What is theirs.


@pytest.mark.parametrize("cohort", COHORTS)
def test_variate_of_scaffolds_server_is_the_mean_of_its_clients(cohort):
    hp, states, _ = ran("scaffold", cohort)
    np.testing.assert_allclose(states.c, states.c_i.mean(axis=1), rtol=0, atol=1e-14)
    assert np.all(np.any(states.c_i[-1] != 0, axis=1) == members(hp).any(axis=0))


def test_variates_of_option_one_are_gradients_where_a_client_was_last():
    hp, states, _ = ran("scaffold", "uniform", option="I")
    there, last = members(hp), {}
    for t in range(ROUNDS):
        last |= dict.fromkeys(np.flatnonzero(there[t]), states.x[t])
        close(states.c_i[t + 1], [REF.grad(i, last[i]) if i in last else np.zeros(D) for i in range(N)])
    assert len({x.tobytes() for x in last.values()}) > 1


OWN = {
    "scaffold": lambda state: [state.c_i],
    "fedcams": lambda state: [state.e_i],
    "local_adam": lambda state: list(state.s),
    "savic": lambda state: list(state.precond),
}
CHOICES = {
    "fedcams": {"compressor": parse("top_k:2")},
    "local_adam": {"moments": "keep"},
    "savic": {"scaling": "local_sync"},
}


@pytest.mark.parametrize(
    ("name", "cohort"), [*((name, "schedule") for name in OWN), ("scaffold", "bernoulli"), ("scaffold", "size")]
)
def test_what_belongs_to_who_is_absent_stays_bit_for_bit(name, cohort):
    hp, states, _ = ran(name, cohort, **CHOICES.get(name, {}))
    there = members(hp)
    for rows in OWN[name](states):
        rows = rows.reshape(ROUNDS + 1, N, -1)
        changed = np.any(rows[1:] != rows[:-1], axis=2)
        np.testing.assert_array_equal(changed, there)


FELLOWS = [[0, 1], [0, 2], [3, 0], [-1, 0]]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("scaffold", {"batch_size": 2}),
        ("scaffold", {"batch_size": 2, "local_epochs": 2}),
        ("fedcams", {"batch_size": 2, "compressor": parse("rand_k:2")}),
    ],
)
def test_what_a_client_does_does_not_depend_on_who_else_is_there(name, changes):
    """Client 0's rows and messages in the first round, among others or alone, and in the second round others."""
    rows = []
    for fellows in FELLOWS:
        schedule = jnp.tile(jnp.array([fellows], jnp.int32), (len(SCHEDULE), 1))
        hp = hyperparameters(name, selection="schedule", schedule=schedule, **changes)
        rows.append(OWN[name](walk(name, hp)[0])[0][:2, 0])
    for other in rows[1:]:
        np.testing.assert_allclose(other[0], rows[0][0], rtol=0, atol=1e-15)
    differ(rows[0][0], rows[0][1])


METHODS = [
    "fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedopt", "scaffold", "fednova", "mime",
    "mimelite", "local_adam", "local_adaalter", "fedams", "fedcams", "savic",
]  # fmt: skip
#: two clients, then one
FEWER = jnp.array([[0, 2], [1, -1]], jnp.int32)


@functools.cache
def fewer(name, **changes):
    """States and costs of two clients, then one. Of unequal local steps where the method allows them."""
    steps = {} if changes.get("moments") == "average" else {"local_steps": jnp.array([1, 4, 2, 3], jnp.int32)}
    hp = hyperparameters(name, selection="schedule", schedule=FEWER, **steps, **changes)
    states, cost, _ = walk(name, hp)
    return states, np.stack(cost, axis=1)


# What they pay, as means over all four clients.

#: vectors up and down, and of what multiple of the local steps and how many more full gradients
PAID: dict[str, tuple[float, float, int, int]] = dict.fromkeys(METHODS, (1, 1, 1, 0)) | {
    "scaffold": (2, 2, 1, 0),
    "fednova": (1 + 1 / D, 1, 1, 0),  # and the norm of a client's steps
    "mime": (2, 3, 2, 1),  # a model and a gradient; a model, a momentum and the mean gradient
    "mimelite": (2, 2, 1, 1),
    "local_adaalter": (2, 2, 1, 0),
    "fedcams": (0, 1, 1, 0),
    "savic": (2, 2, 1, 0),
}


@pytest.mark.parametrize("name", METHODS)
def test_costs_of_those_who_take_part(name):
    """Clients 0 and 2 of 1 and 2 local steps, then client 1 of 4. Of FedCAMS: two of five entries."""
    up, down, times, extra = PAID[name]
    up = 2 * (32 + 3) / FLOATS if name == "fedcams" else up
    changes = {"compressor": parse("top_k:2")} if name == "fedcams" else {}
    _, cost = fewer(name, **changes)
    want = [
        [2 * up * FLOATS, 2 * down * FLOATS, 3 * times + 2 * extra],
        [up * FLOATS, down * FLOATS, 4 * times + extra],
    ]
    np.testing.assert_allclose(cost[:2, :3], np.array(want) / 4, rtol=1e-6)
    np.testing.assert_array_equal(cost[:, 3], 1)


@pytest.mark.parametrize(
    ("name", "changes", "vectors", "grads"),
    [
        ("scaffold", {"option": "I"}, (2, 2), 3 + 1),
        ("mime", {"opt": "adam"}, (2, 4), 2 * 3 + 1),
        ("local_adam", {"moments": "average"}, (3, 3), 3),
        ("fedavg", {"compressor": parse("top_k:2")}, (70 / FLOATS, 1), 3),
        ("fedavg", {"batch_size": 2}, (1, 1), 3 * np.mean(2 / SIZES)),
        ("fedavg", {"batch_size": 4, "replacement": False}, (1, 1), 3 * np.mean(np.minimum(4 / SIZES, 1))),
        ("mime", {"batch_size": 2, "local_epochs": 3}, (2, 3), 2 * 3 + 1),
    ],
)
def test_costs_of_everybody(name, changes, vectors, grads):
    _, cost, _ = walk(name, hyperparameters(name, **changes))
    np.testing.assert_allclose(cost.bits_up, vectors[0] * FLOATS)
    np.testing.assert_allclose(cost.bits_down, vectors[1] * FLOATS)
    np.testing.assert_allclose(cost.grads, grads, rtol=1e-6)


# Where they go.


def test_control_variates_lead_heterogeneous_clients_to_the_solution():
    """Five full local steps; FedAvg stops short."""
    common: dict[str, Any] = {"local_steps": 5, "client_lr": 0.25 / L, "server_lr": 1.0}
    for name, changes in (("scaffold", {}), ("scaffold", {"option": "I"}), ("mime", {"b1": 0.0})):
        state = far(name, hyperparameters(name, **common, **changes), 240)
        np.testing.assert_allclose(state.x, PROBLEM.x_star, rtol=0, atol=1e-10)
    x = np.asarray(far("fedavg", hyperparameters("fedavg", **common), 240).x)
    assert float(PROBLEM.value(x)) - PROBLEM.f_star > 1e-6


def test_variates_of_clients_that_come_and_go_still_lead_to_the_solution():
    hp = hyperparameters("scaffold", cohort_size=2, client_lr=0.25 / L)
    np.testing.assert_allclose(far("scaffold", hp, 400).x, PROBLEM.x_star, rtol=0, atol=1e-10)


# Passes over rows.


def one_hot(sizes):
    """Least squares whose every row has a coordinate of its own, with target 0: a step of size g shrinks it by g/b."""
    rows, first = np.eye(sum(sizes)), np.cumsum([0, *sizes])
    clients = [(rows[a:b], np.zeros(b - a)) for a, b in pairwise(first)]
    return problems.least_squares(clients, l2=0).replace(x0=jnp.ones(sum(sizes)))


@pytest.mark.parametrize(("epochs", "batch"), [(3, 1), (1, 2), (2, 4)])
def test_every_row_is_used_once_an_epoch(epochs, batch):
    """In a batch of b rows a coordinate shrinks by 1 - g/b; the last batch of an epoch may be smaller."""
    problem, g = one_hot(SIZES.tolist()), 0.3
    hp = hyperparameters("fedavg", problem, local_epochs=epochs, batch_size=batch, client_lr=g, server_lr=1.0)
    shrunk = 1 - N * (1 - walk("fedavg", hp, problem)[2][0])  # the other clients' models have a one there
    assert len(np.unique(shrunk)) > 1 or batch == 1
    for i, m in enumerate(SIZES):
        batches = [min(batch, m - start) for start in range(0, m, batch)]
        once = np.concatenate([np.full(b, 1 - g / b) for b in batches])
        found = shrunk[SIZES[:i].sum() : SIZES[: i + 1].sum()]
        np.testing.assert_allclose(np.prod(found), np.prod(once) ** epochs, rtol=1e-12)
        if epochs == 1 or batch == 1:
            np.testing.assert_allclose(np.sort(found), np.sort(once**epochs), rtol=1e-12)


def test_orders_are_new_in_every_epoch_and_for_every_client():
    """And uniform: each of a client's rows stands first equally often."""
    orders = jax.jit(jax.vmap(lambda key: PROBLEM.orders(key, 2)))(jax.random.split(KEY, 4_000))
    for i, m in enumerate(SIZES):
        own = np.asarray(orders)[:, i, :, :m]
        np.testing.assert_array_equal(np.sort(own, axis=-1), np.broadcast_to(np.arange(m), own.shape))
        near(np.mean(own[:, 0, :1] == np.arange(m)[None], axis=0), np.full(m, 1 / m), 4_000)
        near(np.mean(own[:, 0, 0] == own[:, 1, 0]), 1 / m, 4_000)
    near(np.mean(orders[:, 0, 0, 0] == orders[:, 3, 0, 0]), 1 / 5, 4_000)


# Step sizes over rounds.


@pytest.mark.parametrize(
    ("schedule", "t", "factor"),
    [
        ("constant", 7, 1),
        ("inverse_sqrt", 3, 0.5),
        ("cosine:100", 0, 1),
        ("cosine:100", 50, 0.5),
        ("cosine:100", 100, 0),
        ("linear:10", 4, 0.6),
        ("exponential:0.9", 3, 0.9**3),
        ("steps:10,0.1", 19, 0.1),
        ("steps:10,0.1", 20, 0.01),
        ("warmup:4", 0, 0.25),
        ("warmup:4", 9, 1),
        ("warmup_cosine:4,104", 4, 1),
        ("warmup_cosine:4,104", 54, 0.5),
        (optax.constant_schedule(0.3), 5, 0.3),
    ],
)
def test_schedules(schedule, t, factor):
    assert float(schedules.parse(schedule)(t)) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", ["fedadam", "fednova", "scaffold", "savic"])
def test_scheduled_run_is_one_whose_step_sizes_change_by_hand(name):
    """Down to zero, where the model stays; Adam's momentum still moves it."""
    plain = hyperparameters(name)
    at_server = {"server_schedule": "exponential:0.8"} if hasattr(plain, "server_lr") else {}
    scheduled = dataclasses.replace(plain, client_schedule="linear:5", **at_server)
    _, _, models = walk(name, scheduled)
    state = begin(name, plain)
    for t in range(5):
        factors = {"client_lr": 1 - t / 5, "gamma": 1 - t / 5, "server_lr": 0.8**t}
        sizes = {size: getattr(plain, size) * factor for size, factor in factors.items() if hasattr(plain, size)}
        states, _, _ = walk(name, dataclasses.replace(plain, **sizes), state=state, first=t)
        state = jax.tree.map(lambda leaf: leaf[0], states)
        close(models[t], state.x)
    differ(walk(name, plain)[2][:5], models[:5], 1e-6)
    assert np.all(np.isfinite(models))
    if name != "fedadam":
        np.testing.assert_array_equal(models[5:], np.broadcast_to(models[4], models[5:].shape))


# What cannot be.

QUADRATIC = problems.quadratic(np.ones((4, D)), np.ones((4, D)))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("fedavg", {"selection": "some"}, "unknown selection 'some'"),
        ("fedavg", {"client_weights": "rows"}, "unknown client_weights 'rows'"),
        ("fedavg", {"selection": "schedule"}, "give both"),
        ("fedavg", {"schedule": np.array([[0, 1]])}, "give both"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([[0, 4]])}, "below n = 4"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([0, 1])}, r"must be an array \(rounds, c\)"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([[0, 1], [1, 1]])}, "twice in round 1"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([[-1, -1]])}, "nobody in round 0"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([[0.0]])}, "client numbers"),
        ("fedavg", {"selection": "schedule", "schedule": np.array([[0]]), "cohort_size": 1}, "leave out cohort_size"),
        ("fedavg", {"local_steps": np.array([1, 2, 3])}, r"local_steps must be one number or 4.*\(3,\)"),
        ("fedavg", {"local_steps": [1, 2, 3, 4]}, "got a list: wrap it in jnp.array"),
        ("fedavg", {"local_steps": 0}, "local_steps whole and >= 1"),
        ("fedavg", {"local_epochs": 2}, "give batch_size"),
        ("fedavg", {"cohort_size": 5}, "cohort_size whole and in 1..4, got 5"),
        ("fedavg", {"client_schedule": "cosin:10"}, "unknown schedule 'cosin'"),
        ("fedavg", {"client_schedule": "cosine"}, "schedule 'cosine' needs rounds: write cosine:ROUNDS"),
        ("fedavg", {"server_schedule": "cosine:ten"}, "rounds must be a finite number > 0, got 'ten'"),
        ("fedavg", {"server_schedule": "steps:10,-1"}, "factor must be a finite number > 0, got '-1'"),
        ("fedavg", {"server_schedule": "warmup_cosine:10,5"}, "warmup_cosine"),
        ("fedadam", {"b2": 1.0}, r"b2 in \[0, 1\)"),
        ("fedadam", {"tau": 0.0}, "tau > 0"),
        ("fedprox", {"mu": -1.0}, "mu >= 0"),
        ("fednova", {"solver": "adam"}, "unknown solver 'adam'"),
        ("fednova", {"solver": "momentum", "rho": 1.0}, "rho"),
        ("fednova", {"rho": 0.5}, "rho=0.5 acts with solver='momentum' only, got solver='sgd'"),
        ("fednova", {"solver": "momentum", "mu": 0.5}, "mu=0.5 acts with solver='prox' only"),
        ("fedopt", {"server": "adamm"}, "no optimiser of optax"),
        ("fedopt", {"server": "clip"}, "'clip' does not step down a gradient"),
        ("fedopt", {"server": "lbfgs"}, "'lbfgs' needs more than a gradient"),
        ("fedopt", {"server": "chain"}, "'chain' needs more than a gradient|no optimiser"),
        ("fedavg", {"client_lr": "fast"}, "fedavg needs client_lr as a number, got the word 'fast'"),
        ("fedavg", {"compressor": "natural"}, "compressor as a compressor, as from fl.compressors.parse, got the word"),
        ("fedavg", {"batch_size": "all"}, "batch_size whole and >= 1, got 'all'"),
        ("fedavg", {"replacement": "no"}, "replacement true or false, got 'no'"),
        ("fedavg", {"client_schedule": 0.5}, "a schedule must be one of constant.*got 0.5"),
        ("fedavg", {"client_schedule": [1, 2]}, "a schedule must be one of"),
        ("savic", {"server_schedule": "linear:5"}, "nothing to act on: this method has no server_lr"),
        ("fedavg", {"selection": "bernoulli"}, "give cohort_size too"),
        ("fedopt", {"server": "polynomial_schedule"}, "pass a function"),
        ("fedopt", {"server": "constant_schedule"}, "no optimiser of optax"),
        ("scaffold", {"option": "III"}, "unknown option 'III'"),
        ("mime", {"opt": "lion"}, "unknown opt 'lion'"),
        ("mime", {"frozen": "no"}, "unknown frozen 'no'"),
        ("local_adam", {"moments": "sum"}, "unknown moments 'sum'"),
        ("local_adam", {"moments": "average", "local_steps": np.array([1, 2, 3, 4])}, "equal local steps"),
        ("fedams", {"form": "book"}, "unknown form 'book'"),
        ("savic", {"rule": "adamw"}, "unknown rule 'adamw'"),
        ("savic", {"scaling": "mine"}, "unknown scaling 'mine'"),
        ("savic", {"alpha": 0.0}, "alpha > 0"),
        ("savic", {"n_warm": 0}, "n_warm whole and >= 1"),
        ("savic", {"beta": 1.0}, r"beta in \[0, 1\)"),
        ("savic", {"rule": "fixed"}, "give both"),
        ("savic", {"rule": "fixed", "D": np.ones(3)}, "D"),
        ("savic", {"timing": "stale", "cohort_size": 2}, "all clients in every round"),
        ("savic", {"timing": "stale", "lag": True}, "no lag"),
        ("savic", {"scaling": "local", "lag": True}, "one refresh a round"),
    ],
)
def test_errors_are_one_line(name, changes, words):
    algorithm = algorithms.get(name)
    hp = dataclasses.replace(algorithm.theory(PROBLEM), **changes)
    with pytest.raises(InputError, match=words) as caught:
        algorithm.check(PROBLEM, hp), algorithm.init(PROBLEM, hp, KEY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection": "size", "cohort_size": 2}, "have rows"),
        ({"client_weights": "size"}, "have rows"),
        ({"local_epochs": 1, "batch_size": 1}, "a problem with rows"),
    ],
)
def test_errors_of_a_problem_without_rows(changes, words):
    algorithm = algorithms.get("fedavg")
    with pytest.raises(InputError, match=words):
        algorithm.check(QUADRATIC, dataclasses.replace(algorithm.theory(QUADRATIC), **changes))


@pytest.mark.parametrize(("spec", "mean"), [("shared_rand_k:2", None), ("perm_k:3", 1.0)])
def test_a_cohort_shares_its_draws(spec, mean):
    """One mask for all of it, or every entry sent by exactly one of it."""
    algorithm = algorithms.get("fedavg")
    hp = dataclasses.replace(algorithm.theory(PROBLEM, compressor=spec), cohort_size=3, local_steps=1, batch_size=None)
    round = local.begin(PROBLEM, hp, jnp.asarray(0), KEY)
    value, _ = round.upload(hp.compressor, jnp.ones((3, D)))
    if mean is None:
        np.testing.assert_array_equal(value, np.broadcast_to(value[0], value.shape))
        assert np.count_nonzero(value[0]) == 2
    else:
        np.testing.assert_allclose(value.mean(axis=0), mean)


def test_sizes_count_once():
    by_size = problems.logistic_regression(make_clients(), kappa=30, weights="size")
    algorithm = algorithms.get("fedavg")
    with pytest.raises(InputError, match="would count sizes twice"):
        algorithm.check(by_size, dataclasses.replace(algorithm.theory(by_size), client_weights="size"))
