"""Ghost: what MCM tries to be. Clients see w - gamma C(ghat), one step's noise away from the server's w - gamma ghat.

Philippenko and Dieuleveut, arXiv 2102.12528 (the paper's version): a yardstick that cannot be built, since the clients
do not know w; its bits are those of C(ghat).
"""

from __future__ import annotations

from typing import Any

from fedjax_lc.algorithms import artemis, mcm
from fedjax_lc.algorithms.base import register
from fedjax_lc.algorithms.bidirectional import Downlink, Turn, compose, memory, seen_by_all, to_all
from fedjax_lc.typing import Scalar, Vec


def _send(hp: Any, _: None, w: Vec, seen: Vec, ghat: Vec, turn: Turn) -> tuple[Vec, Vec, None, Scalar]:
    Omega, bits = to_all(hp.downlink, turn.key, ghat)
    return w - turn.gamma * ghat, w - turn.gamma * Omega, None, bits


register(
    "ghost",
    title="Ghost",
    paper=mcm.PAPER,
    Hparams=artemis.Hparams,
    **compose(memory(), Downlink(seen_by_all, _send)),
    theory=mcm.without_downlink_memory,
)
