"""Levels s of the quantizer, both directions, on synthetic least squares with one row a round; arXiv 2102.12528."""

from typing import Any

from experiments.kit.passes import Ordering, Passes
from experiments.mcm._common import run, synthetic

OPTIONS: dict[str, Any] = {"batch_size": 1, "decay": 0.5}

FIGURE = Passes(
    title="MCM's levels on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=tuple(run("mcm", s, note=f"s = {s}", **OPTIONS) for s in (16, 8, 4, 3, 2, 1)),
    passes=99,
    rounds=200,
    orderings=(Ordering("more levels are lower", ("MCM, s = 16",), ("MCM, s = 1",), 0.1),),
)
