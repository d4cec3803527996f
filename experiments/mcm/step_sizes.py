"""Constant step sizes of MCM on synthetic least squares with one row a round; arXiv 2102.12528."""

from experiments.kit.passes import Passes
from experiments.mcm._common import run, synthetic

FACTORS = (20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)

FIGURE = Passes(
    title="MCM's step sizes on synthetic least squares, b = 1",
    problem=lambda: synthetic("synth_linear_noised"),
    runs=tuple(run("mcm", note=f"gamma = {c:g}/L", steps=c, batch_size=1) for c in FACTORS),
    passes=99,
    rounds=200,
)
