"""Scaled sign compression, of the whole vector or block by block."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import FLOAT_BITS, Compressor, Message, count, smaller
from fedjax_lc.compressors.levels import norm
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Scalar, Vec


def scaled_sign(x: Vec, sent: jax.Array | None) -> Vec:
    """(|x|_1 / d) sgn(x) on the entries that exist, sgn(0) = +1."""
    scale = norm(x, 1) / jnp.maximum(jnp.asarray(count(x, sent), x.dtype), 1)
    signed = jnp.where(x < 0, -scale, scale)
    return signed if sent is None else jnp.where(sent, signed, jnp.zeros_like(x))


@pytree.dataclass
class Sign(Compressor):
    """Scaled sign: (|x|_1 / d) sgn(x) with sgn(0) = +1, so that one bit an entry suffices; d + 32 bits.

    delta >= 1/d, attained at a one-hot x; for a given x the factor is |x|_1^2 / (d |x|^2). Behind a sparsifier d is the
    number of entries kept.

    Source: Karimireddy et al., arXiv 1901.09847; sgn(0) = +1 as in LIEC-SGD, arXiv 2402.11857, and its code.
    """

    name: ClassVar[str] = "sign"
    deterministic: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        return Message(scaled_sign(x, sent), count(x, sent), 1, 0, FLOAT_BITS, sent)

    def delta(self, d: Scalar) -> Scalar:
        return 1 / d


@pytree.dataclass
class BlockSign(Compressor):
    """Scaled sign of each block of `block` consecutive entries (the last one shorter): d + 32 B bits for B blocks.

    delta >= 1/block, attained at a one-hot x. Behind a sparsifier a block consists of its entries that were kept.

    Source: blockwise sign, LIEC-SGD, arXiv 2402.11857.
    """

    block: int = pytree.static()
    name: ClassVar[str] = "block_sign"
    deterministic: ClassVar[bool] = True

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        d = x.shape[-1]
        blocks = -(-d // self.block)
        shape = blocks, self.block
        rows = jnp.pad(x, (0, blocks * self.block - d)).reshape(shape)
        exist = jnp.pad(jnp.ones((d,), bool) if sent is None else sent, (0, blocks * self.block - d)).reshape(shape)
        value = jax.vmap(scaled_sign)(rows, exist).reshape(-1)[:d]
        return Message(value, count(x, sent), 1, 0, FLOAT_BITS * blocks, sent)

    def delta(self, d: Scalar) -> Scalar:
        return 1 / smaller(self.block, d)

    def validate(self, d: int) -> None:
        if not isinstance(self.block, int) or self.block < 1:
            raise InputError(f"block_sign needs a whole block size >= 1, got {self.block}: write block_sign:64")
