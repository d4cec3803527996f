"""Ill-scaled problems with different clients, and what is known in closed form of frozen scalings on quadratics.

All derived by us for local steps x -= gamma D^-1 A_m (x - c_m), as in section 5's checks of SAVIC's theory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_lc import algorithms, problems
from fedjax_lc.problems import Problem
from fedjax_lc.running.run import run
from fedjax_lc.sweeping.sweep import sweep

NUM_CLIENTS, DIM = 10, 20


def ill_scaled(noise: float = 0.0, coupling: float = 0.05, alike: bool = False, n: int = NUM_CLIENTS) -> Problem:
    """f_m(x) = (x - c_m)^T A_m (x - c_m)/2 less a constant, A_m = S_m^(1/2) R_m S_m^(1/2): scales S_m from 1 to 1/1000
    that differ by up to a factor of two between clients, R_m a correlation with off-diagonal entries of order
    `coupling`. alike: all clients are the first."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    Q, b = np.zeros((n, DIM, DIM)), np.zeros((n, DIM))
    for m in range(n):
        scales = np.geomspace(1, 1e-3, DIM) * 2 ** rng.uniform(-0.5, 0.5, DIM)
        R = coupling * rng.normal(size=(DIM, DIM))
        R = (R + R.T) / 2
        np.fill_diagonal(R, 1 + max(0.0, 0.1 - np.linalg.eigvalsh(R - np.diag(np.diag(R)) + np.eye(DIM))[0]))
        Q[m] = np.sqrt(scales)[:, None] * R * np.sqrt(scales)
        b[m] = Q[m] @ (3 + rng.normal(size=DIM))
    if alike:
        Q[:], b[:] = Q[0], b[0]
    return problems.quadratic(Q, b, noise=noise, dtype="float64")


def ill_scaled_logistic() -> Problem:
    """Ten clients of 100 rows: features of scales 1 to 1/100 about the client's own mean; labels by a common plane that
    every scale has a part in, flipped for one row in twenty; l2 = 1e-5."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 1e-2, DIM)
    plane = rng.normal(size=DIM) / scales
    clients = []
    for _ in range(NUM_CLIENTS):
        A = (rng.normal(size=(100, DIM)) + 0.7 * rng.normal(size=DIM)) * scales
        labels = np.where(A @ (plane + 0.5 * rng.normal(size=DIM) / scales) > 0, 1.0, -1.0)
        clients.append((A, labels * np.where(rng.random(100) < 0.05, -1, 1)))
    return problems.logistic_regression(clients, l2=1e-5, dtype="float64")


# --- closed forms ---


def limit(Q: Any, b: Any, D: Any, gamma: float, H: int) -> np.ndarray:
    """(d,) where rounds of H steps with a frozen D settle: sum_m K_m (x - c_m) = 0, K_m = I - (I - gamma D^-1 A_m)^H;
    D (d,), or (n, d) the clients' own."""
    D = np.broadcast_to(D, b.shape)
    K = np.stack(
        [
            np.eye(len(d)) - np.linalg.matrix_power(np.eye(len(d)) - gamma * A / d[:, None], H)
            for A, d in zip(Q, D, strict=True)
        ]
    )
    c = np.linalg.solve(Q, b[..., None])
    return np.linalg.solve(K.sum(0), (K @ c).sum(0))[:, 0]


def checks() -> list[dict[str, str]]:
    """One row for each closed form: what, what was measured, and whether it holds."""
    found = (
        frozen_limit(),
        *local_limits(),
        sharp_step(),
        *floors(),
        alike_over_H(),
        huge_alpha(),
        like_optax(),
        like_fedavg(),
    )
    return [
        {"closed form": text, "measured": measured, "here": "holds" if held else "does not hold"}
        for text, measured, held in found
    ]


Check = tuple[str, str, bool]


def _frozen(problem: Problem, D: Any, gamma: float, H: int, **options: Any) -> Any:
    hp = algorithms.get("savic").theory(problem, "fixed", H)
    return dataclasses.replace(hp, D=jnp.asarray(D), alpha=1e-9, gamma=gamma, batch_size=None, **options)


def _end(problem: Problem, hp: Any, rounds: int, method: str = "savic") -> np.ndarray:
    found = run(method, problem, hp, 0, steps=rounds, every=rounds, progress=False).x
    assert found is not None
    return found


