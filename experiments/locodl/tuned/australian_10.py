"""Tuned: LoCoDL and its rivals on australian_scale with 10 clients (n < d); arXiv 2403.04348."""

from experiments.locodl.tuned._common import libsvm

NUM_CLIENTS = 10
DIM = 14

FIGURE = libsvm("australian_scale", NUM_CLIENTS, DIM)
