"""The frame of methods without a server: costs, metrics, who takes part, graphs that change, and the command line."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames.gossip import Gossip
from fedjax_lc.cli import main
from fedjax_lc.compressors import parse
from fedjax_lc.running.run import proven_rate
from tests.contract.test_networks import make
from tests.quickly import QUICKLY, compile_quickly

NAMES = [name for name in algorithms.names() if issubclass(algorithms.get(name).Hparams, Gossip)]
CHANGING = ("dgd", "diging")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def compiled_quickly(monkeypatch):
    compile_quickly(monkeypatch)


@pytest.fixture(scope="module")
def tiny(problem):
    """Four nodes, five coordinates."""
    return problem.solved().replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=problem.dim)))


def test_all_of_the_family_are_here():
    assert set(NAMES) == {
        "beer", "choco_sgd", "cold", "deep_squeeze", "def_atc", "dgd", "diging", "dyna_cold", "extra", "lead",
        "lessbit", "nids", "power_gossip",
    }  # fmt: skip


def steps_of(name, problem, count=3, hp=None, **fields):
    """The states after each of `count` steps, and their costs."""
    algorithm = algorithms.get(name)
    hp = dataclasses.replace(algorithm.theory(problem) if hp is None else hp, **fields)
    state, states, costs = algorithm.init(problem, hp, KEY), [], []
    step = jax.jit(functools.partial(algorithm.step, problem, hp), compiler_options=QUICKLY)
    for t in range(count):
        state, cost = step(state, jax.random.fold_in(KEY, t))
        states.append(state)
        costs.append([float(part) for part in cost])
    return states, costs


# --- costs ---

VECTOR, TOP, RAND = 32 * 5, 2 * (32 + 3), 3 + 2 * 9
STAR = 6 / 4  #: mean degree of a star of four nodes


@pytest.mark.parametrize(
    ("name", "fields", "messages"),
    [
        ("dgd", {}, [(VECTOR, 1, 1)] * 3),
        ("diging", {}, [(2 * VECTOR, 1, 1)] * 3),
        ("diging", {"form": "atc"}, [(2 * VECTOR, 1, 2)] * 3),
        ("extra", {}, [(VECTOR, 1, 1)] * 3),
        ("nids", {}, [(0, 1, 0), (VECTOR, 1, 1), (VECTOR, 1, 1)]),
        ("choco_sgd", {"compressor": "top_k:2"}, [(TOP, 1, 1)] * 3),
        ("beer", {"compressor": "top_k:2"}, [(TOP, 1, 1), (2 * TOP, 1, 1), (2 * TOP, 1, 1)]),
        ("lead", {"init": "local", "compressor": "identity"}, [(0, 1, 0), (VECTOR, 1, 1), (VECTOR, 1, 1)]),
        ("lead", {"init": "none", "compressor": "identity"}, [(VECTOR, 1, 1)] * 3),
        ("dyna_cold", {"bits": 3}, [(0, 1, 0), (3 * 5, 1, 1), (3 * 5, 1, 1)]),
        ("lessbit", {"option": "A", "compressor": "identity"}, [(VECTOR, 6, 1)] * 3),
        ("power_gossip", {"matrix": "square"}, [(0, 1, 0), (32 * 3, 1, 1), (32 * 2, 1, 1)]),
    ],
)
def test_a_node_pays_for_each_neighbour(name, fields, messages, tiny):
    """A message's bits, gradients and rounds, of the first three steps."""
    fields = {field: parse(value) if field == "compressor" else value for field, value in fields.items()}
    expected = [[bits * STAR, bits * STAR, grads, rounds] for bits, grads, rounds in messages]
    np.testing.assert_allclose(steps_of(name, tiny, topology="star", **fields)[1], expected)


@pytest.mark.parametrize("name", ["dgd", "lead", "dyna_cold"])
def test_where_all_hear_a_message_it_is_paid_once(name, tiny):
    algorithm = algorithms.get(name)
    hp = dataclasses.replace(algorithm.theory(tiny), topology="star", count="per_node")
    each = steps_of(name, tiny, hp=dataclasses.replace(hp, count="per_edge"))[1]
    once = steps_of(name, tiny, hp=hp)[1]
    np.testing.assert_allclose([cost[0] * STAR for cost in once], [cost[0] for cost in each], rtol=1e-6)
    assert [cost[1:] for cost in once] == [cost[1:] for cost in each]


