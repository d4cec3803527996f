"""Tuned: LoCoDL and its rivals on w1a with 619 clients (n > d); arXiv 2403.04348."""

from experiments.locodl.tuned._common import libsvm

NUM_CLIENTS = 619
DIM = 300

FIGURE = libsvm("w1a", NUM_CLIENTS, DIM)
