"""The feature matrices A_i of linear problems behind one interface, `Features`: dense or sparse, ragged or not.

Models use the interface only: predictions A_i x, products A_i^T s, and the rows of a batch. Numbers of rows, such as
predictions and weights, lie in tables (B, m) of B blocks of m rows. A block is a client, padded to the largest one,
except in the ragged forms (`ragged`, `ragged_sparse`), where the rows of a client fill as many small blocks as they
need.

The sparse form divides the entries of a row into pieces of PIECE entries, so that a few long rows, as texts have them,
do not pad all others. For 20,242 rows with 72 entries on average and 1060 at most, a gradient takes 12 ms on a two-core
CPU; with JAX's BCOO it takes 40 ms, with every row padded to the longest 340 ms, and the dense form would be 7.6 GB. On
an NVIDIA H100, with as many rows of 76 entries and 113 at most, 0.21 ms, 0.22 ms and 1.6 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import jax
import jax.numpy as jnp

from fedjax_lc.core import products, pytree
from fedjax_lc.core.devices import each_device
from fedjax_lc.core.platforms import FEW_LANES, on_cpu

T = TypeVar("T")

Slope: TypeAlias = Callable[..., jax.Array]  #: of predictions and tables, entry by entry

PIECE = 16  #: entries of a piece of a row; 8 and 32 are as fast on a CPU


class Features(Protocol):
    """The operations of linear models on the matrices A_i (m, d) of all n clients."""

    @property
    def width(self) -> int:
        """Number of columns d."""

    @property
    def longest(self) -> int:
        """Rows of the largest client, or more."""

    def predict(self, x: jax.Array) -> jax.Array:
        """(B, m) products A_i x, or A_i x_i for x (n, d)."""

    def pull_back(self, s: jax.Array) -> jax.Array:
        """(n, d) products A_i^T s_i of s (B, m)."""

    def predict_classes(self, W: jax.Array) -> jax.Array:
        """(B, m, C) products A_i W, or A_i W_i for W (n, d, C)."""

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        """(n, d, C) products A_i^T S_i of S (B, m, C)."""

    def together(self, lanes: int, dtype: Any) -> bool:
        """Whether a CPU computes this many lanes faster in one product than one after the other."""

    def gradients(self, x: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        """(n, d) products A_i^T s_i of s = slope(z, *tables), for the predictions z of x and tables (B, m)."""

    def lane_gradients(self, X: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        """(lanes, n, d) the same of many lanes, X (lanes, d) or (lanes, n, d)."""

    def for_lanes(self) -> Any:
        """The same matrices, with arrays precomputed that products over lanes need at every step."""

    def take(self, picks: jax.Array) -> Any:
        """The matrices of the rows `picks` (n, b), numbered within each client."""

    def of(self, clients: jax.Array) -> Any:
        """The matrices of these clients, (c,) indices."""

    def table_of(self, table: jax.Array, clients: jax.Array) -> jax.Array:
        """The rows of a table (B, m) that belong to these clients, as a table of `of(clients)`; 0 where it has none."""

    def picked(self, table: jax.Array, picks: jax.Array) -> jax.Array:
        """(n, b) entries of a table (B, m) for the rows `picks` (n, b), numbered within each client."""

    def sums(self, table: jax.Array) -> jax.Array:
        """(n,) sums of a table (B, m) over the rows of each client."""


class Padded:
    """Tables of clients that are padded to the largest: one block for each client."""

    def table_of(self, table: jax.Array, clients: jax.Array) -> jax.Array:
        return table[clients]

    def picked(self, table: jax.Array, picks: jax.Array) -> jax.Array:
        return jnp.take_along_axis(table, picks, axis=1)

    def sums(self, table: jax.Array) -> jax.Array:
        return jnp.sum(table, axis=-1)


@pytree.dataclass
class Dense(Padded):
    """Dense matrices.

    Attributes:
        array: (n, m, d') the matrices, with zero columns beyond d.
        width: d, the number of columns.
        turned: (n, d', m) the transposed matrices, see `for_lanes`; or None.
    """

    array: jax.Array
    width: int = pytree.static()
    turned: jax.Array | None = None

    @property
    def longest(self) -> int:
        return self.array.shape[1]

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

    def gradients(self, x: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        return self.pull_back(slope(self.predict(x), *tables))

    def lane_gradients(self, X: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        S = slope(self._predict_lanes(X), *(table[:, None] for table in tables))
        return jnp.swapaxes(products.einsum("nlm,nmd->nld", S, self.array), 0, 1)[..., : self.width]

    def _predict_lanes(self, X: jax.Array) -> jax.Array:
        """(n, lanes, m) predictions."""
        wide = self._widened(X)
        if X.ndim == 2:  # one product for all clients
            return jnp.swapaxes(products.einsum("nmd,ld->nml", self.array, wide), 1, 2)
        turned = jnp.swapaxes(self.array, 1, 2) if self.turned is None else self.turned
        return products.einsum("lnd,ndm->nlm", wide, turned)

    def for_lanes(self) -> Dense:
        """On a CPU also the transposed array, which XLA would otherwise compute for each product."""
        return pytree.replace(self, turned=jnp.swapaxes(self.array, 1, 2)) if on_cpu() else self

    def take(self, picks: jax.Array) -> Dense:
        gathered = lambda rows, _: rows_at(rows[0], _flat(rows[1], rows[0].shape[1]))
        return Dense(each_device(gathered, (self.array, picks)), self.width)

    def of(self, clients: jax.Array) -> Dense:
        return Dense(self.array[clients], self.width)

    def _widened(self, x: jax.Array) -> jax.Array:
        """x (..., d) padded with zeros to (..., d')."""
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.array.shape[-1] - self.width)])


