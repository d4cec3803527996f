"""Seeded synthetic problems with a known degree of heterogeneity and conditioning.

The generators of data sets return a `Dataset` whose `groups` hold the client of each row (partition "natural").
`load` knows them as synthetic_logistic, synthetic_least_squares, synthetic_fedprox and synthetic_dirichlet, with
options in the same string: `load("synthetic_logistic:num_clients=20,kappa=1e3,seed=1")`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.data import partitions
from fedjax_lc.data.dataset import Dataset, from_arrays
from fedjax_lc.data.files import check_memory

Floats = NDArray[np.float64]
USUAL_ROWS = 453  #: of a client in `fedprox`: the mean of their law


def logistic(
    num_clients: int = 10,
    rows: int = 100,
    dim: int = 20,
    kappa: float = 1e4,
    shift: float = 0.3,
    seed: int = 0,
) -> Dataset:
    """Heterogeneous logistic regression data whose conditioning is felt by gradient descent.

    Feature j has scale kappa^(-j / (2 (dim - 1))), j = 0..dim-1, so second moments are log-spaced over a factor of
    kappa; rows have norm 1; labels follow a logistic model with weights normal / scale_j, which weights the weak
    directions; client i's features are shifted by shift * normal * scale_j. Without such labels and scales the
    curvature of the data hides the nominal condition number: with l2 = 2 mu, (L + mu)/mu = kappa and dim >= 10, the
    ratio of L_avg to the smallest Hessian eigenvalue at the optimum is between kappa/8 and kappa/2 here.

    num_clients clients have `rows` rows of `dim` features each. Raises InputError for values out of range.

    >>> logistic(num_clients=2, rows=50, dim=4).features.shape
    (100, 4)
    """
    rng = _start(num_clients, rows, dim, seed, kappa=kappa, shift=shift)
    features, targets = _logistic_rows(rng, num_clients, rows, dim, kappa, shift)
    return from_arrays(features, targets, name="synthetic_logistic")


def dirichlet_logistic(
    num_clients: int = 100,
    rows: int = 100,
    dim: int = 10,
    alpha: float = 1.0,
    kappa: float = 1e4,
    seed: int = 0,
) -> Dataset:
    """Logistic data as in `logistic` (without shifts), split over clients by a Dirichlet law over the two labels.

    num_clients * rows rows in all; alpha: concentration, small = more heterogeneous (see `partitions.dirichlet`).
    Raises InputError for values out of range.

    >>> data = dirichlet_logistic(num_clients=4, rows=50, dim=3)
    >>> len(data.targets), len(set(data.groups.tolist()))
    (200, 4)
    """
    rng = _start(num_clients, rows, dim, seed, kappa=kappa)
    features, targets = _logistic_rows(rng, num_clients, rows, dim, kappa, 0.0)
    features, targets = features.reshape(-1, dim), targets.ravel()
    parts = partitions.dirichlet(targets, num_clients, alpha=alpha, seed=seed)
    groups = partitions.as_groups(parts, len(targets))
    return from_arrays(features, targets, name="synthetic_dirichlet", groups=groups)


def _logistic_rows(
    rng: np.random.Generator, num_clients: int, rows: int, dim: int, kappa: float, shift: float
) -> tuple[Floats, Floats]:
    scales = np.sqrt(_log_spaced(1.0 / kappa, 1.0, dim))
    means = shift * rng.standard_normal((num_clients, 1, dim))
    features = (rng.standard_normal((num_clients, rows, dim)) + means) * scales
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    margins = features @ (rng.standard_normal(dim) / scales)
    # Margins of unit size: labels are noisy enough for a finite optimum, and the Hessian is not flattened.
    likely = 1.0 / (1.0 + np.exp(-margins / margins.std()))
    return features, np.where(rng.random(margins.shape) < likely, 1.0, -1.0)


def least_squares(
    num_clients: int = 10,
    rows: int = 100,
    dim: int = 20,
    kappa: float = 1e3,
    spread: float = 1.0,
    noise: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Heterogeneous least squares with an exact condition number.

    With all N = num_clients * rows rows stacked in A, A^T A / N has eigenvalues log-spaced from 1/kappa to 1, both
    attained, so F(x) = |A x - b|^2 / (2N) has smoothness 1 and strong convexity 1/kappa. Client i's targets follow
    the model x + spread * normal, plus noise * normal per row. Raises InputError for values out of range and
    for fewer rows in all than dim.

    >>> A = least_squares(num_clients=2, rows=30, dim=3, kappa=100.0).features
    >>> float(round(np.linalg.cond(A.T @ A), 6))
    100.0
    """
    rng = _start(num_clients, rows, dim, seed, kappa=kappa, spread=spread, noise=noise)
    total = num_clients * rows
    if total < dim:
        raise InputError(f"least_squares needs at least dim={dim} rows in all, got {num_clients} x {rows}")
    means = rng.standard_normal((num_clients, 1, dim))
    raw = (rng.standard_normal((num_clients, rows, dim)) + means).reshape(total, dim)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    stacked = np.linalg.qr(raw)[0] * np.sqrt(total * _log_spaced(1.0 / kappa, 1.0, dim)) @ turn
    features = stacked.reshape(num_clients, rows, dim)
    models = rng.standard_normal(dim) + spread * rng.standard_normal((num_clients, dim))
    targets = np.einsum("nmd,nd->nm", features, models) + noise * rng.standard_normal((num_clients, rows))
    return from_arrays(features, targets, name="synthetic_least_squares", labels="regression")


