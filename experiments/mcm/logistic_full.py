"""Logistic regression on the authors' synthetic clients (d = 2), full gradients, gamma = 1/L; arXiv 2102.12528."""

from experiments.kit.passes import Ordering, Passes
from experiments.mcm._common import EVERYTHING, WITH_MEMORY, WITHOUT_MEMORY, runs, synthetic

FIGURE = Passes(
    title="MCM on synthetic logistic regression, full gradients",
    problem=lambda: synthetic("synth_logistic"),
    runs=runs(EVERYTHING),
    passes=399,
    orderings=(Ordering("with uplink memory lower than without", WITH_MEMORY, WITHOUT_MEMORY, 1.0),),
)
