"""MNIST, 300 epochs, six methods, two seeds, as in the table of arXiv 2102.12528: needs a GPU."""

from experiments.mcm.deep._common import ALL, deep

FIGURE = deep("mnist", rows=60_000, epochs=300, methods=ALL, every=5, seeds=2)
