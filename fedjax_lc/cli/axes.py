"""Which method sweeps which axes: `--grid NAME=VALUES` for all that have the name, `--grid METHOD.NAME=...` for one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
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

    base = functools.partial(algorithm.theory, problem)
    points = grid(base, **axes) if num is None or not axes else sample(base, num, method=kind, seed=seed, **axes)
    points = dataclasses.replace(points, hparams=tuple(priced(hp, index_bits) for hp in points.hparams))
    for hp in points.hparams:
        algorithm.check(problem, hp)
    return points


def configurations(config: Any, algorithm: Any, problem: Any, axes: Mapping[str, Any]) -> Any:
    """The Grid of a method with these axes that the configuration of a sweep or a tune asks for."""
    how = {"num": config.sample, "kind": config.sample_method, "seed": config.sample_seed}
    return build(algorithm, problem, axes, index_bits=config.index_bits, **how)
