"""Low-rank compression of vectors that represent matrices."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import FLOAT_BITS, Compressor, Message, check_whole, real
from fedjax_lc.core import products, pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Scalar, Vec


@pytree.dataclass
class LowRank(Compressor):
    """The best approximation of rank `rank` of x as a (rows, d/rows) matrix, by the singular value decomposition.

    delta >= rank / min(rows, d/rows), tight when all singular values are equal. Bits: 32 rank (rows + d/rows), the two
    factors. Use it inside `per_block` for the layers of a network that are matrices.

    Example:
        >>> parse("low_rank:1,rows=3").validate(12)  # a 3 x 4 matrix
    """

    rank: Scalar
    rows: int = pytree.static()
    name: ClassVar[str] = "low_rank"
    deterministic: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        check_whole(self, sent)
        left, right = self.factors(x)
        value = products.matmul(left, right).reshape(-1)
        entries = self.rank * (self.rows + x.shape[-1] // self.rows)
        return Message(value, entries, FLOAT_BITS, 0, 0)

    def factors(self, x: Vec) -> tuple[jax.Array, jax.Array]:
        """(rows, r) and (r, columns) with zeros beyond `rank` (which may be traced): r = min(rows, columns)."""
        left, singular, right = jnp.linalg.svd(x.reshape(self.rows, -1), full_matrices=False)
        kept = jnp.where(jnp.arange(singular.shape[-1]) < self.rank, singular, 0)
        return left * kept[None, :], right

    def delta(self, d: Scalar) -> Scalar:
        return real(self.rank) / min(self.rows, d // self.rows)

    def validate(self, d: int) -> None:
        if not isinstance(self.rows, int) or self.rows < 1 or d % self.rows:
            raise InputError(f"low_rank needs rows that divide d = {d}, got {self.rows}")
        most = min(self.rows, d // self.rows)
        if not pytree.is_traced(self.rank) and (not 1 <= self.rank <= most or self.rank != int(self.rank)):
            raise InputError(f"low_rank needs a whole rank, 1 <= rank <= {most}, got {self.rank}")
