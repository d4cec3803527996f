"""The figures of LoCoDL (arXiv 2403.04348): its rivals on LIBSVM sets, on Dirichlet-split data, and its choice of p."""

from experiments.kit.comparison import Comparison
from experiments.kit.contender import Contender
from experiments.kit.recipe import make_problem
from experiments.locodl._common import KAPPA, SETS, dirichlet, fewer, libsvm
from fedjax_lc import data

COMPRESSORS = ("rand_k:2|natural", "natural", "rand_k:2", "identity")

FIGURES = {
    **{name: libsvm(*given) for name, given in SETS.items()},
    "dirichlet-1": dirichlet(1),
    "dirichlet-10": dirichlet(10),
    "ablation-p": Comparison(
        title="LoCoDL: theory p against balanced p",
        problem=lambda: make_problem(data.load("australian_scale"), 10, "iid", kappa=KAPPA),
        curves=tuple(
            Contender("locodl", compressor, {"p": p}, note=f"{p} p")
            for compressor in COMPRESSORS
            for p in ("theory", "balanced")
        ),
        leaders=2 * len(COMPRESSORS),
        claims_are="expected, from the rate",
        claims=(
            fewer(
                "balanced p needs fewer bits with rand-k and natural", "*|natural, balanced p", "*|natural, theory p"
            ),
            fewer("balanced p needs fewer bits with natural", "*, natural, balanced p", "*, natural, theory p"),
        ),
    ),
}
