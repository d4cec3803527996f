"""What the figures of methods without a server share: clients that differ, step sizes in units of 1/L, methods."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from experiments._networks import UNUSED
from experiments._quadratics import quadratics
from experiments.kit.contender import Contender
from experiments.kit.recipe import make_problem
from fedjax_lc import data, problems
from fedjax_lc.problems import Problem

DIM, KAPPA = 16, 20.0
#: how bits are counted
COUNTED = "a message costs its bits for each neighbour it goes to (per_edge)"
SENT = "bits sent per node, per_edge"
MODEL = "mlp:hidden=64"
TWO_LEVELS = "qsgd:2,norm=inf"


def least_squares(n: int, alike: bool = False, spread: float = 0.1) -> Problem:
    """`quadratics` of condition KAPPA; alike: of one optimum."""
    return quadratics(n, DIM, KAPPA, spread, 0.0 if alike else 1.0)


def over_L(problem: Problem, factor: float = 1.0) -> float:
    """factor/L, L = max_i L_i."""
    return factor / float(jnp.max(problem.smooth))


def curve(
    name: str,
    method: str,
    compressor: str | None = None,
    *,
    graph: str = "ring",
    step: str = "gamma",
    factor: float = 1.0,
    also: tuple[str, ...] = (),
    **changes: Any,
) -> Contender:
    """A method on a graph whose step size, the field `step`, is factor/L; `changes` replace other fields, and `also`
    are scaled with the step size."""
    changes = {step: lambda problem, hp: over_L(problem, factor)} | changes
    return Contender(method, compressor, {"topology": graph}, changes, name=name, scaled=(step, *also))


def logistic(n: int) -> Problem:
    """Logistic regression on a5a, shuffled and split equally."""
    return make_problem(data.load("a5a"), n, "iid", kappa=1e3)


def digits() -> Problem:
    """A network on the 8 x 8 digits, over eight nodes with classes of their own."""
    return problems.problem(data.load("digits"), 8, "dirichlet:0.3", MODEL, smooth=UNUSED, test_share=0.25)


def lead(name: str, compressor: str, graph: str = "ring", gamma: float = 1.0) -> Contender:
    """LEAD as in its paper's experiments, at 1/L."""
    return curve(name, "lead", compressor, graph=graph, step="eta", gamma=gamma, alpha=0.5, init="local")


def lessbit(option: str, factor: float) -> Contender:
    """LESSBIT with rand-8 at so many times its theory's theta."""
    changes = {"theta": lambda problem, hp: factor * hp.theta}
    choices = {"topology": "ring", "option": option}
    return Contender("lessbit", "rand_k:8", choices, changes, name=f"LESSBIT-{option}, rand-8")


def exact(graph: str) -> tuple[Contender, ...]:
    """Methods that end at the solution: gradient tracking and primal-dual ones."""
    return (
        curve("NIDS", "nids", graph=graph),
        curve("EXTRA", "extra", graph=graph),
        curve("DIGing (ATC)", "diging", graph=graph, form="atc"),
        curve("BEER, top-8", "beer", "top_k:8", graph=graph, step="eta", cg=0.5),
        lead("LEAD, 2 levels", TWO_LEVELS, graph),
        curve("COLD, top-4", "cold", "top_k:4", graph=graph, step="eta", also=("gamma",), gamma=0.1),
        curve("Dyna-COLD, 1 bit", "dyna_cold", graph=graph, step="eta", sigma=0.995),
        curve("LESSBIT-B, rand-8", "lessbit", "rand_k:8", graph=graph, step="eta", theta=lambda _, hp: 8 * hp.theta),
    )


def biased(graph: str) -> tuple[Contender, ...]:
    """Methods that settle at a distance from it where nodes differ; gamma, mu/zeta of DEF-ATC, is the step size."""
    return (
        curve("DGD (ATC)", "dgd", graph=graph),
        curve("DGD", "dgd", graph=graph, order="dgd"),
        curve("PowerGossip, rank 2", "power_gossip", graph=graph, order="atc", rank=2),
        curve("PowerGossip, rank 1", "power_gossip", graph=graph, order="atc"),
        curve("CHOCO, top-4", "choco_sgd", "top_k:4", graph=graph, cg=0.2),
        curve("DEF-ATC, top-4", "def_atc", "top_k:4", graph=graph, step="mu", factor=0.5, zeta=0.5, cg=0.2),
        curve("DeepSqueeze, top-4", "deep_squeeze", "top_k:4", graph=graph, cg=0.02),
    )
