"""What differs by platform, decided in one place: a CPU, or an accelerator (GPU, TPU).

Numbers are of a two-core x86 CPU and of one NVIDIA H100 (`fedjax-lc bench gpu` makes them again); where no accelerator
but the H100 was measured, others follow it. Results never depend on these choices beyond rounding, and what selects
entries not at all.

On an accelerator the price of a step is that of its launches: a loop whose end depends on data, and a branch, bring
their predicate to the host at every turn (10 to 25 us on the H100, where a whole step of DIANA needs 35), and a turn of
an inner loop costs about 20 us beyond its work. So loops are of known length and unrolled, and small branches computed
on both sides; on a CPU loops and branches are free, and work is what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.typing import PyTree

SORT_UP_TO = 50_000  #: entries; an accelerator sorts so many keys faster than it searches for a threshold
#: numbers; an accelerator computes both sides of a branch of so many faster than it asks for its coin: on the H100
#: 18 us against 22 for 2^16 numbers, 34 against 23 for 2^19
BOTH_SIDES_UP_TO = 2**17
#: the same where lanes have coins of their own, and asking is talking in turns: 35 us against 64 for 2^19 numbers, 92
#: against 79 for 2^21
BOTH_SIDES_OF_LANES_UP_TO = 2**20
#: so many blocks of lanes talk in turns: on a CPU small ones, of which few are idle; a turn of 128 lanes of W1 costs an
#: accelerator some 75 us beside 170 of work, so that there a tenth of all lanes should take one turn (1000 lanes in 5,
#: 8 and 16 blocks: 0.63, 0.63 and 0.67 us per lane-step)
BLOCKS = {"cpu": 16, "accelerator": 8}
UNROLL = 16  #: turns of a loop that an accelerator runs in a row
UNROLL_UP_TO = 2**19  #: numbers; a step of a larger carry dwarfs its turn, and unrolled takes long to compile
FEW_LANES = {4: 2, 8: 4}  #: by bytes of a number: fewer lanes gain nothing from one product on a CPU
FEW_PARAMETERS = 10_000  #: a CPU runs networks beyond that one client after the other
CPU_LANES = 256  #: side by side on a CPU
FULL = 2**27  #: numbers of states that keep an accelerator busy
VECTOR_BYTES = 32  #: of a CPU, which whole rows of features fill


def by_platform(cpu: Callable[..., Any], accelerator: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `cpu` in programs lowered for a CPU, and `accelerator` in those for anything else.

    Both are traced, one is compiled: the choice is made where a program is lowered, not by the machine that traces it.

    Example:
        >>> by_platform(cpu=lambda x: x + 1, accelerator=lambda x: x + 2)(1)  # 2 on a CPU
    """
    return lambda *operands: jax.lax.platform_dependent(*operands, cpu=cpu, default=accelerator)


def on_cpu() -> bool:
    """Whether JAX computes on a CPU here, which decides what is laid out before a program is lowered."""
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
    small = numbers(carry) <= UNROLL_UP_TO
    return (unrolled(loop, int(count) - first) if small else loop(1))(carry)


def unrolled(loop: Callable[[int], Callable[..., Any]], turns: int) -> Callable[..., Any]:
    """`loop(unroll)`, a function that loops so many turns: on a CPU as it is, on an accelerator with up to UNROLL turns
    in a row. Ten local steps of W1 take 253 us in a loop and 59 unrolled on the H100."""
    if turns <= 1:
        return loop(1)
    return by_platform(cpu=loop(1), accelerator=loop(min(UNROLL, turns)))


def numbers(tree: PyTree) -> int:
    """How many numbers the arrays of `tree` hold."""
    return sum(int(np.prod(jnp.shape(leaf), dtype=np.int64)) for leaf in jax.tree.leaves(tree))


def lanes_side_by_side(state: int) -> int:
    """How many lanes pay side by side, each with a state of so many numbers: beyond that their time per lane stays as
    it is, and all wait for the last of them.

    On a CPU that is so from 256 on. On the H100 the time per lane of LoCoDL still falls by a third from 500 to 1000
    lanes of 71,000 numbers, 0.96 to 0.63 us: an accelerator is full at some 2^27 numbers.
    """
    return CPU_LANES if on_cpu() else max(1, FULL // max(1, state))


def memory_share() -> float:
    """What a sweep takes of the free memory: half of a host's, which others use too; nearly all of a device's own."""
    return 0.5 if on_cpu() else 0.9


# --- layouts ---


def whole_vectors(A: np.ndarray, kind: Any) -> np.ndarray:
    """Features (n, m, d) with zero columns added until each row fills whole vectors of a CPU.

    Matrix-vector products on a CPU take up to twice as long where rows leave a remainder. On an accelerator the zeros
    that models then get as well cost 8 % of a step, and rows stay as they are.
    """
    columns = VECTOR_BYTES // np.dtype(kind).itemsize if on_cpu() else 1
    return np.pad(A, ((0, 0), (0, 0), (0, -A.shape[-1] % columns)))


def clients_side_by_side(n: int, dim: int) -> int:
    """How many clients' networks of `dim` parameters are computed side by side: all n, or on a CPU one after the other
    where their activations would leave its caches. Side by side is 6 times faster on the H100."""
    return 1 if on_cpu() and dim > FEW_PARAMETERS else n


def convolution_route() -> str:
    """How a convolution is computed: as a product of patches and kernel, which is 7 to 40 times faster than XLA's own
    inside loops and over clients on a CPU, and 2 to 8 times for every network measured on the H100. A TPU, which was
    not measured, is built for native ones."""
    return "native" if jax.default_backend() == "tpu" else "patches"