def _arrays(problem: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, b and the diagonal of the mean Hessian."""
    Q = np.asarray(problem.Q)
    return Q, np.asarray(problem.b), np.diag(Q.mean(0))


def frozen_limit() -> Check:
    """Simulated limits for several H against `limit`; the floor is zero at H = 1 and rises with H."""
    problem = ill_scaled()
    Q, b, D = _arrays(problem)
    off, gaps = [], []
    for H in (1, 2, 5, 20):
        x = limit(Q, b, D, 0.2, H)
        off.append(np.linalg.norm(_end(problem, _frozen(problem, D, 0.2, H), 800) - x) / np.linalg.norm(x))
        gaps.append(float(problem.value(jnp.asarray(x))) - problem.f_star)
    held = bool(max(off) < 1e-9 and abs(gaps[0]) < 1e-12 and np.all(np.diff(gaps) > 0))
    told = f"distance {max(off):.0e}; gaps of the limits {', '.join(f'{max(gap, 0):.1e}' for gap in gaps)}"
    return (
        "frozen D, no noise: limits for H = 1, 2, 5, 20 as sum_m K_m (x - c_m) = 0 has them, gap 0 at H = 1 and rising",
        told,
        held,
    )


def local_limits() -> list[Check]:
    """With diagonal Hessians OASIS knows them exactly: local D_m make H = 1 settle at mean c_m, a global D at x*."""
    problem = ill_scaled(coupling=0.0)
    Q, b, _ = _arrays(problem)
    found = []
    for scaling, x, text in (
        ("local_sync", limit(Q, b, np.diagonal(Q, axis1=1, axis2=2), 0.5, 1), "where sum_m D_m^-1 A_m (x - c_m) = 0"),
        ("global", np.asarray(problem.x_star), "at x*"),
    ):
        hp = algorithms.get("savic").theory(problem, "oasis", 1, 1e-9, scaling)
        end = _end(problem, dataclasses.replace(hp, gamma=0.5, batch_size=None), 400)
        off, away = np.linalg.norm(end - x), np.linalg.norm(end - problem.x_star)
        found.append(
            (
                f"diagonal Hessians, H = 1: OASIS, {scaling}, settles {text}",
                f"distance {off:.0e}; to x* {away:.1e}",
                bool(off < 1e-9),
            )
        )
    return found


def sharp_step() -> Check:
    problem = ill_scaled(alike=True)
    Q, _, D = _arrays(problem)
    sharp = 2 / np.max(np.linalg.eigvals(Q[0] / D[:, None]).real)
    sizes = [
        float(np.linalg.norm(_end(problem, _frozen(problem, D, c * sharp, 5), 400) - problem.x_star))
        for c in (0.99, 1.01)
    ]
    start = float(np.linalg.norm(problem.x_star))
    told = f"distance to x* from {start:.1f} to {sizes[0]:.1e} and {sizes[1]:.1e}"
    return (
        "alike clients: 0.99 of gamma = 2/lmax(D^-1 A) is stable, 1.01 of it is not",
        told,
        sizes[0] < start < sizes[1],
    )


def floors() -> list[Check]:
    """Alike clients with noise: floors double with gamma. Different ones without: as gamma^2 at small H gamma."""
    problem = ill_scaled(noise=0.1, alike=True)
    _, _, D = _arrays(problem)
    means = []
    for gamma in (0.02, 0.04):
        hp = dataclasses.replace(_frozen(problem, D, gamma, 5), batch_size=1, replacement=True)
        table = sweep("savic", problem, hp, seeds=20, steps=400, every=4, progress=False)
        means.append(table.gap.reshape(20, -1)[:, 50:].mean())
    ratio = means[1] / means[0]
    quiet = ill_scaled()
    Q, b, D = _arrays(quiet)
    slopes = []
    for H in (2, 50):
        gaps = [float(quiet.value(jnp.asarray(limit(Q, b, D, gamma, H)))) - quiet.f_star for gamma in (0.01, 0.02)]
        slopes.append(np.log2(gaps[1] / gaps[0]))
    slower = bool(abs(slopes[0] - 2) < 0.1 and slopes[1] < slopes[0])
    return [
        (
            "alike clients, frozen D: the floor of noise doubles with gamma (within 15 %)",
            f"ratio {ratio:.2f}",
            bool(abs(ratio - 2) < 0.3),
        ),
        (
            "different clients, no noise: the floor grows as about gamma^2 at H = 2, more slowly at H = 50",
            f"powers {slopes[0]:.2f} and {slopes[1]:.2f}",
            slower,
        ),
    ]


def alike_over_H() -> Check:
    problem = ill_scaled(alike=True)
    _, _, D = _arrays(problem)
    ends = np.array([_end(problem, _frozen(problem, D, 0.3, H), 100 // H) for H in (1, 2, 5, 10, 20, 50)])
    off = np.abs(ends - ends[0]).max()
    return (
        "alike clients, frozen D, no noise: the mean model after 100 local steps is the same for all H",
        f"within {off:.0e}",
        bool(off < 1e-12),
    )


def huge_alpha() -> Check:
    problem = ill_scaled()
    hp = algorithms.get("savic").theory(problem, "adam", 5, 1e6)
    plain = algorithms.get("fedavg").theory(problem, 5)
    a = _end(problem, dataclasses.replace(hp, gamma=2e5, batch_size=None), 50)
    b = _end(problem, dataclasses.replace(plain, client_lr=0.2, batch_size=None), 50, "fedavg")
    off = np.abs(a - b).max()
    return "D = alpha everywhere: SAVIC(gamma) is Local SGD(gamma/alpha)", f"within {off:.0e}", bool(off < 1e-10)


def like_optax() -> Check:
    problem = ill_scaled(n=1)
    hp = dataclasses.replace(
        algorithms.get("savic").theory(problem, "adam", 1, 1e-2), clip="add", beta=0.99, gamma=0.01, batch_size=None
    )
    adam = optax.scale_by_adam(b1=0.0, b2=0.99, eps=1e-2)
    x = problem.x0
    state = adam.init(x)
    for _ in range(50):
        update, state = adam.update(problem.grads(x)[0], state)
        x = x - 0.01 * jnp.asarray(update)
    off = np.abs(_end(problem, hp, 50) - np.asarray(x)).max()
    return "one client, H = 1, b1 = 0, alpha added: SAVIC's Adam is optax's", f"within {off:.0e}", bool(off < 1e-10)


def like_fedavg() -> Check:
    problem = ill_scaled()
    Q, b, D = _arrays(problem)
    root = np.sqrt(D)
    turned = problems.quadratic(Q / root[:, None] / root, b / root, dtype="float64")
    plain = algorithms.get("fedavg").theory(turned, 5)
    y = _end(turned, dataclasses.replace(plain, client_lr=0.2, batch_size=None), 50, "fedavg")
    off = np.abs(_end(problem, _frozen(problem, D, 0.2, 5), 50) - y / root).max()
    return "frozen D: SAVIC is FedAvg in the variable D^(1/2) x", f"within {off:.0e}", bool(off < 1e-10)
