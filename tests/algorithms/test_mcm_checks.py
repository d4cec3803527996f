"""What the methods of arXiv 2102.12528 must satisfy: limits in which they coincide, moments, fixed points, costs."""

from __future__ import annotations

import dataclasses
import functools
from itertools import product
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors, problems
from fedjax_lc.algorithms.frames import server
from fedjax_lc.algorithms.frames.links import Shifts
from fedjax_lc.algorithms.frames.turns import participants
from fedjax_lc.compressors import Compressor, Message
from fedjax_lc.core import pytree
from tests.algorithms.shared import KEY, quadratic_pair, step_keys

N, D, ROUNDS = 4, 5, 5
WITHOUT_MEMORY = ("sgd", "qsgd", "biqsgd", "double_squeeze")
STATIONARY = ("diana", "artemis", "dore", "mcm", "rand_mcm", "rand_mcm_g", "rand_mcm_1mem", "artemis_nd", "ghost")
WITH_MEMORY = (*STATIONARY, "mc")
METHODS = (*WITHOUT_MEMORY, *WITH_MEMORY)
EXACT = "identity"


@pytest.fixture(autouse=True, scope="module")
def _participants_by_one_program():
    """Steps run uncompiled here, and an uncompiled `while_loop` is built anew in every round."""
    numbers = lambda n, share: (SimpleNamespace(n=n), SimpleNamespace(participation=share, starts_dense=False))
    draw = jax.jit(lambda n, share, key: participants(*numbers(n, share), 0, key), static_argnums=0)
    fast = lambda problem, hp, t, key: None if hp.participation is None else draw(problem.n, hp.participation, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "participants", fast)
        yield


def heterogeneous(n):
    rng = np.random.default_rng(4)
    return quadratic_pair(rng, n, D, 10.0)[0].replace(x0=jnp.asarray(rng.normal(size=D)))


PROBLEM = heterogeneous(N)
X0 = np.asarray(PROBLEM.x0)


def hyperparameters(name, up="qsgd:1", down="qsgd:3", **changes):
    """The same numbers for all methods, each taking those that it has."""
    values = {"gamma": 0.06, "alpha_up": 0.15, "alpha_dwn": 0.2, "c_ef": 0.3} | changes
    values |= {"form": "mcm_repo", "alpha": values["alpha_up"]}
    values |= {"compressor": compressors.parse(up), "downlink": compressors.parse(down)}
    method = algorithms.get(name)
    fields = {field.name for field in dataclasses.fields(method.Hparams)} & values.keys()
    return pytree.cast(method.Hparams(**{field: values[field] for field in fields}), jnp.float64)


def run(name, problem, hp, rounds=ROUNDS, state=None):
    """States and costs after each round, stacked; uncompiled, which for a few rounds is faster than compiling them."""
    method, history = algorithms.get(name), []
    state = method.init(problem, hp, KEY) if state is None else state
    for key in step_keys(rounds):
        state, cost = method.step(problem, hp, state, key)
        history.append((state, cost))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *history)


@functools.cache
def ran(name, **options):
    """States and costs of the rounds from X0 on the quadratics."""
    return run(name, PROBLEM, hyperparameters(name, **options))


def states(name, **options):
    return ran(name, **options)[0]


def seen_by(found):
    """What the clients see of the model; the model itself, unless the method says otherwise."""
    return found.w if found.seen is None else found.seen


def each(seen):
    """(rounds, n or 1, d): what all clients see is also what each of them sees."""
    return seen if seen.ndim == 3 else seen[:, None]


def distance(left, right, fields=("w", "seen")):
    """Largest difference between these fields of two runs."""
    pairs = []
    for field in fields:
        sides = [jax.tree.leaves(getattr(side, field)) for side in (left, right)]
        pairs += zip(*sides, strict=True) if field != "seen" else [(each(seen_by(left)), each(seen_by(right)))]
    return np.max([np.abs(a - b).max() for a, b in pairs])  # NaN if any is


