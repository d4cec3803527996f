"""Shakespeare by speaker, a small LSTM, 100 rounds, FedAvg against adaptive servers (arXiv 2003.00295)."""

from experiments._networks import UNUSED, load
from experiments.fedopt._common import CLAIMS, SETTINGS, runs
from experiments.kit.training import Training
from fedjax_lc import problems
from fedjax_lc.problems import Problem

TEXT = "shakespeare:seq_len=40,min_chars=5000"
MODEL = "char_lstm:vocab=65,hidden=64,layers=1"


def problem() -> Problem:
    return problems.problem(load(TEXT), model=MODEL, measured_rows=500, smooth=UNUSED)


FIGURE = Training(
    title="Shakespeare, 64 speakers: servers of FedOpt",
    problem=problem,
    runs=runs((1.0, 3.0, 10.0, 30.0), cohort_size=10, local_steps=5, batch_size=8),
    rounds=100,
    every=10,
    seeds=3,
    tune_rounds=30,
    claims=CLAIMS,
    said="Speakers with 5,000 characters or more of the tiny Shakespeare text, not LEAF's; next characters of windows "
    f"of 40, {MODEL}, 10 clients a round, 5 local steps of 8 windows; train loss on 500 windows; {SETTINGS}.",
)
