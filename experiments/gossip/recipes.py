"""The figures of methods without a server: CHOCO-SGD (arXiv 1902.00340), LEAD (2007.00232), COLD (2105.06697), LESSBIT
(2011.01697), DEF-ATC (2406.18418), PowerGossip (2008.01425) and those that they are compared to.

Nodes differ in all of them but equal-optima.
"""

from __future__ import annotations

from typing import Any

from experiments.gossip._common import (
    COUNTED,
    KAPPA,
    MODEL,
    SENT,
    TWO_LEVELS,
    biased,
    curve,
    digits,
    exact,
    lead,
    least_squares,
    lessbit,
    logistic,
)
from experiments.kit.claim import Claim, in_order
from experiments.kit.comparison import LAST, Comparison
from experiments.kit.contender import Contender
from experiments.kit.floors import FALLS, Floors, alike, at
from experiments.kit.graphs import EXPONENT, FLOORS, STEPS, Graphs, on
from experiments.kit.training import BITS, Training

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1.0)
SMALL = FACTORS[:-1]  #: step sizes at which every method is stable
ROUNDING = 1e-12


def names(curves: tuple[Contender, ...]) -> list[str]:
    return [curve.label for curve in curves]


def everywhere(text: str, better: list[str], **bounds: Any) -> Claim:
    """Floors of these curves lie between the bounds at each factor."""
    return Claim(text, also=[Claim("", better, statistic=at(factor), **bounds) for factor in SMALL])


def ordered(text: str, *labels: str) -> Claim:
    """Floors in this order at each factor."""
    return Claim(text, also=[in_order("", *labels, statistic=at(factor)) for factor in SMALL])


def floors(title: str, graph: str, n: int, same: bool = False) -> Floors:
    """All methods at step sizes in units of 1/L."""
    ends, settles = names(exact(graph)), names(biased(graph))
    atc, dgd, rank2, rank1, choco, def_atc, squeeze = settles
    differ = (
        everywhere(
            f"{', '.join(ends)} go on to {ROUNDING:g}, at gamma <= 1/(2 L) (O1)", ends, most=ROUNDING
        ),
        Claim(
            f"{', '.join(settles)} stall, at floors that fall with the step size (O1)",
            settles,
            statistic=FALLS,
            most=1.0,
            also=[everywhere("", settles, least=1e3 * ROUNDING)],
        ),
        ordered("DGD (ATC) < DGD < PowerGossip, rank 2 < PowerGossip, rank 1, at gamma <= 1/(2 L) (O2)",
                atc, dgd, rank2, rank1),
        ordered("DGD (ATC) < CHOCO < DeepSqueeze with its small cg, at gamma <= 1/(2 L) (O2)", atc, choco, squeeze),
        alike("CHOCO and DEF-ATC with mu/zeta = gamma settle alike, within 1 % (O2)", choco, def_atc, SMALL,
              least=0.99, most=1.01),
    )  # fmt: skip
    vanish = [label for label in (*ends, *settles) if label != squeeze]
    equal = (
        everywhere(f"all methods but DeepSqueeze go on to {ROUNDING:g}, whatever they compress with (O3)", vanish,
                   most=ROUNDING),
        everywhere("so does DeepSqueeze, whose messages never vanish (O3)", [squeeze], most=ROUNDING),
    )  # fmt: skip
    return Floors(
        title=title,
        problem=lambda: least_squares(n, same),
        curves=(*exact(graph), *biased(graph)),
        factors=FACTORS,
        steps=8000,
        every=20,
        seeds=2,
        fit_upto=0,
        floor_of="apart",
        left_out=None if same else (1e-11, 1e-3),
        note=f"{graph}, kappa = {KAPPA:g}" + ("" if same else "; the axis leaves out 1e-11 to 1e-3"),
        claims_are="ordering",
        claims=equal if same else differ,
        said=f"Full gradients on quadratics, kappa = {KAPPA:g}, each node with axes and (but in equal-optima) an "
        f"optimum of its own; {graph}. gamma L is the factor; it is eta L of LEAD, COLD, Dyna-COLD, BEER and LESSBIT, "
        "mu L/zeta of DEF-ATC; COLD's gamma is 0.1 times it, LESSBIT's theta 8 times its theory, and cg does not "
        "change. Nothing here depends on how bits are counted; they are counted per edge.",
    )


#: of comparisons by the bits that a node of a ring sends
ON_A_RING: dict[str, Any] = {
    "bits_ratio": None,
    "outcomes": {"": "rel_gap", "-consensus": "consensus"},
    "bits_are": SENT,
    "note": f"ring; {COUNTED}",
    "claims_are": "ordering",
}


