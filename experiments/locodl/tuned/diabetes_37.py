"""Tuned: LoCoDL and its rivals on diabetes with 37 clients (n > d); arXiv 2403.04348."""

from experiments.locodl.tuned._common import libsvm

NUM_CLIENTS = 37
DIM = 8

FIGURE = libsvm("diabetes", NUM_CLIENTS, DIM, scale="minmax")