class OneByOne:
    """Products with one vector after the other, of classes and lanes: for matrices that gain nothing from several."""

    def predict(self, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    def pull_back(self, s: jax.Array) -> jax.Array:
        raise NotImplementedError

    def predict_classes(self, W: jax.Array) -> jax.Array:
        return jax.vmap(self.predict, -1, -1)(W)

    def pull_back_classes(self, S: jax.Array) -> jax.Array:
        return jax.vmap(self.pull_back, -1, -1)(S)

    def together(self, lanes: int, dtype: Any) -> bool:
        return False

    def gradients(self, x: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        return self.pull_back(slope(self.predict(x), *tables))

    def lane_gradients(self, X: jax.Array, slope: Slope, *tables: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: self.gradients(x, slope, *tables))(X)

    def for_lanes(self) -> Self:
        return self


@pytree.dataclass
class Sparse(OneByOne, Padded):
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

    @property
    def longest(self) -> int:
        return self.first.shape[1]

    def predict(self, x: jax.Array) -> jax.Array:
        return self._apart(Sparse._predict, x)

    def pull_back(self, s: jax.Array) -> jax.Array:
        return self._apart(Sparse._pull_back, s)

    def take(self, picks: jax.Array) -> Sparse:
        return self._apart(Sparse._take, picks)

    def _apart(self, one: Callable[[Sparse, jax.Array], T], x: jax.Array) -> T:
        """`one(self, x)`, each device for its clients."""
        shared = x.ndim == 1
        here = lambda rows, x: one(rows[0], x if shared else rows[1])
        return each_device(here, (self, None if shared else x), x if shared else None)

    def _predict(self, x: jax.Array) -> jax.Array:
        places = self.columns if x.ndim == 1 else _flat(self.columns, self.width)
        sums = jnp.sum(self.values * x.reshape(-1).at[places].get(mode="promise_in_bounds"), axis=-1)
        z = jnp.zeros(self.first.size, sums.dtype)
        rows = _flat(self.owners, self.first.shape[1])
        z = z.at[rows].add(sums, indices_are_sorted=True, mode="promise_in_bounds")
        return z.reshape(self.first.shape)

    def _pull_back(self, s: jax.Array) -> jax.Array:
        terms = self.values * jnp.take_along_axis(s, self.owners, axis=1)[..., None]
        n = self.columns.shape[0]
        g = jnp.zeros(n * self.width, terms.dtype)
        return g.at[_flat(self.columns, self.width)].add(terms, mode="promise_in_bounds").reshape(n, self.width)

    def _take(self, picks: jax.Array) -> Sparse:
        n, P = self.owners.shape
        first = _flat(jnp.take_along_axis(self.first, picks, axis=1), P)
        rows, owners = _flat(picks, self.longest), _flat(self.owners, self.longest)
        columns, values = (array.reshape(n * P, PIECE) for array in (self.columns, self.values))
        return rows_of_pieces(columns, values, owners.reshape(-1), rows, first, self.width, self.most)

    def of(self, clients: jax.Array) -> Sparse:
        return jax.tree.map(lambda leaf: leaf[clients], self)


def rows_of_pieces(
    columns: jax.Array,
    values: jax.Array,
    owners: jax.Array,
    rows: jax.Array,
    first: jax.Array,
    width: int,
    most: int,
) -> Sparse:
    """The rows `rows` (n, b) of a matrix in pieces, each of which begins with the piece `first` (n, b).

    columns, values: (P, PIECE) of all pieces.
    owners: (P,) the row of each piece.
    width, most: as those of `Sparse`.
    """
    (n, b), P = rows.shape, len(owners)
    place = jnp.arange(b, dtype=jnp.int32)
    following = first[..., None] + jnp.arange(most, dtype=jnp.int32)[None, None]
    following = following.reshape(n, -1)  # `most` pieces for every row; those of other rows get the value 0
    pieces = jnp.minimum(following, P - 1)
    at = lambda array: array.at[pieces].get(mode="promise_in_bounds")
    belongs = (following < P) & (at(owners) == jnp.repeat(rows, most, axis=1))
    return Sparse(
        at(columns),
        jnp.where(belongs[..., None], at(values), 0),
        jnp.broadcast_to(jnp.repeat(place, most), pieces.shape),
        jnp.broadcast_to(place * most, (n, b)),
        width,
        most,
    )


def _flat(index: jax.Array, size: int) -> jax.Array:
    """Indices (n, ...) into the rows of an (n, size) array as indices into the flattened array.

    A gather or scatter with vmap over clients, or with two indices, takes a CPU up to four times as long.
    """
    n = index.shape[0]
    return index + (jnp.arange(n, dtype=jnp.int32) * size).reshape(n, *[1] * (index.ndim - 1))


def rows_at(array: jax.Array, numbers: jax.Array) -> jax.Array:
    """(..., d) rows of an array (B, m, d), numbered from the first of all; a CPU copies them as a whole, where two
    indices would copy entry by entry."""
    return array.reshape(-1, array.shape[-1]).at[numbers].get(mode="promise_in_bounds")
