"""The main job in half a minute: breast_cancer over 10 clients, logistic regression, kappa 1e4, float64."""

from experiments.kit.comparison import Comparison, Curve, make_problem
from fedjax_lc import data

NUM_CLIENTS = 10

FIGURE = Comparison(
    title="breast_cancer over 10 clients: logistic regression, kappa = 1e4",
    problem=lambda: make_problem(data.load("breast_cancer", scale="standard"), NUM_CLIENTS, "iid", kappa=1e4),
    curves=(
        Curve("locodl", "rand_k:3|natural"),
        Curve("locodl", "natural"),
        Curve("compressed_scaffnew"),
        Curve("scaffnew"),
        Curve("adiana", "natural"),
        Curve("diana", "natural"),
        Curve("gd"),
    ),
    leaders=2,
    bits_ratio=None,
)
