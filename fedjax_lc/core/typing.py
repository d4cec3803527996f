"""Type names for common shapes, with n clients and d coordinates."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

Key: TypeAlias = jax.Array  #: a PRNG key, ()
Scalar: TypeAlias = Any  #: a number or a () array; may be traced
Vec: TypeAlias = jax.Array  #: (d,)
ClientVecs: TypeAlias = jax.Array  #: (n, d), row i belongs to client i
PyTree: TypeAlias = Any
