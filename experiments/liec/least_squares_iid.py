"""Least squares of clients alike, batches of one row: LIEC's own regime (arXiv 2402.11857)."""

from experiments.liec._convex import Feedback, below, convex, every

ALIKE = (
    (
        "loss: P-SGD < LIEC(32) < MEM-SGD < DoubleSqueeze",
        every(below("P-SGD", "LIEC(32)"), below("LIEC(32)", "MEM-SGD"), below("MEM-SGD", "DoubleSqueeze")),
    ),
    (
        "error norm: LIEC(32) < MEM-SGD < DoubleSqueeze",
        every(below("LIEC(32)", "MEM-SGD", "errors"), below("MEM-SGD", "DoubleSqueeze", "errors")),
    ),
    ("NEOLITHIC(2) is below DoubleSqueeze", below("NEOLITHIC(2)", "DoubleSqueeze")),
    ("at equal bits, LIEC is below MEM-SGD", below("LIEC", "MEM-SGD", "tuned")),
    ("at equal bits, LIEC is below DoubleSqueeze", below("LIEC", "DoubleSqueeze", "tuned")),
)

FIGURE = Feedback(
    title="Error feedback on least squares, clients alike",
    problem=lambda: convex(alike=True, logistic=False),
    compressor="top_k:4",
    steps=10_000,
    batch_size=1,
    seeds=10,
    bits=1e6,
    measure="gap",
    orderings=ALIKE,
    said="Eight clients of 200 rows of one distribution; kappa = 10; delta = 0.04.",
)
