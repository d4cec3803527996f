"""What every registered method must do, on one tiny problem; a new method's file is picked up by its name alone."""

from __future__ import annotations

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, problems
from fedjax_lc.core import pytree
from tests.quickly import QUICKLY

NAMES = algorithms.names()
KEY = jax.random.key(0)
CHUNK = 100

# Steps within which theory's parameters bring the relative gap below 1e-10 on this problem. A method that is not listed
# must at least halve the gap in OTHERS steps.
STEPS = {
    "adiana": 6000,
    "agd": 200,
    "beer": 1800,
    "cold": 1200,
    "compressed_scaffnew": 1500,
    "diana": 1500,
    "diging": 1500,
    "dore": 3000,
    "dyna_cold": 600,
    "econtrol": 2000,
    "ef21": 2000,
    "ef21_bc": 3000,
    "ef21_p": 2500,
    "ef21_p_diana": 13000,
    "ef21_sgdm": 2000,
    "extra": 600,
    "fedcomgate": 800,
    "five_gcs_cc": 800,
    "gd": 300,
    "lead": 1500,
    "lessbit": 1800,
    "locodl": 2000,
    "marina": 600,
    "nids": 600,
    "pp_marina": 1000,
    "powersgd": 300,
    "scaffnew": 800,
    "tamuna": 600,
    "two_direction": 400,
}
OTHERS = 2000
RANDOM_SIZES = ("sidco",)  #: methods whose usual compressor sends what it deems worth it
PROVED = {"lessbit": {"option": "A"}}  #: choices of theory for which a method's rate holds, where it has others
BOUNDED = [name for name in NAMES if algorithms.get(name).rate is not None]
FIELDS = {name: {field.name for field in dataclasses.fields(algorithms.get(name).Hparams)} for name in NAMES}
COMPRESSING = [name for name in NAMES if "compressor" in FIELDS[name]]


@pytest.fixture(scope="module")
def tiny(problem):
    """The shared problem with a start of its own, so that none is taken for granted."""
    return problem.solved().replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=problem.dim)))


@functools.cache
def walker(name):
    """jit of CHUNK steps from step `first` on: the last state; stacked points, values of F, costs and Psi."""
    algorithm = algorithms.get(name)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def go(problem, hp, state, key, first):
        def one(state, t):
            state, cost = algorithm.step(problem, hp, state, jax.random.fold_in(key, t))
            x = algorithm.point(problem, hp, state)
            psi = algorithm.lyapunov(problem, hp, state) if algorithm.lyapunov else 0.0
            return state, (x, problem.value(x), cost, psi)

        return jax.lax.scan(one, state, first + jnp.arange(CHUNK))

    return go


def theory(name, problem, **choices):
    """Theory's hyperparameters as arrays."""
    return pytree.cast(algorithms.get(name).theory(problem, **choices), problem.dtype)


def begin(name, problem, hp, key=KEY):
    return algorithms.get(name).init(problem, hp, jax.random.fold_in(key, 2**32 - 1))


def walk(name, problem, hp=None, steps=CHUNK, key=KEY):
    """After `steps` steps: the state, and all points (steps, d), values (steps,), costs and Psi (steps,)."""
    hp = theory(name, problem) if hp is None else hp
    state, parts = begin(name, problem, hp, key), []
    for first in range(0, steps, CHUNK):
        state, part = walker(name)(problem, hp, state, key, first)
        parts.append(jax.tree.map(np.asarray, part))
    return state, *jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def same(left, right, atol=0.0):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=atol, atol=atol)


