"""Least squares on the authors' synthetic clients, full gradients, gamma = 1/L; arXiv 2102.12528.

Uplink memories take heterogeneous clients to machine precision; methods without them saturate.
"""

from experiments.kit.passes import Ordering, Passes
from experiments.mcm._common import EVERYTHING, WITH_MEMORY, WITHOUT_MEMORY, runs, synthetic

FIGURE = Passes(
    title="MCM on synthetic least squares, full gradients",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=runs(EVERYTHING),
    passes=2000,
    orderings=(
        Ordering("with uplink memory by five decades lower than without", WITH_MEMORY, WITHOUT_MEMORY, 5.0),
        Ordering("without uplink memory the two directions saturate higher than one", ("QSGD",), ("BiQSGD",)),
    ),
    said="The paper shows 400 rounds.",
)
