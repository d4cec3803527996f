"""Norms of A^T A for smoothness constants, of an array or of a SciPy CSR array (without making it dense)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_lc.core.shares import of_each, several
from fedjax_lc.data.sparse import is_sparse

GRAM_UP_TO = 500  #: rows or columns up to which the Gram matrix of a sparse matrix is computed
BLOCK = 256  #: rows of a large Gram matrix at a time


def weighted(A: Any, roots: np.ndarray, apart: Callable[[np.ndarray], list[np.ndarray]]) -> tuple[Any, Any]:
    """The clients' matrices with rows multiplied by `roots`, a table of all, and all their rows as one matrix; `apart`
    returns the rows of each client, of all rows."""
    if isinstance(A, np.ndarray):
        whole = (A * roots[..., None]).reshape(-1, A.shape[-1])
        return apart(whole), whole
    from scipy.sparse import vstack

    scaled = [
        part.multiply(root[: part.shape[0], None]).tocsr() for part, root in zip(A, apart(roots.ravel()), strict=True)
    ]
    return scaled, vstack(scaled, format="csr")


def spectral(B: Any) -> float:
    """Largest eigenvalue of B^T B, by the smaller of the two Gram matrices."""
    if is_sparse(B) and min(B.shape) > GRAM_UP_TO:
        return _lanczos(B) if B.nnz else 0.0
    gram = B.T @ B if B.shape[0] >= B.shape[1] else B @ B.T
    return float(np.linalg.eigvalsh(gram.toarray() if is_sparse(gram) else gram)[-1])


def frobenius(B: Any) -> float:
    """Frobenius norm of B^T B, by the smaller of the two Gram matrices."""
    if is_sparse(B):
        side = B.T.tocsr() if B.shape[0] >= B.shape[1] else B
        squares = [(side[k : k + BLOCK] @ side.T).power(2).sum() for k in range(0, side.shape[0], BLOCK)]
        return float(np.sqrt(sum(squares)))
    return float(np.linalg.norm(B.T @ B if B.shape[0] >= B.shape[1] else B @ B.T))


def of_all(B: Any, norm: Callable[[Any], float]) -> float:
    """`spectral` or `frobenius` of the rows of all processes, of which this one has B; the same in each."""
    if not several():
        return norm(B)
    return float(of_each(_spectral_of_all(B) if norm is spectral else _frobenius_of_all(B))[0])


def _total(part: np.ndarray) -> np.ndarray:
    return of_each(part).sum(axis=0)


def _spectral_of_all(B: Any) -> float:
    turned, d = B.T.tocsr() if is_sparse(B) else B.T, B.shape[1]
    if d <= GRAM_UP_TO:
        return float(np.linalg.eigvalsh(_total(_dense(turned @ B)))[-1])
    entries = _total(np.array((B.data if is_sparse(B) else B).any(), float))
    return _largest(lambda v: _total(turned @ (B @ v)), d) if entries else 0.0


def _frobenius_of_all(B: Any) -> float:
    turned, d = B.T.tocsr() if is_sparse(B) else B.T, B.shape[1]
    squares = [np.sum(_total(_dense(turned @ B[:, k : k + BLOCK])) ** 2) for k in range(0, d, BLOCK)]
    return float(np.sqrt(sum(squares)))


def _dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if is_sparse(matrix) else matrix


def _lanczos(B: Any) -> float:
    """`spectral` to the precision of float64 by Lanczos, from products with B only."""
    side, turned = (B.T.tocsr(), B) if B.shape[0] >= B.shape[1] else (B, B.T.tocsr())
    return _largest(lambda v: side @ (turned @ v), side.shape[0])


def _largest(times: Callable[[np.ndarray], np.ndarray], d: int) -> float:
    """The largest eigenvalue of a symmetric (d, d) matrix, from products with it."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    gram = LinearOperator((d, d), matvec=times, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=d)
    return float(eigsh(gram, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
