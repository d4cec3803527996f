"""The networks: published parameter counts, shapes, dropout, norms, clients side by side, and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import models

IMAGE, COLOUR, DIGIT = (28, 28, 1), (32, 32, 3), (8, 8, 1)
COUNTS = [
    ("linear", DIGIT, 650),
    ("mlp", DIGIT, 15_010),
    ("mlp:hidden=100x50", DIGIT, 64 * 100 + 100 + 100 * 50 + 50 + 50 * 10 + 10),
    ("cnn", DIGIT, 160 + 4_640 + 128 * 64 + 64 + 650),
    ("mnist_cnn", IMAGE, 21_840),
    ("fashion_cnn", IMAGE, 421_642),
    ("lenet", COLOUR, 62_006),
    ("emnist_cnn", IMAGE, 1_206_590),
    ("resnet18", COLOUR, 11_171_146),
    ("resnet18_bn", COLOUR, 11_171_146),
    ("resnet18:norm=batch", COLOUR, 11_171_146),
    ("resnet34", COLOUR, 21_279_306),
    ("char_lstm", None, 820_522),
    ("char_lstm:vocab=80", None, 817_872),
    ("char_lstm_small", None, 82_474),
]


def batch(shape, size=2):
    return jnp.zeros((size, 6), "int32") if shape is None else jax.random.normal(jax.random.key(0), (size, *shape))


def shapes(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)


def start(model, x, seed=0):
    """Variables of a model without compiling its `init`: random ones, and averages of BatchNorm at 0 and 1."""
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        known = {"mean": np.zeros, "var": np.ones}.get(path[-1].key)
        value = known(like.shape) if known else rng.normal(size=like.shape) / np.sqrt(1 + np.prod(like.shape[:-1]))
        return jnp.asarray(value, like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes(model, x))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "count"), COUNTS)
def test_parameters_are_as_many_as_published(name, shape, count):
    model = models.get(name)
    variables = shapes(model, batch(shape))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    outputs = jax.eval_shape(model.apply, variables, batch(shape))
    classes = 62 if name == "emnist_cnn" else 10
    assert outputs.shape == ((2, classes) if shape else (2, 6, model.vocab))


def test_every_name_is_counted():
    assert {name.partition(":")[0] for name, _, _ in COUNTS} == set(models.names())


SMALL = ["mlp:hidden=5", "cnn", "resnet18:width=4,stages=1", "resnet18_bn:width=4,stages=1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_training_lowers_the_loss_with_clients_side_by_side_as_alone(name):
    model, x = models.get(name, classes=3), jax.random.normal(jax.random.key(0), (2, 6, 8, 8, 1))
    targets = jnp.arange(6) % 3
    variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(start(model, x[0], seed) for seed in range(2)))

    def loss(params, rest, x):
        outputs = model.apply({"params": params, **rest}, x, train=True, mutable=list(rest))[0]
        return -jnp.mean(jax.nn.log_softmax(outputs)[jnp.arange(6), targets])

    def descend(variables, x):
        rest = {kind: leaf for kind, leaf in variables.items() if kind != "params"}
        value, slope = jax.value_and_grad(loss)(variables["params"], rest, x)
        moved = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], slope)
        return moved, value, loss(moved, rest, x)

    together = jax.jit(jax.vmap(descend))(variables, x)
    assert np.all(together[2] < together[1])
    one = jax.jit(descend)
    for i in range(2):
        alone = one(*jax.tree.map(lambda leaf, i=i: leaf[i], (variables, x)))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=2e-5), together, alone)


@pytest.mark.parametrize("name", ["mnist_cnn", "fashion_cnn", "emnist_cnn"])
def test_dropout_is_random_in_training_only(name):
    model, x = models.get(name), batch(IMAGE)
    variables = start(model, x)
    train = jax.jit(lambda seed: model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}))
    calm = jax.jit(lambda seed: model.apply(variables, x, rngs={"dropout": jax.random.key(seed)}))
    np.testing.assert_array_equal(train(1), train(1))
    assert np.max(np.abs(train(1) - train(2))) > 1e-3
    np.testing.assert_array_equal(calm(1), calm(2))
    assert np.max(np.abs(calm(1) - train(1))) > 1e-3


def test_dropout_of_mnist_cnn_takes_whole_channels():
    model, x = models.get("mnist_cnn"), batch(IMAGE)
    variables = start(model, x)
    options = {"train": True, "capture_intermediates": True, "mutable": True}
    _, seen = jax.jit(lambda key: model.apply(variables, x, rngs={"dropout": key}, **options))(jax.random.key(1))
    kept = np.asarray(seen["intermediates"]["Dropout_0"]["__call__"][0] != 0)
    assert np.all(kept == kept[:, :1, :1])
    assert 0 < kept.mean() < 1


def test_batch_norm_moves_its_averages_in_training_only():
    model, x = models.get("resnet18:norm=batch,width=4,stages=1"), 3 + batch(DIGIT, 4)
    variables = start(model, x)
    outputs, moved = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    means = lambda statistics: statistics["Block_0"]["Norm_0"]["BatchNorm_0"]["mean"]
    first = models.Conv(4, (3, 3), padding=1, use_bias=False).apply({"params": variables["params"]["Conv_0"]}, x)
    assert np.all(means(variables["batch_stats"]) == 0)
    np.testing.assert_allclose(means(moved["batch_stats"]), 0.1 * jnp.mean(first, axis=(0, 1, 2)), rtol=1e-4)
    assert np.max(np.abs(outputs - jax.jit(model.apply)(variables, x))) > 1e-3


def test_group_norm_rows_do_not_see_each_other():
    model, x = models.get("resnet18:width=4,stages=1"), batch(DIGIT, 4)
    variables = start(model, x)
    assert set(variables) == {"params"}
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(variables, x)[:2], apply(variables, x[:2]), atol=1e-5)


def test_a_block_is_the_formula():
    """relu(norm(x)) goes to both ways; the 1x1 way has no norm of its own."""
    from fedjax_lc.models.resnet import Block

    x = batch((6, 6, 2))
    block = Block(4, 2, "group")  # as many groups as channels
    params = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)["params"]
    params = jax.tree.map(lambda leaf: jnp.linspace(-1, 1, leaf.size).reshape(leaf.shape), params)

    def norm(i, x):
        x = (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
        learned = params[f"Norm_{i}"]["GroupNorm_0"]
        return x * learned["scale"].reshape(1, 1, 1, -1) + learned["bias"].reshape(1, 1, 1, -1)

    def formula(params, x):
        def conv(i, x, size, strides):
            layer = models.Conv(4, (size, size), strides=strides, padding=size // 2, use_bias=False)
            return layer.apply({"params": params[f"Conv_{i}"]}, x)

        active = jax.nn.relu(norm(0, x))
        return conv(0, active, 1, 2) + conv(2, jax.nn.relu(norm(1, conv(1, active, 3, 2))), 3, 1)

    ours = jax.jit(lambda params, x: block.apply({"params": params}, x, False))
    np.testing.assert_allclose(ours(params, x), jax.jit(formula)(params, x), atol=1e-5)


def test_text_sees_only_what_came_before():
    model = models.get("char_lstm:vocab=7,hidden=5,embedding=3,layers=2")
    x = jnp.arange(12).reshape(2, 6) % 7
    variables = start(model, x)
    apply = jax.jit(model.apply)
    before, after = apply(variables, x), apply(variables, x.at[:, 4].set(0))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.all(np.abs(before[:, 4:] - after[:, 4:]).max((0, 2)) > 1e-6)


# --- names ---


def test_options_come_from_the_string_first():
    assert models.get("mlp:hidden=4x3", classes=2) == models.MLP(hidden=(4, 3), classes=2)
    assert models.get("mlp:classes=5,hidden=4", classes=2, hidden=(9,)) == models.MLP(hidden=(4,), classes=5)
    assert models.get("resnet18_bn", classes=100) == models.ResNet18(classes=100, norm="batch")
    assert models.get("char_lstm", classes=4, vocab=30) == models.CharLSTM(vocab=30)
    assert models.get("fashion_cnn:dropout=0.5", classes=None) == models.FashionCNN(dropout=0.5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: models.get("resnet_18"), "unknown model 'resnet_18': did you mean 'resnet18'"),
        (lambda: models.get("mlp:hiden=3"), "unknown option of mlp 'hiden': did you mean 'hidden'"),
        (lambda: models.get("mlp", hiden=3), "unknown option of mlp 'hiden'"),
        (lambda: models.get("mlp:100"), "write mlp:option=value with an option of classes, hidden"),
        (
            lambda: models.get("mlp:hidden=3xx"),
            "hidden must be whole numbers such as 100x50, at most 100 and in 1..100000, got '3xx'",
        ),
        (lambda: models.get("mlp:hidden=0"), "hidden must be whole numbers"),
        (lambda: models.get("char_lstm:hidden=0"), "hidden must be a whole number in 1..100000, got '0'"),
        (lambda: models.get("fashion_cnn:dropout=1"), "dropout must be a number from 0 to below 1, got '1'"),
        (lambda: models.get("char_lstm:classes=3"), "unknown option of char_lstm 'classes'"),
        (
            lambda: shapes(models.get("resnet18:norm=layer,width=2"), jnp.ones((1, 8, 8, 1))),
            "unknown norm 'layer'",
        ),
        (lambda: shapes(models.get("resnet18"), jnp.ones((1, 64))), r"images \(B, H, W, C\)"),
        (lambda: shapes(models.get("mnist_cnn"), jnp.ones((1, 8, 8, 1))), "5x5 does not fit in 2x2"),
        (lambda: shapes(models.get("char_lstm"), jnp.ones((1, 64))), r"tokens \(B, T\)"),
    ],
)
def test_misuse_is_told_in_one_line(call, said):
    with pytest.raises(fl.InputError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)
