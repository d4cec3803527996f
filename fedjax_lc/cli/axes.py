"""Which method sweeps which axes: `--grid NAME=VALUES` for all that have the name, `--grid METHOD.NAME=...` for one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedjax_lc.cli.options import priced
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError, unknown


def pairs(option: str, words: Sequence[str], example: str) -> dict[str, str]:
    """NAME=VALUE words by name.

    Raises:
        InputError: a word of another form, or a name given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        name, value = spec.pair(word)
        if not (name and value):
            raise InputError(f"--{option} must be NAME=VALUE, as in '{example}', got {word!r}")
        if name in values:
            raise InputError(f"--{option} {name} is given twice ({values[name]!r} and {value!r}): keep one")
        values[name] = value
    return values


def renamed(text: str | None) -> dict[str, str] | None:
    """Names as in fc1=Dense_0,fc2=Dense_1, by the names that they replace; None for none."""
    return None if text is None else pairs("start-names", text.split(","), "fc1=Dense_0,fc2=Dense_1")


def limits(budget: Mapping[str, Any]) -> dict[str, float]:
    """The budget as numbers.

    Raises:
        InputError: an unknown cost, or no number > 0.
    """
    from fedjax_lc.results import ledger

    limits = {}
    for name, value in budget.items():
        if name not in ledger.COSTS:
            raise unknown("budget", name, ledger.COSTS)
        try:
            limits[name] = float(value)
        except (TypeError, ValueError, OverflowError):
            limits[name] = 0.0
        if not 0 < limits[name] < math.inf:
            raise InputError(f"--budget {name} must be a number > 0, got {value!r}")
    return limits


def shares(axes: Mapping[str, Any], methods: Sequence[Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Method -> its axes in the order given, and notes on methods that lack one.

    Raises:
        InputError: an axis that no method has, or one of a method that is not swept.
    """
    shared: dict[str, dict[str, Any]] = {algorithm.name: {} for algorithm in methods}
    notes = []
    addressed = {name: _address(name, shared) for name in axes}
    for name, (owner, field) in sorted(addressed.items(), key=lambda item: item[1][0] != ""):  # METHOD.NAME goes last
        asked = [algorithm for algorithm in methods if owner in ("", algorithm.name)]
        holders = [algorithm.name for algorithm in asked if _head(field) in algorithm.options]
        if not holders:
            known = {known for algorithm in asked for known in algorithm.options}
            raise unknown(f"hyperparameter of {' and '.join(a.name for a in asked)}", field, known)
        for method in holders:
            shared[method][field] = axes[name]
        lacking = [algorithm.name for algorithm in asked if algorithm.name not in holders]
        if lacking:
            notes.append(f"no {field} in {', '.join(lacking)}: swept without it")
    return shared, notes


def _address(name: str, methods: Mapping[str, Any]) -> tuple[str, str]:
    """The method that an axis is for (empty: every one) and its field."""
    from fedjax_lc import algorithms

    owner, dot, field = name.partition(".")
    if not dot or owner not in algorithms.names():
        return "", name
    if owner not in methods:
        raise InputError(f"--grid {name}: {owner} is not swept here (swept: {', '.join(methods)})")
    return owner, field


def _head(field: str) -> str:
    """The field of the hyperparameters that holds a nested one."""
    return field.partition(".")[0].partition("__")[0]


def working_rule(algorithm: Any, problem: Any, axes: Mapping[str, Any]) -> str | None:
    """What theory's numbers, but for those that an axis gives, rest on where no theorem gives them; else None."""
    given = {_head(name) for name, axis in axes.items() if not str(axis).lstrip().startswith("theory")}
    return algorithm.working_rule(problem, dict.fromkeys(given - inspect.signature(algorithm.theory).parameters.keys()))


def build(
    algorithm: Any,
    problem: Any,
    axes: Mapping[str, Any],
    *,
    num: int | None,
    kind: str,
    index_bits: str | None,
    seed: int = 0,
) -> Any:
    """The method's Grid around its theory, every configuration checked.

    Args:
        num: draw so many samples with `seed`; None for all points.

    Raises:
        InputError: values that are no axis, or a configuration out of range.
    """
    from fedjax_lc.sweeping.grid import grid, sample

    base = _naming(algorithm.name, functools.partial(algorithm.theory, problem))
    points = grid(base, **axes) if num is None or not axes else sample(base, num, method=kind, seed=seed, **axes)
    points = dataclasses.replace(points, hparams=tuple(priced(hp, index_bits) for hp in points.hparams))
    check = _naming(algorithm.name, functools.partial(algorithm.check, problem))
    for hp in points.hparams:
        check(hp)
    return points


def _naming(method: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A call whose errors name the method: a sweep may have several."""

    @functools.wraps(call)
    def named(*values: Any, **choices: Any) -> Any:
        try:
            return call(*values, **choices)
        except InputError as error:
            raise error if method in str(error) else InputError(f"{method}: {error}") from error

    return named


def configurations(config: Any, algorithm: Any, problem: Any, axes: Mapping[str, Any]) -> Any:
    """The Grid of a method with these axes that the configuration of a sweep or a tune asks for."""
    how = {"num": config.sample, "kind": config.sample_method, "seed": config.sample_seed}
    return build(algorithm, problem, axes, index_bits=config.index_bits, **how)
