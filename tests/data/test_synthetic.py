"""Synthetic generators: the laws they promise, measured with NumPy, and exact messages."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_lc.data import load, partition, synthetic


def effective_condition(data, kappa):
    """L_avg / smallest Hessian eigenvalue at the optimum, with l2 = 2 mu and (max_i L_i + mu)/mu = kappa."""
    parts = partition(data)
    tops = [np.linalg.eigvalsh(data.features[p].T @ data.features[p] / len(p))[-1] / 4 for p in parts]
    l2 = 2 * max(tops) / (kappa - 1)
    A, b = data.features, data.targets
    x = np.zeros(A.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(b * (A @ x)))
        hessian = (A.T * (p * (1 - p))) @ A / len(b) + l2 * np.eye(len(x))
        gradient = l2 * x - A.T @ (b * p) / len(b)
        x = x - np.linalg.solve(hessian, gradient)
    assert np.linalg.norm(gradient) < 1e-12
    smooth = np.linalg.eigvalsh(A.T @ A / len(b))[-1] / 4 + l2
    return smooth / np.linalg.eigvalsh(hessian)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kappa", "dim"), [(1e2, 10), (1e4, 10), (1e4, 30), (1e5, 20)])
def test_logistic_conditioning_is_felt(kappa, dim):
    data = synthetic.logistic(num_clients=10, rows=100, dim=dim, kappa=kappa, seed=1)
    assert kappa / 8 < effective_condition(data, kappa) < kappa / 2
    np.testing.assert_allclose(np.linalg.norm(data.features, axis=1), 1)
    assert set(data.targets) == {-1.0, 1.0}


def test_logistic_clients_differ_by_their_means():
    def spread(shift):
        data = synthetic.logistic(num_clients=20, rows=400, dim=5, shift=shift, seed=0)
        means = np.array([data.features[part].mean(axis=0) for part in partition(data)])
        return np.linalg.norm(means - means.mean(axis=0)) / np.linalg.norm(data.features.std(axis=0))

    assert spread(1.0) > 3 * spread(0.0)


def test_least_squares_condition_is_exact():
    data = synthetic.least_squares(num_clients=7, rows=30, dim=12, kappa=1e5, seed=4)
    spectrum = np.linalg.eigvalsh(data.features.T @ data.features / len(data.targets))
    np.testing.assert_allclose(spectrum, np.geomspace(1e-5, 1, 12), rtol=1e-8)
    assert (data.task, len(partition(data))) == ("regression", 7)


def test_least_squares_spread_is_what_makes_clients_differ():
    def client_models(spread):
        data = synthetic.least_squares(num_clients=4, rows=60, dim=3, kappa=10.0, spread=spread, noise=0.0)
        return np.array([np.linalg.lstsq(data.features[p], data.targets[p], rcond=None)[0] for p in partition(data)])

    np.testing.assert_allclose(np.ptp(client_models(0.0), axis=0), 0, atol=1e-10)
    assert np.ptp(client_models(2.0), axis=0).min() > 0.5


def test_fedprox_follows_its_law():
    data = synthetic.fedprox(0.0, 0.0, num_clients=40, seed=0)
    sizes = np.bincount(data.groups)
    assert data.features.shape[1] == 60
    assert sizes.min() >= 50
    assert 40 < np.median(sizes - 50) < 75  # exp(4) = 55 is the median of the log-normal part
    within = np.concatenate([data.features[p] - data.features[p].mean(axis=0) for p in partition(data)])
    np.testing.assert_allclose(within.var(axis=0), np.arange(1, 61) ** -1.2, rtol=0.1)
    centers = np.array([data.features[p].mean() for p in partition(data)])
    wide = synthetic.fedprox(0.0, 5.0, num_clients=40, seed=0)
    wide_centers = np.array([wide.features[p].mean() for p in partition(wide)])
    assert wide_centers.std() > 5 * centers.std()


def test_fedprox_iid_shares_one_model():
    """What is learnt on five clients holds for five others only if all share one model."""

    def accuracy(iid):
        data = synthetic.fedprox(0.0, 0.0, num_clients=10, iid=iid, seed=1)
        rows, fit = np.column_stack([data.features, np.ones(len(data.targets))]), data.groups < 5
        weights = np.linalg.lstsq(rows[fit], np.eye(10)[data.targets[fit]], rcond=None)[0]
        return np.mean(np.argmax(rows[~fit] @ weights, axis=1) == data.targets[~fit])

    assert accuracy(1) > 0.7
    assert accuracy(0) < 0.4


@pytest.mark.parametrize(("dim", "L", "mu"), [(2, 1.0, 1e-3), (15, 40.0, 2.0), (1, 3.0, 3.0)])
def test_quadratics_attain_both_ends(dim, L, mu):
    A, b = synthetic.quadratics(num_clients=6, dim=dim, L=L, mu=mu, seed=2)
    spectra = np.linalg.eigvalsh(A)
    assert (A.shape, b.shape) == ((6, dim, dim), (6, dim))
    assert np.array_equal(A, A.transpose(0, 2, 1))
    np.testing.assert_allclose(spectra[:, 0], mu, rtol=1e-10)
    np.testing.assert_allclose(spectra[:, -1], L, rtol=1e-10)
    A, b = synthetic.quadratics(num_clients=6, dim=dim, L=L, mu=mu, spread=0.0)
    minimisers = np.linalg.solve(A, b[..., None])[..., 0]
    np.testing.assert_allclose(minimisers - minimisers[0], 0, atol=1e-9)


def test_dirichlet_data_is_more_uneven_for_small_alpha():
    def unevenness(alpha):
        data = load(f"synthetic_dirichlet:num_clients=20,rows=50,alpha={alpha}")
        assert data.features.shape == (1000, 10)
        return np.std([data.targets[part].mean() for part in partition(data)])

    assert unevenness(0.1) > 2 * unevenness(10)


@pytest.mark.parametrize("name", sorted(synthetic.GENERATORS))
def test_seeds_repeat_and_differ(name):
    one, same, other = (load(f"{name}:seed={seed}") for seed in (5, 5, 6))
    assert np.array_equal(one.features, same.features)
    assert np.array_equal(one.targets, same.targets)
    assert one.features.shape != other.features.shape or not np.array_equal(one.features, other.features)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic_logistic:0", "num_clients must be at least 1, got 0"),
        ("synthetic_logistic:rows=0", "rows must be at least 1, got 0"),
        ("synthetic_logistic:dim=-1", "dim must be at least 1, got -1"),
        ("synthetic_logistic:kappa=0.5", "kappa must be at least 1 and finite, got 0.5"),
        ("synthetic_logistic:kappa=inf", "kappa must be at least 1 and finite, got inf"),
        ("synthetic_logistic:seed=-1", "seed must be 0 or more, got -1"),
        ("synthetic_fedprox:alpha=-1", "alpha must be at least 0 and finite, got -1.0"),
        ("synthetic_least_squares:1,5,6", "least_squares needs at least dim=6 rows in all, got 1 x 5"),
        (
            "synthetic_dirichlet:alpha=0",
            "dirichlet: alpha must be above 0 and finite (small = more heterogeneous), got 0.0",
        ),
        ("synthetic_logistic:dim=x", "data set 'synthetic_logistic:dim=x': dim must be a whole number, got 'x'"),
        (
            "synthetic_logistic:kapa=3",
            "unknown option of synthetic_logistic 'kapa': did you mean 'kappa'? "
            "(known: dim, kappa, num_clients, rows, seed, shift)",
        ),
    ],
)
def test_options_out_of_range(complaint, text, message):
    assert complaint(load, text) == message


def test_quadratics_out_of_range(complaint):
    for L, mu, dim in ((1.0, 2.0, 3), (1.0, 0.0, 3), (2.0, 1.0, 1)):
        assert complaint(synthetic.quadratics, 2, dim, L, mu) == (
            f"quadratics needs 0 < mu <= L, and mu = L when dim = 1; got mu={mu}, L={L}, dim={dim}"
        )
