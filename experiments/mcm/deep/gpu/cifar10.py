"""CIFAR-10, 300 epochs, six methods, two seeds, as in the table of arXiv 2102.12528: needs a GPU."""

from experiments.mcm.deep._common import ALL, deep

FIGURE = deep("cifar10", rows=50_000, epochs=300, methods=ALL, every=5, seeds=2)
