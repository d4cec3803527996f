"""The feature matrices A_i of linear problems behind one interface, `Features`: dense or sparse.

Models use the interface only: predictions A_i x, products A_i^T s, and the rows of a batch. The sparse form divides the
entries of a row into pieces of PIECE entries, so that a few long rows, as texts have them, do not pad all others. For
20,242 rows with 72 entries on average and 1060 at most, a gradient takes 12 ms on a two-core CPU; with JAX's BCOO it
takes 40 ms, with every row padded to the longest 340 ms, and the dense form would be 7.6 GB. An accelerator runs the
same; its times were not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import FEW_LANES, on_cpu, whole_vectors

PIECE = 16  #: entries of a piece of a row; 8 and 32 are as fast on a CPU


class Features(Protocol):
    """The operations of linear models on the matrices A_i (m, d) of all n clients."""

    @property
    def width(self) -> int:
        """Number of columns d."""

    def predict(self, x: jax.Array) -> jax.Array:
        """(n, m) products A_i x, or A_i x_i for x (n, d)."""

    def pull_back(self, s: jax.Array) -> jax.Array:
        """(n, d) products A_i^T s_i of s (n, m)."""

    def predict_classes(self, W: jax.Array) -> jax.Array:
        """(n, m, C) products A_i W, or A_i W_i for W (n, d, C)."""

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        """(n, d, C) products A_i^T S_i of S (n, m, C)."""

    def together(self, lanes: int, dtype: Any) -> bool:
        """Whether a CPU computes this many lanes faster in one product than one after the other."""

    def predict_lanes(self, X: jax.Array) -> jax.Array:
        """(n, lanes, m) products A_i x of many lanes, X (lanes, d) or (lanes, n, d)."""

    def pull_back_lanes(self, S: jax.Array) -> jax.Array:
        """(lanes, n, d) products A_i^T s_i of many lanes, S (n, lanes, m)."""

    def for_lanes(self) -> Any:
        """The same matrices, with arrays precomputed that products over lanes need at every step."""

    def take(self, picks: jax.Array) -> Any:
        """The matrices of the rows `picks` (n, b), numbered within each client."""

    def of(self, clients: jax.Array) -> Any:
        """The matrices of these clients, (c,) indices."""


@pytree.dataclass
class Dense:
    """Dense matrices.

    Attributes:
        array: (n, m, d') the matrices, with zero columns beyond d.
        width: d, the number of columns.
        turned: (n, d', m) the transposed matrices, see `for_lanes`; or None.
    """

    array: jax.Array
    width: int = pytree.static()
    turned: jax.Array | None = None

    def predict(self, x: jax.Array) -> jax.Array:
        x = self._widened(x)
        return products.matmul(self.array, x) if x.ndim == 1 else products.einsum("nmd,nd->nm", self.array, x)

    def pull_back(self, s: jax.Array) -> jax.Array:
        return products.einsum("nmd,nm->nd", self.array, s)[:, : self.width]

    def predict_classes(self, W: jax.Array) -> jax.Array:
        return products.matmul(self.array, W) if W.ndim == 2 else products.einsum("nmp,npc->nmc", self.array, W)

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        return products.einsum("nmp,nmc->npc", self.array, S)

    def together(self, lanes: int, dtype: Any) -> bool:
        return lanes >= FEW_LANES.get(dtype.itemsize, 2)

    def predict_lanes(self, X: jax.Array) -> jax.Array:
        wide = self._widened(X)
        if X.ndim == 2:  # one product for all clients
            return jnp.swapaxes(products.einsum("nmd,ld->nml", self.array, wide), 1, 2)
        turned = jnp.swapaxes(self.array, 1, 2) if self.turned is None else self.turned
        return products.einsum("lnd,ndm->nlm", wide, turned)

    def pull_back_lanes(self, S: jax.Array) -> jax.Array:
        return jnp.swapaxes(products.einsum("nlm,nmd->nld", S, self.array), 0, 1)[..., : self.width]

    def for_lanes(self) -> Dense:
        """On a CPU also the transposed array, which XLA would otherwise compute for each product."""
        return pytree.replace(self, turned=jnp.swapaxes(self.array, 1, 2)) if on_cpu() else self

    def take(self, picks: jax.Array) -> Dense:
        n, m, columns = self.array.shape
        rows = self.array.reshape(n * m, columns)  # a CPU copies its rows as a whole, those of (n, m, d') by entries
        return Dense(rows.at[_flat(picks, m)].get(mode="promise_in_bounds"), self.width)

    def of(self, clients: jax.Array) -> Dense:
        return Dense(self.array[clients], self.width)

    def _widened(self, x: jax.Array) -> jax.Array:
        """x (..., d) padded with zeros to (..., d')."""
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.array.shape[-1] - self.width)])


