"""The figures of LIEC-SGD (arXiv 2402.11857).

Convex problems of clients that differ, full gradients: where errors that are paid back settle. Clients alike, batches
of one row: LIEC's own regime. Networks trained by eight clients alike, with both kinds of signs; below gpu/, ResNet-18
with ten blocks of signs.
"""

from typing import Any

from experiments.kit.claim import Claim, in_order
from experiments.kit.feedback import rises, squared
from experiments.liec._convex import feedback
from experiments.liec._images import full, small

FALLING = ("MEM-SGD", "DoubleSqueeze", "NEOLITHIC(2)", "LIEC(8)", "LIEC(32)")

DIFFERENT: dict[str, Any] = {
    "alike": False,
    "compressor": "sign",
    "steps": 40_000,
    "batch_size": None,
    "seeds": 1,
    "floor_of": "grad2",
    "claims": (
        squared("floors of MEM-SGD, DoubleSqueeze, NEOLITHIC and LIEC fall with gamma^2", *FALLING),
        squared("CSER's floor falls with gamma^2", "CSER(8)"),
        rises("LIEC's floor rises with the period", "LIEC"),
        Claim("NEOLITHIC(2) is below DoubleSqueeze", ("NEOLITHIC(2)",), ("DoubleSqueeze",)),
        Claim("LIEC(8) is below CSER(8)", ("LIEC(8)",), ("CSER(8)",)),
        Claim("DoubleSqueeze is below LIEC(32)", ("DoubleSqueeze",), ("LIEC(32)",)),
        Claim("EF21 is below all of them", ("EF21",), (*FALLING, "CSER(8)")),
        Claim("at equal bits, DoubleSqueeze is below LIEC", ("DoubleSqueeze",), ("LIEC",), "tuned"),
    ),
    "said": "Eight clients of 200 rows, each with a plane and a mean of features of its own; kappa = 10.",
}
ALIKE: dict[str, Any] = {
    "alike": True,
    "compressor": "top_k:4",
    "steps": 10_000,
    "batch_size": 1,
    "seeds": 10,
    "floor_of": "gap",
    "claims": (
        in_order("loss: P-SGD < LIEC(32) < MEM-SGD < DoubleSqueeze", "P-SGD", "LIEC(32)", "MEM-SGD", "DoubleSqueeze"),
        in_order(
            "error norm: LIEC(32) < MEM-SGD < DoubleSqueeze", "LIEC(32)", "MEM-SGD", "DoubleSqueeze", statistic="errors"
        ),
        Claim("NEOLITHIC(2) is below DoubleSqueeze", ("NEOLITHIC(2)",), ("DoubleSqueeze",)),
        Claim("at equal bits, LIEC is below MEM-SGD", ("LIEC",), ("MEM-SGD",), "tuned"),
        Claim("at equal bits, LIEC is below DoubleSqueeze", ("LIEC",), ("DoubleSqueeze",), "tuned"),
    ),
    "said": "Eight clients of 200 rows of one distribution; kappa = 10; delta = 0.04.",
}

FIGURES = {
    "least-squares": feedback("Error feedback on least squares, clients that differ", logistic=False, **DIFFERENT),
    "least-squares-iid": feedback("Error feedback on least squares, clients alike", logistic=False, **ALIKE),
    "logistic": feedback("Error feedback on logistic regression, clients that differ", logistic=True, **DIFFERENT),
    "logistic-iid": feedback("Error feedback on logistic regression, clients alike", logistic=True, **ALIKE),
    "mnist": small("mnist", "mnist_cnn", block=4096),
    "cifar10": small("cifar10", "lenet", block=8192),
    "gpu/cifar10-resnet18": full(),
}
