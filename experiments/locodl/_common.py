"""What the figures of the LoCoDL paper (arXiv 2403.04348, experiments) share: methods, compressors, claims."""

from __future__ import annotations

import math

from experiments.kit.claim import Claim
from experiments.kit.comparison import Comparison
from experiments.kit.contender import Contender
from experiments.kit.recipe import make_problem
from fedjax_lc import data
from fedjax_lc.problems import Problem

KAPPA = 1e4
#: name of a figure -> data set, clients (n < d, or n > 2d), columns, scale
SETS = {
    "a5a-87": ("a5a", 87, 122, "none"),
    "a5a-288": ("a5a", 288, 122, "none"),
    "australian-10": ("australian_scale", 10, 14, "none"),
    "australian-46": ("australian_scale", 46, 14, "none"),
    "diabetes-37": ("diabetes", 37, 8, "minmax"),
    "diabetes-73": ("diabetes", 73, 8, "minmax"),
    "w1a-87": ("w1a", 87, 300, "none"),
    "w1a-619": ("w1a", 619, 300, "none"),
}


def curves(dim: int, num_clients: int) -> tuple[Contender, ...]:
    """LoCoDL first (the leaders), then what it is compared to; k = max(1, ceil(d/n)) throughout."""
    k = max(1, math.ceil(dim / num_clients))
    both = f"rand_k:{k}|natural"
    return (
        *(Contender("locodl", c) for c in (both, "natural", f"rand_k:{k}", "l1_select")),
        Contender("compressed_scaffnew", choices={"bits": "max"}),
        Contender("five_gcs_cc", both, note="constants uncertain"),
        *(Contender("adiana", c) for c in (both, "natural")),
        *(Contender("diana", c) for c in (both, "natural")),
    )


def fewer(text: str, better: str, worse: str) -> Claim:
    """The best curve of one pattern needs fewer bits than the best of another."""
    return Claim(text, (better,), (worse,), bests=True)


CLAIMS = (
    fewer("LoCoDL with rand-k and natural needs the fewest bits", "LoCoDL, rand_k:*|natural", "*"),
    fewer("LoCoDL needs fewer bits than CompressedScaffnew", "LoCoDL*", "CompressedScaffnew*"),
    fewer("CompressedScaffnew needs fewer bits than ADIANA", "CompressedScaffnew*", "ADIANA*"),
    fewer("5GCS-CC needs fewer bits than ADIANA", "5GCS-CC*", "ADIANA*"),
    fewer("LoCoDL needs fewer bits than ADIANA", "LoCoDL*", "ADIANA*"),
    fewer("ADIANA improves on DIANA", "ADIANA*", "DIANA*"),
)


def problem_of(name: str, num_clients: int, dim: int, scale: str) -> Problem:
    """Logistic regression on a LIBSVM set with its own `dim` columns: shuffled, split equally, remainder dropped."""
    return make_problem(data.load(name, scale=scale, n_features=dim), num_clients, "iid", kappa=KAPPA)


def libsvm(name: str, num_clients: int, dim: int, scale: str) -> Comparison:
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
        curves=tuple(Contender(method, c) for method in ("locodl", "adiana") for c in compressors),
        leaders=len(compressors),
        claims=(fewer("LoCoDL needs fewer bits than ADIANA", "LoCoDL*", "ADIANA*"),),
    )
