"""Compressors: pure functions of a key and a vector, with their constants (omega, delta) and the price of a message.

`parse("rand_k:4|natural")` gives one from its string form; `names()` lists them; `default` picks one for a problem.
"""

from __future__ import annotations

import math

from fedjax_lc.compressors.base import INDEX_BITS, Chain, Compressor, Message
from fedjax_lc.compressors.basic import Bernoulli, Identity, Natural, Zero
from fedjax_lc.compressors.budgets import TopEnergy, TopPerBit, TopPowerLaw, TopPrice
from fedjax_lc.compressors.combine import FCC, Induced, PerBlock, Scaled
from fedjax_lc.compressors.compensated import Compensated
from fedjax_lc.compressors.joint import PermK, SharedRandK
from fedjax_lc.compressors.levels import QSGD, Dithering, NaturalDithering, Ternary
from fedjax_lc.compressors.low_rank import LowRank
from fedjax_lc.compressors.parse import for_layers, names, parse, register, with_index
from fedjax_lc.compressors.remembering import Remembering, check
from fedjax_lc.compressors.sidco import Sidco
from fedjax_lc.compressors.sign import BlockSign, Sign
from fedjax_lc.compressors.sparse import L1Select, RandK, RandKUnscaled, TopK
from fedjax_lc.compressors.threshold import Threshold

register(Identity, Zero, Natural, Bernoulli)
register(RandK, RandKUnscaled, TopK, L1Select, Threshold, Sidco)
register(TopEnergy, TopPerBit, TopPrice, TopPowerLaw)
register(QSGD, Dithering, Ternary, NaturalDithering, Sign, BlockSign)
register(SharedRandK, PermK, LowRank)
register(Scaled, Induced, FCC, PerBlock, Compensated)


def default(d: int, n: int, *, contractive: bool = False, network: bool = False) -> Compressor:
    """The default compressor: rand-k, then natural, with k = max(1, ceil(d/n)); top-k if it must be contractive.

    Of a network the unbiased one is natural alone: the variance of rand-k, about n, asks for steps so small that a
    network is not trained in a hundred of them. Source of k: LoCoDL, arXiv 2403.04348, experiments.
    """
    k = max(1, math.ceil(d / n))
    if contractive:
        return TopK(k)
    return Natural() if network else Chain(RandK(k), Natural())


__all__ = [
    "FCC",
    "INDEX_BITS",
    "QSGD",
    "Bernoulli",
    "BlockSign",
    "Chain",
    "Compensated",
    "Compressor",
    "Dithering",
    "Identity",
    "Induced",
    "L1Select",
    "LowRank",
    "Message",
    "Natural",
    "NaturalDithering",
    "PerBlock",
    "PermK",
    "RandK",
    "RandKUnscaled",
    "Remembering",
    "Scaled",
    "SharedRandK",
    "Sidco",
    "Sign",
    "Ternary",
    "Threshold",
    "TopEnergy",
    "TopK",
    "TopPerBit",
    "TopPowerLaw",
    "TopPrice",
    "Zero",
    "check",
    "default",
    "for_layers",
    "names",
    "parse",
    "register",
    "with_index",
]
