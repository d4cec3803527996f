"""DEF-ATC: diffusion with compressed differences, error feedback and damping; for compressors of finite bits too.

    psi = X - (mu/zeta) G(X) ;   s = psi - phi + z ;   dl = C(s) ;   z = s - dl ;   phi += zeta dl
    X = (1 - cg) phi + cg W phi

Nassif, Carpentiero, Vlaski, Matta, Sayed, "Differential error feedback for communication-efficient decentralized
learning", arXiv 2406.18418, the case of consensus (from the code of FSPDA, which cites the paper; start values are not
known). The division by the damping zeta makes the average move by mu; without it: scaled=False.

mean_i(phi_i + zeta z_i) moves by exactly -mu mean G(X). The floor with full gradients is that of `choco_sgd` with gamma
= mu/zeta and the same cg, whatever C.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames.base import Cost, choose, gradients, register
from fedjax_lc.algorithms.frames.gossip import MODELS, Gossip, chosen, start, zeros
from fedjax_lc.algorithms.frames.mixing import Topology
from fedjax_lc.algorithms.frames.rules import largest_step
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import hyperparameter
from fedjax_lc.core.typing import ClientVecs, Key, Scalar
from fedjax_lc.problems import Problem


@pytree.dataclass
class Hparams(Gossip):
    compressor: Compressor = hyperparameter("compressor of the messages, contractive")
    mu: Scalar = hyperparameter("step size of the average", "(0, inf)")
    zeta: Scalar = hyperparameter("damping: how far memories move to what was sent", "(0, 1]")
    cg: Scalar = hyperparameter("consensus step size: share of the mixed memories in the models", "(0, 1]")
    scaled: bool = hyperparameter("whether a gradient step has length mu/zeta instead of mu", default=True)
    start: str = hyperparameter(
        "memories at the start: zero, or x0, which is free where all nodes start there", ("zero", "x0"), default="zero"
    )


class State(NamedTuple):
    x: ClientVecs  # (n, d) the nodes' models
    phi: ClientVecs  # (n, d) memories, which the neighbours have too
    z: ClientVecs  # (n, d) errors


def init(problem: Problem, hp: Hparams, key: Key) -> State:
    x = start(problem)
    return State(x, x if hp.start == "x0" else zeros(problem), zeros(problem))


def step(problem: Problem, hp: Hparams, state: State, key: Key) -> tuple[State, Cost]:
    batch_key, message_key = jax.random.split(key)
    links, (x, phi, z) = hp.links(problem), state
    G, passes = gradients(problem, hp, x, batch_key)
    psi = x - hp.mu / (hp.zeta if hp.scaled else 1) * G
    s = psi - phi + z
    delta = hp.compressor.joint(message_key, s)
    phi = phi + hp.zeta * delta.value
    return State(phi + hp.cg * links.pull(phi), phi, s - delta.value), links.cost(delta.bits, passes)


def theory(problem: Problem, topology: Topology | str = "ring", compressor: Compressor | str | None = None) -> Hparams:
    """zeta = 1/2, cg = min(1/2, delta), mu = min{1/4, delta/2}/L, L = max_i L_i (a choice of ours, measured to be
    stable). Of a network mu/zeta is 1/L."""
    kept, _ = chosen(topology, problem)
    C = choose(compressor, problem, contractive=True)
    delta, L = float(C.delta(problem.dim)), float(jnp.max(problem.smooth))
    zeta = 0.5
    mu = zeta * largest_step(problem, min(0.25, delta / 2) / (zeta * L))
    return Hparams(C, mu, zeta, min(0.5, delta), start="x0", topology=kept)


register(
    "def_atc",
    title="DEF-ATC",
    up="C(ψ_i - φ_i + z_i) to neighbours",
    down="mixed φ",
    speed="floor O(μ), as without compression (from the abstract)",
    paper="2406.18418 Differential error feedback for communication-efficient decentralized learning",
    Hparams=Hparams,
    init=init,
    step=step,
    **MODELS,
    theory=theory,
)
