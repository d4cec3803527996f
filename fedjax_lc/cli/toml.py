"""TOML files of settings: reading one, and writing one that reads back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tomllib import loads
from typing import Any

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.spec import MOST_NESTED


def load(path: str) -> dict[str, Any]:
    """The file's keys and values.

    Raises:
        InputError: no such file, or no TOML.
    """
    try:
        return loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {error}") from None
    except RecursionError:
        raise InputError(f"{path} nests lists or tables too deeply") from None


def flat(path: str, key: str, value: Any, depth: int = 0) -> dict[str, Any]:
    """A table whose inner tables became dotted names.

    Raises:
        InputError: no table, or tables in each other without end.
    """
    if depth > MOST_NESTED:
        raise InputError(f"{path}: {key} nests tables too deeply: at most {MOST_NESTED} in each other")
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} must be a table of names and values, as in [{key}], got {value!r}")
    items: dict[str, Any] = {}
    for name, inner in value.items():
        nested = flat(path, name, inner, depth + 1) if isinstance(inner, dict) else None
        items |= {name: inner} if nested is None else {f"{name}.{n}": v for n, v in nested.items()}
    return items


def spell(settings: Mapping[str, Any]) -> str:
    """A TOML file of plain values, lists and tables one deep; None is left out.

    >>> spell({"steps": 100, "budget": {"bits_up": 1e7}})
    'steps = 100\\n\\n[budget]\\n"bits_up" = 10000000.0\\n'
    """
    plain = {name: value for name, value in settings.items() if value is not None}
    lines = [f"{name.replace('_', '-')} = {json.dumps(v)}" for name, v in plain.items() if not isinstance(v, dict)]
    for name, table in plain.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{name}]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"