def test_batches_cost_their_share(tiny):
    _, costs = steps_of("dgd", tiny, batch_size=1)
    np.testing.assert_allclose([cost[2] for cost in costs], np.mean(1 / np.asarray(tiny.sizes)), rtol=1e-6)
    _, costs = steps_of("lessbit", tiny, hp=algorithms.get("lessbit").theory(tiny, option="D", batch_size=1), p=1.0)
    share = 2 * np.mean(1 / np.asarray(tiny.sizes))
    np.testing.assert_allclose([cost[2] for cost in costs], share + 1, rtol=1e-6)  # with p = 1, anew in every step


def test_option_d_of_lessbit_converges_with_batches(tiny):
    """Variance reduction: to the solution, where option C stops at a floor."""
    theory = functools.partial(algorithms.get("lessbit").theory, tiny, compressor="identity", batch_size=1)
    floor, exact = (
        fl.run("lessbit", tiny, theory(option=option), steps=3000, every=500, progress=False).rel_gap[-1]
        for option in "CD"
    )
    assert exact < 1e-8 < floor


# --- metrics ---


def test_every_run_records_the_consensus_and_on_demand_the_worst_node(tiny):
    trace = fl.run("dgd", tiny, steps=6, every=2, measure=["worst", "distance"], progress=False)
    x = np.asarray(trace.state.x)
    apart = np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1))
    assert trace.metrics["consensus"][-1] == pytest.approx(apart, rel=1e-12)
    worst = max(float(tiny.value(jnp.asarray(row))) for row in x) - tiny.f_star
    assert trace.metrics["worst"][-1] == pytest.approx(worst, rel=1e-10)
    assert trace.metrics["worst"][-1] > trace.gap[-1] > 0
    assert trace.initial["consensus"] == pytest.approx(0, abs=1e-30)
    assert trace.metrics["distance"][-1] == pytest.approx(np.linalg.norm(x.mean(axis=0) - tiny.x_star), rel=1e-12)
    assert [*fl.run("dgd", tiny, steps=2, every=2, progress=False).metrics] == ["consensus"]


def test_consensus_is_beside_ones_own_metrics_and_the_optimum_may_be_given(tiny):
    own = fl.run("dgd", tiny, steps=2, every=2, measure={"ones": lambda p, h, s: jnp.sum(s.x * 0 + 1)}, progress=False)
    assert own.metrics["ones"].tolist() == [20]
    assert own.metrics["consensus"][0] > 0
    given = dataclasses.replace(tiny, given_f_star=-1.0)
    trace = fl.run("dgd", given, steps=2, every=2, measure="worst", progress=False)
    worst = max(float(tiny.value(jnp.asarray(row))) for row in np.asarray(trace.state.x)) + 1
    assert trace.metrics["worst"][0] == pytest.approx(worst, rel=1e-12)


def test_methods_with_a_server_have_no_consensus(tiny):
    with pytest.raises(fl.InputError, match="unknown metric 'worst'"):
        fl.run("gd", tiny, steps=2, every=2, measure="worst", progress=False)


@pytest.mark.slow
def test_nodes_train_networks_of_their_own():
    network = make()
    trace = fl.run("choco_sgd", network, steps=4, every=2, measure="worst", progress=False)
    x = np.asarray(trace.state.x)
    assert x.shape == (4, network.dim)
    assert trace.metrics["consensus"][-1] > 0
    assert trace.metrics["worst"][-1] == pytest.approx(max(float(network.value(jnp.asarray(row))) for row in x))
    assert "test_accuracy" in trace.metrics


def test_power_gossip_takes_a_networks_matrices():
    network = make()
    hp = algorithms.get("power_gossip").theory(network)
    assert hp.matrix == "layers"
    state = algorithms.get("power_gossip").init(network, hp, KEY)
    assert [tuple(side.shape[1:]) for side in state.p] == [(3, 1), (4, 1), (3, 1), (3, 1)]
    assert [tuple(side.shape[1:]) for side in state.q] == [(1, 1), (3, 1), (1, 1), (3, 1)]
    with pytest.raises(fl.InputError, match="rank is at most that of the largest matrix, 3, got 4"):
        algorithms.get("power_gossip").check(network, dataclasses.replace(hp, rank=4))
    with pytest.raises(fl.InputError, match="take count=per_edge"):
        algorithms.get("power_gossip").check(network, dataclasses.replace(hp, count="per_node"))


# --- who takes part, and graphs that change ---


