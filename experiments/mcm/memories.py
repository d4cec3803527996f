"""One downlink memory or N, on synthetic least squares with one row a round; arXiv 2102.12528."""

from typing import Any

from experiments.kit.passes import Ordering, Passes
from experiments.mcm._common import run, synthetic

OPTIONS: dict[str, Any] = {"batch_size": 1, "decay": 0.5}

FIGURE = Passes(
    title="Rand-MCM's memories on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=(
        run("sgd", **OPTIONS),
        run("artemis", **OPTIONS),
        run("rand_mcm", **OPTIONS),
        run("rand_mcm_g", note="4 groups", groups=4, **OPTIONS),
        run("rand_mcm_1mem", **OPTIONS),
        run("rand_mcm_1mem", note="reset every 4", reset_every=4, **OPTIONS),
    ),
    passes=99,
    rounds=200,
    orderings=(
        Ordering("one memory is worse than N", ("Rand-MCM",), ("Rand-MCM 1Mem",), 0.1),
        Ordering("resets repair it", ("Rand-MCM 1Mem, reset every 4",), ("Rand-MCM 1Mem",), 0.1),
    ),
)
