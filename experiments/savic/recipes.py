"""The figures of SAVIC (arXiv 2406.00846): scaled local methods on ill-scaled convex problems, and on images split by
main class; those below gpu/ need a GPU."""

from experiments.kit.claim import Claim
from experiments.kit.local_steps import LocalSteps
from experiments.savic._closed_forms import checks, ill_scaled, ill_scaled_logistic
from experiments.savic._convex import GRADIENT_RULES, HESSIAN_RULES, SETTINGS, UNSCALED, curves
from experiments.savic._images import by_main_class, full

FIGURES = {
    "logistic": LocalSteps(
        title="Scaled local methods on ill-scaled heterogeneous logistic regression",
        problem=ill_scaled_logistic,
        rounds=100,
        batch_size=8,
        curves=curves(8),
        claims=(
            Claim("global OASIS and AdaHessian are below every rule of gradients", HESSIAN_RULES, GRADIENT_RULES),
            Claim(
                "every global scaling is below Local SGD, with or without momentum",
                (*GRADIENT_RULES, *HESSIAN_RULES),
                UNSCALED,
            ),
            Claim("Adam: global is below local", ("Adam",), ("Adam, local",)),
            Claim("OASIS: global is below local", ("OASIS",), ("OASIS, local",)),
        ),
        said=SETTINGS
        + "Features of 100 rows a client have scales over two decades; clients differ in their means and their labels.",
    ),
    "quadratics": LocalSteps(
        title="Scaled local methods on ill-scaled heterogeneous quadratics",
        problem=lambda: ill_scaled(noise=0.1),
        rounds=200,
        batch_size=1,
        curves=curves(1),
        claims=(
            Claim("global OASIS and AdaHessian are below every rule of gradients", HESSIAN_RULES, GRADIENT_RULES),
            Claim("Adam: global is below local", ("Adam",), ("Adam, local",)),
            Claim("OASIS: global is below local", ("OASIS",), ("OASIS, local",)),
        ),
        checks=checks,
        said=SETTINGS
        + "Scales of the Hessians span three decades; every entry of a stochastic gradient has noise of deviation 0.1.",
    ),
    **{f"mnist-{share}": by_main_class("mnist", "mnist_cnn", share / 100) for share in (30, 50, 70)},
    **{f"cifar10-{share}": by_main_class("cifar10", "lenet", share / 100, rounds=300) for share in (30, 50, 70)},
    "gpu/cifar10-resnet18": full("cifar10", "resnet18", 0.5),
}
