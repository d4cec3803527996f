"""Least squares on superconduct, split by clusters, b = 50, gamma = 1/L; arXiv 2102.12528.

Needs mcm/superconduct.csv in FEDJAX_LC_DATA: train.csv of UCI's data set 464, Superconductivty Data.
"""

from experiments.mcm._common import real

FIGURE = real("superconduct", batch=50, rounds=5)