# Methods that coincide.


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", METHODS)
def test_without_compression_every_method_is_sgd(name):
    assert distance(states(name, up=EXACT, down=EXACT), states("sgd")) <= 1e-12
    assert name == "sgd" or distance(states(name), states("sgd")) > 1e-2


@pytest.mark.parametrize("name", [name for name in WITH_MEMORY if name != "diana"])
def test_without_downlink_compression_methods_with_memory_are_diana(name):
    assert distance(states(name, down=EXACT), states("diana"), ("w", "seen", "up")) <= 1e-12
    assert distance(states(name), states("diana")) > 1e-2


def test_without_downlink_compression_biqsgd_is_qsgd():
    assert distance(states("biqsgd", down=EXACT), states("qsgd")) <= 1e-12
    assert distance(states("biqsgd"), states("qsgd")) > 1e-2


@pytest.mark.parametrize(("name", "limit"), [("diana", "qsgd"), ("artemis", "biqsgd")])
def test_memories_that_never_learn_are_none(name, limit):
    assert distance(states(name, alpha_up=0.0), states(limit)) <= 1e-12
    assert distance(states(name), states(limit)) > 1e-2


@pytest.mark.parametrize(("name", "limit"), [("dore", "artemis"), ("double_squeeze", "biqsgd")])
def test_errors_that_never_come_back_change_nothing(name, limit):
    assert distance(states(name, c_ef=0.0), states(limit)) == 0
    assert distance(states(name), states(limit)) > 1e-2


def test_mcm_whose_downlink_memory_stays_at_zero_is_mc():
    origin = PROBLEM.replace(x0=jnp.zeros(D))
    mc, _ = run("mc", origin, hyperparameters("mc"))
    still, _ = run("mcm", origin, hyperparameters("mcm", alpha_dwn=0.0))
    assert distance(still, mc, ("w", "seen", "up")) == 0
    assert distance(run("mcm", origin, hyperparameters("mcm"))[0], mc) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("participation", [None, 0.5])
@pytest.mark.parametrize(("groups", "limit", "other"), [(1, "mcm", "rand_mcm"), (N, "rand_mcm", "mcm")])
def test_groups_reach_from_mcm_to_rand_mcm(groups, limit, other, participation):
    grouped = states("rand_mcm_g", groups=groups, participation=participation)
    assert distance(grouped, states(limit, participation=participation), ("w", "seen", "up", "down")) == 0
    assert distance(grouped, states(other, participation=participation)) > 1e-2
    assert distance(grouped, states("rand_mcm_g", participation=participation)) > 1e-2


def test_a_single_client_gets_the_messages_of_mcm():
    alone = heterogeneous(1)
    runs = {name: run(name, alone, hyperparameters(name, groups=1), rounds=4)[0]
            for name in ("mcm", "rand_mcm", "rand_mcm_g", "rand_mcm_1mem")}  # fmt: skip
    for found in runs.values():
        assert distance(found, runs["mcm"], ("w", "seen", "up")) == 0
    assert np.abs(runs["mcm"].seen - runs["mcm"].w).max() > 1e-2


# Whose randomness, and where gradients are taken.


def test_who_shares_randomness():
    """A downlink of MCM is drawn once, of Rand-MCM-G for each group, of Rand-MCM for each client; so is an uplink."""
    paths = lambda rows: np.unique(np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1), axis=0)
    drawn = [len(paths(each(states(name).seen))) for name in ("mcm", "rand_mcm_g", "rand_mcm", "rand_mcm_1mem")]
    assert drawn == [1, 2, N, N]
    alike = problems.quadratic(np.ones((N, D)), np.tile(X0, (N, 1)))
    assert len(paths(run("diana", alike, hyperparameters("diana"))[0].up.h_i)) == N


