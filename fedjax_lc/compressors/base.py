"""The interface of compressors, the price of a message, and chains of compressors.

A compressor is a frozen pytree. Its numbers (k, p, levels) may be traced and swept; its choices (index convention,
norm) are static. `compressor(key, x)` compresses one client's vector, and `joint` those of all clients. Randomness is
explicit: `draw` generates it and `apply` is a deterministic function of it, so that tests can enumerate all outcomes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree, spec
from fedjax_lc.core.devices import each_device
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import declarations
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec

FLOAT_BITS = 32
INDEX_BITS = ("log2", "binom", "int32", "none")


@pytree.dataclass
class Message:
    """The message of one client: the decoded vector, and the terms of its price.

    `bits` = entries * entry_bits + index_bits + header_bits; all four are () and may be traced. A message combined from
    several (see `together`) has entry_bits = 1, and `entries` counts the bits of all entries. `joint` returns one
    stacked Message: value (n, d), bits (n,).

    Attributes:
        value: (d,) the vector as the receiver decodes it.
        entries: number of entries sent.
        entry_bits: bits of one entry.
        index_bits: bits that identify the entries sent, for the whole message.
        header_bits: bits of norms, scales and factors.
        sent: (d,) mask of the entries sent; None if all are.
    """

    value: Vec
    entries: Scalar
    entry_bits: Scalar
    index_bits: Scalar
    header_bits: Scalar
    sent: jax.Array | None = None

    @property
    def bits(self) -> Scalar:
        """Bits of the message in the cost model, (): a Python number if nothing is traced, else float32."""
        entries, entry_bits, index_bits, header_bits = map(
            _float32, (self.entries, self.entry_bits, self.index_bits, self.header_bits)
        )
        return entries * entry_bits + index_bits + header_bits


def _float32(number: Scalar) -> Scalar:
    return number if isinstance(number, int | float) else jnp.asarray(number, jnp.float32)


class Compressor:
    """Base of all compressors. Subclasses implement `draw`, `apply` and a certified constant, `omega` or `delta`.

    Example:
        >>> c = fl.compressors.parse("rand_k:2")
        >>> message = c(jax.random.key(0), jnp.arange(6.0))
        >>> message.value.shape, float(message.bits), c.omega(6)
        ((6,), 70.0, 2.0)
    """

    name: ClassVar[str]
    deterministic: ClassVar[bool] = False
    projects: ClassVar[bool] = False  #: whether the value equals x on the entries sent and is zero elsewhere
    conventions: ClassVar[tuple[str, ...]] = ()  #: allowed values of the field `index`
    answer_bits: ClassVar[int] = 0  #: bits that the receiver sends back for each message of `joint_with`

    @property
    def shares(self) -> bool:
        """Whether clients share random draws, so that all messages of a cohort must come from one `joint` call."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return any(part.shares for part in parts if isinstance(part, Compressor))

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        """The random draws of one message: a pytree that `apply` takes (None if deterministic)."""
        return None

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        """The random draws of n clients' messages, stacked; independent, unless a subclass shares them."""
        each = lambda keys, self: jax.vmap(lambda k: self.draw(k, d, dtype))(keys)
        return each_device(each, jax.random.split(key, n), self)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        """Compress x (d,) with the draws u. `sent` (d,) marks the entries that exist; x is zero elsewhere."""
        raise NotImplementedError

    def __call__(self, key: Key, x: Vec, sent: jax.Array | None = None) -> Message:
        """Compress one client's vector x (d,)."""
        return self.apply(x, self.draw(key, x.shape[-1], x.dtype), sent)

    def joint(self, key: Key, X: ClientVecs, sent: jax.Array | None = None) -> Message:
        """Compress all clients' vectors X (n, d), with draws from `draws`."""
        draws = self.draws(key, X.shape[0], X.shape[1], X.dtype)
        return each_device(lambda rows, self: jax.vmap(self.apply)(*rows), (X, draws, sent), self)

    def start(self, n: int, d: int, dtype: Any) -> PyTree:
        """The state that n senders keep between their messages, before the first; None where none is kept."""
        return None

    def joint_with(
        self, key: Key, X: ClientVecs, state: PyTree, present: jax.Array | None = None
    ) -> tuple[Message, PyTree]:
        """`joint`, and the state after these messages; that of clients who are not `present` (n,) stays."""
        return self.joint(key, X), state

    def omega(self, d: Scalar) -> Scalar:
        """omega with E C(x) = x and E|C(x) - x|^2 <= omega |x|^2; inf when biased."""
        return math.inf

    def delta(self, d: Scalar) -> Scalar:
        """delta with E|C(x) - x|^2 <= (1 - delta) |x|^2; max(0, 1 - omega) for an unbiased compressor."""
        return larger(0.0, 1 - self.omega(d))

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        """omega_av with E|mean_i (C_i(x_i) - x_i)|^2 <= (omega_av / n) sum_i |x_i|^2; omega / n if independent."""
        return self.omega(d) / n

    def entries(self, d: Scalar) -> Scalar:
        """The largest number of entries of a message, with which constants of the next compressor are computed."""
        return d

    def validate(self, d: int) -> None:
        """Raise InputError, on the host, where a parameter does not fit dimension d."""

    def __str__(self) -> str:
        """`name(inner):value,field=value` with only the fields that differ from their defaults."""
        given = []
        for position, field in enumerate(argument_fields(type(self))):
            value = getattr(self, field.name)
            percent = "%" if position == 0 and getattr(self, "unit", "count") == "percent" else ""
            if pytree.is_traced(value) or not _is_default(value, field.default):
                text = "traced" if pytree.is_traced(value) else spec.spell(value)
                given.append(("" if position == 0 else field.name, text + percent))
        inner = tuple(str(getattr(self, name)) for name in inner_fields(type(self)))
        return str(spec.Call(self.name, inner, tuple(given)))

    def __or__(self, other: Compressor) -> Chain:
        return Chain(self, other)


