"""Aggregation: one seam that every method goes through, medians, and rules of a user's own, with memory and noise."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames import aggregation, base
from fedjax_lc.algorithms.frames.aggregation import Aggregated, Aggregation, Aggregator, weighted, weighted_median
from fedjax_lc.algorithms.frames.gossip import Gossip
from fedjax_lc.cli import main
from fedjax_lc.core import pytree
from tests.algorithms.rounds import PROBLEM, REF, SCHEDULE, X0, N, close
from tests.algorithms.shared import KEY, purposes, walk
from tests.quickly import compile_quickly

NAMES = algorithms.names()
FOLDER = Path(algorithms.__file__).parent
STEPS = 30
RUN = importlib.import_module("fedjax_lc.running.run")

# Means over clients that are no aggregation of what they send: of iterates and errors that are looked at, of a
# downlink's messages, of FedNova's step counts, and of nodes without a server: of their models, and of rounding errors.
OTHERS = {
    ("cser", ""), ("mem_sgd", ""), ("powersgd", "owed"), ("sidco", ""), ("double_squeeze", "owed"),
    ("econtrol", "owed"), ("fednova", "step"), ("locodl", "point"), ("marina", "lyapunov"),
    ("turns", "mean"), ("server", "model"), ("gossip", "average"), ("gossip", "centred"),
}  # fmt: skip


def clipped(rows, weights, norm, key):
    """The mean of rows no longer than `norm`, which follows their lengths."""
    lengths = jnp.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows * jnp.minimum(1, norm / jnp.maximum(lengths, 1e-30))
    return weighted(rows, weights), 0.9 * norm + 0.1 * jnp.median(lengths)


def noisy(rows, weights, memory, key):
    average = weighted(rows, weights)
    return average + 1e-3 * jax.random.normal(key, average.shape, average.dtype), memory


@pytest.fixture(autouse=True)
def rules():
    """Two rules of a user's own."""
    before = dict(aggregation._REGISTRY)
    aggregation.register("clipped", Aggregator(clipped, lambda problem: jnp.ones((), problem.dtype)))
    aggregation.register("noisy", Aggregator(noisy))
    yield
    aggregation._REGISTRY.clear()
    aggregation._REGISTRY.update(before)


def hyperparameters(name, problem=PROBLEM, theory=(), **changes):
    return dataclasses.replace(algorithms.get(name).theory(problem, **dict(theory)), **changes)


# --- the seam ---


def means_over_clients(path):
    """(file, function) of every mean or sum over axis 0, or product with the shares of a round."""
    found, functions = set(), [(ast.parse(path.read_text()), "")]
    while functions:
        node, name = functions.pop()
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef) and not name else name
            functions.append((child, inside))
            if isinstance(child, ast.Call):
                called, keywords = ast.unparse(child.func), {k.arg: ast.unparse(k.value) for k in child.keywords}
                over_rows = called.endswith(("mean", "sum", "average", "median")) and keywords.get("axis") == "0"
                if over_rows or (called.endswith("matmul") and "shares" in ast.unparse(child.args[0])):
                    found.add((path.stem, inside))
    return found


def test_no_method_averages_messages_by_hand():
    files = [path for path in FOLDER.rglob("*.py") if path.stem != "aggregation"]
    assert set().union(*map(means_over_clients, files)) == OTHERS


WITH_A_SERVER = [name for name in NAMES if not issubclass(algorithms.get(name).Hparams, Gossip)]


