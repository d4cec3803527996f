"""Norms of A^T A for smoothness constants, of an array or of a SciPy CSR array (without making it dense)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedjax_lc.data.sparse import is_sparse

GRAM_UP_TO = 500  #: rows or columns up to which the Gram matrix of a sparse matrix is computed
BLOCK = 256  #: rows of a large Gram matrix at a time


def weighted(A: Any, roots: np.ndarray) -> tuple[Any, Any]:
    """The clients' matrices with rows multiplied by `roots` (n, m), and all their rows as one matrix."""
    if isinstance(A, np.ndarray):
        blocks = A * roots[..., None]
        return blocks, blocks.reshape(-1, A.shape[-1])
    from scipy.sparse import vstack

    scaled = [part.multiply(root[: part.shape[0], None]).tocsr() for part, root in zip(A, roots, strict=True)]
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


def _lanczos(B: Any) -> float:
    """`spectral` to the precision of float64 by Lanczos, from products with B only."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    side, turned = (B.T.tocsr(), B) if B.shape[0] >= B.shape[1] else (B, B.T.tocsr())
    gram = LinearOperator((side.shape[0],) * 2, matvec=lambda v: side @ (turned @ v), dtype=np.float64)
    start = np.random.default_rng(0).normal(size=side.shape[0])
    return float(eigsh(gram, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