@pytree.dataclass
class Chain(Compressor):
    """`first|second`: the second compressor acts on the k entries that the first one sends.

    The price is that of the second's entries, plus the index and header bits of both. If both are unbiased,
    1 + omega = (1 + omega_1(d)) (1 + omega_2(k)). If the first keeps entries unchanged (top-k, unscaled rand-k),
    delta >= delta_1(d) delta_2(k). Other pairs have no general constant, so omega = inf and delta = 0.

    Source: LoCoDL, arXiv 2403.04348, section on compressors (rand-k followed by natural).
    """

    first: Compressor
    second: Compressor
    name: ClassVar[str] = "chain"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.first.deterministic and self.second.deterministic

    @property
    def projects(self) -> bool:  # type: ignore[override]
        return self.first.projects and self.second.projects

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        first_key, second_key = jax.random.split(key)
        return self.first.draw(first_key, d, dtype), self.second.draw(second_key, d, dtype)

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        first_key, second_key = jax.random.split(key)
        return self.first.draws(first_key, n, d, dtype), self.second.draws(second_key, n, d, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        """The second compressor's message of the first one's entries, with the index and header bits of both."""
        outer = self.first.apply(x, u[0], sent)
        inner = self.second.apply(outer.value, u[1], outer.sent)
        return Message(
            value=inner.value,
            entries=inner.entries,
            entry_bits=inner.entry_bits,
            index_bits=outer.index_bits + inner.index_bits,
            header_bits=outer.header_bits + inner.header_bits,
            sent=inner.sent,
        )

    def omega(self, d: Scalar) -> Scalar:
        return (1 + self.first.omega(d)) * (1 + self.second.omega(self._passed(d))) - 1

    def delta(self, d: Scalar) -> Scalar:
        if self.first.projects:
            return self.first.delta(d) * self.second.delta(self._passed(d))
        return Compressor.delta(self, d)

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        """Given the first output, of second moment <= (1 + omega_1) |x|^2, the second errors have mean zero."""
        inner = self.second.omega_av(self._passed(d), n)
        return self.first.omega_av(d, n) + (1 + self.first.omega(d)) * inner

    def entries(self, d: Scalar) -> Scalar:
        return self.second.entries(self._passed(d))

    def _passed(self, d: Scalar) -> Scalar:
        return real(self.first.entries(d))

    def validate(self, d: int) -> None:
        self.first.validate(d)
        passed = self.first.entries(d)
        self.second.validate(d if pytree.is_traced(passed) else int(passed))

    def __str__(self) -> str:
        return f"{self.first}|{self.second}"


def inner_fields(cls: type[Compressor]) -> list[str]:
    """The fields that are compressors themselves: in parentheses when spelled."""
    return [name for name, declared in declarations(cls).items() if declared.admits(Compressor)]


def argument_fields(cls: type[Compressor]) -> list[dataclasses.Field[Any]]:
    """The fields that arguments fill: no compressors, no unit (a % sign sets it), no layers (a network has them), no
    metric (a matrix)."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(cls)  # type: ignore[arg-type]
    return [field for field in fields if field.name not in (*inner_fields(cls), "unit", "layers", "metric")]


def _is_default(value: Any, default: Any) -> bool:
    return default is not dataclasses.MISSING and type(value) is type(default) and value == default


def together(value: Vec, sent: jax.Array | None, parts: list[Message]) -> Message:
    """One message combined from several, whose bits are added; fields of a part may have an axis of messages first."""

    def total(amounts: list[Scalar]) -> Scalar:
        if all(isinstance(amount, int | float) for amount in amounts):
            return sum(amounts)
        return sum(jnp.sum(jnp.asarray(amount, jnp.float32)) for amount in amounts)

    payload = [_float32(part.entries) * _float32(part.entry_bits) for part in parts]
    index, header = [part.index_bits for part in parts], [part.header_bits for part in parts]
    return Message(value, total(payload), 1, total(index), total(header), sent)


def count(x: Vec, sent: jax.Array | None) -> Scalar:
    """The number of entries that exist: d, or those marked in `sent`."""
    return x.shape[-1] if sent is None else jnp.sum(sent, axis=-1, dtype=x.dtype)


def check_whole(c: Compressor, sent: jax.Array | None) -> None:
    """Raise InputError if only some entries exist, for compressors of whole vectors (layers, matrix, shared mask)."""
    if sent is not None:
        raise InputError(f"{c.name} acts on whole vectors: put it first in a chain, not behind a sparsifier")


def real(k: Scalar) -> Scalar:
    """A number for computing constants: traced whole numbers become weakly typed floats, in full precision."""
    return k if isinstance(k, int | float) else 1.0 * k


def divisor(number: Scalar, dtype: Any) -> jax.Array:
    """A number to divide by, hidden from XLA's optimiser: XLA would replace division by a constant with multiplication
    by its rounded reciprocal, and results would differ from those with a traced number."""
    return jax.lax.optimization_barrier(jnp.asarray(number, dtype))


def smaller(a: Scalar, b: Scalar) -> Scalar:
    """min(a, b) of numbers, traced or not."""
    return min(a, b) if isinstance(a, int | float) and isinstance(b, int | float) else jnp.minimum(a, b)


def larger(a: Scalar, b: Scalar) -> Scalar:
    """max(a, b) of numbers, traced or not."""
    return max(a, b) if isinstance(a, int | float) and isinstance(b, int | float) else jnp.maximum(a, b)


def index_cost(convention: str, k: Scalar, d: int) -> Scalar:
    """Bits that identify the k of d entries sent, for each convention.

    none: 0 (a seed both sides know, or free by convention); seed: 32 (a seed sent with the message); log2:
    k ceil(log2 d); binom: ceil(log2 binom(d, k)); int32: 32 k; mask: d.
    """
    if convention == "binom":
        table = _binom_bits(d)
        return int(table[int(k)]) if isinstance(k, int | float) else jnp.asarray(table)[jnp.asarray(k, jnp.int32)]
    each = {"log2": (d - 1).bit_length(), "int32": 32, "none": 0, "seed": 0, "mask": 0}[convention]
    return k * each + {"seed": 32, "mask": d}.get(convention, 0)


def check_index(c: Any) -> None:
    """Raise InputError unless the compressor knows its index convention."""
    if c.index not in c.conventions:
        raise InputError(f"{c.name} index must be one of {', '.join(c.conventions)}, got {c.index!r}")


@functools.lru_cache(maxsize=64)
def _binom_bits(d: int) -> np.ndarray:
    """(d+1,) ceil(log2 binom(d, k)), exact: from lgamma, or from whole numbers where rounding could matter."""
    log2_factorial = np.array([math.lgamma(j + 1) for j in range(d + 1)]) / math.log(2)
    bits = log2_factorial[d] - log2_factorial - log2_factorial[::-1]
    near = np.abs(bits - np.round(bits)) < 1e-6
    exact = {int(k): (math.comb(d, int(k)) - 1).bit_length() for k in np.flatnonzero(near)}
    table = np.ceil(bits).astype(np.float32)
    for k, value in exact.items():
        table[k] = value
    return table
