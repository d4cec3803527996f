"""Logistic regression on a9a, split by clusters, b = 50, gamma = 1/L; arXiv 2102.12528."""

from experiments.mcm._common import real

PAPER = {"sgd": -3.43, "diana": -2.84, "artemis": -1.87, "dore": -1.92, "mcm": -2.79, "rand_mcm": -2.74}

FIGURE = real("a9a", batch=50, rounds=10, paper=PAPER)