@pytest.mark.parametrize("name", WITH_A_SERVER)
def test_every_method_aggregates_through_it_and_carries_its_memory(name):
    """As often as it says, with a memory and a key for each time."""
    fields = {field.name for field in dataclasses.fields(algorithms.get(name).Hparams)}
    most = {"memories": {"smart": True, "cohort_size": 2}, "moments": {"moments": "average"}}
    changes = {k: v for field, full in most.items() if field in fields for k, v in full.items()}
    keys = []

    def apply(rows, weights, memory, key):
        keys.append(key)
        assert rows.shape[1:] == memory["last"].shape
        return weighted(rows, weights), {"last": rows[0], "calls": memory["calls"] + 1}

    start = lambda problem: {"last": jnp.zeros_like(problem.x0), "calls": jnp.zeros((), jnp.int32)}
    aggregation._REGISTRY["counting"] = Aggregator(apply, start)
    algorithm, hp = algorithms.get(name), hyperparameters(name, aggregation="counting", **changes)
    algorithm.check(PROBLEM, hp)
    state = jax.eval_shape(algorithm.init, PROBLEM, hp, KEY)
    after, _ = jax.eval_shape(algorithm.step, PROBLEM, hp, state, KEY)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(after) == shapes(state)
    assert len(keys) == len(state.aggregation) >= 1
    hp = dataclasses.replace(hp, aggregation="mean")
    assert jax.eval_shape(algorithm.init, PROBLEM, hp, KEY).aggregation is None


# --- medians ---


@pytest.mark.parametrize("seed", range(5))
def test_weighted_medians_are_those_of_repeated_rows(seed):
    rng = np.random.default_rng(seed)
    rows, times = rng.normal(size=(7, 4)), rng.integers(0, 4, size=7)
    weights = jnp.asarray(times / times.sum())[:, None]
    want = np.median(np.repeat(rows, times, axis=0), axis=0)
    np.testing.assert_allclose(weighted_median(jnp.asarray(rows), weights), want, rtol=1e-15)
    np.testing.assert_allclose(weighted_median(jnp.asarray(rows), None), np.median(rows, axis=0), rtol=1e-15)


def test_means_and_medians_of_coordinates_that_only_some_send():
    rng = np.random.default_rng(0)
    rows, sent = rng.normal(size=(6, 5)), rng.random((6, 5)) < 0.6
    sent[:2] = True
    weights = jnp.asarray(sent / sent.sum(axis=0))
    for ours, numpy in ((weighted, np.mean), (weighted_median, np.median)):
        want = [numpy(column[there]) for column, there in zip(rows.T, sent.T, strict=True)]
        np.testing.assert_allclose(ours(jnp.asarray(rows), weights), want, rtol=1e-14)


def members(t):
    row = np.asarray(SCHEDULE)[t % len(SCHEDULE)]
    return row[row >= 0]


def test_sgd_with_medians():
    """Of those who take part, in a schedule."""
    hp = hyperparameters("sgd", aggregation="median", selection="schedule", schedule=SCHEDULE)
    _, _, points = walk("sgd", PROBLEM, hp, STEPS)
    x = X0
    for t in range(STEPS):
        x = x - hp.gamma * np.median([REF.grad(i, x) for i in members(t)], axis=0)
        close(points[t], x)


@pytest.mark.parametrize("cohort", [{}, {"selection": "schedule", "schedule": SCHEDULE}])
def test_fedavg_with_medians(cohort):
    hp = hyperparameters("fedavg", theory={"local_steps": 3}, aggregation="median", server_lr=0.7, **cohort)
    _, _, points = walk("fedavg", PROBLEM, hp, STEPS)
    x = X0
    for t in range(STEPS):
        changes = []
        for i in members(t) if cohort else range(N):
            y = x
            for _ in range(3):
                y = y - hp.client_lr * REF.grad(i, y)
            changes.append(y - x)
        x = x + 0.7 * np.median(changes, axis=0)
        close(points[t], x)


