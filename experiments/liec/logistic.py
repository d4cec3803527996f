"""Logistic regression of clients that differ, full gradients (arXiv 2402.11857)."""

import dataclasses

from experiments.liec._convex import convex
from experiments.liec.least_squares import FIGURE as LEAST_SQUARES

FIGURE = dataclasses.replace(
    LEAST_SQUARES,
    title="Error feedback on logistic regression, clients that differ",
    problem=lambda: convex(alike=False, logistic=True),
)
