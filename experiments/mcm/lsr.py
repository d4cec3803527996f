"""Least squares on the authors' synthetic clients, one row a round, gamma_k = 1/(L sqrt k); arXiv 2102.12528."""

from experiments.kit.passes import Passes
from experiments.mcm._common import ORDERINGS, runs, synthetic

PAPER = {"sgd": -4.24, "diana": -3.49, "artemis": -2.99, "dore": -3.06, "mcm": -3.67, "rand_mcm": -3.53}

FIGURE = Passes(
    title="MCM on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=runs(paper=PAPER, batch_size=1, decay=0.5),
    passes=99,
    rounds=200,
    seeds=20,
    orderings=ORDERINGS,
)
