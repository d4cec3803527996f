"""Logistic regression on the authors' synthetic clients (d = 2), full gradients, gamma = 1/L; arXiv 2102.12528."""

from experiments.mcm._common import runs, synthetic
from fedjax_lc.passes import Ordering, Passes

NAMES = ("sgd", "qsgd", "diana", "biqsgd", "artemis", "dore", "double_squeeze", "mcm", "rand_mcm", "ghost")
WITH_MEMORY = ("SGD", "DIANA", "Artemis", "Dore", "MCM", "Rand-MCM", "Ghost")

FIGURE = Passes(
    title="MCM on synthetic logistic regression, full gradients",
    problem=lambda: synthetic("synth_logistic"),
    runs=runs(NAMES),
    passes=399,
    orderings=(
        Ordering("with uplink memory lower than without", WITH_MEMORY, ("QSGD", "BiQSGD", "DoubleSqueeze"), 1.0),
    ),
)
