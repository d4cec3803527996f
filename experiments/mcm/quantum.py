"""Logistic regression on quantum, split by clusters, b = 400, gamma = 1/L; arXiv 2102.12528.

Needs mcm/phy_train.csv in FEDJAX_LC_DATA: the training set of KDD Cup 2004's physics task.
"""

from experiments.mcm._common import real

FIGURE = real("quantum", batch=400, rounds=1)
