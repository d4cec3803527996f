"""Ill-scaled quadratics with noise: scaled local methods over H, and closed forms (SAVIC, arXiv 2406.00846)."""

from experiments.savic._closed_forms import checks, ill_scaled
from experiments.savic._convex import GRADIENT_RULES, HESSIAN_RULES, LocalSteps, Lower

FIGURE = LocalSteps(
    title="Scaled local methods on ill-scaled heterogeneous quadratics",
    problem=lambda: ill_scaled(noise=0.1),
    rounds=200,
    batch_size=1,
    claims=(
        Lower("global OASIS and AdaHessian are below every rule of gradients", HESSIAN_RULES, GRADIENT_RULES),
        Lower("Adam: global is below local", ("Adam",), ("Adam, local",)),
        Lower("OASIS: global is below local", ("OASIS",), ("OASIS, local",)),
    ),
    checks=checks,
    said="Scales of the Hessians span three decades; every entry of a stochastic gradient has noise of deviation 0.1.",
)