def test_who_stays_away_keeps_its_vectors(tiny):
    hp = dataclasses.replace(algorithms.get("dgd").theory(tiny, topology="complete"), participation=0.5)
    states, costs = steps_of("dgd", tiny, 6, hp)
    before, kept = np.tile(np.asarray(tiny.x0), (4, 1)), []
    for state, cost in zip(states, costs, strict=True):
        x = np.asarray(state.x)
        moved = np.any(x != before, axis=1)
        gradients = np.asarray(tiny.grads(jnp.asarray(before)))
        mean = before.mean(axis=0) - float(hp.gamma) * np.where(moved[:, None], gradients, 0).mean(axis=0)
        np.testing.assert_allclose(x.mean(axis=0), mean, atol=1e-14)
        assert cost[2] == pytest.approx(moved.mean())
        assert cost[0] == pytest.approx(VECTOR * moved.sum() * (moved.sum() - 1) / 4)
        kept.append(moved.sum())
        before = x
    assert len(set(kept)) > 1
    assert min(kept) >= 1


@pytest.mark.parametrize(
    ("topology", "participation", "form"),
    [
        ("one_peer_hypercube", None, "paper"),
        ("one_peer_exponential", None, "atc"),
        ("matching(complete)", None, "paper"),
        ("subgraph(ring):0.7", None, "atc"),
        ("ring", 0.7, "paper"),
    ],
)
def test_tracking_finds_the_solution_on_graphs_that_change(topology, participation, form, tiny):
    """The mean of what nodes know of the gradient stays that of their gradients, whoever takes part."""
    hp = algorithms.get("diging").theory(tiny, topology=topology, form=form)
    hp = dataclasses.replace(hp, gamma=hp.gamma / 2, participation=participation)
    trace = fl.run("diging", tiny, hp, steps=4000, every=1000, progress=False)
    assert trace.rel_gap[-1] < 1e-10
    assert trace.metrics["consensus"][-1] < 1e-10
    np.testing.assert_allclose(np.mean(trace.state.y, axis=0), np.mean(trace.state.g, axis=0), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_methods_with_memories_need_a_graph_that_stays(name, tiny):
    algorithm = algorithms.get(name)
    hp = algorithm.theory(tiny)
    for changes in ({"topology": "matching(ring)"}, {"participation": 0.5}):
        changed = dataclasses.replace(hp, **changes)
        if name in CHANGING:
            algorithm.check(tiny, changed)
        else:
            with pytest.raises(fl.InputError, match=r"from round to round.*dgd or diging"):
                algorithm.check(tiny, changed)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topology": np.eye(4)}, "topology must be a text such as ring, or made by fl.topology"),
        ({"topology": fl.topology("ring", 5)}, "topology ring of 5 nodes is made already"),
        ({"topology": "one_peer_exponential", "participation": 0.5}, "take one_peer_hypercube"),
        ({"participation": 0.0}, "participation in (0, 1], got 0"),
        ({"count": "per_mile"}, "unknown count 'per_mile'"),
    ],
)
def test_choices_that_cannot_be_are_refused(fields, said, tiny):
    dgd = algorithms.get("dgd")
    with pytest.raises(fl.InputError) as caught:
        dgd.check(tiny, dataclasses.replace(dgd.theory(tiny), **fields))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_one_node_sends_nothing_and_descends(name):
    alone = fl.problems.quadratic(np.ones((1, 3)) * [1.0, 0.5, 0.25], np.ones((1, 3)))
    states, costs = steps_of(name, alone, 4)
    assert all(cost[0] == cost[1] == 0 for cost in costs)
    values = [float(alone.value(state.x[0])) for state in states]
    assert np.all(np.diff([float(alone.value(alone.x0)), *values]) <= 0)
    assert values[-1] < values[0]


def test_options_of_lessbit_that_cannot_be_are_refused(tiny):
    lessbit, flat = algorithms.get("lessbit"), fl.problems.quadratic(np.ones((2, 2)) * [1.0, 0.0], np.zeros((2, 2)))
    hp = lessbit.theory(tiny)
    for problem, option, batch_size, said in (
        (flat, "A", None, "needs strongly convex f_i, got strong = 0"),
        (make(), "A", None, "is for convex problems"),
        (tiny, "C", None, "give batch_size or leave it out"),
        (tiny, "B", 2, "give batch_size or leave it out"),
    ):
        with pytest.raises(fl.InputError, match=said):
            lessbit.check(problem, dataclasses.replace(hp, option=option, batch_size=batch_size))


