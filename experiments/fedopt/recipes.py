"""The figures of FedOpt (arXiv 2003.00295): FedAvg against adaptive servers, on MNIST and on Shakespeare by speaker."""

from experiments._networks import MNIST_PIXELS, UNUSED, load, remarks, shortened, standardised
from experiments.fedopt._common import CLAIMS, SETTINGS, curves
from experiments.kit.training import Training
from fedjax_lc import problems
from fedjax_lc.problems import Problem

ROWS, TEST_ROWS = 20_000, 2_000
TEXT = "shakespeare:seq_len=40,min_chars=5000"
MODEL = "char_lstm:vocab=65,hidden=64,layers=1"


def mnist() -> Problem:
    dataset = shortened(load("mnist"), ROWS, TEST_ROWS)
    prepare = standardised(*MNIST_PIXELS)
    return problems.problem(
        dataset, 100, "dirichlet:0.3", "mnist_cnn", prepare=prepare, measured_rows=1000, smooth=UNUSED
    )


def shakespeare() -> Problem:
    return problems.problem(load(TEXT), model=MODEL, measured_rows=500, smooth=UNUSED)


FIGURES = {
    "mnist": Training(
        title="MNIST over 100 clients, Dirichlet(0.3): servers of FedOpt",
        problem=mnist,
        curves=curves((0.01, 0.03, 0.1, 0.3), cohort_size=10, local_steps=5, batch_size=20, replacement=True),
        rounds=60,
        every=5,
        seeds=3,
        tune_rounds=20,
        claims=CLAIMS,
        said=lambda: (
            f"The first {ROWS:,} training and {TEST_ROWS:,} test images, mnist_cnn, 10 clients a round, 5 local "
            f"steps of 20 rows; train loss on 1,000 rows; {SETTINGS}. " + remarks("mnist")
        ),
    ),
    "shakespeare": Training(
        title="Shakespeare, 64 speakers: servers of FedOpt",
        problem=shakespeare,
        curves=curves((1.0, 3.0, 10.0, 30.0), cohort_size=10, local_steps=5, batch_size=8, replacement=True),
        rounds=100,
        every=10,
        seeds=3,
        tune_rounds=30,
        claims=CLAIMS,
        said="Speakers with 5,000 characters or more of the tiny Shakespeare text, not LEAF's; next characters of "
        f"windows of 40, {MODEL}, 10 clients a round, 5 local steps of 8 windows; train loss on 500 windows; "
        f"{SETTINGS}.",
    ),
}
