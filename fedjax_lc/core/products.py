"""Matrix products in the precision of their numbers, on every platform.

By default XLA rounds the inputs of float32 products: to TF32 (10 bits) on NVIDIA's GPUs, to bfloat16 (7) on TPUs. A
gradient over many lanes, which is a product of matrices, would then be off by 3e-4 where that of one run, a product
with a vector, is off by 1e-7. On a CPU these are the plain products.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp

matmul = functools.partial(jnp.matmul, precision="highest")  #: `a @ b`
einsum = functools.partial(jnp.einsum, precision="highest")
