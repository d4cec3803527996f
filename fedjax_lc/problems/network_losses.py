"""Losses of networks for each row, and statistics of accuracies over clients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedjax_lc.core.errors import unknown
from fedjax_lc.core.typing import Scalar

WORST = 0.1  #: share of clients, those with the lowest accuracy, whose mean is `accuracy_worst`

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(B,) log sum_c exp(z_c) - z_b for outputs (B, ..., C) and targets (B, ...); the mean over the axes between."""
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return jnp.mean(losses.reshape(len(losses), -1), axis=1)


def squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(B,) |z - b|^2 / 2 for outputs (B, ...) and targets of as many entries."""
    return jnp.sum((outputs.reshape(len(outputs), -1) - targets.reshape(len(targets), -1)) ** 2, axis=1) / 2


def hit_rate(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """(B,) the share of targets (B, ...) that are the largest of outputs (B, ..., C)."""
    return jnp.mean((jnp.argmax(outputs, axis=-1) == targets).reshape(len(targets), -1), axis=1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared": squared}


def named(loss: str | Loss) -> Loss:
    """The loss of this name; a function is returned as it is.

    Raises:
        InputError: the name is unknown.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]


def fairness(accuracies: jax.Array) -> dict[str, Scalar]:
    """Minimum, deviation and mean of the worst tenth of accuracies (n,) over clients; NaN for clients without rows."""
    ranks, known = jnp.arange(accuracies.shape[0]), jnp.sum(~jnp.isnan(accuracies))
    worst = jnp.maximum(1, jnp.round(WORST * known))  # NaN sort last
    return {
        "client_accuracy": accuracies,
        "accuracy_min": jnp.nanmin(accuracies),
        "accuracy_std": jnp.nanstd(accuracies),
        "accuracy_worst": jnp.nanmean(jnp.where(ranks < worst, jnp.sort(accuracies), jnp.nan)),
    }
