"""What the figures of the LoCoDL paper (arXiv 2403.04348, experiments) share: methods, compressors, claims."""

from __future__ import annotations

import math

from experiments.kit.comparison import Claim, Comparison, Curve, make_problem
from fedjax_lc import data
from fedjax_lc.problems import Problem

KAPPA = 1e4


def curves(dim: int, num_clients: int) -> tuple[Curve, ...]:
    """LoCoDL first (the leaders), then what it is compared to; k = max(1, ceil(d/n)) throughout."""
    k = max(1, math.ceil(dim / num_clients))
    both = f"rand_k:{k}|natural"
    return (
        *(Curve("locodl", c) for c in (both, "natural", f"rand_k:{k}", "l1_select")),
        Curve("compressed_scaffnew", choices={"bits": "max"}),
        Curve("five_gcs_cc", both, note="constants uncertain"),
        *(Curve("adiana", c) for c in (both, "natural")),
        *(Curve("diana", c) for c in (both, "natural")),
    )


CLAIMS = (
    Claim("LoCoDL with rand-k and natural needs the fewest bits", "LoCoDL, rand_k:*|natural", "*"),
    Claim("LoCoDL needs fewer bits than CompressedScaffnew", "LoCoDL*", "CompressedScaffnew*"),
    Claim("CompressedScaffnew needs fewer bits than ADIANA", "CompressedScaffnew*", "ADIANA*"),
    Claim("5GCS-CC needs fewer bits than ADIANA", "5GCS-CC*", "ADIANA*"),
    Claim("LoCoDL needs fewer bits than ADIANA", "LoCoDL*", "ADIANA*"),
    Claim("ADIANA improves on DIANA", "ADIANA*", "DIANA*"),
)


def problem_of(name: str, num_clients: int, dim: int, scale: str = "none") -> Problem:
    """Logistic regression on a LIBSVM set with its own `dim` columns: shuffled, split equally, remainder dropped."""
    return make_problem(data.load(name, scale=scale, n_features=dim), num_clients, "iid", kappa=KAPPA)


def libsvm(name: str, num_clients: int, dim: int, *, scale: str = "none") -> Comparison:
    """The comparison on `problem_of` that set."""
    return Comparison(
        title=f"{name}, n = {num_clients}",
        problem=lambda: problem_of(name, num_clients, dim, scale),
        curves=curves(dim, num_clients),
        leaders=4,
        claims=CLAIMS,
    )


def dirichlet(alpha: float) -> Comparison:
    """LoCoDL against ADIANA on synthetic logistic regression, n = 100, d = 10, Dirichlet-split with this alpha."""
    n, d = 100, 10
    k = max(1, math.ceil(d / n))
    compressors = (f"rand_k:{k}|natural", "natural", f"rand_k:{k}")

    def problem() -> Problem:
        return make_problem(data.load(f"synthetic_dirichlet:num_clients={n},dim={d},alpha={alpha:g}"), kappa=KAPPA)

    return Comparison(
        title=f"Dirichlet-split synthetic data, alpha = {alpha:g}",
        problem=problem,
        curves=tuple(Curve(method, c) for method in ("locodl", "adiana") for c in compressors),
        leaders=len(compressors),
        claims=(Claim("LoCoDL needs fewer bits than ADIANA", "LoCoDL*", "ADIANA*"),),
    )
