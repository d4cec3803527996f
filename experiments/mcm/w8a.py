"""Logistic regression on w8a, split by clusters, b = 12, gamma = 1/L; arXiv 2102.12528."""

from experiments.mcm._common import real

FIGURE = real("w8a", batch=12, rounds=51)