def test_a_rate_is_that_of_the_graph_and_of_parameters_that_the_theorem_covers(tiny):
    lead, lessbit = algorithms.get("lead"), algorithms.get("lessbit")
    hp, dual = lead.theory(tiny, topology="star"), lessbit.theory(tiny, topology="star", option="A")
    assert proven_rate(lead, tiny, hp) == float(lead.rate(tiny, hp)) < 1
    assert proven_rate(lessbit, tiny, dual) == float(lessbit.rate(tiny, dual)) < 1
    assert proven_rate(lead, tiny, hp) != proven_rate(lead, tiny, lead.theory(tiny))
    for field, factor in (("eta", 1.1), ("gamma", 2.1), ("alpha", 9.0), ("alpha", 0.01)):
        assert proven_rate(lead, tiny, dataclasses.replace(hp, **{field: factor * getattr(hp, field)})) is None
    for changes in ({"option": "B"}, {"theta": 1.1 * dual.theta}, {"alpha": 1.0}):
        assert proven_rate(lessbit, tiny, dataclasses.replace(dual, **changes)) is None


# --- topologies as hyperparameters ---


def test_topologies_are_an_axis_of_a_grid(tiny):
    W = np.full((4, 4), 0.25)
    own = fl.topology(W)
    points = fl.grid(functools.partial(algorithms.get("lead").theory, tiny), topology=["ring", own])
    assert points.axes["topology"] == ("ring", str(own))
    assert len({float(hp.gamma) for hp in points}) == 2  # theory is that of each graph
    table = fl.sweep("lead", tiny, points, steps=20, every=20, progress=False)
    alone = fl.run("lead", tiny, algorithms.get("lead").theory(tiny, topology=own), steps=20, every=20, progress=False)
    np.testing.assert_allclose(table.trace(1).value, alone.value, rtol=1e-12)
    assert alone.config["hyperparameters"]["topology"] == str(own)
    assert table.trace(1).metrics["consensus"][-1] == pytest.approx(alone.metrics["consensus"][-1], rel=1e-6)


def test_graphs_that_are_equal_share_a_program(tiny):
    dgd = algorithms.get("dgd")
    one, other = (dgd.theory(tiny, topology=fl.topology(np.full((4, 4), 0.25))) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(dgd.theory(tiny, topology="complete"))


# --- the command line ---

STEPS = ["--clients", "8", "--steps", "40", "--every", "20", "--quiet"]


def test_the_command_line_runs_over_a_topology(tmp_path, capsys):
    words = ["--topology", "ring:lazy=true", "--compressor", "top_k:10%", "--measure", "worst", "--out", str(tmp_path)]
    assert main(["run", "choco_sgd", *words, *STEPS]) == 0
    assert "CHOCO-SGD" in capsys.readouterr().out
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["hyperparameters"]["topology"] == "ring:lazy=true"
    assert {"consensus", "worst"} <= fl.Trace.load(tmp_path).metrics.keys()


def test_the_command_line_sweeps_over_topologies(capsys):
    assert main(["sweep", "dgd", "--grid", "topology=ring; erdos_renyi:0.5,seed=1", *STEPS]) == 0
    assert "topology=" in capsys.readouterr().out


def test_the_list_of_topologies_can_be_typed(capsys):
    assert main(["list", "topologies"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if not line.startswith(" ")]
    assert len(names) == 13
    for name in names:
        assert fl.topology(name.replace("P", "0.9").replace("K", "3").replace("S", "0"), 8).n == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dgd", "--topology", "rign"], "unknown topology 'rign': did you mean 'ring'?"),
        (["dgd", "--topology", "7"], "a topology is a name such as ring"),
        (["dgd", "--topology", "hypercube", "--clients", "12"], "topology hypercube needs a power of 2"),
        (["dgd", "--topology", "star:weights=uniform"], "uniform weights are for regular graphs"),
        (["lead", "--topology", "matching(ring)"], "changes from round to round"),
        (["lead", "--participation", "0.5"], "participation changes the graph from round to round"),
        (["lead", "--compressor", "top_k:3"], "is biased and this method needs an unbiased one"),
        (["lessbit", "--option", "E"], "unknown option 'E'"),
        (["power_gossip", "--rank", "9"], "power_gossip's rank is at most that of the largest matrix, 5, got 9"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(words, said, refused):
    assert said in refused("run", *words, "--steps", "20")
