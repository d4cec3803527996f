"""LoCoDL's probability of communication: the paper's choice against the balanced one, on australian_scale; n = 10."""

from experiments.kit.comparison import Claim, Comparison, Curve, make_problem
from experiments.locodl._common import KAPPA
from fedjax_lc import data

NUM_CLIENTS = 10
COMPRESSORS = ("rand_k:2|natural", "natural", "rand_k:2", "identity")

FIGURE = Comparison(
    title="LoCoDL: theory p against balanced p",
    problem=lambda: make_problem(data.load("australian_scale"), NUM_CLIENTS, "iid", kappa=KAPPA),
    curves=tuple(
        Curve("locodl", compressor, {"p": p}, note=f"{p} p")
        for compressor in COMPRESSORS
        for p in ("theory", "balanced")
    ),
    leaders=2 * len(COMPRESSORS),
    claims_are="expected, from the rate",
    claims=(
        Claim("balanced p needs fewer bits with rand-k and natural", "*|natural, balanced p", "*|natural, theory p"),
        Claim("balanced p needs fewer bits with natural", "LoCoDL, natural, balanced p", "LoCoDL, natural, theory p"),
    ),
)
