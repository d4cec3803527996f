"""MC: MCM without the downlink memory, which shows what that memory is for: w itself is compressed, and never vanishes.

Philippenko and Dieuleveut, arXiv 2102.12528; MCM with alpha_dwn = 0 and H_0 = 0.
"""

from __future__ import annotations

from typing import Any

from fedjax_lc.algorithms import artemis, mcm
from fedjax_lc.algorithms.frames.base import register
from fedjax_lc.algorithms.frames.links import memory, seen_apart, to_all
from fedjax_lc.algorithms.frames.server import compose
from fedjax_lc.algorithms.frames.turns import Announced, Downlink, Turn
from fedjax_lc.core.typing import Vec


def _announce(hp: Any, _: None, w: Vec, seen: Vec, turn: Turn) -> Announced:
    what, bits = to_all(hp.downlink, turn.key, w)
    return Announced(w, what, None, bits)


register(
    "mc",
    title="MC",
    up="C(g_i - h_i)",
    down="C(x)",
    paper=mcm.PAPER,
    Hparams=artemis.Hparams,
    **compose(memory(), Downlink(seen_apart, announce=_announce)),
    theory=mcm.without_downlink_memory,
)
