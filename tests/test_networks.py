"""Networks as problems: gradients, ragged clients, batches, what is measured, BatchNorm, cohorts, and bad input."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.algorithms.frames import local
from fedjax_lc.core import pytree
from fedjax_lc.core.digest import digest
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems.network_losses import fairness
from fedjax_lc.problems.networks import Neural, cross_entropy, hit_rate
from fedjax_lc.running.programs import memory_bytes

KEY = jax.random.key(3)
SIZES = (5, 9, 3)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(4)(x))
        return linen.Dense(3)(x)


class Normed(linen.Module):
    """BatchNorm right behind the input, so that its statistics are those of the features."""

    momentum: float = 0.9

    @linen.compact
    def __call__(self, x, train=False):
        return linen.Dense(3)(linen.BatchNorm(use_running_average=not train, momentum=self.momentum)(x))


#: Compiled once for each kind of problem.
values = jax.jit(lambda problem, x: problem.values(x))
grads = jax.jit(lambda problem, x: problem.grads(x))
draw = jax.jit(lambda problem, key, x: problem.stochastic_grads(key, x, 3))


def rows(rng, m, dim=4, classes=3):
    return rng.normal(size=(m, dim)), rng.integers(0, classes, m)


def data(sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    return [rows(rng, m) for m in sizes]


def make(model=None, clients=None, test=None, **options):
    options = {"dtype": "float64", "smooth": 1.0, "l2": 0.1} | options
    return fl.problems.neural(
        Net() if model is None else model, data() if clients is None else clients, test, **options
    )


@pytest.fixture(scope="module")
def problem():
    return make(test=rows(np.random.default_rng(9), 11), rows_at_once=4)


@pytest.fixture(scope="module")
def points(problem):
    return problem.x0[None] + jnp.asarray(np.random.default_rng(1).normal(size=(problem.n, problem.dim)))


def plain_loss(problem, x, features, targets):
    """f_i written out: no tables, no masks, no blocks of rows."""
    logits = problem.network.module.apply({"params": problem.params(x)}, jnp.asarray(features))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(targets))
    return jnp.mean(losses) + 0.05 * jnp.sum(x**2)


both = jax.jit(jax.value_and_grad(plain_loss, argnums=1))


def test_values_and_gradients_are_those_of_the_plain_loss(problem, points):
    """Ragged clients, more rows than are taken at once, at one shared point and at a point of each."""
    for i, (features, targets) in enumerate(data()):
        for x, ours, theirs in (
            (points[i], values(problem, points), grads(problem, points)),
            (problem.x0, values(problem, problem.x0), grads(problem, problem.x0)),
        ):
            value, grad = both(problem, x, features, targets)
            np.testing.assert_allclose(ours[i], value, rtol=1e-13)
            np.testing.assert_allclose(theirs[i], grad, rtol=0, atol=1e-14)
    np.testing.assert_allclose(problem.value(points[0]), jnp.mean(values(problem, points[0])), rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [{"clients_at_once": 1}, {"clients_at_once": 2}, {"rows_at_once": 100}])
def test_blocks_do_not_matter(problem, points, blocks):
    other = make(**({"rows_at_once": 4} | blocks))
    for x in (points, points[0]):
        np.testing.assert_allclose(grads(other, x), grads(problem, x), rtol=0, atol=1e-14)
    np.testing.assert_allclose(draw(other, KEY, points), draw(problem, KEY, points), rtol=0, atol=1e-14)


def test_hessian_products_are_derivatives_of_gradients(problem, points):
    v = jnp.asarray(np.random.default_rng(2).normal(size=points.shape))
    h = 1e-5
    found = (grads(problem, points + h * v) - grads(problem, points - h * v)) / (2 * h)
    products = jax.jit(lambda problem, x, v: problem.hvps(x, v))(problem, points, v)
    np.testing.assert_allclose(products, found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("replacement", [True, False])
def test_batches_are_unbiased(problem, points, replacement):
    one = lambda key: problem.stochastic_grads(key, points, 4, replacement=replacement)
    draws = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000)))
    error = draws.mean(0) - np.asarray(problem.grads(points))
    assert np.all(np.abs(error) <= 5 * draws.std(0) / np.sqrt(2000) + 1e-12)
    if not replacement:  # the client of three rows takes all of them
        np.testing.assert_allclose(
            draws[:, 2], np.broadcast_to(problem.grads(points)[2], draws[:, 2].shape), atol=1e-13
        )


def test_an_epoch_takes_every_row_once(problem):
    orders = problem.orders(KEY, 2)
    for i, m in enumerate(SIZES):
        for epoch in range(2):
            taken = []
            for h in range(epoch * -(-m // 2), (epoch + 1) * -(-m // 2)):
                picks, weights = problem.turn(orders, jnp.array(h), 2)
                taken += np.asarray(picks)[i][np.asarray(weights)[i] > 0].tolist()
                assert np.asarray(weights)[i].sum() == pytest.approx(1)
            assert sorted(taken) == list(range(m))
    assert not np.array_equal(orders[1, 0, :9], orders[1, 1, :9])


def test_a_cohort_gathers_clients_but_no_rows(problem, points):
    """Its gradients are the members' own, its batches those they draw in any company."""
    ids = jnp.array([2, 0])
    cohort = problem.cohort(ids)
    assert cohort.n == 2
    assert cohort.table.features is problem.table.features
    np.testing.assert_allclose(grads(cohort, points[ids]), grads(problem, points)[ids], rtol=0, atol=1e-15)
    every = draw(problem, KEY, points)
    np.testing.assert_allclose(draw(cohort, KEY, points[ids]), every[ids], rtol=0, atol=1e-15)


