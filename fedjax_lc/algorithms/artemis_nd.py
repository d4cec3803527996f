"""Artemis-ND: the server keeps its model from the downlink's noise, the clients add up what they receive and drift.

An ablation of Philippenko and Dieuleveut, arXiv 2102.12528: w+ = w - gamma ghat, but what+ = what - gamma C(ghat).
"""

from __future__ import annotations

from typing import Any

from fedjax_lc.algorithms import artemis, mcm
from fedjax_lc.algorithms.frames.base import register
from fedjax_lc.algorithms.frames.links import memory, seen_apart, to_all
from fedjax_lc.algorithms.frames.server import compose
from fedjax_lc.algorithms.frames.turns import Announced, Directed, Downlink, Sent, Turn
from fedjax_lc.core.typing import Vec


def _direct(hp: Any, _: None, w: Vec, sent: Sent, turn: Turn) -> Directed:
    Omega, bits = to_all(hp.downlink, turn.key, sent.ghat)
    return Directed(w, sent.ghat, turn.gamma * Omega, bits)


def _announce(hp: Any, message: Vec, w: Vec, seen: Vec, turn: Turn) -> Announced:
    return Announced(w, seen - message, None, 0.0)


register(
    "artemis_nd",
    title="Artemis-ND",
    up="C(g_i - h_i)",
    down="C(mean)",
    paper=mcm.PAPER,
    Hparams=artemis.Hparams,
    **compose(memory(), Downlink(seen_apart, _direct, _announce)),
    theory=artemis.theory,
)
