"""LoCoDL against ADIANA on synthetic data split by a Dirichlet law, alpha = 1; arXiv 2403.04348."""

from experiments.locodl._common import dirichlet

ALPHA = 1

FIGURE = dirichlet(ALPHA)
