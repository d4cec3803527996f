"""The deep-learning table of MCM (arXiv 2102.12528): 15 epochs at a CPU's measure; as in the paper, 300 epochs and two
seeds, below gpu/."""

from experiments.mcm.deep._common import ALL, FEW, deep

FIGURES = {
    "mnist": deep("mnist", rows=60_000, epochs=15, methods=FEW, every=1),
    "cifar10": deep("cifar10", rows=50_000, epochs=15, methods=FEW, every=1),
    "gpu/mnist": deep("mnist", rows=60_000, epochs=300, methods=ALL, every=5, seeds=2),
    "gpu/cifar10": deep("cifar10", rows=50_000, epochs=300, methods=ALL, every=5, seeds=2),
}