@pytree.dataclass
class Sparse:
    """Sparse matrices; the entries of each row lie in pieces of PIECE entries. Padding has the value 0.

    Attributes:
        columns, values: (n, P, PIECE) column and value of each entry.
        owners: (n, P) the row of each piece, in increasing order.
        first: (n, m) the first piece of each row.
        width: d, the number of columns.
        most: the largest number of pieces of a row.
    """

    columns: jax.Array
    values: jax.Array
    owners: jax.Array
    first: jax.Array
    width: int = pytree.static()
    most: int = pytree.static()

    def predict(self, x: jax.Array) -> jax.Array:
        places = self.columns if x.ndim == 1 else _flat(self.columns, self.width)
        sums = jnp.sum(self.values * x.reshape(-1).at[places].get(mode="promise_in_bounds"), axis=-1)
        z = jnp.zeros(self.first.size, sums.dtype)
        rows = _flat(self.owners, self.first.shape[1])
        z = z.at[rows].add(sums, indices_are_sorted=True, mode="promise_in_bounds")
        return z.reshape(self.first.shape)

    def pull_back(self, s: jax.Array) -> jax.Array:
        terms = self.values * jnp.take_along_axis(s, self.owners, axis=1)[..., None]
        n = self.columns.shape[0]
        g = jnp.zeros(n * self.width, terms.dtype)
        return g.at[_flat(self.columns, self.width)].add(terms, mode="promise_in_bounds").reshape(n, self.width)

    def predict_classes(self, W: jax.Array) -> jax.Array:
        return jax.vmap(self.predict, -1, -1)(W)

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        return jax.vmap(self.pull_back, -1, -1)(S)

    def together(self, lanes: int, dtype: Any) -> bool:
        return False

    def predict_lanes(self, X: jax.Array) -> jax.Array:
        return jax.vmap(self.predict, out_axes=1)(X)

    def pull_back_lanes(self, S: jax.Array) -> jax.Array:
        return jax.vmap(self.pull_back, in_axes=1)(S)

    def for_lanes(self) -> Sparse:
        return self

    def take(self, picks: jax.Array) -> Sparse:
        (n, b), P = picks.shape, self.owners.shape[1]
        place = jnp.arange(b, dtype=jnp.int32)
        first = jnp.take_along_axis(self.first, picks, axis=1)
        following = first[..., None] + jnp.arange(self.most, dtype=jnp.int32)[None, None]
        following = following.reshape(n, -1)  # `most` pieces for every row; those of other rows get the value 0
        pieces = jnp.minimum(following, P - 1)
        row = jnp.take_along_axis(self.owners, pieces, axis=1)
        belongs = (following < P) & (row == jnp.repeat(picks, self.most, axis=1))
        values = jnp.take_along_axis(self.values, pieces[..., None], axis=1)
        return Sparse(
            jnp.take_along_axis(self.columns, pieces[..., None], axis=1),
            jnp.where(belongs[..., None], values, 0),
            jnp.broadcast_to(jnp.repeat(place, self.most), pieces.shape),
            jnp.broadcast_to(place * self.most, (n, b)),
            self.width,
            self.most,
        )

    def of(self, clients: jax.Array) -> Sparse:
        return jax.tree.map(lambda leaf: leaf[clients], self)


def _flat(index: jax.Array, size: int) -> jax.Array:
    """Indices (n, ...) into the rows of an (n, size) array as indices into the flattened array.

    A gather or scatter with vmap over clients, or with two indices, takes a CPU up to four times as long.
    """
    n = index.shape[0]
    return index + (jnp.arange(n, dtype=jnp.int32) * size).reshape(n, *[1] * (index.ndim - 1))


# --- from the host's matrices ---


def laid_out(A: Any, m: int, dtype: Any, *, vectors: bool = True) -> Dense | Sparse:
    """Features of the (n, m, d) array A, or of one CSR array (m_i, d) per client, in float type `dtype`.

    vectors: whether to pad dense rows to whole vector registers of a CPU, for products with vectors.
    """
    if isinstance(A, np.ndarray):
        return Dense(jnp.asarray(whole_vectors(A, dtype) if vectors else A, dtype), A.shape[-1])
    return _in_pieces(A, m, dtype)


def _in_pieces(parts: Sequence[Any], m: int, dtype: Any) -> Sparse:
    n, d = len(parts), parts[0].shape[1]
    if n * d >= 2**31:
        raise InputError(f"{n} clients of {d} features are more than 2^31 numbers: use fewer clients")
    counts = [-(-np.diff(part.indptr) // PIECE) for part in parts]  # pieces of each row
    P = max(1, *(int(count.sum()) for count in counts))
    # Padding uses all columns in turn, so that an accelerator's additions to one column do not queue.
    columns = np.tile((np.arange(P * PIECE) % d).astype(np.int32), (n, 1))
    values = np.zeros((n, P * PIECE), dtype)
    owners, first = np.full((n, P), m - 1, np.int32), np.zeros((n, m), np.int32)
    for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
        rows, starts = len(count), np.cumsum(count) - count
        first[i, :rows] = starts
        owners[i, : count.sum()] = np.repeat(np.arange(rows), count)
        places = np.arange(part.nnz) + np.repeat(starts * PIECE - part.indptr[:-1], np.diff(part.indptr))
        columns[i, places], values[i, places] = part.indices, part.data
    shape = (n, P, PIECE)
    most = max(1, *(int(count.max()) for count in counts))
    entries = jnp.asarray(columns.reshape(shape)), jnp.asarray(values.reshape(shape))
    return Sparse(*entries, jnp.asarray(owners), jnp.asarray(first), d, most)
