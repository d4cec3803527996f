"""Least squares of clients that differ, full gradients: where errors that are paid back settle (arXiv 2402.11857)."""

from experiments.liec._convex import Feedback, below, convex, every, rises, squared

FALLING = ("MEM-SGD", "DoubleSqueeze", "NEOLITHIC(2)", "LIEC(8)", "LIEC(32)")
HETEROGENEOUS = (
    ("floors of MEM-SGD, DoubleSqueeze, NEOLITHIC and LIEC fall with gamma^2", squared(*FALLING)),
    ("CSER's floor falls with gamma^2", squared("CSER(8)")),
    ("LIEC's floor rises with the period", rises("LIEC")),
    ("NEOLITHIC(2) is below DoubleSqueeze", below("NEOLITHIC(2)", "DoubleSqueeze")),
    ("LIEC(8) is below CSER(8)", below("LIEC(8)", "CSER(8)")),
    ("DoubleSqueeze is below LIEC(32)", below("DoubleSqueeze", "LIEC(32)")),
    ("EF21 is below all of them", every(*(below("EF21", other) for other in (*FALLING, "CSER(8)")))),
    ("at equal bits, DoubleSqueeze is below LIEC", below("DoubleSqueeze", "LIEC", "tuned")),
)

FIGURE = Feedback(
    title="Error feedback on least squares, clients that differ",
    problem=lambda: convex(alike=False, logistic=False),
    compressor="sign",
    steps=40_000,
    batch_size=None,
    seeds=1,
    bits=1e6,
    measure="grad2",
    orderings=HETEROGENEOUS,
    said="Eight clients of 200 rows, each with a plane and a mean of features of its own; kappa = 10.",
)
