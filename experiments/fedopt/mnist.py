"""MNIST over 100 clients, Dirichlet(0.3) by class, FedAvg against adaptive servers (arXiv 2003.00295)."""

from experiments._networks import MNIST_PIXELS, UNUSED, load, remarks, shortened, standardised
from experiments.fedopt._common import CLAIMS, SETTINGS, runs
from experiments.kit.training import Training
from fedjax_lc import problems
from fedjax_lc.problems import Problem

ROWS, TEST_ROWS = 20_000, 2_000


def problem() -> Problem:
    dataset = shortened(load("mnist"), ROWS, TEST_ROWS)
    prepare = standardised(*MNIST_PIXELS)
    return problems.problem(
        dataset, 100, "dirichlet:0.3", "mnist_cnn", prepare=prepare, measured_rows=1000, smooth=UNUSED
    )


FIGURE = Training(
    title="MNIST over 100 clients, Dirichlet(0.3): servers of FedOpt",
    problem=problem,
    runs=runs((0.01, 0.03, 0.1, 0.3), cohort_size=10, local_steps=5, batch_size=20),
    rounds=60,
    every=5,
    seeds=3,
    tune_rounds=20,
    claims=CLAIMS,
    said=lambda: (
        f"The first {ROWS:,} training and {TEST_ROWS:,} test images, mnist_cnn, 10 clients a round, 5 local "
        f"steps of 20 rows; train loss on 1,000 rows; {SETTINGS}. " + remarks("mnist")
    ),
)