def bits() -> Comparison:
    """The linear methods, and two that settle, to 1e-10; dual step sizes are about half of the largest stable ones."""
    order = (
        "LEAD, 2 levels",
        "LEAD, 1 level",
        "COLD, top-4",
        "NIDS",
        "LESSBIT-B, rand-8",
        "LESSBIT-A, rand-8",
        "DIGing",
    )
    near = lambda a, b: [Claim("", (one,), (other,), times=1.5) for one, other in ((a, b), (b, a))]
    return Comparison(
        title="Bits of each node to the solution, ring of 8 nodes",
        problem=lambda: least_squares(8),
        curves=(
            curve("Dyna-COLD, 1 bit", "dyna_cold", step="eta", sigma=0.96),
            lead("LEAD, 2 levels", TWO_LEVELS),
            lead("LEAD, 1 level", "qsgd:1,norm=inf", gamma=0.5),
            curve("COLD, top-4", "cold", "top_k:4", step="eta", gamma=0.3),
            curve("NIDS", "nids"),
            lead("LEAD, rand-8", "rand_k:8", gamma=0.3),
            lessbit("B", 8),
            curve("COLD, top-2", "cold", "top_k:2", step="eta", gamma=0.1),
            lessbit("A", 2),
            curve("DIGing", "diging", factor=0.2),
            curve("CHOCO, top-4", "choco_sgd", "top_k:4", factor=0.25, cg=0.5),
            curve("DGD (ATC)", "dgd", factor=0.25),
        ),
        rel_gap=1e-10,
        max_rounds=6000,
        every=5,
        **ON_A_RING,
        parameters="steps of 1/L where stable",
        claims=(
            in_order("bits: LEAD with 2 levels < LEAD with 1 level < COLD, top-4 < NIDS < LESSBIT-B < LESSBIT-A < "
                     "DIGing (O4)", *order),
            Claim("LESSBIT-B needs fewer bits than COLD, top-2 (O4)", ("LESSBIT-B*",), ("COLD, top-2",)),
            Claim("Dyna-COLD with 1 bit needs about those of LEAD with 2 levels, within a factor of 1.5 (O4)",
                  also=near("Dyna-COLD, 1 bit", "LEAD, 2 levels")),
            Claim("LEAD with rand-8 needs about those of NIDS, within a factor of 1.5 (O4)",
                  also=near("LEAD, rand-8", "NIDS")),
            Claim("quantisers need fewer bits than sparsifiers (O4)", ("Dyna-COLD*", "LEAD, ? level*"),
                  ("COLD, top*", "LEAD, rand*", "LESSBIT*")),
            Claim("CHOCO and DGD stall", ("CHOCO*", "DGD*"), statistic=LAST, least=1e-6),
        ),
        said=f"{COUNTED}. kappa = L/mu = {KAPPA:g} of every node (nominal kappa counts half of mu). Step sizes of the "
        "duals are about half of the largest stable ones: gamma of LEAD 1, 0.5 (1 level) and 0.3 (rand-8), of COLD 0.3 "
        "and 0.1, theta of LESSBIT 8 (B) and 2 (A) times its theory; DIGing 0.2/L; CHOCO (cg = 0.5) and DGD 1/(4 L).",
    )  # fmt: skip


def a5a() -> Comparison:
    return Comparison(
        title="Logistic regression on a5a, ring of 16 nodes",
        problem=lambda: logistic(16),
        curves=(
            lead("LEAD, 2 levels", TWO_LEVELS),
            curve("Dyna-COLD, 1 bit", "dyna_cold", step="eta"),
            curve("NIDS", "nids"),
            curve("DIGing (ATC)", "diging", form="atc", factor=0.5),
            curve("CHOCO, top-10%", "choco_sgd", "top_k:10%", cg=0.2),
            curve("CHOCO, sign", "choco_sgd", "sign", cg=0.2),
            curve("DGD (ATC)", "dgd"),
        ),
        rel_gap=1e-8,
        max_rounds=25_000,
        every=20,
        **ON_A_RING,
        parameters="step sizes of 1/L (DIGing: 1/(2 L))",
        claims=(
            Claim("LEAD with 2 levels needs fewer bits than NIDS", ("LEAD, 2 levels",), ("NIDS",)),
            Claim("LEAD with 2 levels needs about as many rounds as NIDS, within a tenth", ("LEAD, 2 levels",),
                  ("NIDS",), "rounds", times=1.1),
            Claim("Dyna-COLD with 1 bit needs the fewest bits", ("Dyna-COLD*",), ("*",)),
            Claim("CHOCO and DGD stall", ("CHOCO*", "DGD*"), statistic=LAST, least=1e-6),
        ),
        said=f"{COUNTED}. Rows are shuffled, so that nodes are nearly alike. cg = 0.2 of CHOCO. COLD with top-10% is "
        "left out: gamma = 0.001 oscillates here after 20,000 rounds, and its safe gamma, a twelfth, is too slow.",
    )  # fmt: skip


