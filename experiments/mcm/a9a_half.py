"""As a9a.py, each client taking part in a round with probability 0.5; arXiv 2102.12528."""

from experiments.mcm._common import real

FIGURE = real("a9a", batch=50, rounds=10, participation=0.5)
