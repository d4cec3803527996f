"""The binary d x n mask of CompressedScaffnew and TAMUNA: exactly s ones in every row."""

from __future__ import annotations

import numpy as np


def template(d, n, s):
    q = np.zeros((d, n), dtype=int)
    if s * d >= n:
        for k in range(d):
            for j in range(s * k, s * (k + 1)):
                q[k, j % n] = 1
    else:
        for i in range(s * d):
            q[i % d, i] = 1
    return q


def mask(d, n, s, permutation):
    """Column i of the mask is column permutation[i] of the template."""
    q, base = np.zeros((d, n), dtype=int), template(d, n, s)
    for i in range(n):
        q[:, i] = base[:, permutation[i]]
    return q