def test_weights_of_clients(points):
    """By size, F is the mean over all rows; the mean over clients of what methods see is its gradient."""
    problem, every = make(weights="size"), data()
    table = [np.concatenate(parts) for parts in zip(*every, strict=True)]
    value, grad = both(problem, points[0], *table)
    assert float(problem.value(points[0])) == pytest.approx(float(value), rel=1e-13)
    np.testing.assert_allclose(jnp.mean(grads(problem, points[0]), 0), grad, rtol=0, atol=1e-14)


# --- what is measured ---


def outputs(problem, x, features):
    return problem.network.module.apply({"params": problem.params(x)}, jnp.asarray(features))


def test_accuracy_and_loss_on_the_test_set(problem, points):
    features, targets = rows(np.random.default_rng(9), 11)
    found = problem.measure(points[0], ("test_accuracy", "test_loss"))
    logits = outputs(problem, points[0], features)
    assert float(found["test_accuracy"]) == pytest.approx(np.mean(np.argmax(logits, 1) == targets))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(targets))
    assert float(found["test_loss"]) == pytest.approx(float(losses.mean()), rel=1e-13)


@pytest.mark.slow
def test_clients_own_tests_and_fairness(points):
    tests = [*data((4, 6), seed=5), (np.zeros((0, 4)), np.zeros(0, int))]
    problem = make(test=tests)
    found = problem.measure(points[0], problem.metrics)
    hits = [np.argmax(outputs(problem, points[0], a), 1) == b for a, b in tests]
    each = np.array([hits[0].mean(), hits[1].mean()])
    np.testing.assert_allclose(found["client_test_accuracy"], [*each, np.nan])
    np.testing.assert_allclose(found["test_accuracy"], np.concatenate(hits).mean())
    np.testing.assert_allclose(found["test_accuracy_min"], each.min())
    np.testing.assert_allclose(found["test_accuracy_worst"], each.min())
    np.testing.assert_allclose(found["test_accuracy_std"], each.std())
    losses = [
        np.mean(optax.softmax_cross_entropy_with_integer_labels(outputs(problem, points[0], a), jnp.asarray(b)))
        for a, b in tests[:2]
    ]
    np.testing.assert_allclose(found["client_test_loss"], [*losses, np.nan], rtol=1e-12)
    with pytest.raises(InputError, match="a number for each client"):
        fl.plot.curves(
            {"a": fl.run("fedavg", problem, steps=1, every=1, measure=["client_train_loss"], progress=False)},
            y="client_train_loss",
        )


