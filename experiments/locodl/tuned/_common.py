"""What the tuned comparisons share: the methods and what is tried of each."""

from __future__ import annotations

import math

from experiments.kit.comparison import Claim
from experiments.kit.tuned import Entry, Tuned
from experiments.locodl._common import CLAIMS, problem_of

LOCAL_STEPS = 20  #: of 5GCS-CC's inner solver, one number for all lanes, so that none waits; its theory has 20 to 130
TUNED_CLAIMS = (Claim("LoCoDL needs the fewest bits", "LoCoDL*", "*"), *CLAIMS[1:])


def entries(dim: int, num_clients: int) -> tuple[Entry, ...]:
    """Six methods; compressors with k and 4k entries around the default k = max(1, ceil(d/n)), and natural alone."""
    k = max(1, math.ceil(dim / num_clients))
    more = min(4 * k, dim)
    unbiased = {"compressor": (f"rand_k:{k}|natural", f"rand_k:{more}|natural", "natural")}
    s = max(2, num_clients // dim)
    shares = tuple(dict.fromkeys(min(s * factor, num_clients) for factor in (1, 2, 4)))
    return (
        Entry("locodl", unbiased),
        Entry("compressed_scaffnew", {"s": shares, "bits": ("max",)}),
        Entry("five_gcs_cc", unbiased | {"local_steps": (LOCAL_STEPS,)}),
        Entry("adiana", unbiased),
        Entry("diana", unbiased),
        Entry("ef21", {"compressor": (f"top_k:{k}", f"top_k:{more}", f"top_k:{k}|natural")}),
    )


def libsvm(name: str, num_clients: int, dim: int, *, scale: str = "none") -> Tuned:
    """The tuned comparison on `problem_of` that set."""
    return Tuned(
        title=f"{name}, n = {num_clients}",
        problem=lambda: problem_of(name, num_clients, dim, scale),
        entries=entries(dim, num_clients),
        claims=TUNED_CLAIMS,
    )
