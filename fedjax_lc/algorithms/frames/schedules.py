"""Step sizes over rounds: a factor for round t = 0, 1, ..., by name or as any function (every `optax` schedule is one).

`constant`; `inverse_sqrt`, 1/sqrt(t + 1); `cosine:ROUNDS`, to 0; `exponential:RATE`, RATE^t; `linear:ROUNDS`, to 0;
`steps:EVERY,FACTOR`, times FACTOR after every so many rounds; `warmup:ROUNDS`, up from 1/ROUNDS to 1, then 1;
`warmup_cosine:ROUNDS,TOTAL`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax

from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError

Schedule: TypeAlias = str | Callable[[Any], Any]

_KNOWN: dict[str, Callable[..., Callable[[Any], Any]]] = {
    "constant": lambda: optax.constant_schedule(1.0),
    "inverse_sqrt": lambda: lambda t: 1 / jnp.sqrt(t + 1.0),
    "cosine": lambda rounds: optax.cosine_decay_schedule(1.0, int(rounds)),
    "linear": lambda rounds: optax.linear_schedule(1.0, 0.0, int(rounds)),
    "exponential": lambda rate: optax.exponential_decay(1.0, 1, rate),
    "steps": lambda every, factor: optax.exponential_decay(1.0, int(every), factor, staircase=True),
    "warmup": lambda rounds: lambda t: jnp.minimum((t + 1.0) / rounds, 1.0),
    "warmup_cosine": lambda rounds, total: optax.warmup_cosine_decay_schedule(0.0, 1.0, int(rounds), int(total)),
}
_ARGUMENT = spec.Field((float,), True, lambda number: 0 < number < math.inf, "a finite number > 0")


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
    spelled = spec.parse("schedule", schedule)
    make = spelled.look_up(_KNOWN)
    numbers = spelled.read(dict.fromkeys(inspect.signature(make).parameters, _ARGUMENT))
    try:
        return make(**numbers)
    except ValueError as error:
        raise InputError(f"schedule {schedule!r} cannot be: {error}") from None
