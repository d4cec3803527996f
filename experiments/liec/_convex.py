"""What the convex figures of LIEC-SGD (arXiv 2402.11857) share: methods, clients that are alike or differ."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.kit.contender import Contender, everywhere
from experiments.kit.feedback import Feedback
from experiments.liec._advice import ADVICE
from fedjax_lc import problems
from fedjax_lc.problems import Problem

NUM_CLIENTS, ROWS, DIM = 8, 200, 100


def feedback(
    title: str, alike: bool, logistic: bool, compressor: str, batch_size: int | None, **options: Any
) -> Feedback:
    """The methods with one compressor, and EF21, on `convex`."""

    def curve(label: str, method: str, period: int | None = None, messages: int = 1) -> Contender:
        changes = everywhere(method, compressor if messages == 1 else f"fcc({compressor}):{messages}")
        changes |= {"batch_size": batch_size} | ({} if period is None else {"period": period})
        return Contender(method, changes=changes, name=label)

    return Feedback(
        title=title,
        problem=lambda: convex(alike, logistic),
        curves=(
            curve("P-SGD", "sgd"),
            curve("MEM-SGD", "mem_sgd"),
            curve("DoubleSqueeze", "double_squeeze"),
            curve("NEOLITHIC(2)", "neolithic", messages=2),
            curve("CSER(8)", "cser", period=8),
            curve("LIEC(8)", "liec_sgd", period=8),
            curve("LIEC(32)", "liec_sgd", period=32),
            curve("EF21", "ef21"),
        ),
        with_period=(curve("LIEC", "liec_sgd", period=8), curve("CSER", "cser", period=8)),
        compressor=compressor,
        batch_size=batch_size,
        bits=1e6,
        advice=ADVICE,
        **options,
    )


def data(alike: bool, logistic: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of eight clients: features of scales 1 to 1/3, targets by one plane (alike) or each client's own, and, where
    clients differ, features about a mean of their own."""
    rng = np.random.default_rng(0)
    scales, plane = np.geomspace(1, 1 / 3, DIM), rng.normal(size=DIM)
    clients = []
    for _ in range(NUM_CLIENTS):
        shift, own = (0.0, plane) if alike else (0.3 * rng.normal(size=DIM), plane + rng.normal(size=DIM))
        A = (rng.normal(size=(ROWS, DIM)) + shift) * scales
        z = A @ own + rng.normal(size=ROWS)
        clients.append((A, np.where(z > 0, 1.0, -1.0) if logistic else z))
    return clients


def convex(alike: bool, logistic: bool) -> Problem:
    """Least squares or logistic regression over these rows, kappa = 10."""
    jax.config.update("jax_enable_x64", True)
    make = problems.logistic_regression if logistic else problems.least_squares
    return make(data(alike, logistic), kappa=10, dtype="float64")
