"""As w8a.py, each client taking part in a round with probability 0.5; arXiv 2102.12528."""

from experiments.mcm._common import real

FIGURE = real("w8a", batch=12, rounds=51, participation=0.5)
