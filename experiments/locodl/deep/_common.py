"""What the figures of LoCoDL on networks share: methods, what is tried of each, and what the paper's idea would have.

Every method takes minibatches and is at the best of nine settings: LoCoDL and CompressedScaffnew at the best pair of
step size and p, FedAvg and SCAFFOLD at that of both their step sizes, LIEC-SGD at that of step size and period, and
DIANA at the best of nine step sizes. A step of LoCoDL, CompressedScaffnew, DIANA or LIEC-SGD is one local gradient, and
ten of them stand beside a round of FedAvg or SCAFFOLD, which has ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from experiments.kit.claim import Claim
from experiments.kit.contender import Contender
from experiments.kit.training import BITS, Training
from fedjax_lc.problems import Problem

LOCAL_STEPS = 10
COMPRESSOR = "rand_k:10%|natural"
P = (0.02, 0.05, 0.15)
SERVER = (1.0, 1.5, 2.25)
PERIODS = (10, 30, 100)


def curves(steps: Sequence[float], batch_size: int, methods: Sequence[str] | None = None) -> tuple[Contender, ...]:
    """Six methods, or those of these names, at three step sizes and three of something else; DIANA at nine of them."""
    batch: dict[str, Any] = {"batch_size": batch_size}
    local: dict[str, Any] = {"local_steps": LOCAL_STEPS}
    one: dict[str, Any] = {"pace": LOCAL_STEPS}
    nine = tuple(float(f"{step * factor:.2g}") for step in steps for factor in (1 / 4, 1 / 2, 1))
    everyone = (
        Contender("locodl", COMPRESSOR, changes=batch, tune={"gamma": steps, "p": P}, **one),
        Contender("compressed_scaffnew", changes=batch, tune={"gamma": steps, "p": P}, **one),
        Contender("diana", COMPRESSOR, changes=batch, tune={"gamma": tuple(sorted(set(nine)))}, **one),
        Contender("fedavg", COMPRESSOR, local, batch, tune={"client_lr": steps, "server_lr": SERVER}),
        Contender("scaffold", None, local, batch, tune={"client_lr": steps, "server_lr": SERVER}),
        Contender("liec_sgd", COMPRESSOR, changes=batch, tune={"gamma": steps, "period": PERIODS}, **one),
    )
    return tuple(curve for curve in everyone if methods is None or curve.method in methods)


def fewer(better: str, worse: str) -> Claim:
    return Claim(f"{better} needs fewer bits than {worse}", (f"{better}*",), (f"{worse}*",), statistic=BITS)


CLAIMS = (
    *(fewer("LoCoDL", worse) for worse in ("CompressedScaffnew", "DIANA", "FedAvg", "SCAFFOLD", "LIEC-SGD")),
    fewer("CompressedScaffnew", "SCAFFOLD"),
    Claim("LoCoDL's accuracy at the end is at most one point below SCAFFOLD's", ("LoCoDL*",), ("SCAFFOLD",),
          statistic="accuracy", margin=-0.01),
)  # fmt: skip


def deep(
    title: str,
    problem: Callable[[], Problem],
    steps: Sequence[float],
    reach: float,
    rounds: int,
    said: str | Callable[[], str],
    batch_size: int = 32,
    methods: Sequence[str] | None = None,
) -> Training:
    """The six, or those of these names, on a network: bits both ways to the accuracy `reach`, at the best setting."""
    chosen = curves(steps, batch_size, methods)
    titles = {curve.label.partition(",")[0] for curve in chosen}
    told = [claim for claim in CLAIMS if {side[0].rstrip("*") for side in (claim.better, claim.worse)} <= titles]
    return Training(
        title=title,
        problem=problem,
        curves=chosen,
        rounds=rounds,
        every=1,
        seeds=3,
        tune_rounds=rounds,
        extensions=1,
        criterion=BITS,
        reach=reach,
        claims=told,
        claims_are="from the convex figures",
        said=said,
        note="methods without local rounds: ten steps of one local gradient beside a round",
    )