def leaf_kinds(tree):
    return [(leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", NAMES)
def test_record(name, tiny):
    algorithm = algorithms.get(name)
    assert algorithm.name == name
    assert algorithm.title
    assert algorithm.paper
    assert inspect.getdoc(inspect.getmodule(inspect.unwrap(algorithm.step)))
    arguments = {"init": 3, "step": 4, "point": 3}
    assert {kind: len(inspect.signature(getattr(algorithm, kind)).parameters) for kind in arguments} == arguments
    others = list(inspect.signature(algorithm.theory).parameters.values())[1:]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in others)
    hp = algorithm.theory(tiny)
    assert isinstance(hp, algorithm.Hparams)
    algorithm.check(tiny, hp)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(hp))
    assert (algorithm.rate is None) or algorithm.lyapunov is not None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes(name, dtype, clients):
    """State is of the problem's dtype, without weak types, and the same in and out, so that it scans."""
    algorithm, problem = algorithms.get(name), problems.logistic_regression(clients, kappa=30, dtype=dtype)
    hp = algorithm.theory(problem)  # plain numbers: the cast is the method's
    state = jax.eval_shape(algorithm.init, problem, hp, KEY)
    after, cost = jax.eval_shape(algorithm.step, problem, hp, state, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert leaf_kinds(after) == leaf_kinds(state)
    floats = [kind for kind in leaf_kinds(state) if jnp.issubdtype(kind[1], jnp.floating) and len(kind[0])]
    assert {kind[1] for kind in floats} == {jnp.dtype(dtype)}
    assert not any(weak for _, _, weak in leaf_kinds(state))
    assert leaf_kinds(cost) == [((), jnp.dtype("float32"), False)] * 4
    x = jax.eval_shape(algorithm.point, problem, hp, state)
    assert (x.shape, x.dtype) == ((problem.dim,), jnp.dtype(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_starts_at_x0(name, tiny):
    hp = theory(name, tiny)
    np.testing.assert_array_equal(algorithms.get(name).point(tiny, hp, begin(name, tiny, hp)), tiny.x0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_converges_and_stays(name, tiny):
    """The gap falls below 1e-10 of the first within STEPS, and at its limit the model no longer moves."""
    most = STEPS.get(name, OTHERS)
    state, points, values, _, _ = walk(name, tiny, steps=most)
    gaps = (values - tiny.f_star) / (float(tiny.value(tiny.x0)) - tiny.f_star)
    assert np.all(np.isfinite(values))
    if name not in STEPS:
        assert gaps[-1] < 0.5
        return
    assert gaps.min() < 1e-10
    more = most
    while np.linalg.norm(points[-1] - tiny.x_star) > 1e-13 and more < 4 * most:
        state, (part, _, _, _) = walker(name)(tiny, theory(name, tiny), state, KEY, more)
        points = np.asarray(part)
        more += CHUNK
    np.testing.assert_allclose(points[-1], tiny.x_star, rtol=0, atol=1e-12)
    _, (later, _, _, _) = walker(name)(tiny, theory(name, tiny), state, KEY, more)
    assert np.abs(np.asarray(later) - points[-1]).max() <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_costs(name, tiny):
    """Nothing is negative, bits travel in communication rounds and in no other step."""
    _, _, _, cost, _ = walk(name, tiny)
    for part in cost:
        assert part.dtype == np.float32
        assert part.shape == (CHUNK,)
        assert np.all(np.isfinite(part))
        assert np.all(part >= 0)
    assert cost.rounds.sum() > 0
    assert cost.grads.sum() > 0
    np.testing.assert_array_equal(cost.bits_up > 0, cost.rounds > 0)
    np.testing.assert_array_equal(cost.bits_down > 0, cost.rounds > 0)


@pytest.mark.parametrize("name", COMPRESSING)
def test_bits_of_a_round_are_whole_messages(name, tiny):
    """The mean over clients of what a message costs, once or more (the first step may pay for init too), or of vectors
    that are sent as they are, in rounds that synchronise. A message of random size is so many entries."""
    hp = theory(name, tiny)
    first = hp.compressor(KEY, tiny.x0)
    message = float(first.bits) if name not in RANDOM_SIZES else float(first.bits / first.entries) / tiny.n
    _, _, _, cost, _ = walk(name, tiny, hp)
    talks = cost.bits_up[1:][cost.rounds[1:] > 0]
    share = getattr(hp, "cohort_size", None) or tiny.n
    each, dense = talks / message / (share / tiny.n), talks / (32 * tiny.dim)
    assert each.min() >= 1
    whole = lambda numbers: np.isclose(numbers, np.round(numbers), rtol=1e-6, atol=0)
    assert np.all(whole(each) | whole(dense))


@pytest.mark.parametrize("name", NAMES)
def test_repeats_and_depends_on_its_key(name, tiny):
    first, again = walk(name, tiny), walk(name, tiny)
    same(first, again)
    random = {"compressor", "p"} & FIELDS[name]
    if random and not getattr(theory(name, tiny).__dict__.get("compressor"), "deterministic", False):
        other = walk(name, tiny, key=jax.random.key(1))
        assert np.abs(other[1] - first[1]).max() > 1e-6


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_without_jit_and_with_plain_numbers(name, tiny):
    """A step outside jit, with hyperparameters as theory gives them, equals the compiled one with arrays."""
    algorithm, hp = algorithms.get(name), algorithms.get(name).theory(tiny)
    _, points, _, costs, _ = walk(name, tiny)
    state, cost = algorithm.step(tiny, hp, begin(name, tiny, hp), jax.random.fold_in(KEY, 0))
    np.testing.assert_allclose(algorithm.point(tiny, hp, state), points[0], rtol=1e-12, atol=1e-13)
    same(cost, [part[0] for part in costs], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_do_not_compile_again(name, tiny):
    """The same program serves other step sizes, and they change the outcome."""
    hp = theory(name, tiny)
    smaller = jax.tree.map(lambda leaf: leaf * 0.9 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, hp)
    _, points, _, _, _ = walk(name, tiny, hp)
    before = walker(name)._cache_size()
    _, others, _, _, _ = walk(name, tiny, smaller)
    assert walker(name)._cache_size() == before
    assert np.abs(points - others).max() > 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_invisible(name, tiny):
    """Whatever stands in the padded rows changes nothing."""
    real = tiny.rows > 0
    assert 0 < real.sum() < real.size
    targets = jnp.where(real, tiny.targets, 1.0)
    features = dataclasses.replace(tiny.features, array=jnp.where(real[..., None], tiny.features.array, 3.0))
    garbage = tiny.replace(features=features, targets=targets)
    same(walk(name, tiny)[1:], walk(name, garbage)[1:])


def ignores_order(name):
    """Whether clients play equal parts once nothing random is drawn for each of them, or their edges, nor a cohort."""
    return name not in ("pp_marina", "power_gossip") and not FIELDS[name] & {"s", "batch"}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [name for name in NAMES if ignores_order(name)])
def test_order_of_clients_does_not_matter(name, tiny):
    """Without compression, clients in another order give the same model; nodes of a graph where all are neighbours."""
    choices = {way: "identity" for way in ("compressor", "downlink") if way in FIELDS[name]}
    choices |= {"topology": "complete"} if "topology" in FIELDS[name] else {}
    hp = theory(name, tiny, **choices)
    shuffled = tiny.cohort(jnp.array([2, 0, 3, 1])).replace(attached=tiny.attached, given_f_star=tiny.given_f_star)
    run = lambda problem: walker(name)(problem, hp, begin(name, problem, hp), KEY, 0)[1][0][:20]
    np.testing.assert_allclose(run(tiny), run(shuffled), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BOUNDED)
def test_lyapunov_falls_at_the_rate(name, tiny):
    """Mean over seeds of Psi^t <= tau^t Psi^0, up to four standard errors of that mean."""
    algorithm, hp, seeds = algorithms.get(name), theory(name, tiny, **PROVED.get(name, {})), 64
    first = float(algorithm.lyapunov(tiny, hp, begin(name, tiny, hp)))
    paths = [walk(name, tiny, hp, 2 * CHUNK, key)[4] for key in jax.random.split(KEY, seeds)]
    mean, spread = np.mean(paths, axis=0) / first, np.std(paths, axis=0) / first
    tau = float(algorithm.rate(tiny, hp))
    assert 0 < tau < 1
    bound = tau ** np.arange(1, 2 * CHUNK + 1) * (1 + 1e-9) + 4 * spread / np.sqrt(seeds) + 1e-12
    assert np.all(mean <= bound)
    assert mean[-1] < 0.9
