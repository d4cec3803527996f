"""Ill-scaled heterogeneous logistic regression: scaled local methods over H (SAVIC, arXiv 2406.00846)."""

from experiments.savic._closed_forms import ill_scaled_logistic
from experiments.savic._convex import GRADIENT_RULES, HESSIAN_RULES, UNSCALED, LocalSteps, Lower

FIGURE = LocalSteps(
    title="Scaled local methods on ill-scaled heterogeneous logistic regression",
    problem=ill_scaled_logistic,
    rounds=100,
    batch_size=8,
    claims=(
        Lower("global OASIS and AdaHessian are below every rule of gradients", HESSIAN_RULES, GRADIENT_RULES),
        Lower(
            "every global scaling is below Local SGD, with or without momentum",
            (*GRADIENT_RULES, *HESSIAN_RULES),
            UNSCALED,
        ),
        Lower("Adam: global is below local", ("Adam",), ("Adam, local",)),
        Lower("OASIS: global is below local", ("OASIS",), ("OASIS, local",)),
    ),
    said="Features of 100 rows a client have scales over two decades; clients differ in their means and their labels.",
)
