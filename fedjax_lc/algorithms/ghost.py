"""Ghost: what MCM tries to be. Clients see w - gamma C(ghat), one step's noise away from the server's w - gamma ghat.

Philippenko and Dieuleveut, arXiv 2102.12528 (the paper's version): a yardstick that cannot be built, since the clients
do not know w; its bits are those of C(ghat).
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
    return Directed(w, sent.ghat, turn.gamma * (sent.ghat - Omega), bits)


def _announce(hp: Any, noise: Vec, w: Vec, seen: Vec, turn: Turn) -> Announced:
    return Announced(w, w + noise, None, 0.0)


register(
    "ghost",
    title="Ghost",
    up="C(g_i - h_i)",
    down="C(mean), not realisable",
    paper=mcm.PAPER,
    Hparams=artemis.Hparams,
    **compose(memory(), Downlink(seen_apart, _direct, _announce)),
    theory=mcm.without_downlink_memory,
)
