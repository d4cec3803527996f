"""Recipes that train networks, and SAVIC's convex ones: found by name, well formed, one step builds, data said."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from experiments import _networks
from experiments.kit import catalogue, local_steps
from experiments.kit.claim import Claim
from experiments.kit.local_steps import LocalSteps
from experiments.kit.training import Training
from experiments.mcm.deep import _common as deep
from experiments.savic import _closed_forms, _convex, _images
from fedjax_lc import algorithms, data
from fedjax_lc.compressors import parse
from fedjax_lc.core.errors import InputError

FOLDERS = ("savic", "savic/gpu", "mcm/deep", "mcm/deep/gpu", "fedopt", "locodl/deep", "drift")
NAMES = [name for name in catalogue.names() if name.rpartition("/")[0] in FOLDERS]
TRAININGS = [name for name in NAMES if isinstance(catalogue.get(name), Training)]


pytestmark = pytest.mark.usefixtures("quick")


def images(name, rows=200):
    shape = (28, 28) if name == "mnist" else (32, 32, 3)
    rng = np.random.default_rng(0)
    make = lambda count: data.from_images(
        rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 10, name=name
    )
    return dataclasses.replace(make(rows), test=make(20))


@pytest.fixture
def small(monkeypatch):
    """Every image set is a small random one."""
    for module in (_networks, deep, _images):
        monkeypatch.setattr(module, "load", images)


@pytest.fixture
def enough(monkeypatch):
    """Every image set is a random one with enough rows for batches of 128 of each of 20 clients."""
    for module in (_networks, deep, _images):
        monkeypatch.setattr(module, "load", functools.partial(images, rows=20 * 130))


def test_every_training_is_known():
    assert len(TRAININGS) == len(NAMES) - 2 == 18


@pytest.mark.parametrize("name", TRAININGS)
def test_equal_budgets_for_all_that_is_tuned(name):
    recipe = catalogue.get(name)
    tried = {np.prod([len(values) for values in run.tune.values()]) for run in recipe.curves}
    assert len(tried) == 1
    assert recipe.tune_rounds <= recipe.rounds
    assert recipe.rounds % recipe.every == 0


def test_missing_data_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path))
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "load", functools.partial(data.load, download=False))
    _networks.load.cache_clear()
    for name, word in (("savic/mnist-50", "mnist"), ("mcm/deep/cifar10", "cifar10"), ("fedopt/shakespeare", "shakes")):
        with pytest.raises(InputError, match=word) as error:
            catalogue.get(name).problem()
        assert "\n" not in str(error.value)


# --- data ---


def test_rows_in_order_are_contiguous_parts_of_one_size():
    dataset = images("mnist", rows=47)
    split = _networks.in_order(dataset, 5)
    parts = data.partition(split)
    assert [len(part) for part in parts] == [9] * 5
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(45))


def test_pixels_are_standardised_by_channel():
    pixels = np.array([[0, 255]], np.uint8).reshape(1, 1, 2, 1)
    ready = np.asarray(_networks.standardised(*_networks.MNIST_PIXELS)(pixels)).ravel()
    np.testing.assert_allclose(ready, [-0.1307 / 0.3081, (1 - 0.1307) / 0.3081], rtol=1e-6)


def test_a_flip_and_a_crop_shift_and_mirror_an_image():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
    seen = {np.asarray(_networks.flip_and_crop(jax.random.key(s), image)).tobytes() for s in range(30)}
    assert len(seen) > 20
    possible = set()
    for mirrored in (image, image[:, :, ::-1]):
        padded = np.pad(mirrored, ((0, 0), (4, 4), (4, 4), (0, 0)))
        possible |= {padded[:, i : i + 8, j : j + 8].tobytes() for i in range(9) for j in range(9)}
    assert seen <= possible


def test_a_copy_that_is_not_the_original_is_told(monkeypatch):
    doubtful = dataclasses.replace(images("cifar10"), notes=("not the original files (other checksums): x",))
    monkeypatch.setattr(_networks, "load", lambda name: doubtful)
    assert "not those of the original" in _networks.remarks("cifar10")
    import zlib

    monkeypatch.setitem(_networks.COPIES, zlib.crc32(doubtful.features.tobytes()), "CIFAR-10, JPEG re-encoding")
    assert _networks.remarks("cifar10") == "Data: CIFAR-10, JPEG re-encoding."
    monkeypatch.setattr(_networks, "load", images)
    assert _networks.remarks("cifar10") == ""


# --- one step of each builds ---


def builds(run, problem):
    """Shapes of a state before and after one step, without computing any."""
    algorithm, hp = algorithms.get(run.method), run.grid(problem).hparams[0]
    algorithm.check(problem, hp)
    key = jax.random.key(0)
    with jax.numpy_rank_promotion("allow"):
        state = jax.eval_shape(lambda p: algorithm.init(p, hp, key), problem)
        after, _ = jax.eval_shape(lambda p, s: algorithm.step(p, hp, s, key), problem, state)
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, after))


def test_the_full_resnet_builds_without_data_of_its_own(enough):
    problem = catalogue.get("savic/gpu/cifar10-resnet18").problem()
    assert problem.dim == 11_171_146
    before, after = builds(catalogue.get("savic/gpu/cifar10-resnet18").curves[1], problem)
    assert before == after


@pytest.mark.parametrize("name", ["mcm/deep/gpu/mnist", "mcm/deep/gpu/cifar10"])
def test_compressed_trainings_build_as_the_authors_have_them(name, enough):
    recipe = catalogue.get(name)
    problem = recipe.problem()
    s = 4 if "mnist" in name else 16
    assert (problem.n, problem.dim) == (20, 21_840 if s == 4 else 62_006)
    assert np.all(np.diff(np.asarray(problem.starts)) == 130)
    mcm = next(run for run in recipe.curves if run.method == "mcm")
    before, after = builds(mcm, problem)
    assert before == after
    for run in recipe.curves:
        hp = run.hparams(problem)
        algorithms.get(run.method).check(problem, hp)
        assert (hp.gamma, hp.batch_size, hp.replacement) == (0.1, 128, True)
        if run.method != "sgd":
            assert hp.compressor.layers == problem.layers
            assert str(hp.compressor.inner) == str(parse(f"qsgd:{s},code=elias"))
            rates = [getattr(hp, name) for name in ("alpha", "alpha_up", "alpha_dwn") if hasattr(hp, name)]
            assert rates
            assert all(np.shape(rate) == (problem.dim,) for rate in rates)
        assert getattr(hp, "c_ef", 0.1) == 0.1
    assert recipe.rounds == 300 * (24 if s == 4 else 20)


def test_memory_rates_are_those_of_each_tensor():
    rates = deep.memory_rates((100, 16), 4)
    assert rates.shape == (116,)
    np.testing.assert_allclose(rates[[0, -1]], [1 / (2 * (1 + 2.5)), 1 / (2 * (1 + 1))])


# --- convex ---


@pytest.mark.parametrize("curve", _convex.curves(batch_size=2), ids=lambda curve: curve.label)
def test_scalings_fit_their_problems(curve, problem):
    hp = curve.hparams(problem, local_steps=3)
    algorithms.get("savic").check(problem, hp)
    assert (hp.rule, hp.scaling, hp.local_steps) == (curve.choices["rule"], curve.choices["scaling"], 3)
    assert (hp.b1, hp.beta, hp.batch_size) == (0.9 if "momentum" in curve.label else 0.0, 0.99, 2)
    assert hp.alpha == (_convex.smoothness(problem) / 1000 if hp.rule in _convex.HESSIAN else 1e-3)
    assert len(curve.tried(problem)["gamma"]) == 9


def test_limits_of_a_frozen_diagonal():
    problem = _closed_forms.ill_scaled(coupling=0.0)
    Q, b = np.asarray(problem.Q), np.asarray(problem.b)
    ones = np.ones(_closed_forms.DIM)
    np.testing.assert_allclose(_closed_forms.limit(Q, b, ones, 0.1, 1), problem.x_star, rtol=1e-10)
    c, K = b / np.diagonal(Q, axis1=1, axis2=2), 1 - (1 - 0.1 * np.diagonal(Q, axis1=1, axis2=2)) ** 7
    np.testing.assert_allclose(_closed_forms.limit(Q, b, ones, 0.1, 7), (K * c).sum(0) / K.sum(0))


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([-3, -3.1], [-1, -1.1], "holds"),
        ([-1, -1.1], [-3, -3.1], "does not hold"),
        ([-1, -2], [-1.2, -2.1], "undecided"),
        ([-1, -2], [np.inf, -2], "holds"),
        ([np.inf, -2], [-1, -2], "does not hold"),
        ([np.inf, -2], [np.inf, -2], "undecided"),
    ],
)
def test_claims_are_about_logarithms_of_gaps_for_each_number_of_local_steps(a, b, verdict, problem):
    claim = Claim("Local SGD is below Adam", ("Local SGD",), ("Adam",))
    recipe = LocalSteps(
        title="", problem=lambda: problem, curves=_convex.curves(2), rounds=8, batch_size=2, local_steps=(2, 5),
        claims=[claim],
    )  # fmt: skip
    gaps = lambda logs: {"gaps": 10.0 ** np.array(logs)}
    done = {"Local SGD": {2: gaps(a), 5: gaps([-9, -9])}, "Adam": {2: gaps(b), 5: gaps([-1, -1])}}
    assert recipe.verdicts({}, done) == {claim.text: {"H = 2": verdict, "H = 5": "holds"}}


def test_a_convex_figure_tells_the_best_of_its_step_sizes(problem, tmp_path):
    curves = _convex.curves(2)[:2]
    recipe = LocalSteps(
        title="tiny", problem=lambda: problem, rounds=8, batch_size=2, local_steps=(2,), shown=2, curves=curves,
        seeds=2, claims=(Claim("no momentum", ("Local SGD",), ("Local SGD, *",)),),
    )  # fmt: skip
    text = recipe.make(tmp_path, "tiny", progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".png"}
    assert "no momentum" in text
    one = recipe.best(curves[0], problem, 2, progress=False)
    hp, gammas = curves[0].hparams(problem, local_steps=2), curves[0].tried(problem)["gamma"]
    lanes = recipe._sweep(
        curves[0], problem, [dataclasses.replace(hp, gamma=gamma) for gamma in gammas], range(2, 6), False
    )
    assert one["gamma"] == gammas[int(np.argmin(np.median(local_steps.ends(lanes).reshape(9, -1), axis=1)))]
