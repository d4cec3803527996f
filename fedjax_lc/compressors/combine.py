"""Compressors built from compressors: scaled, induced, repeated on the residual, and block by block."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import Compressor, Message, check_whole, count, larger, smaller, together
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import unrolled
from fedjax_lc.core.typing import Key, Scalar, Vec


def is_biased(c: Compressor, d: int) -> bool:
    """Whether the compressor has no finite certified omega."""
    omega = c.omega(d)
    return isinstance(omega, int | float) and math.isinf(omega)


@pytree.dataclass
class Scaled(Compressor):
    """Q / (1 + omega) for an unbiased Q: contractive with delta = 1/(1 + omega), for methods with error feedback.

    For example scaled(rand_k:4) is rand_k_unscaled:4. Behind a sparsifier omega is that of the entries kept.

    Source: EF21, arXiv 2106.05203; Beznosikov et al., arXiv 2002.12410.
    """

    inner: Compressor
    name: ClassVar[str] = "scaled"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.inner.deterministic

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return self.inner.draw(key, d, dtype)

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        return self.inner.draws(key, n, d, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        message = self.inner.apply(x, u, sent)
        factor = jnp.asarray(1 / (1 + self.inner.omega(larger(1, count(x, sent)))), x.dtype)
        return dataclasses.replace(message, value=message.value * factor)

    def delta(self, d: Scalar) -> Scalar:
        return 1 / (1 + self.inner.omega(d))

    def entries(self, d: Scalar) -> Scalar:
        return self.inner.entries(d)

    def validate(self, d: int) -> None:
        self.inner.validate(d)
        if is_biased(self.inner, d):
            raise InputError(f"scaled needs an unbiased compressor, got {self.inner}: use it as it is")


@pytree.dataclass
class Induced(Compressor):
    """C(x) + Q(x - C(x)), C contractive, Q unbiased: unbiased with omega = (1 - delta_C) omega_Q; bits add.

    Spelled induced(top_k:2;rand_k:2). Source: Horvath and Richtarik, arXiv 2006.11077.
    """

    contractive: Compressor
    unbiased: Compressor
    name: ClassVar[str] = "induced"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.contractive.deterministic and self.unbiased.deterministic

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        first, second = jax.random.split(key)
        return self.contractive.draw(first, d, dtype), self.unbiased.draw(second, d, dtype)

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        first, second = jax.random.split(key)
        return self.contractive.draws(first, n, d, dtype), self.unbiased.draws(second, n, d, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        rough = self.contractive.apply(x, u[0], sent)
        rest = self.unbiased.apply(x - rough.value, u[1], sent)
        both = None if rough.sent is None or rest.sent is None else rough.sent | rest.sent
        return together(rough.value + rest.value, sent if both is None else both, [rough, rest])

    def omega(self, d: Scalar) -> Scalar:
        return self._left(d) * self.unbiased.omega(d)

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        return self._left(d) * self.unbiased.omega_av(d, n)

    def _left(self, d: Scalar) -> Scalar:
        """1 - delta_C; one where Q is biased, lest inf * 0 be NaN."""
        return 1 if is_biased(self.unbiased, d) else 1 - self.contractive.delta(d)

    def entries(self, d: Scalar) -> Scalar:
        return smaller(d, self.contractive.entries(d) + self.unbiased.entries(d))

    def validate(self, d: int) -> None:
        self.contractive.validate(d)
        self.unbiased.validate(d)
        if is_biased(self.unbiased, d):
            raise InputError(
                f"induced(C; Q) needs an unbiased Q, got {self.unbiased}: write induced(top_k:2; rand_k:2)"
            )


@pytree.dataclass
class FCC(Compressor):
    """C repeated on the residual: s = 0, then R = `rounds` times s += C(x - s), with independent draws; bits are added.

    Contractive with 1 - delta_R = (1 - delta)^R. If C is unbiased, so is FCC, with omega_R = omega^R (derived here).
    Spelled fcc(top_k:2):3. Source: NEOLITHIC, arXiv 2206.03665 (fast compressed communication).
    """

    inner: Compressor
    rounds: int = pytree.static()
    name: ClassVar[str] = "fcc"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.inner.deterministic

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        return jax.vmap(lambda k: self.inner.draw(k, d, dtype))(jax.random.split(key, self.rounds))

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        return _repeat_draws(self.inner, jax.random.split(key, self.rounds), n, d, dtype)

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        def repeat(s: Vec, u_round: Any) -> tuple[Vec, Message]:
            message = self.inner.apply(x - s, u_round, sent)
            return s + message.value, dataclasses.replace(message, value=jnp.zeros((0,), x.dtype))

        loop = lambda unroll: lambda x, u: jax.lax.scan(repeat, jnp.zeros_like(x), u, self.rounds, unroll=unroll)
        value, rounds = unrolled(loop, self.rounds)(x, u)
        some = sent if rounds.sent is None else jnp.any(rounds.sent, axis=0)
        return together(value, some, [rounds])

    def omega(self, d: Scalar) -> Scalar:
        return self.inner.omega(d) ** self.rounds

    def delta(self, d: Scalar) -> Scalar:
        return 1 - (1 - self.inner.delta(d)) ** self.rounds

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        return self.inner.omega_av(d, n) * self.inner.omega(d) ** (self.rounds - 1)

    def entries(self, d: Scalar) -> Scalar:
        return smaller(d, self.rounds * self.inner.entries(d))

    def validate(self, d: int) -> None:
        self.inner.validate(d)
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise InputError(f"fcc needs a whole number of rounds >= 1, got {self.rounds}: write fcc(top_k:2):3")


@pytree.dataclass
class PerBlock(Compressor):
    """C on each block of consecutive entries, with independent draws: the layers of a network, or equal blocks.

    Constants are those of the worst block; bits are added.

    Attributes:
        sizes: sizes of the blocks (per_block(natural):3x4x5); or one size for all blocks, the last one possibly shorter
            (per_block(natural):4); or "layers" (per_block(natural):layers), the layers of the problem's network.
        layers: the sizes for "layers", which `for_layers` fills in; None before.
    """

    inner: Compressor
    sizes: tuple[int, ...] | int | str = pytree.static()
    layers: tuple[int, ...] | None = pytree.static(default=None)
    name: ClassVar[str] = "per_block"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return self.inner.deterministic

    @property
    def projects(self) -> bool:  # type: ignore[override]
        return self.inner.projects

    def draw(self, key: Key, d: int, dtype: Any) -> Any:
        keys = jax.random.split(key, len(self._sizes(d)))
        return [
            jax.vmap(lambda k, s=size: self.inner.draw(k, s, dtype))(keys[b : b + c]) for b, size, c in self._runs(d)
        ]

    def draws(self, key: Key, n: int, d: int, dtype: Any) -> Any:
        keys = jax.random.split(key, len(self._sizes(d)))
        return [_repeat_draws(self.inner, keys[b : b + c], n, size, dtype) for b, size, c in self._runs(d)]

    def apply(self, x: Vec, u: Any, sent: jax.Array | None = None) -> Message:
        check_whole(self, sent)
        messages, start = [], 0
        for (_, size, number), u_run in zip(self._runs(x.shape[-1]), u, strict=True):
            blocks = x[start : start + size * number].reshape(number, size)
            messages.append(jax.vmap(self.inner.apply)(blocks, u_run))
            start += size * number
        value = jnp.concatenate([m.value.reshape(-1) for m in messages])
        masks = [m.sent.reshape(-1) for m in messages if m.sent is not None]
        return together(value, jnp.concatenate(masks) if len(masks) == len(messages) else None, messages)

    def _sizes(self, d: int) -> tuple[int, ...]:
        sizes = self.layers if self.sizes == "layers" else self.sizes
        if sizes is None:
            raise InputError(f"{self} does not know the layers' sizes: name it to a method's theory, or see for_layers")
        if not isinstance(sizes, int):
            return sizes  # type: ignore[return-value]
        return (sizes,) * (d // sizes) + ((d % sizes,) if d % sizes else ())

    def _runs(self, d: int) -> Iterator[tuple[int, int, int]]:
        """(first block, size, number of blocks) of each run of equal sizes."""
        block = 0
        for size, run in itertools.groupby(self._sizes(d)):
            number = len(list(run))
            yield block, size, number
            block += number

    def omega(self, d: Scalar) -> Scalar:
        return self._worst(larger, [self.inner.omega(size) for size in set(self._sizes(d))])

    def delta(self, d: Scalar) -> Scalar:
        return self._worst(smaller, [self.inner.delta(size) for size in set(self._sizes(d))])

    def omega_av(self, d: Scalar, n: int) -> Scalar:
        return self._worst(larger, [self.inner.omega_av(size, n) for size in set(self._sizes(d))])

    @staticmethod
    def _worst(choose: Any, constants: list[Scalar]) -> Scalar:
        worst = constants[0]
        for constant in constants[1:]:
            worst = choose(worst, constant)
        return worst

    def entries(self, d: Scalar) -> Scalar:
        return sum(self.inner.entries(size) for size in self._sizes(d))

    def validate(self, d: int) -> None:
        if isinstance(self.sizes, str) and self.sizes != "layers":
            raise InputError(f"per_block needs block sizes or the word layers, got {self.sizes!r}: write "
                             "per_block(natural):3x4")  # fmt: skip
        sizes = (self.sizes,) if isinstance(self.sizes, int) else self._sizes(d)
        if not isinstance(sizes, tuple) or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise InputError(f"per_block needs block sizes >= 1, got {self.sizes}: write per_block(natural):3x4")
        if sum(self._sizes(d)) != d:
            raise InputError(f"per_block sizes add up to {sum(self._sizes(d))}, but the vector has d = {d} entries")
        for size in sorted(set(self._sizes(d))):
            self.inner.validate(size)


def _repeat_draws(c: Compressor, keys: Key, n: int, d: int, dtype: Any) -> Any:
    """The draws of n clients for one message per key; axes: clients, then keys."""
    drawn = jax.vmap(lambda key: c.draws(key, n, d, dtype))(keys)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), drawn)
