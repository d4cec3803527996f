"""The figures of low-rank, adaptive and accelerated compression with a server: PowerSGD (arXiv 1905.13727), SIDCo
(2101.10761), EF21-P (2209.15218) and 2Direction (2305.12379)."""

from __future__ import annotations

from typing import Any

from experiments._networks import UNUSED
from experiments._quadratics import quadratics
from experiments.adaptive._ratios import Ratios
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender, everywhere
from experiments.kit.prices import EXPONENT, Prices, at_price
from experiments.kit.training import BITS, Training
from fedjax_lc import data, problems
from fedjax_lc.sweeping import axes

UP, DOWN, UNBIASED = "rand_k:5", "top_k:5", "rand_k:5"
PRICES = (0.01, 0.1, 1.0, 10.0)
SHOWN = 3e3
MODEL = "mlp:hidden=128x128"
STEPS: dict[str, Any] = {"gamma": 0.1, "batch_size": 32}


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
        said=f"Uplink {UP}, downlink {DOWN} ({UNBIASED} of MCM, which needs no bias; DIANA's is dense). Full "
        "gradients, float64; 2Direction takes two gradients a step. Tried are multiples of theory's step size.",
    )  # fmt: skip


def powersgd() -> Training:
    """Rank 1, signs and top-2.2% send about as many bits: 850, 810 and 830 numbers of the network's 26,000."""
    gammas = {"gamma": [0.05, 0.1, 0.2]}

    def curve(name: str, method: str, compressor: str = "", **changes: Any) -> Contender:
        ways = everywhere(method, compressor) if compressor else {}
        return Contender(method, changes={"batch_size": 32, **ways, **changes}, tune=gammas, name=name)

    squeezed = ("DoubleSqueeze, top-2.2%", "DoubleSqueeze, sign")
    return Training(
        title="PowerSGD on digits, 8 clients alike",
        problem=lambda: problems.problem(data.load("digits"), 8, "iid", MODEL, smooth=UNUSED, test_share=0.25),
        curves=(
            curve("P-SGD", "sgd"),
            curve("PowerSGD, rank 1", "powersgd"),
            curve("PowerSGD, rank 2", "powersgd", rank=2),
            curve("PowerSGD, rank 1, alternating", "powersgd", variant="alternating"),
            curve(squeezed[0], "double_squeeze", "top_k:2.2%"),
            curve(squeezed[1], "double_squeeze", "sign"),
        ),
        rounds=400,
        every=10,
        seeds=3,
        tune_rounds=200,
        extensions=1,
        reach=0.95,
        claims=(
            Claim("PowerSGD, rank 1, is within half a point of P-SGD", ("PowerSGD, rank 1",), ("P-SGD",), "accuracy",
                  margin=-0.005),
            Claim("PowerSGD, rank 1, needs fewer bits to 95 % than P-SGD", ("PowerSGD, rank 1",), ("P-SGD",), BITS),
            Claim("PowerSGD, rank 1, needs fewer bits to 95 % than top-k of as many bits", ("PowerSGD, rank 1",),
                  squeezed[:1], BITS),
            Claim("PowerSGD, rank 1, needs fewer bits to 95 % than signs", ("PowerSGD, rank 1",), squeezed[1:], BITS),
            Claim("PowerSGD needs fewer bits to 95 % with rank 1 than with rank 2", ("PowerSGD, rank 1",),
                  ("PowerSGD, rank 2",), BITS),
        ),
        said=f"{MODEL} on 8 x 8 digits, shuffled; batches of 32, error feedback, both directions compressed.",
    )  # fmt: skip


def sidco() -> Ratios:
    fitted = lambda fit, words, text: Contender(
        "sidco", choices={"compressor": f"{text},index=int32,fit={fit}"}, changes=STEPS, name=f"{fit}, {words}"
    )
    fits = ("exponential", "pareto", "gamma")
    return Ratios(
        title="SIDCo: shares of entries asked for and sent, digits",
        problem=lambda: problems.problem(
            data.load("digits"), 4, "iid", "mlp:hidden=128", smooth=UNUSED, test_share=0.25
        ),
        ratios=(0.1, 0.03, 0.01, 0.003, 0.001),
        steps=400,
        curves=(
            *(fitted(fit, "one stage", "threshold:{ratio}") for fit in fits),
            *(fitted(fit, "stages adapted", "sidco:{ratio}") for fit in fits),
            *(fitted(fit, "turning", "sidco:{ratio},mode=-2") for fit in fits),
        ),
        claims=(
            *(Claim(f"adapted stages come nearer than one, {fit}", (f"{fit}, stages adapted",), (f"{fit}, one stage",))
              for fit in fits),
            *(Claim(f"adapted stages are within a factor of 1.5 at every ratio, {fit}", (f"{fit}, stages adapted",),
                    most=1.5) for fit in fits),
        ),
        said="Messages are g_i + e_i of clients that train mlp:hidden=128 with batches of 32 and error feedback; 64 "
        "bits an entry. Stages are adapted after every five messages (mode -1; turning: mode -2).",
    )  # fmt: skip


FIGURES: dict[str, Any] = {"two_direction": two_direction(), "powersgd": powersgd(), "sidco": sidco()}
