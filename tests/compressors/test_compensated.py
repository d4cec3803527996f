"""A low-rank term in the metric of a layer's inputs: the best one, its certificate and refusals; as a downlink."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms
from fedjax_lc.compressors import Compensated, parse
from fedjax_lc.core.errors import InputError
from tests.algorithms.shared import walk
from tests.conftest import make_clients

ROWS, COLUMNS = 4, 6
KEY = jax.random.key(2)
GOT = "compensated needs a finite, symmetric, positive metric, as the second moment of inputs is, got one with "


def metric(seed=0, samples=40):
    X = np.random.default_rng(seed).normal(size=(samples, COLUMNS)) * 2.0 ** -np.arange(COLUMNS)
    return X.T @ X / samples


def vector(seed=1):
    return np.random.default_rng(seed).normal(size=ROWS * COLUMNS)


def send(c, x):
    return np.asarray(jax.jit(lambda x: c(KEY, x).value)(x)).reshape(ROWS, COLUMNS)


@pytest.mark.parametrize("base", ["qsgd:3", "zero", "top_k:5"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_error_is_the_tail_in_the_metric_and_no_term_is_better(base, rank):
    """|(M - value) S|^2 = sum of the squares of the singular values of (M - base) S beyond the rank."""
    G, x = metric(), vector()
    lower = np.linalg.cholesky(G)  # another root: the norm is the same
    value = send(Compensated(parse(base), rank, ROWS, G), x)
    residual = x.reshape(ROWS, COLUMNS) - np.asarray(parse(base)(KEY, jnp.asarray(x)).value).reshape(ROWS, COLUMNS)
    singular = np.linalg.svd(residual @ lower, compute_uv=False)
    error = lambda value: np.sum(((x.reshape(ROWS, COLUMNS) - value) @ lower) ** 2)
    assert error(value) == pytest.approx(np.sum(singular[rank:] ** 2), rel=1e-10)
    assert error(value) <= (1 - rank / ROWS) * np.sum(singular**2) * (1 + 1e-12)
    low = value - (x.reshape(ROWS, COLUMNS) - residual)
    assert np.linalg.matrix_rank(low, tol=1e-10) == rank
    rng = np.random.default_rng(3)
    for _ in range(20):
        left, middle, right = np.linalg.svd(low + 1e-3 * rng.normal(size=low.shape))
        other = left[:, :rank] * middle[:rank] @ right[:rank]
        assert error(value - low + other) > error(value)


def test_a_multiple_of_the_metric_changes_nothing_and_the_identity_is_none():
    x = vector()
    c = Compensated(parse("sign"), 2, ROWS)
    at = lambda G: send(dataclasses.replace(c, metric=G), x)
    np.testing.assert_allclose(at(1e6 * metric()), at(metric()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(at(np.eye(COLUMNS)), send(c, x), rtol=0, atol=1e-12)
    assert np.abs(at(metric()) - send(c, x)).max() > 0.1


def test_a_singular_metric_gives_numbers():
    G = metric(samples=3)  # of rank 3
    value = send(Compensated(parse("zero"), 3, ROWS, G), vector())
    assert np.all(np.isfinite(value))
    residual = (vector().reshape(ROWS, COLUMNS) - value) @ G
    np.testing.assert_allclose(residual, 0, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "delta"),
    [
        ("compensated(zero):1,rows=4", 1 / 4),
        ("compensated(top_k:6):1,rows=4", 1 - 3 / 4 * 3 / 4),
        ("compensated(threshold:0.1):1,rows=4", 1 / 4),  # it projects, so that no more than x is left out
        ("compensated(rand_k:16):1,rows=4", 1 - 3 / 4 * 0.5),
        ("compensated(rand_k:8):3,rows=4", 1 - 1 / 4 * 2),  # omega = 2
        ("compensated(rand_k:8):1,rows=4", 0),
        ("compensated(sign|natural):1,rows=4", 0),  # of which nothing is known
        ("compensated(identity):1,rows=4", 1),
    ],
)
def test_certificates(spec, delta):
    c = parse(spec)
    assert c.delta(ROWS * COLUMNS) == pytest.approx(delta, rel=1e-12)
    assert c.omega(ROWS * COLUMNS) == math.inf
    assert dataclasses.replace(c, metric=metric()).delta(ROWS * COLUMNS) == 0


@pytest.mark.parametrize(
    ("c", "said"),
    [
        (
            "compensated(sign):5,rows=4",
            "compensated needs a whole rank, 1 <= rank <= 4, that of the matrix 4 x 6, got 5",
        ),
        (
            "compensated(sign):0,rows=4",
            "compensated needs a whole rank, 1 <= rank <= 4, that of the matrix 4 x 6, got 0",
        ),
        ("compensated(sign):1,rows=5", "compensated needs rows that divide d = 24, got 5"),
        ("compensated(top_k:0):1,rows=4", "top_k needs 1 <= k <= d = 24, got k = 0"),
        (Compensated(parse("sign"), 1, 4, np.full((6, 6), np.nan)), GOT + "NaN or inf"),
        (Compensated(parse("sign"), 1, 4, np.zeros((6, 6))), GOT + "eigenvalues from 0 to 0"),
        (Compensated(parse("sign"), 1, 4, -np.eye(6)), GOT + "eigenvalues from -1 to -1"),
        (Compensated(parse("sign"), 1, 4, np.diag([1, 1, 1, 1, 1, -0.5])), GOT + "eigenvalues from -0.5 to 1"),
        (Compensated(parse("sign"), 1, 4, np.eye(6) + np.eye(6, k=1)), GOT + "entries 1 apart from their mirror image"),
        (
            Compensated(parse("sign"), 1, 4, np.eye(4)),
            "compensated needs a metric (6, 6), as the matrix has 6 columns, got one of shape (4, 4)",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(c, said):
    with pytest.raises(InputError) as caught:
        parse(c).validate(ROWS * COLUMNS)
    assert str(caught.value) == said


def test_the_command_line_says_it_too(refused):
    said = refused("run", "ef21_p", "--downlink", "compensated(sign):9,rows=5", "--steps", "10")
    assert said == "compensated needs a whole rank, 1 <= rank <= 5, that of the matrix 5 x 6, got 9"


@pytest.mark.parametrize("with_metric", [False, True])
def test_as_a_downlink_of_ef21_p_it_converges(with_metric):
    problem = fl.problems.logistic_regression(make_clients(dim=ROWS * COLUMNS), kappa=10)
    hp = algorithms.get("ef21_p").theory(problem, downlink="compensated(zero):2,rows=4", scale=16)
    if with_metric:
        hp = dataclasses.replace(hp, downlink=Compensated(parse("block_sign:6"), 2, ROWS, metric()))
    _, costs, points = walk("ef21_p", problem, hp, 1500)
    assert np.linalg.norm(points[-1] - problem.x_star) < 1e-12 * np.linalg.norm(problem.x_star)
    np.testing.assert_array_equal(costs.bits_down, 32 * 2 * (4 + 6) + (4 * 32 + 24 if with_metric else 0))
