"""Weights from elsewhere: trees of flax and PyTorch's names, files of them, and one line for what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import linen, nnx

import fedjax_lc as fl
from fedjax_lc.core import tensors
from fedjax_lc.core.errors import InputError
from fedjax_lc.models import weights
from fedjax_lc.running import loop

FIXTURE = Path(__file__).with_name("torch_cnn.safetensors")  # export_torch.py makes it


class Net(linen.Module):
    """What `export_torch.py` trained."""

    @linen.compact
    def __call__(self, x):
        for channels in (4, 6):
            x = linen.max_pool(linen.relu(linen.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        x = linen.relu(linen.Dense(12)(x.reshape(len(x), -1)))
        return linen.Dense(10)(x)


class Twin(nnx.Module):
    """The same in nnx, under other names."""

    def __init__(self, rngs):
        self.a1, self.a2 = nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.b1, self.b2 = nnx.Linear(24, 12, rngs=rngs), nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x):
        for layer in (self.a1, self.a2):
            x = nnx.max_pool(nnx.relu(layer(x)), (2, 2), (2, 2))
        return self.b2(nnx.relu(self.b1(x.reshape(len(x), -1))))


def digits(model):
    return fl.problem("digits", clients=3, model=model, scale="minmax", smooth=1.0)


@pytest.fixture(scope="module")
def network():
    return digits(Net())


@pytest.fixture(scope="module")
def tree(network):
    return jax.tree.map(np.asarray, network.params(network.x0))


@pytest.mark.parametrize("model", [Net, lambda: Twin(nnx.Rngs(0))], ids=["linen", "nnx"])
def test_a_network_of_pytorch_starts_with_the_accuracy_it_had(model, network):
    """Kernels are transposed, and the rows behind the images reordered; the outputs are PyTorch's own."""
    problem = network if model is Net else digits(model())
    facts = json.loads(tensors.plain(FIXTURE)[1]["facts"])
    x = problem.start(FIXTURE)
    assert float(problem.measure(x, ("test_accuracy",))["test_accuracy"]) == pytest.approx(facts["accuracy"], abs=1e-6)
    outputs = problem.predict(x, problem.test.features[:3])
    np.testing.assert_allclose(outputs, facts["outputs"], rtol=0, atol=2e-5)


def test_a_start_of_foreign_names_says_how_it_was_read(network):
    problem, notes = loop.start_at(FIXTURE, network)
    np.testing.assert_array_equal(problem.x0, network.start(FIXTURE))
    assert notes == [
        "start: conv1 -> Conv_0, conv2 -> Conv_1, fc1 -> Dense_0, fc2 -> Dense_1; Dense_0 takes rows (h, w, c) for "
        "PyTorch's (c, h, w)"
    ]


def test_a_saved_model_is_the_same_model_elsewhere(tmp_path):
    """In its folder, in each of its files, and as a tree for flax without this package."""
    problem = fl.problem("iris", clients=3, model="mlp:hidden=4", smooth=1.0)
    hp = fl.algorithms.get("gd").Hparams(gamma=3.0)  # so far that the last record is not the best
    options = {"steps": 6, "every": 1, "keep_best": "test_loss", "progress": False}
    trace = fl.run("gd", problem, hp, out=tmp_path, **options)
    again = fl.Trace.load(tmp_path)
    features, targets = np.asarray(problem.test.features), np.asarray(problem.test.targets)
    outputs = fl.models.get("mlp:hidden=4", classes=3).apply({"params": again.params()}, features)
    assert np.mean(np.argmax(outputs, 1) == targets) == pytest.approx(trace.metrics["test_accuracy"][-1])
    leaves = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert {name: list(leaf.shape) for name, leaf in leaves.items()} == problem.layout.described()
    np.savez(tmp_path / "tree.npz", **leaves)
    np.save(tmp_path / "x.npy", again.x)
    for given in (tmp_path, *(tmp_path / name for name in ("state.safetensors", "tree.npz", "x.npy"))):
        np.testing.assert_array_equal(problem.start(given), trace.x)
    losses, best = trace.metrics["test_loss"], problem.start(tmp_path / "best.safetensors")
    assert losses[-1] > losses.min()
    np.testing.assert_array_equal(best, again.best_x)
    measured = fl.run("gd", problem, hp, x0=tmp_path / "best.safetensors", **options).initial
    assert measured["test_loss"] == losses.min()
    assert trace.summary()["test_loss"] == {"last": losses[-1], "best": losses.min(), "step": 1 + np.argmin(losses)}
    assert json.loads((tmp_path / "config.json").read_text())["summary"] == trace.summary()


