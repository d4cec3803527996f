"""Where constant steps settle on synthetic least squares, one row a round: the main claim of arXiv 2102.12528.

To first order in gamma only the uplink's noise remains in MCM, so its floor is DIANA's; Artemis multiplies the noise of
both directions.
"""

from experiments.kit.floors import Alike, Floors
from experiments.mcm._common import runs, synthetic

NAMES = ("sgd", "diana", "artemis", "dore", "mcm", "rand_mcm", "ghost")

FIGURE = Floors(
    title="Floors of constant steps on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=runs(NAMES, batch_size=1),
    factors=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0),
    steps=4000,
    every=20,
    seeds=20,
    fit_upto=1 / 8,
    claims=(
        Alike("MCM's floor is DIANA's within 10 % for gamma L <= 1/8", "MCM", "DIANA", 0.9, 1.1, 1 / 8),
        Alike("Rand-MCM's floor is DIANA's within 10 % for gamma L <= 1/8", "Rand-MCM", "DIANA", 0.9, 1.1, 1 / 8),
        Alike("Ghost's floor is MCM's within 10 % for gamma L <= 1/8", "Ghost", "MCM", 0.9, 1.1, 1 / 8),
        Alike("Artemis' floor is at least twice DIANA's for gamma L <= 1/2", "Artemis", "DIANA", 2.0, 1e9, 1 / 2),
    ),
)
