"""Tuned: LoCoDL and its rivals on a5a with 288 clients (n > d); arXiv 2403.04348."""

from experiments.locodl.tuned._common import libsvm

NUM_CLIENTS = 288
DIM = 122

FIGURE = libsvm("a5a", NUM_CLIENTS, DIM)