def fedprox(alpha: float = 1.0, beta: float = 1.0, num_clients: int = 30, iid: int = 0, seed: int = 0) -> Dataset:
    """FedProx's synthetic(alpha, beta): softmax labels, 60 features, 10 classes, log-normal client sizes.

    Client k: u_k ~ N(0, alpha), W_k, b_k ~ N(u_k, 1); v_k ~ N(B_k, 1), B_k ~ N(0, beta); rows x ~ N(v_k, Sigma),
    Sigma_jj = j^(-1.2); y = argmax softmax(W_k x + b_k); size 50 + floor(exp(N(4, 2))). As in the authors' code
    alpha and beta are standard deviations. iid=1: one W, b ~ N(0, 1) and v = 0 for all clients.
    alpha: how much models differ; beta: how much features differ. Raises InputError for values out of range.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127, section 5.1.

    >>> fedprox(0.5, 0.5, num_clients=3).features.shape[1]
    60
    """
    dim, num_classes = 60, 10
    rng = _start(num_clients, USUAL_ROWS, dim, seed, alpha=alpha, beta=beta)
    sizes = 50 + rng.lognormal(4.0, 2.0, num_clients).astype(int)
    deviations = np.arange(1, dim + 1) ** -0.6
    shared = rng.standard_normal((dim + 1, num_classes))
    features, targets = [], []
    model_means, centers = rng.normal(0, alpha, num_clients), rng.normal(0, beta, num_clients)
    for size, model_mean, center in zip(sizes, model_means, centers, strict=True):
        model = shared if iid else rng.normal(model_mean, 1.0, (dim + 1, num_classes))
        mean = np.zeros(dim) if iid else rng.normal(center, 1.0, dim)
        rows = mean + deviations * rng.standard_normal((size, dim))
        features.append(rows)
        targets.append(np.argmax(rows @ model[:-1] + model[-1], axis=1))
    groups = np.repeat(np.arange(num_clients), sizes)
    return from_arrays(
        np.concatenate(features),
        np.concatenate(targets),
        name="synthetic_fedprox",
        labels="multiclass",
        groups=groups,
    )


def quadratics(
    num_clients: int = 10, dim: int = 20, L: float = 1.0, mu: float = 1e-3, spread: float = 1.0, seed: int = 0
) -> tuple[Floats, Floats]:
    """Matrices A (n, d, d) and vectors b (n, d) of f_i(x) = x^T A_i x / 2 - b_i^T x.

    Every A_i is symmetric, with random eigenvectors and eigenvalues in [mu, L], both ends attained. b_i is A_i
    times client i's minimiser, a common normal point plus spread * normal (spread = 0: one minimiser for all).
    Raises InputError unless 0 < mu <= L, and for dim = 1 with mu < L.

    >>> A, b = quadratics(num_clients=2, dim=3, L=10.0, mu=1.0)
    >>> bool(np.allclose(np.linalg.eigvalsh(A)[:, [0, -1]], [1.0, 10.0]))
    True
    """
    rng = _start(num_clients, dim, dim, seed, spread=spread)
    if not 0 < mu <= L < np.inf or (dim == 1 and mu < L):
        raise InputError(f"quadratics needs 0 < mu <= L, and mu = L when dim = 1; got mu={mu}, L={L}, dim={dim}")
    inner = np.exp(rng.uniform(np.log(mu), np.log(L), (num_clients, dim)))
    inner[:, 0], inner[:, -1] = mu, L
    turns = np.linalg.qr(rng.standard_normal((num_clients, dim, dim)))[0]
    matrices = np.einsum("nij,nj,nkj->nik", turns, inner, turns)
    minimisers = rng.standard_normal(dim) + spread * rng.standard_normal((num_clients, dim))
    return (matrices + matrices.transpose(0, 2, 1)) / 2, np.einsum("nij,nj->ni", matrices, minimisers)


def _log_spaced(low: float, high: float, dim: int) -> Floats:
    return np.geomspace(high, low, dim)


def _start(num_clients: int, rows: int, dim: int, seed: int, **at_least: float) -> np.random.Generator:
    """Checks what all generators share and returns their random generator."""
    for name, count in (("num_clients", num_clients), ("rows", rows), ("dim", dim)):
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")
    for name, value in at_least.items():
        low = 1.0 if name == "kappa" else 0.0
        if not low <= value < np.inf:
            raise InputError(f"{name} must be at least {low:g} and finite, got {value}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    check_memory("synthetic data", 3 * 8 * num_clients * rows * dim, f"{num_clients} x {rows} x {dim} features")
    return np.random.default_rng(seed)


GENERATORS: dict[str, Callable[..., Dataset]] = {
    "synthetic_logistic": logistic,
    "synthetic_least_squares": least_squares,
    "synthetic_fedprox": fedprox,
    "synthetic_dirichlet": dirichlet_logistic,
}


def generate(text: str) -> Dataset:
    """The data set of a string such as `synthetic_fedprox:0.5,0.5,seed=1`. Raises InputError if it is malformed."""
    name, options = spec.call("data set", text, GENERATORS)
    return GENERATORS[name](**options)