def test_locodl_with_medians():
    """d = median_i(x_i - y)/2 in place of half the mean, in the rounds that its coin calls for."""
    hp = hyperparameters("locodl", theory={"compressor": "identity"}, aggregation="median", p=0.4)
    states, _, _ = walk("locodl", PROBLEM, hp, STEPS)
    heads = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, 0.4))(purposes(STEPS, 3)[:, 0]))
    assert 0 < heads.sum() < STEPS
    x, u, y, v = np.tile(X0, (N, 1)), np.zeros((N, len(X0))), X0, np.zeros_like(X0)
    mu, c = REF.l2 / 2, hp.p * hp.chi / hp.gamma
    for t in range(STEPS):
        x = x - hp.gamma * (np.array([REF.grad(i, x[i]) for i in range(N)]) - mu * x) + hp.gamma * u
        y = y - hp.gamma * mu * y + hp.gamma * v
        if heads[t]:
            d = x - y
            middle = np.median(d, axis=0) / 2
            x, u = (1 - hp.rho) * x + hp.rho * (y + middle), u + c * (middle - d)
            y, v = y + hp.rho * middle, v + c * middle
        for ours, theirs in zip(states[:4], (x, u, y, v), strict=True):
            close(ours[t], theirs)


def test_a_cohort_counts_for_its_part():
    """Of a mean over n, `part` of n clients; whatever the rule."""
    rows, present = jnp.arange(12.0).reshape(4, 3), jnp.array([True, False, True, True])
    for rule, numpy in (("mean", np.mean), ("median", np.median)):
        aggregate = Aggregation(Aggregated(aggregation=rule), None, KEY)
        theirs = numpy(np.asarray(rows)[np.asarray(present)], axis=0)
        np.testing.assert_allclose(aggregate.part(rows, present, 8), 3 / 8 * theirs, rtol=1e-15)
        np.testing.assert_allclose(aggregate.part(rows, None, 8), 4 / 8 * numpy(rows, axis=0), rtol=1e-15)


# --- memory ---


def test_a_memory_follows_the_rounds():
    """GD whose clipping length follows the gradients', against a loop."""
    hp = hyperparameters("gd", aggregation="clipped")
    states, _, _ = walk("gd", PROBLEM, hp, STEPS)
    x, norm = X0, 1.0
    for t in range(STEPS):
        g = [REF.grad(i, x) for i in range(N)]
        lengths = [np.linalg.norm(each) for each in g]
        x = x - hp.gamma * np.mean([each * min(1, norm / long) for each, long in zip(g, lengths, strict=True)], axis=0)
        norm = 0.9 * norm + 0.1 * np.median(lengths)
        close(states.x[t], x)
        close(states.aggregation[0][t], norm)


def test_a_memory_moves_only_in_rounds_that_communicate():
    hp = hyperparameters("scaffnew", aggregation="clipped", p=0.4)
    states, costs, _ = walk("scaffnew", PROBLEM, hp, STEPS)
    before = np.concatenate([[1.0], states.aggregation[0][:-1]])
    np.testing.assert_array_equal(states.aggregation[0] != before, costs.rounds > 0)


@pytest.fixture(scope="module")
def locodl():
    return hyperparameters("locodl", p=0.4)


def test_chunks_carry_it(locodl, monkeypatch):
    """A run of four chunks ends where a scan of its steps does."""
    compile_quickly(monkeypatch)
    monkeypatch.setattr(RUN, "CHUNK_STEPS", 10)
    hp = dataclasses.replace(locodl, aggregation="clipped")
    trace = fl.run("locodl", PROBLEM, hp, KEY, steps=40, every=10, progress=False)
    states, _, _ = walk("locodl", PROBLEM, hp, 40)
    jax.tree.map(lambda end, all: np.testing.assert_allclose(end, all[-1], rtol=1e-10), trace.state, states)
    assert trace.state.aggregation[0] != 1


