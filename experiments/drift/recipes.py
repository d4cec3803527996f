"""Clients whose data drift over rounds: do control variates and memories, which remember old data (LoCoDL, arXiv
2403.04348, SCAFFOLD, DIANA), follow as well as methods that keep nothing between rounds?"""

from __future__ import annotations

from typing import Any

from experiments._networks import UNUSED
from experiments.kit.claim import Claim
from experiments.kit.training import Training
from experiments.locodl.deep._common import LOCAL_STEPS, curves
from fedjax_lc import data, problems

NUM_CLIENTS, SPLIT, MODEL = 10, "dirichlet:0.3", "mlp:hidden=64"
PHASES, EACH = 8, 5  #: and rounds of each
SPREAD = 0.5
METHODS = ("locodl", "diana", "fedavg", "scaffold")


def digits(kind: str, amount: float) -> Any:
    """The 8 x 8 digits by ten clients that drift at speeds of their own; the test set at their mean speed."""
    whole = data.load("digits", scale="standard").split(0.2)
    assert whole.test is not None
    clients = data.clients(whole, data.partition(whole, NUM_CLIENTS, SPLIT))
    shift: dict[str, Any] = {"phases": PHASES, "amount": amount, "classes": len(whole.classes)}
    rows = data.drift(clients, kind, spread=SPREAD, **shift)
    tests = data.drift([(whole.test.features, whole.test.targets)], kind, **shift)
    each = [
        problems.neural(MODEL, of_phase, test, classes=len(whole.classes), smooth=UNUSED, measured_rows=500)
        for of_phase, (test,) in zip(rows, tests, strict=True)
    ]
    return problems.drifting(each, EACH)


CLAIMS = (
    Claim("SCAFFOLD, with control variates, is at most one point below FedAvg", ("SCAFFOLD",), ("FedAvg*",),
          margin=-0.01, statistic="accuracy"),
    Claim("LoCoDL is at most one point below FedAvg", ("LoCoDL*",), ("FedAvg*",), margin=-0.01, statistic="accuracy"),
    Claim("LoCoDL is above DIANA", ("LoCoDL*",), ("DIANA*",), statistic="accuracy"),
)  # fmt: skip


def drifting(title: str, kind: str, amount: float, said: str) -> Training:
    return Training(
        title=title,
        problem=lambda: digits(kind, amount),
        curves=curves((0.1, 0.3, 1.0), 32, METHODS),
        rounds=PHASES * EACH,
        every=1,
        seeds=3,
        tune_rounds=PHASES * EACH,
        extensions=0,
        criterion="accuracy",
        claims=CLAIMS,
        claims_are="expectation",
        said=f"{said} {PHASES} phases of {EACH} rounds; a client shifts {1 - SPREAD:g} to {1 + SPREAD:g} times as far "
        f"as the test set. {MODEL}, Dirichlet(0.3), no regulariser; {LOCAL_STEPS} local steps of 32 rows a round of "
        "FedAvg and SCAFFOLD, and as many steps beside it of the others. Accuracy is that on the data of the moment.",
        note="accuracy and loss on the data of the moment; the others: ten steps beside a round",
    )


FIGURES = {
    "features": drifting(
        "digits whose features turn while they are learnt",
        "features",
        2.0,
        "Rows turn by two right angles in all, in planes of two pixels.",
    ),
    "labels": drifting(
        "digits of which a growing share changes its class while they are learnt",
        "labels",
        0.6,
        "In the end 60 % of the rows have the label of the next class.",
    ),
}