def gap() -> Graphs:
    others = ("complete", "exponential", "torus", "ring", "path")
    along = lambda text, label, what: in_order(text, *(on(label, f"{name} 16") for name in others), statistic=what)
    axes_at_random = lambda n: least_squares(n, spread=10.0)
    return Graphs(
        title="The spectral gap",
        problem=lambda: axes_at_random(16),
        problem_of=axes_at_random,
        curves=(curve("NIDS", "nids"), lead("LEAD, 2 levels", TWO_LEVELS)),
        settling=(
            curve("DGD (ATC), 1/(4 L)", "dgd", factor=0.25),
            curve("CHOCO, top-4, cg = 0.2, 1/(4 L)", "choco_sgd", "top_k:4", factor=0.25, cg=0.2),
        ),
        rings=(8, 16, 32, 64, 128, 256),
        others=others,
        beside=16,
        rel_gap=1e-10,
        every=1,
        deepest=1e-5,
        note=f"kappa = {KAPPA:g}; bits are counted per edge",
        claims=(
            along("steps of NIDS: complete < exponential < torus < ring < path (O5)", "NIDS", STEPS),
            along("steps of LEAD: the same order (O5)", "LEAD, 2 levels", STEPS),
            along("floors of DGD: the same order (O5)", "DGD (ATC), 1/(4 L)", FLOORS),
            along("floors of CHOCO: the same order", "CHOCO, top-4, cg = 0.2, 1/(4 L)", FLOORS),
            Claim("steps of NIDS on large rings grow like kappa_g (exponent 0.85 to 1.15)", ("NIDS",),
                  statistic=EXPONENT, least=0.85, most=1.15),
        ),
        said=f"kappa = L/mu = {KAPPA:g} of every node, whose axes are at random, so that the mean is easier than "
        f"they are and the graph shows early. No bits are compared here; {COUNTED}.",
    )  # fmt: skip


def training() -> Training:
    gammas = {"gamma": [0.01, 0.03, 0.1]}
    node = lambda name, method, compressor=None, **changes: Contender(
        method, compressor, {"topology": "ring"}, {"batch_size": 32, **changes}, gammas, name=name
    )
    return Training(
        title="Digits over a ring of 8 nodes with classes of their own",
        problem=digits,
        curves=(
            node("D-PSGD", "dgd"),
            node("PowerGossip, rank 1", "power_gossip"),
            node("PowerGossip, rank 2", "power_gossip", rank=2),
            node("CHOCO, top-1%", "choco_sgd", "top_k:1%", cg=0.05),
            node("CHOCO, top-5%", "choco_sgd", "top_k:5%", cg=0.2),
            node("CHOCO, sign", "choco_sgd", "sign", cg=0.3),
        ),
        rounds=600,
        every=20,
        seeds=3,
        tune_rounds=300,
        extensions=1,
        criterion="value",
        reach=0.9,
        note=f"ring; {COUNTED}",
        claims=(
            Claim("compression needs fewer bits to 90 %", ("PowerGossip*", "CHOCO*"), ("D-PSGD",), BITS),
            Claim("PowerGossip, rank 1, without a consensus step size, is within two points of D-PSGD",
                  ("PowerGossip, rank 1",), ("D-PSGD",), "accuracy", margin=-0.02),
            Claim("CHOCO with top-5% and signs is within two points of D-PSGD", ("CHOCO, top-5%", "CHOCO, sign"),
                  ("D-PSGD",), "accuracy", margin=-0.02),
        ),
        said=f"{MODEL} on 8 x 8 digits, split by Dirichlet(0.3); batches of 32; accuracy of the average model. "
        f"Bits up are sent, bits down received: {COUNTED}.",
    )  # fmt: skip


FIGURES: dict[str, Any] = {
    "ring": floors("Who reaches the solution, ring of 8 nodes", "ring", 8),
    "erdos": floors("Who reaches the solution, Erdos-Renyi graph of 16 nodes", "erdos_renyi:0.3,seed=1", 16),
    "equal-optima": floors("Nodes with one optimum, ring of 8 nodes", "ring", 8, same=True),
    "bits": bits(),
    "gap": gap(),
    "a5a": a5a(),
    "digits": training(),
}
