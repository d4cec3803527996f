"""Tuned: LoCoDL and its rivals on diabetes with 73 clients (n > d); arXiv 2403.04348."""

from experiments.locodl.tuned._common import libsvm

NUM_CLIENTS = 73
DIM = 8

FIGURE = libsvm("diabetes", NUM_CLIENTS, DIM, scale="minmax")
