"""Clients whose data shift with time: the same rows in several phases, with other labels or other features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError, unknown

KINDS = ("labels", "features")

Pairs = Sequence[tuple[Any, Any]]


def drift(
    clients: Pairs,
    kind: str,
    phases: int = 10,
    *,
    amount: float = 1.0,
    spread: float = 0.0,
    classes: int | None = None,
    seed: int = 0,
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """The clients' rows in each of several phases; phase 0 has them as they are, the last one the whole shift.

    "labels": class c becomes class c + 1 (the last becomes the first) for a share of the rows that grows from 0 to
    `amount`; a row that has changed stays changed. "features": rows turn by an angle that grows from 0 to `amount`
    right angles, in planes of two features each, which the seed draws; lengths of rows do not change.

    Args:
        clients: list of (features (m_i, ...), targets (m_i,)), as `fl.problems` take them; a test set is a list of one.
        kind: "labels" or "features".
        phases: number of phases, 2 or more.
        amount: the whole shift, 0 or more; a share of at most 1 with "labels".
        spread: how much clients differ: the shift of client i is `amount` times a factor that is drawn from
            1 - spread to 1 + spread, in [0, 1] ("labels": cut at a share of 1).
        classes: number of classes of targets 0..C-1; None for the largest plus one.
        seed: seed of the rows that change, of the planes and of the factors. A test set turns in its clients' planes if
            it has their seed.

    Returns:
        For each phase the list of clients, all of the same shapes: what `fl.problems.drifting` needs.

    Raises:
        InputError: an argument is out of range; targets that are no classes with "labels", or fewer than two features.

    Example:
        >>> rows = [(np.eye(4), np.array([0, 1, 2, 0]))]
        >>> [targets.tolist() for ((_, targets),) in drift(rows, "labels", phases=2)]
        [[0, 1, 2, 0], [1, 2, 0, 1]]
    """
    _check(kind, phases, amount, spread)
    of_clients, rng = (
        np.random.default_rng([seed, purpose]) for purpose in range(2)
    )  # planes depend on the seed alone
    factors = 1 + spread * of_clients.uniform(-1, 1, len(clients))
    shares = amount * np.linspace(0, 1, phases)[:, None] * factors
    pairs = [(np.asarray(features), np.asarray(targets)) for features, targets in clients]
    if kind == "labels":
        return _labels(pairs, shares, classes, rng)
    return _features(pairs, shares, rng)


def _labels(
    pairs: list[tuple[np.ndarray, np.ndarray]], shares: np.ndarray, classes: int | None, rng: np.random.Generator
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    if not all(np.issubdtype(targets.dtype, np.integer) and np.all(targets >= 0) for _, targets in pairs):
        raise InputError("labels that shift must be classes 0..C-1, as whole numbers: use kind='features' for others")
    count = 1 + max(int(targets.max()) for _, targets in pairs if targets.size) if classes is None else classes
    draws = [rng.uniform(size=targets.shape) for _, targets in pairs]
    return [
        [
            (features, np.where(draw < share, (targets + 1) % count, targets))
            for (features, targets), draw, share in zip(pairs, draws, of_phase, strict=True)
        ]
        for of_phase in shares
    ]


def _features(
    pairs: list[tuple[np.ndarray, np.ndarray]], shares: np.ndarray, rng: np.random.Generator
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    width = int(np.prod(pairs[0][0].shape[1:]))
    if width < 2:
        raise InputError(f"features that turn must be two or more, got {width}")
    order = rng.permutation(width)
    left, right = order[: width // 2], order[width // 2 : 2 * (width // 2)]

    def turned(features: np.ndarray, angle: float) -> np.ndarray:
        if angle == 0:
            return features
        flat = features.reshape(len(features), -1)
        result = flat.astype(np.promote_types(flat.dtype, np.float32))
        result[:, left] = np.cos(angle) * flat[:, left] - np.sin(angle) * flat[:, right]
        result[:, right] = np.sin(angle) * flat[:, left] + np.cos(angle) * flat[:, right]
        return result.reshape(features.shape)

    pairs = [(features.astype(np.promote_types(features.dtype, np.float32)), targets) for features, targets in pairs]
    return [
        [
            (turned(features, share * np.pi / 2), targets)
            for (features, targets), share in zip(pairs, of_phase, strict=True)
        ]
        for of_phase in shares
    ]


def _check(kind: str, phases: int, amount: float, spread: float) -> None:
    if kind not in KINDS:
        raise unknown("kind of drift", kind, KINDS)
    if phases < 2 or phases != int(phases):
        raise InputError(f"phases must be whole and 2 or more, got {phases}")
    most = 1 if kind == "labels" else np.inf
    if not 0 <= amount <= most or not np.isfinite(amount):
        words = "from 0 to 1, a share of the rows" if kind == "labels" else "0 or more right angles"
        raise InputError(f"amount must be {words}, got {amount}")
    if not 0 <= spread <= 1:
        raise InputError(f"spread must be from 0 to 1, got {spread}")
