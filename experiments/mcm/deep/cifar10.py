"""CIFAR-10, 15 epochs, one seed: the MCM table of arXiv 2102.12528 at a CPU's measure."""

from experiments.mcm.deep._common import FEW, deep

FIGURE = deep("cifar10", rows=50_000, epochs=15, methods=FEW, every=1)
