"""As phishing.py, each client taking part in a round with probability 0.5; arXiv 2102.12528."""

from experiments.mcm._common import real

FIGURE = real("phishing", batch=50, rounds=4, participation=0.5)
