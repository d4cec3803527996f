"""Logistic regression of clients alike, batches of one row (arXiv 2402.11857)."""

import dataclasses

from experiments.liec._convex import convex
from experiments.liec.least_squares_iid import FIGURE as LEAST_SQUARES

FIGURE = dataclasses.replace(
    LEAST_SQUARES,
    title="Error feedback on logistic regression, clients alike",
    problem=lambda: convex(alike=True, logistic=True),
)
