"""The figures of LoCoDL (arXiv 2403.04348) on networks: digits, MNIST, and text by speaker."""

from experiments._networks import MNIST_PIXELS, UNUSED, load, remarks, shortened, standardised
from experiments.locodl.deep._common import LOCAL_STEPS, deep
from fedjax_lc import data, problems
from fedjax_lc.problems import Problem

NUM_CLIENTS, SPLIT = 10, "dirichlet:0.3"
ROWS, TEST_ROWS = 10_000, 2_000
TEXT = "shakespeare:seq_len=10,min_chars=25000"
MODEL = "char_lstm:vocab=65,hidden=24,layers=1"


def digits() -> Problem:
    dataset = data.load("digits", scale="standard")
    return problems.problem(dataset, NUM_CLIENTS, SPLIT, "mlp:hidden=64", smooth=UNUSED, measured_rows=500)


def mnist() -> Problem:
    dataset, prepare = shortened(load("mnist"), ROWS, TEST_ROWS), standardised(*MNIST_PIXELS)
    return problems.problem(
        dataset, NUM_CLIENTS, SPLIT, "mlp:hidden=12", prepare=prepare, measured_rows=500, smooth=UNUSED
    )


def shakespeare() -> Problem:
    return problems.problem(load(TEXT), model=MODEL, measured_rows=200, smooth=UNUSED)


FIGURES = {
    "digits": deep(
        "digits, a network of one hidden layer over 10 clients, Dirichlet(0.3)",
        digits,
        steps=(0.1, 0.3, 1.0),
        reach=0.9,
        rounds=40,
        said=f"64 hidden units, no regulariser; {LOCAL_STEPS} local steps of 32 rows a round of FedAvg and SCAFFOLD.",
    ),
    "mnist": deep(
        "MNIST, a network of one hidden layer over 10 clients, Dirichlet(0.3)",
        mnist,
        steps=(0.1, 0.3, 1.0),
        reach=0.85,
        rounds=40,
        said=lambda: (
            f"The first {ROWS:,} training and {TEST_ROWS:,} test images, 12 hidden units, no regulariser; "
            f"{LOCAL_STEPS} local steps of 32 rows a round of FedAvg and SCAFFOLD. " + remarks("mnist")
        ),
    ),
    "shakespeare": deep(
        "Shakespeare, a recurrent network over the speakers with the longest parts",
        shakespeare,
        steps=(0.5, 1.5, 5.0),
        reach=0.33,
        rounds=120,
        batch_size=8,
        methods=("locodl", "fedavg", "scaffold"),
        said=lambda: (
            f"{TEXT}, {MODEL}, no regulariser; {LOCAL_STEPS} local steps of 8 rows a round of FedAvg and SCAFFOLD. "
            + remarks(TEXT)
        ),
    ),
}
