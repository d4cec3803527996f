"""The figures of MCM (arXiv 2102.12528).

Least squares and logistic regression on the authors' synthetic clients, with one row a round or full gradients, and on
sets split by their clusters, gamma = 1/L. superconduct needs mcm/superconduct.csv in FEDJAX_LC_DATA: train.csv of UCI's
data set 464, Superconductivty Data. quantum needs mcm/phy_train.csv there: the training set of KDD Cup 2004's physics
task.
"""

from typing import Any

from experiments.kit.claim import Claim
from experiments.kit.floors import Floors, alike
from experiments.mcm._common import (
    EVERYTHING,
    OMEGA,
    ORDERINGS,
    WITH_MEMORY,
    WITHOUT_MEMORY,
    curve,
    curves,
    passes,
    real,
    synthetic,
)

NOISED = "synth_linear_noised"
PAPER_A9A = {"sgd": -3.43, "diana": -2.84, "artemis": -1.87, "dore": -1.92, "mcm": -2.79, "rand_mcm": -2.74}
PAPER_LSR = {"sgd": -4.24, "diana": -3.49, "artemis": -2.99, "dore": -3.06, "mcm": -3.67, "rand_mcm": -3.53}
ONE_ROW: dict[str, Any] = {"batch_size": 1, "decay": 0.5}  #: gamma_k = 1/(L sqrt k)
RATES = {c: 1 / (c * (1 + OMEGA)) for c in (0.25, 0.5, 1, 2, 4, 8)}
GAMMAS = (20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
FACTORS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
LENGTH: dict[str, Any] = {"passes": 99, "rounds": 200}

REAL = {
    "a9a": real("a9a", batch=50, rounds=10, paper=PAPER_A9A),
    "a9a-half": real("a9a", batch=50, rounds=10, participation=0.5),
    "phishing": real("phishing", batch=50, rounds=4),
    "phishing-half": real("phishing", batch=50, rounds=4, participation=0.5),
    "quantum": real("quantum", batch=400, rounds=1),
    "superconduct": real("superconduct", batch=50, rounds=5),
    "w8a": real("w8a", batch=12, rounds=51),
    "w8a-half": real("w8a", batch=12, rounds=51, participation=0.5),
}

SYNTHETIC = {
    "lsr": passes(
        "MCM on synthetic least squares, b = 1",
        NOISED,
        curves=curves(paper=PAPER_LSR, **ONE_ROW),
        seeds=20,
        claims=ORDERINGS,
        **LENGTH,
    ),
    # uplink memories take heterogeneous clients to machine precision; methods without them saturate
    "lsr-full": passes(
        "MCM on synthetic least squares, full gradients",
        NOISED,
        curves=curves(EVERYTHING),
        passes=2000,
        claims=(
            Claim("with uplink memory by five decades lower than without", WITH_MEMORY, WITHOUT_MEMORY, margin=5.0),
            Claim("without uplink memory the two directions saturate higher than one", ("QSGD",), ("BiQSGD",)),
        ),
        said="The paper shows 400 rounds.",
    ),
    "logistic-full": passes(
        "MCM on synthetic logistic regression, full gradients",
        "synth_logistic",
        curves=curves(EVERYTHING),
        passes=399,
        claims=(Claim("with uplink memory lower than without", WITH_MEMORY, WITHOUT_MEMORY, margin=1.0),),
    ),
    "step-sizes": passes(
        "MCM's step sizes on synthetic least squares, b = 1",
        NOISED,
        curves=[curve("mcm", note=f"gamma = {c:g}/L", steps=c, batch_size=1) for c in GAMMAS],
        **LENGTH,
    ),
    "levels": passes(
        "MCM's levels on synthetic least squares, b = 1",
        NOISED,
        curves=[curve("mcm", s, note=f"s = {s}", **ONE_ROW) for s in (16, 8, 4, 3, 2, 1)],
        claims=(Claim("more levels are lower", ("MCM, s = 16",), ("MCM, s = 1",), margin=0.1),),
        **LENGTH,
    ),
    # alpha = 1/(c (1 + omega)), both directions; without the memory (alpha = 0), and with the last message as memory
    # (alpha = 1); Artemis-ND is the ablation whose clients drift
    "alpha": passes(
        "MCM's memory rate on synthetic least squares, b = 1",
        NOISED,
        curves=(
            *(curve("mcm", note=f"c = {c:g}", alpha_up=rate, alpha_dwn=rate, **ONE_ROW) for c, rate in RATES.items()),
            curve("mcm", note="alpha_dwn = 0", alpha_dwn=0.0, **ONE_ROW),
            curve("mcm", note="alpha_dwn = 1", alpha_dwn=1.0, **ONE_ROW),
            curve("artemis_nd", **ONE_ROW),
        ),
        claims=(
            Claim("MCM needs its memory", ("MCM, c = 2",), ("MCM, alpha_dwn = 0", "MCM, alpha_dwn = 1"), margin=1.0),
            Claim("Artemis-ND fails", ("MCM, c = 2",), ("Artemis-ND",), margin=1.0),
        ),
        **LENGTH,
    ),
    # one downlink memory or N
    "memories": passes(
        "Rand-MCM's memories on synthetic least squares, b = 1",
        NOISED,
        curves=(
            curve("sgd", **ONE_ROW),
            curve("artemis", **ONE_ROW),
            curve("rand_mcm", **ONE_ROW),
            curve("rand_mcm_g", note="4 groups", groups=4, **ONE_ROW),
            curve("rand_mcm_1mem", **ONE_ROW),
            curve("rand_mcm_1mem", note="reset every 4", reset_every=4, **ONE_ROW),
        ),
        claims=(
            Claim("one memory is worse than N", ("Rand-MCM",), ("Rand-MCM 1Mem",), margin=0.1),
            Claim("resets repair it", ("Rand-MCM 1Mem, reset every 4",), ("Rand-MCM 1Mem",), margin=0.1),
        ),
        **LENGTH,
    ),
}

#: The paper's main claim: to first order in gamma only the uplink's noise remains in MCM, so its floor is DIANA's;
#: Artemis multiplies the noise of both directions.
FLOORS = Floors(
    title="Floors of constant steps on synthetic least squares, b = 1",
    problem=lambda: synthetic(NOISED),
    curves=curves(("sgd", "diana", "artemis", "dore", "mcm", "rand_mcm", "ghost"), batch_size=1),
    factors=FACTORS,
    steps=4000,
    every=20,
    seeds=20,
    fit_upto=1 / 8,
    claims=(
        *(
            alike(f"{a}'s floor is {b}'s within 10 % for gamma L <= 1/8", a, b, FACTORS[:3], least=0.9, most=1.1)
            for a, b in (("MCM", "DIANA"), ("Rand-MCM", "DIANA"), ("Ghost", "MCM"))
        ),
        alike(
            "Artemis' floor is at least twice DIANA's for gamma L <= 1/2", "Artemis", "DIANA", FACTORS[:5], least=2.0
        ),
    ),
)

FIGURES = {**REAL, **SYNTHETIC, "floors": FLOORS}
