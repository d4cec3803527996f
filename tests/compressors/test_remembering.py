"""Compressors with a state: policies of budgets and SIDCo's stages; who takes them, and who refuses them."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms, compressors
from fedjax_lc.cli import main
from fedjax_lc.compressors import check, parse
from fedjax_lc.compressors.budgets import allocate, water_filling
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import walk
from tests.conftest import make_clients
from tests.quickly import compile_quickly

N, D = 3, 200
STATEFUL = ("sidco:0.05,most=5", "top_price:12,price=0.5", "top_power_law:2,most=20,growth=1.01")


def follow(spec, rows, present=None):
    """Stacked messages and states after each of rows (T, n, d), from the start."""
    c = pytree.cast(parse(spec), rows.dtype)

    @jax.jit
    def go(c, rows):
        def one(state, X):
            message, state = c.joint_with(jax.random.key(0), X, state, present)
            return state, (message.value, message.bits, state)

        return jax.lax.scan(one, c.start(*rows.shape[1:], rows.dtype), rows)[1]

    return jax.tree.map(np.asarray, go(c, rows))


def rows(T, law="laplace", seed=0, n=N, d=D):
    return jnp.asarray(getattr(np.random.default_rng(seed), law)(size=(T, n, d)))


# --- the protocol ---


def test_a_compressor_without_a_state_joins_as_it_is():
    X, key = jax.ShapeDtypeStruct((N, D), jnp.float64), jax.random.key(3)
    for spec in ("top_k:4", "rand_k:4|natural", "perm_k:3", "top_energy:0.5"):
        c = parse(spec)
        assert c.start(N, D, X.dtype) is None
        program = lambda join: str(jax.make_jaxpr(join)(key, X))
        assert program(lambda key, X, c=c: c.joint_with(key, X, None)[0]) == program(c.joint)


@pytest.mark.parametrize("spec", STATEFUL)
def test_called_with_a_vector_it_sends_the_first_message(spec):
    c, X = parse(spec), rows(1)[0, :1]
    message, (values, bits, _) = jax.jit(c)(jax.random.key(0), X[0]), follow(spec, X[None])
    assert message.value.shape == (D,)
    np.testing.assert_array_equal(message.value, values[0, 0])
    assert message.bits == bits[0, 0]


@pytest.mark.parametrize("spec", STATEFUL)
def test_who_is_absent_keeps_the_state(spec):
    """Of one client each; a shared one follows those who send."""
    X, present = rows(12), jnp.array([True, False, True])
    _, _, states = follow(spec, X, present)
    if spec.startswith("sidco"):
        np.testing.assert_array_equal(states.calls[:, 1], 0)
        np.testing.assert_array_equal(states.calls[:4, 0], [1, 2, 3, 4])
    elif spec.startswith("top_price"):
        _, _, alone = follow(spec, X[:, ::2])
        np.testing.assert_allclose(states.log_price, alone.log_price, rtol=0, atol=1e-14)


@pytest.mark.parametrize("spec", STATEFUL[:2])
@pytest.mark.parametrize("method", ["mem_sgd", "double_squeeze", "ef21", "econtrol", "sidco"])
def test_methods_with_feedback_carry_the_state(spec, method, problem):
    hp = algorithms.get(method).theory(problem)
    hp = dataclasses.replace(hp, compressor=parse(spec.replace(":12", ":2").replace("most=20", "most=3")))
    algorithms.get(method).check(problem, hp)
    states, costs, points = walk(method, problem, hp, 12)
    assert np.all(np.isfinite(points))
    counts = states.coding.calls[:, 0] if "sidco" in spec else getattr(states.coding, "t", states.coding)
    dense = getattr(hp, "starts_dense", False)  # a first message that is not sent leaves the state
    wanted = np.arange(1, 13) - dense
    np.testing.assert_array_equal(counts, wanted % 5 if "sidco" in spec else wanted)
    assert costs.bits_up[0] == 32 * problem.dim or not dense


@pytest.mark.parametrize(("participation", "share"), [(None, 1), (0.5, None)])
def test_the_price_comes_back_to_who_sent(participation, share, problem):
    """32 bits down to each of them; other compressors have no answer."""
    base = dataclasses.replace(algorithms.get("mem_sgd").theory(problem), participation=participation)
    with_price = dataclasses.replace(base, compressor=parse("top_price:2"))
    (states, costs, _), (_, plain, _) = (walk("mem_sgd", problem, hp, 20) for hp in (with_price, base))
    came = states.active.mean(axis=1)[:-1] if share is None else np.full(19, share)
    np.testing.assert_array_equal((costs.bits_down - plain.bits_down)[1:], 32 * came)


@pytest.mark.parametrize("spec", STATEFUL)
def test_others_refuse_it_in_one_line(spec, problem, refused):
    name = spec.partition(":")[0]
    for method, field in (("cser", "compressor"), ("double_squeeze", "downlink"), ("ef21_p", "downlink")):
        hp = dataclasses.replace(algorithms.get(method).theory(problem), **{field: parse(spec)})
        with pytest.raises(InputError, match=f"^{name} keeps numbers between rounds, for which there is no place here"):
            walk(method, problem, hp, 1)
    for outer in (f"scaled({spec})", f"{spec}|natural", f"per_block({spec}):100", f"fcc({spec}):2"):
        with pytest.raises(InputError, match=rf"^{name} keeps numbers between rounds and cannot be part of .*: use it"):
            check(parse(outer), D)
        hp = dataclasses.replace(algorithms.get("mem_sgd").theory(problem), compressor=parse(outer))
        with pytest.raises(InputError, match="cannot be part of"):
            algorithms.get("mem_sgd").check(problem, hp)
    said = refused("run", "cser", "--compressor", "top_price:2", "--steps", "10", "--quiet")
    assert said.startswith("top_price keeps numbers between rounds")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*STATEFUL[:2], "top_energy:0.7"])
def test_a_lane_is_its_single_run(spec, monkeypatch):
    """Their numbers are lanes of one program; bits are equal, with and without lanes."""
    compile_quickly(monkeypatch)
    problem = fl.problems.logistic_regression(make_clients(dim=30), kappa=30)
    hp = algorithms.get("mem_sgd").theory(problem)
    field = next(
        f.name for f in dataclasses.fields(parse(spec)) if isinstance(getattr(parse(spec), f.name), float | int)
    )
    numbers = [getattr(parse(spec), field) * factor for factor in (1, 0.9)]
    chosen = [dataclasses.replace(hp, compressor=dataclasses.replace(parse(spec), **{field: n})) for n in numbers]
    assert len({jax.tree.structure(each) for each in chosen}) == 1
    table = fl.sweep("mem_sgd", problem, chosen, seeds=2, steps=60, every=20, progress=False)
    for lane, config in enumerate((0, 0, 1, 1)):
        alone = fl.run("mem_sgd", problem, chosen[config], lane % 2, steps=60, every=20, progress=False)
        np.testing.assert_array_equal(table.trace(lane).bits_up, alone.bits_up)
        np.testing.assert_allclose(table.trace(lane).value, alone.value, rtol=1e-10)


# --- budgets ---


def test_the_price_brings_the_mean_to_its_budget():
    values, bits, states = follow("top_price:12,rate=0.3", rows(200))
    k = np.count_nonzero(values, axis=2)
    np.testing.assert_array_equal(bits, 32 * k + 8 * k)
    assert np.mean(k[100:]) == pytest.approx(12, rel=0.05)
    np.testing.assert_allclose(states.log_price[-1], 0.3 * np.sum(k.mean(axis=1) - 12) / 12, rtol=0, atol=1e-10)


def test_weights_that_grow_lower_the_price_of_an_entry():
    """w_t x^2 > lam_t, with lam held: rate tiny."""
    X = jnp.broadcast_to(jnp.linspace(0.01, 1, D), (30, N, D))
    values, _, _ = follow("top_price:12,rate=1e-12,growth=1.1", X)
    wanted = [np.maximum(1, np.sum(1.1**t * np.asarray(X[0, 0]) ** 2 > 1)) for t in range(30)]
    np.testing.assert_array_equal(np.count_nonzero(values[:, 0], axis=1), wanted)
    values, _, _ = follow("top_power_law:4,s=2,growth=1.1", X)
    energy = float(jnp.sum(X[0, 0] ** 2))
    wanted = [np.clip(np.round(4 * (1.1**t * energy) ** (1 / 3)), 1, D) for t in range(30)]
    np.testing.assert_array_equal(np.count_nonzero(values[:, 0], axis=1), wanted)


def test_the_number_per_bit_is_the_best_one():
    x = np.asarray(rows(1)[0, 0])
    sums = np.cumsum(np.sort(x**2)[::-1])
    send = jax.jit(lambda c, x: c(jax.random.key(0), x).value)
    for header in (0.0, 50.0, 1000.0, 1e5):
        k = int(np.argmax(sums / (header + 40 * np.arange(1, D + 1)))) + 1
        assert np.count_nonzero(send(parse(f"top_per_bit:{header},each=40"), x)) == k


def test_allocation_is_the_best_of_all():
    """Against all choices, and what one price between two gains gives."""
    rng = np.random.default_rng(4)
    squares, weights = rng.exponential(size=(3, 4)), rng.uniform(0.5, 2, 3)
    ordered = -np.sort(-squares, axis=1)
    tail = lambda k: sum(w * row[j:].sum() for w, row, j in zip(weights, ordered, k, strict=True))
    for total in range(13):
        best = min((k for k in itertools.product(range(5), repeat=3) if sum(k) == total), key=tail)
        np.testing.assert_array_equal(allocate(squares, weights, total), best)
        gains = np.sort((weights[:, None] * squares).ravel())[::-1]
        price = (gains[total - 1] + gains[total]) / 2 if 0 < total < 12 else 0 if total else np.inf
        np.testing.assert_array_equal(best, np.sum(weights[:, None] * squares > price, axis=1))
    with pytest.raises(InputError, match=r"a total of 0\.\.12 entries, got 13"):
        allocate(squares, weights, 13)


def test_water_filling_beats_its_neighbours():
    energies, s, (least, most) = np.random.default_rng(5).exponential(size=5), 1.5, (1.0, 6.0)
    k = water_filling(energies, s, least, most, 14.0)
    assert k.sum() == pytest.approx(14, rel=1e-12)
    cost = lambda k: np.sum(energies * k**-s)
    for i, j in itertools.permutations(range(5), 2):
        other = k.copy()
        other[i], other[j] = other[i] + 1e-3, other[j] - 1e-3
        if other.max() <= most and other.min() >= least:
            assert cost(other) > cost(k)
    assert np.isclose(k, least).any() or np.isclose(k, most).any()
    with pytest.raises(InputError, match=r"a total of 5\.\.30, got 4"):
        water_filling(energies, s, least, most, 4)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("top_price:0.5", "top_price needs a mean number of entries 1 <= k <= d = 200, got 0.5"),
        ("top_price:2,rate=0", "top_price needs positive rate, price and growth, got 0, 1.0 and 1.0"),
        ("top_energy:0", "top_energy needs 0 < share <= 1, got 0: write top_energy:0.9"),
        ("top_energy:1.5", "top_energy needs 0 < share <= 1, got 1.5: write top_energy:0.9"),
        ("top_per_bit:-1", "top_per_bit needs bits header >= 0 and each > 0, got -1 and 32.0"),
        ("top_power_law:1,least=0.5", "top_power_law needs whole 1 <= least <= most <= d = 200, got 0.5 and 200"),
        ("top_power_law:1,most=201", "top_power_law needs whole 1 <= least <= most <= d = 200, got 1 and 201"),
        ("top_power_law:0", "top_power_law needs positive c, s and growth, got 0, 1.0 and 1.0"),
        ("top_k:0", "top_k needs 1 <= k <= d = 200, got k = 0"),
        ("sidco:0", "sidco needs 0 < ratio <= 1, got 0 (first 0.25): sidco:0.1"),
        ("sidco:0.1,mode=-4", "sidco mode must be one of 0, -1, -2, -3, got -4"),
        ("sidco:1e-5", "sidco:1e-05 may need 17 stages: write most=17"),
        ("sidco:0.1,every=0", "sidco needs every >= 1, up >= 0 and 0 <= down < 1, got 0, 0.2 and 0.2"),
        ("sidco:0.1,stages=3,most=2", "sidco needs a whole most of stages..64, got 2 for 3"),
        ("sidco:0.1,most=1000000000", "sidco needs a whole most of stages..64, got 1000000000 for 1"),
        ("threshold:0.1,stages=1000000000", "threshold needs a whole number of stages of 1..64, got 1000000000"),
    ],
)
def test_budgets_that_cannot_be_are_told_in_one_line(spec, said):
    with pytest.raises(InputError) as caught:
        check(parse(spec), D)
    assert str(caught.value) == said


def test_the_command_line_says_it_too(refused):
    said = refused("run", "mem_sgd", "--compressor", "top_price:0.5", "--steps", "10")
    assert said.startswith("top_price needs a mean number of entries 1 <= k <= d = 30, got 0.5")


def test_the_command_line_runs_it(capsys):
    assert main(["run", "sidco", "--compressor", "sidco:0.2,every=3", "--steps", "40", "--quiet", "--no-cache"]) == 0
    assert "SIDCo" in capsys.readouterr().out


# --- SIDCo ---


@pytest.mark.slow
@pytest.mark.parametrize("mode", [-1, -2, -3])
def test_stages_settle_where_the_share_is_kept(mode):
    """One stage keeps nothing of a Gaussian at a thousandth; the stages rise to 4, and then the share is right."""
    X = rows(35, "normal", n=1, d=200_000).astype(jnp.float32)
    values, _, states = follow(f"sidco:0.001,mode={mode},most=10", X)
    kept = np.count_nonzero(values[:, 0], axis=1) / 200
    assert kept[:5].mean() < 0.1
    np.testing.assert_array_equal(states.stages[:, 0], [1] * 4 + [2] * 5 + [3] * 5 + [4] * 21)
    assert 0.95 < kept[15:].mean() < 1.15


@pytest.mark.parametrize("fit", ["exponential", "pareto", "gamma"])
@pytest.mark.parametrize("stages", [1, 3])
def test_stages_that_are_fixed_are_those_of_the_threshold(fit, stages):
    """To the bit with one stage; with more, the part of each stage is computed otherwise."""
    X = rows(6)
    values, bits, _ = follow(f"sidco:0.05,mode=0,fit={fit},stages={stages}", X)
    plain = parse(f"threshold:0.05,fit={fit},stages={stages}")
    messages = jax.jit(jax.vmap(lambda X: plain.joint(jax.random.key(0), X)))(X)
    np.testing.assert_array_equal(values, messages.value)
    np.testing.assert_array_equal(bits, messages.bits)


def test_equal_shares_are_equal_in_any_order():
    """8 + 8 + 7 and 7 + 9 + 7 entries in three messages: est does not move; mode=-3 turns then, mode=-2 does not."""
    kept = [8, 8, 7, 7, 9, 7]
    c, turned = parse("sidco:0.03,every=3"), {}
    for mode in (-2, -3):
        state = jax.tree.map(lambda leaf: leaf[0], c.start(1, D, jnp.float64))
        for k in kept:
            state = dataclasses.replace(c, mode=mode)._adapted(jnp.int32(k), D, state)
        turned[mode] = int(state.direction)
    assert state.last == 23 / 18
    assert turned == {-2: 1, -3: -1}


def test_without_adaptation_stages_stay():
    _, _, states = follow("sidco:0.1,stages=6,mode=0", rows(12))
    np.testing.assert_array_equal(states.stages, 6)


def test_a_ratio_above_the_first_has_one_stage():
    X = rows(40)
    values, _, states = follow("sidco:0.4,stages=2", X)
    plain = parse("threshold:0.4")
    np.testing.assert_array_equal(values, jax.jit(jax.vmap(lambda X: plain.joint(jax.random.key(0), X)))(X).value)
    assert states.stages.max() <= 2


def test_weights_of_the_general_memory(problem):
    """Off the entries sent e_i = ec_grad (g_i + e_i) + ec_mem e_i, on them 0."""
    method = algorithms.get("sidco")
    hp = dataclasses.replace(method.theory(problem), ec_grad=0.7, ec_mem=0.2)
    states, _, points = walk("sidco", problem, hp, 4)
    e = np.zeros((problem.n, problem.dim))
    for t, x in enumerate([problem.x0, *points[:3]]):
        v = np.asarray(problem.grads(x)) + e
        sent = states.up[t] == 0
        e = np.where(sent, 0, 0.7 * v + 0.2 * e)
        np.testing.assert_allclose(states.up[t], e, rtol=0, atol=1e-14)
        assert 0 < sent.sum() < sent.size


def test_below_one_coordinate_nothing_may_be_sent_and_nothing_is_lost():
    """A ratio below 1/d is legal: the error then holds all of g_i + e_i."""
    problem = fl.problems.logistic_regression(make_clients(dim=8), kappa=30)
    hp = algorithms.get("sidco").theory(problem, "sidco:0.02,mode=0")
    states, costs, points = walk("sidco", problem, hp, 10)
    np.testing.assert_array_equal(costs.bits_up, 0)
    np.testing.assert_array_equal(points[-1], problem.x0)
    np.testing.assert_allclose(states.up[-1], 10 * problem.grads(problem.x0), rtol=1e-12)


def test_all_are_listed():
    assert {"sidco", "top_energy", "top_per_bit", "top_price", "top_power_law"} <= set(compressors.names())