# --- the whole kind ---


def stored(tree):
    """The weights of `Net` under PyTorch's names and in its layouts."""
    turned = {2: lambda a: a.T, 4: lambda a: a.transpose(3, 2, 0, 1), 1: lambda a: a}
    names = {"Conv_0": "conv1", "Conv_1": "conv2", "Dense_0": "fc1", "Dense_1": "fc2"}
    return {
        f"{names[module]}.{'weight' if name == 'kernel' else name}": turned[leaf.ndim](leaf)
        for module, leaves in tree.items()
        for name, leaf in leaves.items()
    }


UNDERSTOOD = {
    "the tree itself": lambda tree: tree,
    "a layer params": lambda tree: {"params": tree},
    "batch statistics beside it": lambda tree: {"params": tree, "batch_stats": {"BatchNorm_0": {"mean": np.ones(3)}}},
    "flat names": lambda tree: {f"{m}/{n}": leaf for m, leaves in tree.items() for n, leaf in leaves.items()},
    "dotted names in a wrapper": lambda tree: {
        f"model.{m}.{n}": leaf for m, leaves in tree.items() for n, leaf in leaves.items()
    },
    "half precision": lambda tree: jax.tree.map(lambda a: a.astype(np.float64), tree),
    "bfloat16": lambda tree: jax.tree.map(lambda a: a.astype(ml_dtypes.bfloat16), tree),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_weights_of_the_networks_own_names(case, network, tree):
    np.testing.assert_allclose(network.start(UNDERSTOOD[case](tree)), network.x0, rtol=5e-3)


def without(weights, *names):
    return {name: leaf for name, leaf in weights.items() if not name.startswith(names)}


REFUSED = {
    "a missing layer": (lambda t: without(t, "Dense_1"), "Dense_1/bias (10,) of the network is missing"),
    "a surplus layer": (lambda t: t | {"Dense_2": t["Dense_1"]}, "the network has no Dense_2/"),
    "a transposed kernel": (
        lambda t: t | {"Dense_1": {"kernel": t["Dense_1"]["kernel"].T, "bias": t["Dense_1"]["bias"]}},
        "Dense_1/kernel must have shape (12, 10), got (10, 12): it is transposed: a leaf called weight must have",
    ),
    "another width": (
        lambda t: t | {"Dense_1": {"kernel": np.ones((13, 10)), "bias": np.ones(10)}},
        "Dense_1/kernel must have shape (12, 10), got (13, 10): give weights of this very network",
    ),
    "whole numbers": (lambda t: jax.tree.map(lambda a: a.astype(int), t), "is of type int64: weights must be real"),
    "complex numbers": (lambda t: jax.tree.map(lambda a: a + 0j, t), "is of type complex"),
    "no numbers": (lambda t: jax.tree.map(lambda a: a * np.nan, t), "holds NaN or infinity"),
    "words": (lambda t: {"a": "b"}, "a is of type <U1: weights must be real numbers"),
    "nothing": (lambda t: {}, "weights: there are none"),
    "a short vector": (lambda t: np.ones(3), "x0 must have shape (692,), got (3,): give a vector of this size, or a"),
    "a vector of nothing": (lambda t: np.full(692, np.inf), "x0 holds NaN or infinity"),
    "PyTorch, a missing layer": (lambda t: without(stored(t), "fc2"), "network has 2 dense layers (Dense_0, Dense_1), "
                                 "and they hold 1 dense layer (fc1)"),
    "PyTorch, a surplus layer": (
        lambda t: stored(t) | {"bn.weight": np.ones(4)},
        "the network has 0 norm layers, and they hold 1 norm layer (bn)",
    ),
    "PyTorch, not transposed": (
        lambda t: stored(t) | {"fc2.weight": t["Dense_1"]["kernel"]},
        "Dense_1/kernel must have shape (12, 10), got (10, 12) from fc2/weight: it is transposed",
    ),
    "PyTorch, another width": (
        lambda t: stored(t) | {"fc2.weight": np.ones((10, 7))},
        "Dense_1/kernel must have shape (12, 10), got (7, 10) from fc2/weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_are_one_line(case, network, tree):
    spoil, words = REFUSED[case]
    with pytest.raises(InputError) as caught:
        network.start(spoil(tree))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_params_are_read_as_starts_are(network, tree):
    clients = [(np.zeros((2, 8, 8, 1)), np.zeros(2, int))]
    made = fl.problems.neural(Net(), clients, params={"params": tree}, smooth=1.0)
    np.testing.assert_array_equal(made.x0, network.x0)
    with pytest.raises(InputError, match=r"Dense_1/bias .* is missing"):
        fl.problems.neural(Net(), clients, params=without(tree, "Dense_1"), smooth=1.0)


# --- modules under other names ---

WANTED = {"Dense_0/kernel": (3, 3), "Dense_1/kernel": (3, 3), "Dense_2/kernel": (3, 2)}
CALLS = {"Dense_0": 1, "Dense_1": 1, "Dense_2": 1}


def layers(**shapes):
    rng = np.random.default_rng(0)
    return {f"{name}/weight": rng.normal(size=shape) for name, shape in shapes.items()}


def test_modules_are_matched_by_order_and_shape_or_by_a_table_of_names():
    given = layers(last=(2, 3), first=(3, 3), middle=(3, 3))
    fitted = weights.fitted(given, WANTED, CALLS)  # in the order of a state_dict, and last by its shape
    np.testing.assert_array_equal(fitted.leaves["Dense_1/kernel"], given["middle/weight"].T)
    assert fitted.remark == "last -> Dense_2, first -> Dense_0, middle -> Dense_1"
    with pytest.raises(InputError, match=r"first and middle are of one shape.*give names=\{'first': 'Dense_0', ...\}"):
        weights.fitted(given, WANTED, CALLS, in_order=False)  # of a file
    names = {"first": "Dense_1", "middle": "Dense_0"}
    fitted = weights.fitted(given, WANTED, CALLS, names, in_order=False)
    np.testing.assert_array_equal(fitted.leaves["Dense_1/kernel"], given["first/weight"].T)
    numbered = layers(**{f"layer{i}": (3, 3) if i < 11 else (2, 3) for i in (10, 11, 9)})
    fitted = weights.fitted(numbered, WANTED, CALLS, in_order=False)  # 9 before 10
    np.testing.assert_array_equal(fitted.leaves["Dense_0/kernel"], numbered["layer9/weight"].T)
    for names, words in (({"x": "Dense_0"}, "the weights have no x"), ({"first": "y"}, "the network has no y")):
        with pytest.raises(InputError, match=f"names: {words}"):
            weights.fitted(given, WANTED, CALLS, names)


def test_norms_and_embeddings_have_their_own_names_in_pytorch():
    wanted = {"Embed_0/embedding": (5, 3), "BatchNorm_0/bias": (3,), "BatchNorm_0/scale": (3,)}
    given = {"bn.weight": np.full(3, 2.0), "bn.bias": np.zeros(3), "bn.running_mean": np.full(3, np.nan),
             "bn.num_batches_tracked": np.array(3), "emb.weight": np.arange(15.0).reshape(5, 3)}  # fmt: skip
    leaves = weights.fitted(weights.flat(given), wanted, {}).leaves
    np.testing.assert_array_equal(leaves["Embed_0/embedding"], given["emb.weight"])
    np.testing.assert_array_equal(leaves["BatchNorm_0/scale"], given["bn.weight"])


# --- files ---


def test_files_that_hold_no_weights_are_one_line(network, tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(FIXTURE.read_bytes()[:-5])
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "objects.npz", a=np.array([object()]))
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder").mkdir()
    cases = {
        "torn.safetensors": "is damaged",
        "torn.npz": "is damaged",
        "objects.npz": "is damaged",
        "model.pt": "save it by safetensors.torch.save_file",
        "notes.txt": "save the weights as .safetensors, .npz or .npy",
        "folder": "has no model.safetensors, which a run has once it is done",
        "nosuch.npy": "is not there: expected weights as",
    }
    for name, words in cases.items():
        with pytest.raises(InputError) as caught:
            network.start(tmp_path / name)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_convex_problem_starts_from_its_model(tmp_path):
    rng = np.random.default_rng(0)
    problem = fl.problems.least_squares([(rng.normal(size=(9, 3)), rng.normal(size=9))], kappa=10)
    trace = fl.run("gd", problem, steps=10, every=5, out=tmp_path, progress=False)
    np.testing.assert_array_equal(problem.start(tmp_path), trace.x)
    with pytest.raises(InputError, match=r"trained no network: its model is the vector trace\.x"):
        trace.params()
    with pytest.raises(
        InputError, match=r"this problem has no network: its start is a vector of shape \(3,\), got dict"
    ):
        problem.start({"a": jnp.ones(3)})