@pytest.mark.parametrize("name", ["mcm", "rand_mcm", "rand_mcm_g", "rand_mcm_1mem", "mc", "artemis_nd", "ghost"])
def test_gradients_are_taken_at_what_clients_see_and_the_loss_at_w(name):
    """Without compression what they see next is w; only Artemis-ND never makes up for a difference."""
    method, hp = algorithms.get(name), hyperparameters(name, up=EXACT, down=EXACT)
    start = method.init(PROBLEM, hp, KEY)
    start = start._replace(seen=start.seen + np.random.default_rng(2).normal(size=start.seen.shape))
    after, _ = run(name, PROBLEM, hp, 1, start)
    g = np.einsum("nde,ne->nd", PROBLEM.Q, np.broadcast_to(start.seen, (N, D))) - np.asarray(PROBLEM.b)
    np.testing.assert_allclose(after.w[0], X0 - 0.06 * g.mean(axis=0), rtol=0, atol=1e-12)
    left = start.seen - X0 if name == "artemis_nd" else 0
    np.testing.assert_allclose(after.seen[0] - after.w[0], left + 0 * start.seen, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(method.point(PROBLEM, hp, start), X0)


def test_copies_of_one_memory_drift_around_it_until_they_are_reset():
    """That what_i = H_i + Om_i and H_i+ = H_i + alpha_dwn Om_i tells which H_i was used: H in rounds 3 and 5."""
    found = states("rand_mcm_1mem", reset_every=2)
    H, H_i = found.down
    np.testing.assert_allclose(H_i.mean(axis=1), H, rtol=0, atol=1e-12)
    used = found.seen - (found.seen - H_i) / (1 - 0.2)
    away = np.abs(used[1:] - H[:-1, None]).max(axis=(1, 2))
    assert np.all(away[1::2] <= 1e-12)
    assert np.all(away[::2] > 1e-3)


# Moments of the downlink.


@pytree.dataclass
class Drawn(Compressor):
    """A compressor whose randomness `u`, one row for each message, is prescribed."""

    compressor: Compressor
    u: Any
    name: ClassVar[str] = "drawn"

    def joint(self, key, X, sent=None):
        return jax.vmap(self.compressor.apply)(X, self.u)


def downlinks(name, hp, start):
    """(alpha_dwn (a,), u (m, G, d)) -> (w, what, H+), each (a, m, G or 1, d), after a round from `start`."""

    def after(alpha_dwn, u):
        drawn = dataclasses.replace(hp, alpha_dwn=alpha_dwn, downlink=Drawn(hp.downlink, u))
        state, _ = algorithms.get(name).step(PROBLEM, drawn, start, KEY)
        return state.w[None], jnp.atleast_2d(state.seen), state.down

    compiled = jax.jit(jax.vmap(jax.vmap(after, (None, 0)), (0, None)))
    return lambda *arguments: map(np.asarray, compiled(*arguments))


@pytest.mark.parametrize("name", ["mcm", "rand_mcm"])
def test_moments_of_the_downlink(name):
    """E what = w, E|w - what|^2 = Var C(w - H), E|w - H+|^2 <= (1 - alpha)|w - H|^2: over all outcomes of QSGD, s = 1.

    With x = w - H, an entry goes up to |x| where its uniform lies below |x_j|/|x|, and else to zero.
    """
    hp, rng = hyperparameters(name, up=EXACT, down="qsgd:1"), np.random.default_rng(5)
    start = algorithms.get(name).init(PROBLEM, hp, KEY)
    H, omega = rng.normal(size=start.down.shape), D**0.5
    go = downlinks(name, hp, start._replace(down=jnp.asarray(H)))
    alphas, ups = np.append(np.linspace(0, 1 / (1 + omega), 4), 1.0), np.array(list(product([0, 1], repeat=D)))
    ups = np.broadcast_to(ups[:, None], (len(ups), *H.shape))
    w, _, _ = go(alphas, np.full(ups.shape, 0.5))
    x = w[0, 0] - H
    f = np.abs(x) / np.linalg.norm(x, axis=1, keepdims=True)
    w, what, H_next = go(alphas, np.where(ups, f / 2, (1 + f) / 2))
    q = np.prod(np.where(ups, f, 1 - f), axis=2)[..., None]
    mean = lambda values: np.sum(q * values, axis=1)
    square = lambda values: np.sum(values**2, axis=-1)
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
    same(np.sum(q, axis=0), 1)
    same(mean(what - w), 0)
    variance = np.abs(x).sum(axis=1) * np.sqrt(square(x)) - square(x)
    assert np.all(variance <= omega * square(x))
    spread, left = (np.sum(mean(values**2), axis=-1) for values in (what - w, H_next - w))
    same(spread - variance, 0)
    alpha = alphas[:, None]
    same(left - (1 - alpha) ** 2 * square(x) - alpha**2 * variance, 0)
    contracts = left <= (1 - alpha) * square(x) + 1e-12
    assert contracts[:-1].all()
    assert not contracts[-1].any()  # alpha = 1, where H+ = what


# The first round, and the last.


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_smart_initialisation_makes_the_first_uplink_exact(name, problem):
    """Of ragged clients, which weigh the same; it costs 32 bits an entry in place of a message, and happens once."""
    start = problem.replace(x0=PROBLEM.x0)
    after, cost = run(name, start, hyperparameters(name, down=EXACT, smart=True), 2)
    g = start.grads(start.x0)
    np.testing.assert_array_equal(after.up.h_i[0], g)
    np.testing.assert_array_equal(after.w[0], start.x0 - jnp.float64(0.06) * jnp.mean(g, axis=0))
    np.testing.assert_array_equal(cost.bits_up, [32 * D, 32 + 2 * D])
    assert np.abs(after.up.h_i[1] - start.grads(after.w[0])).max(axis=1).min() > 1e-3
    plain, _ = run(name, start, hyperparameters(name, down=EXACT), 1)
    assert np.abs(plain.w[0] - after.w[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "name"), [*product(["quadratic"], METHODS), *product(["logistic"], ["qsgd", "dore", "rand_mcm"])]
)
def test_the_solution_is_a_fixed_point_with_memories_and_none_without(kind, name, problem):
    """From w = what = H = x*, h_i = grad f_i(x*); what is sent is zero for every client."""
    kept = PROBLEM if kind == "quadratic" else problem
    solved = kept.replace(x0=jnp.asarray(kept.x_star))
    hp, h_i = hyperparameters(name), solved.grads(solved.x0)
    assert np.linalg.norm(h_i, axis=1).min() > 0.05
    start = algorithms.get(name).init(solved, hp, KEY)._replace(k=jnp.ones((), jnp.int32))
    if name in WITH_MEMORY:
        start = start._replace(up=Shifts(h_i, jnp.mean(h_i, axis=0)))
    after, _ = run(name, solved, hp, state=start)
    stood = jax.tree.map(lambda leaf: np.asarray(leaf)[None], start)
    moved = distance(after, stood, ("w", "seen", "up", "down"))
    assert moved <= 1e-13 if name in (*STATIONARY, "sgd") else moved > 1e-3


# Clients that take part at random.

MEMORIES = [*product(WITH_MEMORY, ["all", "one"]), *product(WITHOUT_MEMORY, [None])]


def of_server(memories):
    return {} if memories is None else {"memories": memories}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "memories"), MEMORIES)
