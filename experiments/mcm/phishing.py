"""Logistic regression on phishing, split by clusters, b = 50, gamma = 1/L; arXiv 2102.12528."""

from experiments.mcm._common import real

FIGURE = real("phishing", batch=50, rounds=4)
