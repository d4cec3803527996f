"""The figures of low-rank, adaptive and accelerated compression with a server."""

from __future__ import annotations

from typing import Any

from experiments._quadratics import quadratics
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender
from experiments.kit.prices import EXPONENT, Prices, at_price
from fedjax_lc.sweeping import axes

UP, DOWN, UNBIASED = "rand_k:5", "top_k:5", "rand_k:5"
PRICES = (0.01, 0.1, 1.0, 10.0)
SHOWN = 3e3


def two_direction() -> Prices:
    faster = lambda *factors: {"gamma": axes.times(factors)}
    smoothness = {"Lbar": axes.times([1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])}
    alike = lambda kappa: quadratics(10, 20, kappa, spread=0.003)
    both = {"compressor": UP, "downlink": DOWN}
    rivals = ("EF21-P + DIANA", "MCM", "DIANA")
    fewest = [
        Claim(f"2Direction needs the fewest bits at price {price:g}", ("2Direction",), rivals, at_price(price))
        for price in PRICES
    ]
    return Prices(
        title="2Direction against one-sided and unaccelerated methods",
        problem=lambda: alike(SHOWN),
        problem_of=alike,
        rel_gap=1e-8,
        kappas=(300.0, 1e3, SHOWN),
        shown=SHOWN,
        prices=PRICES,
        curves=(
            Contender("two_direction", choices=both, tune=smoothness, name="2Direction"),
            Contender("ef21_p_diana", choices=both, tune=faster(64, 128, 256, 512), name="EF21-P + DIANA"),
            Contender("mcm", choices={"compressor": UP, "downlink": UNBIASED}, tune=faster(8, 16, 32, 64), name="MCM"),
            Contender("diana", choices={"compressor": UP}, tune=faster(0.5, 1, 2, 4), name="DIANA"),
        ),
        claims=(
            Claim("2Direction's steps grow like kappa^0.5 (0.4 to 0.6; P2)", ("2Direction",), statistic=EXPONENT,
                  least=0.4, most=0.6),
            Claim("EF21-P + DIANA's steps grow like kappa (0.85 to 1.15; P2)", ("EF21-P + DIANA",), statistic=EXPONENT,
                  least=0.85, most=1.15),
            *fewest,
            Claim("EF21-P + DIANA needs fewer bits than DIANA at price 10", ("EF21-P + DIANA",), ("DIANA",),
                  at_price(10)),
        ),
        said=f"Uplink {UP}, downlink {DOWN} ({UNBIASED} of MCM, which needs no bias; DIANA's is dense). Full gradients, "
        "float64; 2Direction takes two gradients a step. Tried are multiples of theory's step size.",
    )  # fmt: skip


FIGURES: dict[str, Any] = {"two_direction": two_direction()}
