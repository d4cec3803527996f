"""`fl.problem`: data of every kind, split over clients, as the problem they call for."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import fedjax_lc as fl


def by_hand(name="breast_cancer", how="dirichlet:0.5", scale="standard"):
    dataset = fl.data.load(name, scale=scale)
    return fl.data.clients(dataset, fl.data.partition(dataset, 5, how, seed=3))


def assert_same(one, other):
    assert type(one) is type(other)
    assert (one.n, one.dim, one.dtype) == (other.n, other.dim, other.dtype)
    x = jnp.asarray(np.random.default_rng(0).normal(size=one.dim), one.dtype)
    np.testing.assert_array_equal(one.grads(x), other.grads(x))
    np.testing.assert_array_equal(one.smooth, other.smooth)


def test_two_classes_are_logistic_regression_at_the_usual_scale_and_kappa():
    found = fl.problem("breast_cancer", clients=5, partition="dirichlet:0.5", split_seed=3)
    assert_same(found, fl.problems.logistic_regression(by_hand(), kappa=1e4))


def test_l2_and_other_arguments_go_on():
    found = fl.problem("breast_cancer", 5, "dirichlet:0.5", split_seed=3, l2=0.1, weights="size", dtype="float32")
    other = fl.problems.logistic_regression(by_hand(), l2=0.1, weights="size", dtype="float32")
    assert_same(found, other)


def test_the_data_say_what_is_minimised():
    assert isinstance(fl.problem("iris", clients=3, kappa=50), fl.problems.SoftmaxModel)
    X = np.random.default_rng(0).normal(size=(30, 3))
    clients = [(X[i::3], X[i::3] @ [1.0, 2.0, 3.0]) for i in range(3)]
    squares = fl.problem((X, X @ [1.0, 2.0, 3.0]), clients=3, kappa=50)
    other = fl.problems.least_squares(clients, kappa=50)
    assert type(squares.loss) is type(other.loss)
    assert squares.kappa == pytest.approx(50)


def test_arrays_files_and_data_sets_are_one(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40)
    np.savez(tmp_path / "own.npz", features=X, targets=y)
    pair = fl.problem((X, y), clients=4, kappa=20)
    assert_same(pair, fl.problem(fl.data.from_arrays(X, y), clients=4, kappa=20))
    assert_same(pair, fl.problem((scipy.sparse.csr_matrix(X), y), clients=4, kappa=20))


def test_a_scale_applies_to_any_data():
    rng = np.random.default_rng(0)
    X, y = 5 + 3 * rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40)
    scaled = fl.problem((X, y), 4, scale="standard", kappa=20)
    assert_same(scaled, fl.problem(fl.data.from_arrays(X, y), 4, scale="standard", kappa=20))
    assert float(jnp.max(scaled.smooth)) < float(jnp.max(fl.problem((X, y), 4, kappa=20).smooth))


def test_images_come_to_a_network_in_their_shape():
    found = fl.problem("digits", 5, "dirichlet:0.5", "cnn", test_share=0.25, l2=1e-3)
    assert isinstance(found, fl.problems.Neural)
    assert found.n == 5
    assert found.table.features.shape[1:] == (8, 8, 1)
    assert len(found.test.targets) == pytest.approx(0.25 * 1797, rel=0.02)
    assert found.dtype == jnp.float32
    assert float(found.strong) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"data": "digits", "model": "cnn", "kappa": 10},
            "kappa is for convex problems: give a network's weight decay",
        ),
        ({"data": 3}, r"data are a name, a file or folder, a Dataset, .* for each client, got int"),
        ({"data": "brest_cancer"}, "breast_cancer"),
        ({"data": "breast_cancer", "partition": "dirichlet:x"}, "must be a number"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, words):
    with pytest.raises(fl.InputError, match=words) as caught:
        fl.problem(**arguments)
    assert "\n" not in str(caught.value)
