"""Logistic regression on the authors' synthetic clients (d = 2), full gradients, gamma = 1/L; arXiv 2102.12528."""

from experiments.mcm._common import EVERYTHING, WITH_MEMORY, WITHOUT_MEMORY, runs, synthetic
from fedjax_lc.passes import Ordering, Passes

FIGURE = Passes(
    title="MCM on synthetic logistic regression, full gradients",
    problem=lambda: synthetic("synth_logistic"),
    runs=runs(EVERYTHING),
    passes=399,
    orderings=(Ordering("with uplink memory lower than without", WITH_MEMORY, WITHOUT_MEMORY, 1.0),),
)
