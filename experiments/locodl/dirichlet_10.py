"""LoCoDL against ADIANA on synthetic data split by a Dirichlet law, alpha = 10; arXiv 2403.04348."""

from experiments.locodl._common import dirichlet

ALPHA = 10

FIGURE = dirichlet(ALPHA)
