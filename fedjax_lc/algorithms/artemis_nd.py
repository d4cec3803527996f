"""Artemis-ND: the server keeps its model from the downlink's noise, the clients add up what they receive and drift.

An ablation of Philippenko and Dieuleveut, arXiv 2102.12528: w+ = w - gamma ghat, but what+ = what - gamma C(ghat).
"""

from __future__ import annotations

from typing import Any

from fedjax_lc.algorithms import artemis, mcm
from fedjax_lc.algorithms.base import register
from fedjax_lc.algorithms.bidirectional import Downlink, Turn, compose, memory, seen_by_all, to_all
from fedjax_lc.typing import Scalar, Vec


def _send(hp: Any, _: None, w: Vec, seen: Vec, ghat: Vec, turn: Turn) -> tuple[Vec, Vec, None, Scalar]:
    Omega, bits = to_all(hp.downlink, turn.key, ghat)
    return w - turn.gamma * ghat, seen - turn.gamma * Omega, None, bits


register(
    "artemis_nd",
    title="Artemis-ND",
    paper=mcm.PAPER,
    Hparams=artemis.Hparams,
    **compose(memory(), Downlink(seen_by_all, _send)),
    theory=artemis.theory,
)