@pytest.mark.slow
def test_a_sweep_over_rules_is_its_single_runs(locodl, monkeypatch):
    """Lanes with coins of their own, each with its memory and noise."""
    compile_quickly(monkeypatch)
    settings = {"steps": 20, "every": 10, "progress": False}
    rules = ["mean", "median", "clipped", "noisy"]
    grid = fl.grid(locodl, aggregation=rules, gamma=fl.times([0.5, 1]))
    table = fl.sweep("locodl", PROBLEM, grid, seeds=2, **settings)
    assert len(table) == 16
    ends = []
    for lane, row in table.lanes.reset_index(drop=True).iterrows():
        hp = dataclasses.replace(locodl, aggregation=row["aggregation"], gamma=row["gamma"])
        alone = fl.run("locodl", PROBLEM, hp, int(row["seed"]), **settings)
        np.testing.assert_allclose(table.trace(lane).value, alone.value, rtol=1e-10)
        ends.append(alone.value[-1])
    assert len(set(ends)) == 16


def test_a_method_without_room_for_a_memory_says_so():
    hp = Aggregated(aggregation="clipped")
    with pytest.raises(fl.InputError, match="'clipped' keeps a memory, and this method's state has no place for one"):
        Aggregation(hp, None, KEY)
    aggregate = Aggregation(hp, (jnp.ones(()),), KEY)
    aggregate(jnp.ones((2, 3)))
    with pytest.raises(fl.InputError, match="a step aggregates more than 1 quantities"):
        aggregate(jnp.ones((2, 3)))


# --- noise ---


def test_noise_is_keyed_and_apart_from_other_draws(locodl):
    hp = dataclasses.replace(locodl, aggregation="noisy")
    first, again, other = (walk("locodl", PROBLEM, hp, STEPS, key=key) for key in (KEY, KEY, jax.random.key(1)))
    plain = walk("locodl", PROBLEM, locodl, STEPS)
    np.testing.assert_array_equal(first[2], again[2])
    assert np.abs(first[2] - other[2]).max() > 1e-5
    assert np.abs(first[2] - plain[2]).max() > 1e-5
    np.testing.assert_array_equal(first[1].rounds, plain[1].rounds)  # the same coins


def test_every_quantity_has_noise_of_its_own():
    aggregate = Aggregation(Aggregated(aggregation="noisy"), None, KEY)
    rows = jnp.zeros((2, 3))
    assert not np.any(np.asarray(aggregate(rows)) == np.asarray(aggregate(rows)))


# --- names ---

RULE = """
import jax.numpy as jnp
from fedjax_lc.algorithms.frames.aggregation import Aggregator, register

register("largest", Aggregator(lambda rows, weights, memory, key: (jnp.max(rows, axis=0), memory)))
"""


def test_a_rule_in_a_file_serves_any_method_by_name(tmp_path, capsys):
    (tmp_path / "largest.py").write_text(RULE)
    for _ in range(2):  # the same code may come again
        base.load(tmp_path / "largest.py")
    hp = hyperparameters("gd", aggregation="largest")
    _, _, points = walk("gd", PROBLEM, hp, 1)
    close(points[0], X0 - hp.gamma * np.max([REF.grad(i, X0) for i in range(N)], axis=0))
    with pytest.raises(SystemExit):
        main(["run", "locodl", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "how the server puts together what clients send" in words
    assert "largest" in words


def test_a_name_stands_for_one_rule():
    with pytest.raises(fl.InputError, match="aggregation mean is registered already, as something else: choose"):
        aggregation.register("mean", Aggregator(noisy))
    assert aggregation.get("mean") != Aggregator(noisy)


def test_an_unknown_name_is_one_line(refused):
    hp = hyperparameters("fedavg", aggregation="medain")
    with pytest.raises(fl.InputError, match=r"unknown aggregation 'medain'.*median") as caught:
        algorithms.get("fedavg").check(PROBLEM, hp)
    assert "\n" not in str(caught.value)
    assert "median" in refused("run", "gd", "--aggregation", "medain", "--steps", "20")


def test_it_is_structure():
    assert jax.tree.leaves(Aggregated()) == []
    assert pytree.cast(Aggregated(aggregation="median"), jnp.float32) == Aggregated(aggregation="median")