def test_the_worst_tenth_is_of_the_clients_that_have_rows():
    accuracies = jnp.asarray([0.9, np.nan, 0.1, 0.2, *[1.0] * 12, *[np.nan] * 20])
    assert float(fairness(accuracies)["accuracy_worst"]) == pytest.approx(0.15)  # two of fifteen


def test_without_tests_clients_are_measured_on_their_own_rows(points):
    problem = make()
    assert problem.usual_metrics == ()
    found = problem.measure(points[0], ("value", "client_train_accuracy", "train_accuracy"))
    each = [np.mean(np.argmax(outputs(problem, points[0], a), 1) == b) for a, b in data()]
    np.testing.assert_allclose(found["client_train_accuracy"], each)
    assert float(found["train_accuracy"]) == pytest.approx(np.mean(each))


def test_measured_rows(points):
    """F on fewer rows is a mean of as many of them, weighted as F weighs them."""
    problem = make(measured_rows=8)
    picked = np.asarray(problem.measured)
    assert len(set(picked)) == 8
    losses = []
    weights = []
    for i, (start, (features, targets)) in enumerate(zip(np.cumsum((0, *SIZES[:2])), data(), strict=True)):
        mine = picked[(picked >= start) & (picked < start + SIZES[i])] - start
        losses += [float(plain_loss(problem, points[0], features[[r]], targets[[r]])) for r in mine]
        weights += [1 / SIZES[i]] * len(mine)
    assert float(problem.value(points[0])) == pytest.approx(np.average(losses, weights=weights), rel=1e-12)


def test_a_run_records_accuracy_and_a_frame_of_clients(problem, tmp_path):
    hp = pytree.replace(algorithms.get("fedavg").theory(problem, local_steps=1), cohort_size=2)
    trace = fl.run("fedavg", problem, hp, steps=6, every=2, measure="clients", progress=False)
    assert list(trace.metrics) == ["test_accuracy", "test_loss", "client_train_loss", "client_train_accuracy", "cohort"]
    assert trace.metrics["client_train_accuracy"].shape == (3, 3)
    assert np.isnan(trace.f_star)
    assert trace.config["problem"]["network"].startswith("Linen")
    again = fl.Trace.load(trace.save(tmp_path))
    np.testing.assert_array_equal(again.metrics["client_train_accuracy"], trace.metrics["client_train_accuracy"])
    assert "client_train_accuracy[2]" in trace.to_pandas()
    first = trace.reach(test_accuracy=trace.metrics["test_accuracy"].max())
    assert first["step"] == trace.step[np.argmax(trace.metrics["test_accuracy"])]
    frame = again.clients()
    assert list(frame) == ["step", "client", "rows", "n_rows", "loss", "accuracy"]
    assert frame["step"].tolist() == [2, 2, 2, 4, 4, 4, 6, 6, 6]
    assert frame["n_rows"].tolist() == [5, 9, 3] * 3
    for kind in ("loss", "accuracy"):
        np.testing.assert_array_equal(frame[kind], trace.metrics[f"client_train_{kind}"].ravel())
    assert set(frame["rows"]) == {"train"}
    ids = jax.jit(lambda t: local.begin(problem, hp, t, jax.random.fold_in(jax.random.key(0), t)).ids)
    for step, members in again.clients(cohort=True).groupby("step")["client"]:  # those whom the round began with
        assert members.tolist() == sorted(np.asarray(ids(int(step) - 1)).tolist())
    with pytest.raises(InputError, match=r"measured nothing by client: run it with measure='clients'"):
        fl.Trace("gd", "finished", *np.zeros((6, 0)), {}, {"value": 1.0}, 0.0, {}).clients()
    with pytest.raises(InputError, match="single numbers"):
        fl.sweep("fedavg", problem, seeds=1, steps=2, every=1, measure="client_train_accuracy", progress=False)


