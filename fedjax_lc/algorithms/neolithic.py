"""NEOLITHIC: DoubleSqueeze whose messages are compressed R times over, each time what is still missing.

Huang, Chen, Yin, Yuan, "Lower Bounds and Nearly Optimal Algorithms in Distributed Learning with Communication
Compression", arXiv 2206.03665 (recalled, re-derived and checked numerically). Fast compressed communication, `fcc`,
contracts by (1 - delta)^R at the price of R messages. The paper takes R batches in an iteration (recalled only); the
code of LIEC-SGD, arXiv 2402.11857, takes one, with R = 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fedjax_lc.algorithms import double_squeeze
from fedjax_lc.algorithms.frames.base import Cost, register
from fedjax_lc.algorithms.frames.links import error_feedback, gradient_with_error
from fedjax_lc.algorithms.frames.server import State, compose
from fedjax_lc.compressors import FCC, Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import Key
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(double_squeeze.Hparams):
    """As DoubleSqueeze, the compressors being `fcc(C):R`."""

    accumulate: bool = hyperparameter(
        "whether an iteration takes R batches of batch_size rows, R that of the uplink", default=False
    )

    def validate(self, problem: Problem) -> None:
        super().validate(problem)
        if self.accumulate and not isinstance(self.compressor, FCC):
            raise InputError(f"accumulate takes R batches for a compressor fcc(C):R, got {self.compressor}")


_method = compose(error_feedback, gradient_with_error)


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    if hp.accumulate and hp.batch_size is not None and isinstance(hp.compressor, FCC):
        hp = dataclasses.replace(hp, batch_size=hp.compressor.rounds * hp.batch_size)
    return _method["step"](problem, hp, state, key)


def theory(
    problem: Problem,
    compressor: Compressor | str | None = None,
    downlink: Compressor | str | None = None,
    rounds: int = 2,
) -> Hparams:
    """R = rounds for both compressors; gamma as DoubleSqueeze with them. The paper's R is of the order of
    log(.)/delta (recalled only)."""
    once = double_squeeze.theory(problem, compressor, downlink)
    both: dict[str, Any] = {"compressor": FCC(once.compressor, rounds), "downlink": FCC(once.downlink, rounds)}
    return Hparams(**vars(double_squeeze.theory(problem, **both)))


register(
    "neolithic",
    title="NEOLITHIC",
    up="R messages C of g_i + e_i",
    down="R messages C of mean + e",
    speed="1/√(nT) + n/(δ_R⁴T), δ_R = 1-(1-δ)^R (ours)",
    paper="2206.03665 Lower Bounds and Nearly Optimal Algorithms in Distributed Learning with Communication "
    "Compression",
    Hparams=Hparams,
    **(_method | {"step": step}),
    theory=theory,
    error=double_squeeze.owed,
)
