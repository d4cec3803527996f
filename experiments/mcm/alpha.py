"""The downlink memory's rate alpha_dwn, on synthetic least squares with one row a round; arXiv 2102.12528.

alpha = 1/(c (1 + omega)), both directions; without the memory (alpha = 0), and with the last message as memory (alpha =
1). Artemis-ND is the ablation whose clients drift.
"""

from typing import Any

from experiments.kit.passes import Ordering, Passes
from experiments.mcm._common import OMEGA, run, synthetic

OPTIONS: dict[str, Any] = {"batch_size": 1, "decay": 0.5}
RATES = {c: 1 / (c * (1 + OMEGA)) for c in (0.25, 0.5, 1, 2, 4, 8)}

FIGURE = Passes(
    title="MCM's memory rate on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=(
        *(run("mcm", note=f"c = {c:g}", alpha_up=rate, alpha_dwn=rate, **OPTIONS) for c, rate in RATES.items()),
        run("mcm", note="alpha_dwn = 0", alpha_dwn=0.0, **OPTIONS),
        run("mcm", note="alpha_dwn = 1", alpha_dwn=1.0, **OPTIONS),
        run("artemis_nd", **OPTIONS),
    ),
    passes=99,
    rounds=200,
    orderings=(
        Ordering("MCM needs its memory", ("MCM, c = 2",), ("MCM, alpha_dwn = 0", "MCM, alpha_dwn = 1"), 1.0),
        Ordering("Artemis-ND fails", ("MCM, c = 2",), ("Artemis-ND",), 1.0),
    ),
)
