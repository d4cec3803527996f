"""What the convex figures of SAVIC (arXiv 2406.00846) share: rules, global or local, and the step sizes tried."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.kit.contender import Contender
from fedjax_lc.problems import Problem

BETA = 0.99  #: few refreshes, so a short memory
HESSIAN = ("oasis", "adahessian")
GRADIENT_RULES, HESSIAN_RULES = ("Adam", "RMSProp", "AdaGrad"), ("OASIS", "AdaHessian")
UNSCALED = ("Local SGD", "Local SGD, momentum 0.9")
SETTINGS = (
    f"beta = {BETA:g}; alpha = 0.001, of Hessian rules L/1000. Scaling is global unless a curve says local "
    "(local_sync). "
)


def curves(batch_size: int) -> tuple[Contender, ...]:
    return (
        curve("Local SGD", "none", 12.0, batch_size),
        curve("Local SGD, momentum 0.9", "none", 12.0, batch_size, b1=0.9),
        curve("Adam", "adam", 1.0, batch_size),
        curve("RMSProp", "rmsprop", 1.0, batch_size),
        curve("AdaGrad", "adagrad", 3.0, batch_size),
        curve("OASIS", "oasis", 1.5, batch_size),
        curve("AdaHessian", "adahessian", 1.5, batch_size),
        curve("Adam, local", "adam", 1.0, batch_size, "local_sync"),
        curve("OASIS, local", "oasis", 1.5, batch_size, "local_sync"),
    )


def curve(
    label: str, rule: str, largest: float, batch_size: int, scaling: str = "global", b1: float = 0.0
) -> Contender:
    """A rule of SAVIC. Step sizes that are tried: `largest` / 3^k, k = 0..8; in units of 1/L for rule none."""
    unit: Callable[[Problem], float] = lambda problem: 1 / smoothness(problem) if rule == "none" else 1.0
    return Contender(
        "savic",
        name=label,
        choices={
            "rule": rule,
            "alpha": lambda problem: smoothness(problem) / 1000 if rule in HESSIAN else 1e-3,
            "scaling": scaling,
        },
        changes={"beta": BETA, "b1": b1, "batch_size": batch_size, "replacement": True},
        tune={"gamma": lambda problem: [unit(problem) * largest / 3**k for k in range(9)]},
    )


def smoothness(problem: Problem) -> float:
    """max_m L_m."""
    return float(np.max(np.asarray(problem.smooth)))
