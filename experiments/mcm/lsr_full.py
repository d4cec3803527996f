"""Least squares on the authors' synthetic clients, full gradients, gamma = 1/L; arXiv 2102.12528.

Uplink memories take heterogeneous clients to machine precision; methods without them saturate.
"""

from experiments.mcm._common import runs, synthetic
from fedjax_lc.passes import Ordering, Passes

WITH_MEMORY = ("SGD", "DIANA", "Artemis", "Dore", "MCM", "Rand-MCM", "Ghost")
WITHOUT = ("QSGD", "BiQSGD", "DoubleSqueeze")
NAMES = ("sgd", "qsgd", "diana", "biqsgd", "artemis", "dore", "double_squeeze", "mcm", "rand_mcm", "ghost")

FIGURE = Passes(
    title="MCM on synthetic least squares, full gradients",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=runs(NAMES),
    passes=2000,
    orderings=(
        Ordering("with uplink memory by five decades lower than without", WITH_MEMORY, WITHOUT, 5.0),
        Ordering("without uplink memory the two directions saturate higher than one", ("QSGD",), ("BiQSGD",)),
    ),
    said="The paper shows 400 rounds.",
)
