"""Every choice that depends on the platform: a CPU, or an accelerator (GPU, TPU).

Timings are of a two-core x86 CPU and of one NVIDIA H100 (`fedjax-lc bench gpu` measures them again); accelerators that
were not measured are treated like the H100. Results depend on these choices only through rounding; the entries that a
sparsifier selects do not depend on them.

On an accelerator the time of a step is that of its kernel launches. A branch, and each iteration of a loop whose end
depends on data, copy their predicate to the host (10 to 25 us on the H100, where a whole step of DIANA takes 35), and
an iteration of an inner loop costs about 20 us beyond its work. So loops have a known length and are unrolled, and for
a small branch both sides are computed. On a CPU loops and branches are free, and only the work counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.typing import PyTree

SORT_UP_TO = 50_000  #: entries; up to this many an accelerator sorts faster than it searches for a threshold
#: numbers; up to this size an accelerator computes both sides of a branch faster than it branches: on the H100
#: 18 us against 22 for 2^16 numbers, 34 against 23 for 2^19
BOTH_SIDES_UP_TO = 2**17
#: the same with one coin per lane, where the alternative is a loop over blocks of lanes: 35 us against 64 for 2^19
#: numbers, 92 against 79 for 2^21
BOTH_SIDES_OF_LANES_UP_TO = 2**20
#: number of blocks that `lanes.rarely` divides all lanes into: many small ones on a CPU, so that few places are unused.
#: On an accelerator a block of 128 lanes of W1 costs some 75 us beside 170 of work, so a tenth of all lanes should fit
#: into one block (1000 lanes in 5, 8 and 16 blocks: 0.63, 0.63 and 0.67 us per lane-step)
BLOCKS = {"cpu": 16, "accelerator": 8}
UNROLL = 16  #: iterations of a loop that are unrolled on an accelerator
UNROLL_UP_TO = 2**19  #: numbers; loops with a larger carry gain little from unrolling and compile slowly
FEW_LANES = {4: 2, 8: 4}  #: bytes of a number -> lanes from which a CPU gains by one product for all lanes
FEW_PARAMETERS = 10_000  #: a CPU computes larger networks one client after the other
CPU_LANES = 256  #: lanes side by side on a CPU
FULL = 2**27  #: numbers in the states of all lanes that keep an accelerator busy
VECTOR_BYTES = 32  #: of a CPU's vector register


def by_platform(cpu: Callable[..., Any], accelerator: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `cpu` in programs lowered for a CPU, and `accelerator` in those for anything else.

    Both are traced, one is compiled: the choice is made where a program is lowered, not by the machine that traces it.

    Example:
        >>> by_platform(cpu=lambda x: x + 1, accelerator=lambda x: x + 2)(1)  # 2 on a CPU
    """
    return lambda *operands: jax.lax.platform_dependent(*operands, cpu=cpu, default=accelerator)


def on_cpu() -> bool:
    """Whether JAX's default backend is the CPU; decides how arrays are laid out before a program is lowered."""
    return jax.default_backend() == "cpu"


def repeat(count: Any, one: Callable[[jax.Array, PyTree], PyTree], carry: PyTree, first: int = 0) -> PyTree:
    """`carry = one(h, carry)` for h = first, ..., count - 1, where h is int32.

    A plain number as `count` makes a loop of known length, unrolled on an accelerator (`unrolled`) where the carry, of
    one lane, is small (UNROLL_UP_TO). A traced `count` makes a loop whose end depends on data.

    Example:
        >>> repeat(3, lambda h, total: total + h, jnp.int32(0))  # 0 + 1 + 2
    """
    step = lambda h, carry: one(jnp.asarray(h).astype(jnp.int32), carry)
    if not pytree.is_whole(count):
        return jax.lax.fori_loop(np.int32(first), jnp.asarray(count).astype(jnp.int32), step, carry)
    loop = lambda unroll: lambda carry: jax.lax.fori_loop(first, int(count), step, carry, unroll=unroll)
    small = entry_count(carry) <= UNROLL_UP_TO
    return (unrolled(loop, int(count) - first) if small else loop(1))(carry)


def unrolled(loop: Callable[[int], Callable[..., Any]], count: int) -> Callable[..., Any]:
    """The function `loop(unroll)` of `count` iterations, with unroll = 1 on a CPU and up to UNROLL on an accelerator.

    Ten local steps of W1 take 253 us in a loop and 59 unrolled on the H100.
    """
    if count <= 1:
        return loop(1)
    return by_platform(cpu=loop(1), accelerator=loop(min(UNROLL, count)))


def entry_count(tree: PyTree) -> int:
    """The number of entries of all arrays of `tree`."""
    return sum(int(np.prod(jnp.shape(leaf), dtype=np.int64)) for leaf in jax.tree.leaves(tree))


def lanes_side_by_side(state: int) -> int:
    """How many lanes should run side by side if a lane's state holds `state` numbers: more would not be faster per
    lane, and all would wait for the slowest.

    On a CPU the limit is 256. On the H100 the time per lane of LoCoDL still falls by a third from 500 to 1000
    lanes of 71,000 numbers, 0.96 to 0.63 us: an accelerator is full at some 2^27 numbers.
    """
    return CPU_LANES if on_cpu() else max(1, FULL // max(1, state))


def memory_share() -> float:
    """The share of free memory that a sweep may use: half on a CPU, which shares its memory, most on an accelerator."""
    return 0.5 if on_cpu() else 0.9


# --- layouts ---


def whole_vectors(A: np.ndarray, dtype: Any) -> np.ndarray:
    """Features (n, m, d) with zero columns added until the rows fill a CPU's vector registers.

    Matrix-vector products on a CPU take up to twice as long where rows leave a remainder. On an accelerator the zeros
    that models then get as well cost 8 % of a step, and rows stay as they are.
    """
    columns = VECTOR_BYTES // np.dtype(dtype).itemsize if on_cpu() else 1
    return np.pad(A, ((0, 0), (0, 0), (0, -A.shape[-1] % columns)))


def clients_side_by_side(n: int, dim: int) -> int:
    """How many clients' networks of `dim` parameters are computed side by side: all n, but 1 on a CPU if the network is
    large, whose activations would not fit into the caches. Side by side is 6 times faster on the H100."""
    return 1 if on_cpu() and dim > FEW_PARAMETERS else n


def convolution_route() -> str:
    """How a convolution is computed: "patches", a product of patches and kernel, or "native", XLA's convolution.

    Inside loops and over clients patches are 7 to 40 times faster on a CPU, and 2 to 8 times on the H100 for every
    network measured. TPUs were not measured and use native convolutions.
    """
    return "native" if jax.default_backend() == "tpu" else "patches"
