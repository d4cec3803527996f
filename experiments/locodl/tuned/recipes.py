"""LoCoDL (arXiv 2403.04348) and its rivals, each at its best step size and compressor."""

from experiments.locodl._common import SETS
from experiments.locodl.tuned._common import libsvm

FIGURES = {name: libsvm(*given) for name, given in SETS.items()}
