"""What the tuned comparisons share: the methods and what is tried of each."""

from __future__ import annotations

import math

from experiments.kit.contender import Contender
from experiments.kit.tuned import Tuned
from experiments.locodl._common import CLAIMS, fewer, problem_of

LOCAL_STEPS = (5, 10, 20, 40)  #: of 5GCS-CC's inner solver, whose theory has 20 to 130
P_FACTORS = (0.5, 1.0, 2.0, 4.0)  #: of the probability that a step communicates
TUNED_CLAIMS = (fewer("LoCoDL needs the fewest bits", "LoCoDL*", "*"), *CLAIMS[1:])


def entries(dim: int, num_clients: int) -> tuple[Contender, ...]:
    """Six methods; compressors with k and 4k entries around the default k = max(1, ceil(d/n)), and natural alone; p
    where a coin decides when clients talk, local steps where they are a number."""
    k = max(1, math.ceil(dim / num_clients))
    more = min(4 * k, dim)
    unbiased = {"compressor": (f"rand_k:{k}|natural", f"rand_k:{more}|natural", "natural")}
    s = max(2, num_clients // dim)
    shares = tuple(dict.fromkeys(min(s * factor, num_clients) for factor in (1, 2, 4)))
    return (
        Contender("locodl", tune=unbiased | {"p_factor": P_FACTORS}),
        Contender("compressed_scaffnew", tune={"s": shares, "bits": ("max",), "p_factor": P_FACTORS}),
        Contender("five_gcs_cc", tune=unbiased | {"local_steps": LOCAL_STEPS}),
        Contender("adiana", tune=unbiased),
        Contender("diana", tune=unbiased),
        Contender("ef21", tune={"compressor": (f"top_k:{k}", f"top_k:{more}", f"top_k:{k}|natural")}),
    )


def libsvm(name: str, num_clients: int, dim: int, scale: str) -> Tuned:
    """The tuned comparison on `problem_of` that set."""
    return Tuned(
        title=f"{name}, n = {num_clients}, tuned",
        problem=lambda: problem_of(name, num_clients, dim, scale),
        curves=entries(dim, num_clients),
        claims=TUNED_CLAIMS,
    )