def test_rows_that_each_client_is_measured_on():
    tests = [*data((4, 6), seed=5), (np.zeros((0, 4)), np.zeros(0, int))]
    assert make(test=tests).client_rows == {"train": [5, 9, 3], "test": [4, 6, 0]}
    some = make(measured_rows=8)
    assert some.client_rows == some.with_rows_apart().client_rows
    assert sum(some.client_rows["train"]) == 8


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("accuracy", "'test_accuracy' or 'train_accuracy'"),
        ("accuracy_worst", "'train_accuracy_worst'"),
        ("client_loss", "'client_train_loss'"),
    ],
)
def test_names_that_did_not_say_their_rows(problem, old, now):
    words = f"metric {old!r} is called {now}, by the rows that it is measured on"
    trace = fl.Trace("gd", "finished", *np.zeros((6, 0)), {}, {"value": 1.0}, 0.0, {})
    trace.metrics |= dict.fromkeys(problem.metrics, np.zeros(0))
    for asks in (
        lambda: problem.measure(problem.x0, (old,)),
        lambda: fl.run("gd", problem, measure=old),
        lambda: trace.reach(**{old: 0.5}),
        lambda: trace.metrics[old],
    ):
        with pytest.raises(InputError) as caught:
            asks()
        assert str(caught.value) == words


# --- models of other kinds ---


def test_a_plain_function_and_an_nnx_module_are_models(points):
    """The same two layers three times: equal values, gradients and sizes."""
    ours = make()
    params = ours.params(points[0])
    layer = lambda p, x: x @ p["kernel"] + p["bias"].reshape(1, -1)
    function = make(lambda p, x: layer(p["Dense_1"], jnp.tanh(layer(p["Dense_0"], x))), params=params)
    np.testing.assert_allclose(function.grads(points), ours.grads(points), rtol=0, atol=1e-14)

    class Twin(nnx.Module):
        def __init__(self):
            make_layer = functools.partial(nnx.Linear, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
            self.a, self.b = make_layer(4, 4), make_layer(4, 3)

        def __call__(self, x):
            return self.b(jnp.tanh(self.a(x)))

    twin = make(Twin())
    x = twin.layout.ravel(
        jax.tree.unflatten(twin.layout.structure, jax.tree.leaves(params)), jnp.float64
    )  # a: bias, kernel; b: bias, kernel, in both
    np.testing.assert_allclose(twin.grads(x)[1], ours.grads(points[0])[1], rtol=0, atol=1e-14)


def test_images_are_bytes_until_they_are_used():
    rng = np.random.default_rng(0)
    clients = [(rng.integers(0, 256, (m, 2, 2, 1), dtype=np.uint8), rng.integers(0, 3, m)) for m in SIZES]
    problem = make(fl.models.get("mlp:hidden=4", classes=3), clients)
    assert problem.table.features.dtype == jnp.uint8
    scaled = make(fl.models.get("mlp:hidden=4", classes=3), [(a / 255, b) for a, b in clients])
    np.testing.assert_allclose(grads(problem, problem.x0), scaled.grads(problem.x0), rtol=0, atol=1e-14)
    shifted = make(fl.models.get("mlp:hidden=4", classes=3), clients, prepare=lambda x: x / 255.0 - 0.5)
    assert np.abs(shifted.grads(shifted.x0) - grads(problem, problem.x0)).max() > 1e-3


@pytest.mark.slow
def test_augmentation_and_dropout_touch_minibatches_alone():
    class Dropped(linen.Module):
        @linen.compact
        def __call__(self, x, train=False):
            return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(x))

    clean = make(Dropped(), clients=data((6, 6)))
    every = jax.jit(lambda problem, key: problem.stochastic_grads(key, problem.x0, 6, replacement=False))
    draws = np.array([every(clean, key) for key in jax.random.split(KEY, 3)])
    assert draws.std(axis=0).max() > 1e-3  # all rows are taken: what differs is the dropout
    assert np.abs(draws[:, 0] - draws[:, 1]).max() > 1e-3
    np.testing.assert_array_equal(clean.grads(clean.x0), clean.grads(clean.x0))
    flipped = make(clients=data((6, 6)), augment=lambda key, x: -x)
    plain = make(clients=data((6, 6)))
    np.testing.assert_array_equal(flipped.grads(flipped.x0), plain.grads(plain.x0))
    assert np.abs(every(flipped, KEY) - every(plain, KEY)).max() > 1e-3


