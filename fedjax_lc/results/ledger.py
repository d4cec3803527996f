"""Cumulative bits, gradients, rounds and simulated time, summed in float64 on the host from each step's costs."""

from __future__ import annotations

from typing import Any

import numpy as np

COSTS = ("bits_up", "bits_down", "grads", "rounds")


def accumulate(increments: np.ndarray, so_far: np.ndarray | None = None) -> np.ndarray:
    """Cumulative costs (records, 4) float64 from increments (records, every, 4) float32; plus `so_far` (4,)."""
    totals = np.cumsum(np.sum(increments, axis=1, dtype=np.float64), axis=0)
    return totals if so_far is None else totals + so_far


def total_bits(trace: Any, down_weight: float = 1.0) -> np.ndarray:
    """bits_up + down_weight * bits_down, cumulative, per client (TotalCom of the LoCoDL paper, arXiv 2403.04348)."""
    return trace.bits_up + down_weight * trace.bits_down


def simulated_time(
    trace: Any,
    *,
    latency: float = 0.0,
    up_bandwidth: float = np.inf,
    down_bandwidth: float = np.inf,
    seconds_per_gradient: float = 0.0,
) -> np.ndarray:
    """Cumulative seconds under a linear model of links and compute, one entry per record.

    Args:
        trace: anything with rounds, bits_up, bits_down and grads (cumulative, per client).
        latency: seconds per communication round.
        up_bandwidth, down_bandwidth: bits per second of one client's link.
        seconds_per_gradient: seconds of one full local gradient.

    Example:
        >>> simulated_time(trace, latency=0.05, up_bandwidth=1e6, down_bandwidth=1e7, seconds_per_gradient=1e-3)
    """
    return (
        latency * trace.rounds
        + trace.bits_up / up_bandwidth
        + trace.bits_down / down_bandwidth
        + seconds_per_gradient * trace.grads
    )