def test_participation_with_probability_one_is_full(name, memories):
    everyone = states(name, participation=1.0, **of_server(memories))
    assert everyone.active.all()
    assert distance(everyone, states(name), ("w", "seen", "up", "down")) <= 1e-12


ESTIMATES = [("sgd", None), ("qsgd", None), ("double_squeeze", None), ("diana", "all"), ("diana", "one")]


@pytest.mark.parametrize(("name", "memories"), ESTIMATES)
def test_estimate_is_unbiased_over_who_takes_part(name, memories):
    """E over all 2^n sets, nobody's first, of a step without compression; the memories of who rests do not move."""
    p, rng, method = 0.3, np.random.default_rng(6), algorithms.get(name)
    full = hyperparameters(name, up=EXACT, down=EXACT, **of_server(memories))
    start, own = method.init(PROBLEM, full, KEY), jnp.asarray(rng.normal(size=(N, D)))
    memory = {"diana": Shifts(own, jnp.mean(own, axis=0)), "double_squeeze": own}.get(name)
    start = start._replace(up=memory)
    want, _ = method.step(PROBLEM, full, start, KEY)
    part = dataclasses.replace(full, participation=p)
    step = lambda active: method.step(PROBLEM, part, start._replace(active=active), KEY)[0]
    sets = np.array(list(product([False, True], repeat=N)))
    found, q = jax.jit(jax.vmap(step))(sets), np.prod(np.where(sets, p, 1 - p), axis=1)
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
    mean = lambda values: np.tensordot(q, values, axes=1)
    same(mean(found.w), want.w)
    if name == "diana":
        same(mean(found.up.h), want.up.h)
        same(found.up.h[0], start.up.h)
    for values, moved in zip(jax.tree.leaves(found.up)[:1], jax.tree.leaves(want.up)[:1], strict=True):
        same(values, np.where(sets[..., None], moved, own))