def test_a_network_by_name_has_as_many_outputs_as_its_targets():
    numbers = [(a, a[:, 0]) for a, _ in data()]
    assert make("linear", numbers, loss="squared").dim == 4 + 1
    assert make("linear", [(a, a[:, :2]) for a, _ in data()], loss="squared").dim == 2 * (4 + 1)
    assert make("linear", test=(np.zeros((1, 4)), np.array([5]))).dim == 6 * (4 + 1)


def test_squares_are_a_loss_too():
    clients = [(a, a[:, :1] * 2) for a, _ in data()]
    problem = make(fl.models.get("linear", classes=1), clients, clients[0], loss="squared", l2=0.0)
    assert problem.metrics == ("grad_norm", "client_train_loss", "test_loss")
    x = jnp.asarray(np.random.default_rng(0).normal(size=problem.dim))
    for i, (a, b) in enumerate(clients):
        tree = problem.params(x)["Dense_0"]
        assert float(problem.values(x)[i]) == pytest.approx(
            float(np.mean((a @ np.asarray(tree["kernel"]) + np.asarray(tree["bias"]) - b) ** 2) / 2), rel=1e-12
        )


# --- BatchNorm ---


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_normalisation_evaluates_by_the_mean_of_clients_statistics(momentum):
    """Whatever the module's momentum; the statistics are not among the parameters."""
    test = rows(np.random.default_rng(9), 7)
    clients = data((5, 2, 9))
    problem = make(Normed(momentum), clients, test)
    assert problem.dim == 2 * 4 + 4 * 3 + 3
    found = problem.norm_at(problem.x0)["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], np.mean([a.mean(0) for a, _ in clients], 0), atol=1e-12)
    np.testing.assert_allclose(found["var"], np.mean([a.var(0) for a, _ in clients], 0), atol=1e-12)
    normed = (test[0] - np.asarray(found["mean"])) / np.sqrt(np.asarray(found["var"]) + 1e-5)
    logits = normed @ np.asarray(problem.params(problem.x0)["Dense_0"]["kernel"])
    accuracy = problem.measure(problem.x0, ("test_accuracy",))["test_accuracy"]
    assert float(accuracy) == pytest.approx(np.mean(np.argmax(logits, 1) == test[1]))


@pytest.mark.slow
def test_normalisation_by_each_clients_own_statistics():
    clients, tests = data((5, 5, 5)), data((4, 4, 4), seed=5)
    problem = make(Normed(), clients, tests, norm_statistics="local")
    found = problem.norm_at(problem.x0)["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], [a.mean(0) for a, _ in clients], atol=1e-12)
    accuracies = problem.measure(problem.x0, ("client_test_accuracy",))["client_test_accuracy"]
    kernel = np.asarray(problem.params(problem.x0)["Dense_0"]["kernel"])
    for i, ((a, _), (b, targets)) in enumerate(zip(clients, tests, strict=True)):
        logits = (b - a.mean(0)) / np.sqrt(a.var(0) + 1e-5) @ kernel
        assert float(accuracies[i]) == pytest.approx(np.mean(np.argmax(logits, 1) == targets))


def test_normalisation_learns_by_the_batch():
    """A shift of all features leaves gradients with respect to the last layer alone."""
    problem, shifted = make(Normed()), make(Normed(), [(a + 5, b) for a, b in data()])
    ours, theirs = grads(problem, problem.x0), shifted.grads(problem.x0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_normalisation_learns_from_the_rows_of_its_batch_alone():
    """Whatever rows other clients have, and however many: full gradients, short batches and ends of epochs."""
    (few, many), epochs = data((5, 12)), jax.jit(lambda problem, o: problem.turn(o, jnp.asarray(0), 8))
    alone, beside = make(Normed(), [few]), make(Normed(), [few, many])
    x = alone.x0 + 0.3
    full = grads(alone, x)[0]
    np.testing.assert_allclose(grads(beside, x)[0], full, rtol=0, atol=1e-14)
    np.testing.assert_allclose(values(beside, x)[0], values(alone, x)[0], rtol=1e-14)
    batch = jax.jit(lambda problem: problem.stochastic_grads(KEY, x, 8, replacement=False))
    np.testing.assert_allclose(batch(beside)[0], full, rtol=0, atol=1e-14)
    picks, weights = epochs(beside, beside.orders(KEY, 2))
    assert picks[0].max() < 5
    np.testing.assert_allclose(beside.batch_grads(picks, weights, x, KEY)[0], full, rtol=0, atol=1e-14)
    pieces = [
        make(Normed(), clients, rows_at_once=4) for clients in ([few], [few, many])
    ]  # of the second, one is empty
    np.testing.assert_allclose(grads(pieces[1], x)[0], grads(pieces[0], x)[0], rtol=0, atol=1e-14)


@pytest.mark.slow
def test_an_nnx_model_with_normalisation_trains():
    class Twin(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.out = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.out(self.norm(x))

    problem = fl.problems.neural(Twin(nnx.Rngs(0)), data((5, 5, 5)), rows(np.random.default_rng(9), 7), smooth=1.0)
    found = problem.norm_at(problem.x0)["norm"]
    np.testing.assert_allclose(
        found["mean"].get_value(), np.mean([a.mean(0) for a, _ in data((5, 5, 5))], 0), atol=1e-6
    )
    trace = fl.run("fedavg", problem, steps=3, every=1, progress=False)
    assert np.isfinite(trace.metrics["test_accuracy"]).all()


@pytest.mark.parametrize("flag", ["train", "training", "is_training", "deterministic", "use_running_average"])
def test_a_flag_of_training_is_known_by_its_usual_names(flag):
    opposite, own = flag in ("deterministic", "use_running_average"), {"linen": linen}
    exec(
        f"def call(self, x, {flag}=False): return x * self.param('p', linen.initializers.ones, 4)[None] * (1 + {flag})",
        own,
    )
    problem = make(type("Flagged", (linen.Module,), {"__call__": linen.compact(own["call"])})(), classes=4)
    np.testing.assert_array_equal(problem.predict(problem.x0, np.ones((2, 4))), np.ones((2, 4)) * (1 + opposite))


# --- many clients ---


def test_a_round_of_many_clients_costs_its_cohort():
    """SCAFFOLD with 20,000 resident clients: beyond its state, updated in place, a step needs little memory."""
    n = 20_000
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(n, 1, 4)).astype(np.float32), rng.integers(0, 3, (n, 1))
    problem = fl.problems.neural(Net(), list(zip(features, targets, strict=True)), smooth=1.0)
    algorithm = algorithms.get("scaffold")
    hp = pytree.cast(pytree.replace(algorithm.theory(problem), cohort_size=10, batch_size=1), jnp.float32)
    state = jax.eval_shape(algorithm.init, problem, hp, KEY)

    def rounds(problem, hp, state, key):
        one = lambda state, t: algorithm.step(problem, hp, state, jax.random.fold_in(key, t))
        return jax.lax.scan(one, state, jnp.arange(5))

    compiled = jax.jit(rounds, donate_argnums=2).lower(problem, hp, state, KEY).compile()
    resident = pytree.nbytes(state) + pytree.nbytes(problem)
    assert memory_bytes(compiled) < resident + 0.25 * pytree.nbytes(state)


# --- bad input ---


def test_bad_input():
    def refused(message, *arguments, **options):
        with pytest.raises(InputError, match=message) as error:
            make(*arguments, **options)
        assert "\n" not in str(error.value)

    good = data()
    refused("no clients", Net(), [])
    refused("2 features and 3 targets", Net(), [(np.zeros((2, 4)), np.zeros(3, int))])
    refused("client 1 has rows of shape", Net(), [good[0], (np.zeros((2, 5)), np.zeros(2, int))])
    refused("not finite", Net(), [(np.full((2, 4), np.nan), np.zeros(2, int))])
    refused("a target is 7", Net(), [(np.zeros((2, 4)), np.array([0, 7]))])
    refused("whole targets", Net(), [(np.zeros((2, 4)), np.array([0.5, 1.0]))])
    refused("unknown loss 'hinge'", loss="hinge")
    refused("unknown norm_statistics", norm_statistics="server")
    refused("params=", lambda p, x: x)
    refused("must be a flax module", 3)
    refused("2 parts for 3 clients", test=good[:2])
    refused("did you mean 'mlp'", "mpl")
    refused(r"test rows have shape \(2,\), clients' \(4,\)", test=(np.zeros((3, 2)), np.zeros(3, int)))
    refused("a target is 7", test=(np.zeros((3, 4)), np.array([0, 1, 7])))
    refused("whole targets", test=(np.zeros((3, 4)), np.zeros(3)))
    refused("one number a row.*leave out its mean", loss=lambda outputs, targets: jnp.mean(outputs))
    refused(r"\(3,\), and targets \(\): the squared loss needs as many", loss="squared")

    class Flagless(linen.Module):
        @linen.compact
        def __call__(self, x, is_learning=False):
            return linen.BatchNorm(use_running_average=not is_learning)(x)

    refused("has no flag for training mode: give it one of train", Flagless())
    refused("one array of outputs, got tuple", lambda p, x: (x, p), params={"p": jnp.ones(1)})
    refused("measured_rows must be whole and >= 1, got 0", measured_rows=0)
    refused("rows_at_once must be whole and >= 1, got 0.5", rows_at_once=0.5)
    refused("smooth must be above 0, got 0.0", smooth=0.0)
    refused("l2 must be 0 or more, got -1", l2=-1)


def test_losses_of_sequences():
    """Means over positions, one number for each row."""
    rng = np.random.default_rng(0)
    logits, targets = jnp.asarray(rng.normal(size=(2, 5, 3))), jnp.asarray(rng.integers(0, 3, (2, 5)))
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    np.testing.assert_allclose(cross_entropy(logits, targets), each.mean(1))
    np.testing.assert_allclose(hit_rate(logits, targets), (jnp.argmax(logits, -1) == targets).mean(1))
    assert isinstance(make(), Neural)


def test_a_network_is_known_again_in_another_process():
    """A sweep of it goes on from its saved parts: nothing that identifies it depends on where functions lie."""
    digests = set()
    for loss in (lambda z, b: cross_entropy(z, b), lambda z, b: cross_entropy(z, b)):
        digests.add(digest(make(loss=loss)))
    assert len(digests) == 1
    assert digest(make(l2=0.2)) not in digests
    assert digest(make(model=fl.models.get("mlp:hidden=4", classes=3))) not in digests
