"""The main job in half a minute."""

from experiments.kit.comparison import Comparison
from experiments.kit.contender import Contender
from experiments.kit.recipe import make_problem
from fedjax_lc import data

FIGURES = {
    "demo": Comparison(
        title="breast_cancer over 10 clients: logistic regression, kappa = 1e4",
        problem=lambda: make_problem(data.load("breast_cancer", scale="standard"), 10, "iid", kappa=1e4),
        curves=(
            Contender("locodl", "rand_k:3|natural"),
            Contender("locodl", "natural"),
            Contender("compressed_scaffnew"),
            Contender("scaffnew"),
            Contender("adiana", "natural"),
            Contender("diana", "natural"),
            Contender("gd"),
        ),
        leaders=2,
        bits_ratio=None,
    )
}
