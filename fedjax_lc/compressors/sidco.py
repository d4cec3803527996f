"""SIDCo with its stages adapted: a fitted threshold whose number of stages follows what past messages kept."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_lc.compressors.base import Message
from fedjax_lc.compressors.remembering import Remembering
from fedjax_lc.compressors.threshold import MOST_STAGES, Threshold, quantile
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import each_device, shared
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.platforms import repeat
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec

MODES = (0, -1, -2, -3)


class Counters(NamedTuple):
    """Of each client (n,), on every device alike."""

    stages: jax.Array  # int32
    total: jax.Array  # int32 entries kept since the last change
    calls: jax.Array  # int32 messages since then
    last: jax.Array  # mean kept/(ratio d) before that; 0 at first
    direction: jax.Array  # int32 sign of the next change


@pytree.dataclass
class Sidco(Remembering, Threshold):
    """`threshold` whose stages, of each client, are adapted so that the share `ratio` of entries is kept, on average.

    Every `every` messages, est is the mean of kept/(ratio d) over them. Above 1 + up there is a stage less, below
    1 - down one more, within 1..ceil(log2(1/ratio)). mode=-2 turns that around where est has moved away from 1, mode=-3
    where it has moved further from the side that it was on; mode=0 leaves the stages.

    Source: SIDCo, arXiv 2101.10761, and the authors' code, whose counters are shared by all tensors of a process; here
    each client has its own. Biased, no worst-case delta; for error feedback. Bits: kept (32 + index bits).

    Attributes:
        ratio, fit, first, index: as of `threshold`.
        stages: those of the first message.
        most: stages that are computed in every message, though fewer may be used.
    """

    mode: int = pytree.static(default=-1)
    every: Scalar = 5
    up: Scalar = 0.2
    down: Scalar = 0.2
    most: int = pytree.static(default=10)
    name: ClassVar[str] = "sidco"

    def start(self, n: int, d: int, dtype: Any) -> Counters:
        whole = jnp.zeros(n, jnp.int32)
        return Counters(whole + self.stages, whole, whole, jnp.zeros(n, dtype), whole + 1)

    def joint_with(
        self, key: Key | None, X: ClientVecs, state: Counters, present: jax.Array | None = None
    ) -> tuple[Message, Counters]:
        def each(rows: Any, self: Sidco) -> Message:
            one = lambda x, stages: self.above(x, lambda values, exist: self._tau(values, exist, stages))
            return jax.vmap(one)(*rows)

        message = each_device(each, (X, state.stages), self)
        after = self._adapted(shared(message.entries).astype(jnp.int32), X.shape[1], state)
        if present is not None:
            after = jax.tree.map(lambda new, old: jnp.where(present, new, old), after, state)
        return message, after

    def _tau(self, values: Vec, exist: jax.Array, stages: jax.Array) -> Scalar:
        """As `threshold`, with a traced number of stages: all `most` are computed and the one asked for is taken."""
        ratio, first = jnp.asarray(self.ratio, values.dtype), jnp.asarray(self.first, values.dtype)
        tau = quantile(self.fit, values, exist, jnp.where(stages == 1, ratio, jnp.maximum(ratio, first)))
        part = jnp.minimum(ratio / first, 1) ** (1 / jnp.maximum(stages - 1, 1).astype(values.dtype))
        wanted = jnp.where(ratio >= first, 1, stages)
        further = lambda stage, tau: jnp.where(stage < wanted, self.further(values, exist, tau, part), tau)
        return repeat(self.most, further, tau, first=1)

    def _adapted(self, kept: jax.Array, d: int, state: Counters) -> Counters:
        """Entries are counted as whole numbers: equal shares are equal, however they come about."""
        stages, total, calls, last, direction = state
        total, calls = total + kept, calls + 1
        same = Counters(stages, total, calls, last, direction)
        if self.mode == 0:
            return same
        est = total.astype(last.dtype) / (calls.astype(last.dtype) * (self.ratio * d)).astype(last.dtype)
        if self.mode == -2:
            turn = (last > 0) & (jnp.abs(est - 1) > jnp.abs(last - 1))
        else:
            apart = ((est > last) & (last < 1 - self.down)) | ((est < last) & (last > 1 + self.up))
            turn = (last > 0) & ~apart
        turned = direction if self.mode == -1 else jnp.where(turn, -direction, direction)
        change = jnp.where(est > 1 + self.up, -turned, jnp.where(est < 1 - self.down, turned, 0))
        adapted = Counters(
            jnp.clip(stages + change, 1, self._most_useful(last.dtype)),
            jnp.zeros_like(total),
            jnp.zeros_like(calls),
            est,
            turned,
        )
        due = calls >= self.every
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), adapted, same)

    def _most_useful(self, dtype: Any) -> jax.Array:
        """ceil(log2(1/ratio)), at least 1; a hair less is rounded up, so that powers of two are exact."""
        needed = jnp.ceil(-jnp.log2(jnp.asarray(self.ratio, dtype)) - 1e-5)
        return jnp.clip(needed, 1, self.most).astype(jnp.int32)

    def validate(self, d: int) -> None:
        super().validate(d)
        if self.mode not in MODES:
            raise InputError(f"sidco mode must be one of {', '.join(map(str, MODES))}, got {self.mode}")
        if not isinstance(self.most, int) or not self.stages <= self.most <= MOST_STAGES:
            raise InputError(f"sidco needs a whole most of stages..{MOST_STAGES}, got {self.most} for {self.stages}")
        if pytree.is_traced((self.ratio, self.every, self.up, self.down)):
            return
        if not (self.every >= 1 and self.up >= 0 and 0 <= self.down < 1):
            raise InputError(f"sidco needs every >= 1, up >= 0 and 0 <= down < 1, got {self.every}, {self.up} and "
                             f"{self.down}")  # fmt: skip
        if (needed := math.ceil(-math.log2(self.ratio) - 1e-5)) > self.most:
            raise InputError(f"sidco:{self.ratio:g} may need {needed} stages: write most={needed}")
