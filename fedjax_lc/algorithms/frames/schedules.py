"""Step sizes over rounds: a factor for round t = 0, 1, ..., by name or as any function (every `optax` schedule is one).

`constant`; `inverse_sqrt`, 1/sqrt(t + 1); `cosine:ROUNDS`, to 0; `exponential:RATE`, RATE^t; `linear:ROUNDS`, to 0;
`steps:EVERY,FACTOR`, times FACTOR after every so many rounds; `warmup:ROUNDS`, up from 1/ROUNDS to 1, then 1;
`warmup_cosine:ROUNDS,ALL`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax

from fedjax_lc.core.errors import InputError, unknown

Schedule: TypeAlias = str | Callable[[Any], Any]

_KNOWN: dict[str, tuple[int, Callable[..., Callable[[Any], Any]]]] = {
    "constant": (0, lambda: optax.constant_schedule(1.0)),
    "inverse_sqrt": (0, lambda: lambda t: 1 / jnp.sqrt(t + 1.0)),
    "cosine": (1, lambda rounds: optax.cosine_decay_schedule(1.0, int(rounds))),
    "linear": (1, lambda rounds: optax.linear_schedule(1.0, 0.0, int(rounds))),
    "exponential": (1, lambda rate: optax.exponential_decay(1.0, 1, rate)),
    "steps": (2, lambda every, factor: optax.exponential_decay(1.0, int(every), factor, staircase=True)),
    "warmup": (1, lambda rounds: lambda t: jnp.minimum((t + 1.0) / rounds, 1.0)),
    "warmup_cosine": (2, lambda rounds, whole: optax.warmup_cosine_decay_schedule(0.0, 1.0, int(rounds), int(whole))),
}


def names() -> list[str]:
    """Names of the schedules."""
    return list(_KNOWN)


def parse(schedule: Schedule) -> Callable[[Any], Any]:
    """The function t -> factor that a schedule's name stands for; a function passes through.

    Raises:
        InputError: an unknown name, or arguments that do not fit.

    Example:
        >>> float(parse("cosine:100")(50))
        0.5
    """
    if callable(schedule):
        return schedule
    if not isinstance(schedule, str):
        raise InputError(f"a schedule must be one of {', '.join(_KNOWN)} or a function of the round, got {schedule!r}")
    return _named(schedule)


@functools.cache
def _named(schedule: str) -> Callable[[Any], Any]:
    name, _, rest = schedule.partition(":")
    if name not in _KNOWN:
        raise unknown("schedule", name, _KNOWN)
    count, make = _KNOWN[name]
    try:
        numbers = [float(word) for word in rest.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"schedule {schedule!r} holds a word where a number belongs") from None
    if len(numbers) != count or any(number <= 0 for number in numbers):
        raise InputError(f"schedule {name} takes {count} numbers > 0, as in {name}:{','.join(['10'] * count)}, got "
                         f"{schedule!r}")  # fmt: skip
    try:
        return make(*numbers)
    except ValueError as error:
        raise InputError(f"schedule {schedule!r} cannot be: {error}") from None