# Costs.


def rows(cost):
    """(rounds, 4): bits up, bits down, gradients, rounds."""
    return np.stack(cost, axis=1)


@pytest.mark.parametrize("name", METHODS)
def test_costs_of_a_round(name):
    """32 bits of norm and 1 + ceil log2(s + 1) an entry; the model itself, or one message, comes down."""
    up = 32 * D if name == "sgd" else 32 + 2 * D
    down = 32 * D if name in ("sgd", "qsgd", "diana") else 32 + 3 * D
    np.testing.assert_array_equal(rows(ran(name)[1]), [[up, down, 1, 1]] * ROUNDS)


@pytree.dataclass
class Priced(Compressor):
    """Sends x; message i costs `price` 2^i bits."""

    price: Any
    name: ClassVar[str] = "priced"

    def joint(self, key, X, sent=None):
        return Message(X, self.price * 2.0 ** jnp.arange(len(X)), 1, 0, 0)


@pytest.mark.parametrize("name", METHODS)
def test_costs_of_those_who_take_part(name):
    """Uplinks from this round's clients, downlinks to the next round's; of a broadcast everyone gets everything."""
    options = {"up": Priced(1.0), "down": Priced(100.0), "participation": 0.5}
    after, cost = ran(name, **options)
    first = algorithms.get(name).init(PROBLEM, hyperparameters(name, **options), KEY).active
    now, coming = np.concatenate([first[None], after.active[:-1]]), after.active
    assert len(set(now.sum(axis=1))) > 1
    price, group = 2 ** np.arange(N), np.arange(N) // 2
    together = coming.reshape(-1, 2, 2).any(axis=2)[:, group]
    up = (now * (32 * D if name == "sgd" else price)).mean(axis=1)
    own = {"rand_mcm": coming * price, "rand_mcm_1mem": coming * price, "rand_mcm_g": together * price[group]}
    own |= dict.fromkeys(("sgd", "qsgd", "diana"), coming * 0.32 * D)
    down = 100 * np.mean(own.get(name, np.ones((ROUNDS, N))), axis=1)
    expected = np.stack([up, down, now.mean(axis=1), np.ones(ROUNDS)], axis=1)
    np.testing.assert_allclose(rows(cost), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "replacement"), [("sgd", True), ("rand_mcm", False)])
def test_gradients_of_a_batch_are_their_share_of_the_rows(name, replacement, problem):
    """4 of 3, 6, 4 or 5 rows: without replacement a client has no more than its own."""
    hp = hyperparameters(name, participation=0.5, batch_size=4, replacement=replacement)
    after, cost = run(name, problem, hp, 3)
    share = 4 / np.array([3, 6, 4, 5])
    share = share if replacement else np.minimum(share, 1)
    active = np.concatenate([algorithms.get(name).init(problem, hp, KEY).active[None], after.active[:-1]])
    np.testing.assert_allclose(cost.grads, (active * share).mean(axis=1), rtol=1e-6)
