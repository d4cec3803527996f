"""Sweeps in TOML files: the options of `fedjax-lc sweep` by name, as a file that says them and one that is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from tomllib import loads
from typing import Any

from fedjax_lc.core.errors import InputError, unknown

LISTS = ("labels", "measure", "masked")  #: options that may be repeated
TABLES = ("grid", "budget")  #: options that are written NAME=VALUE and may be repeated


@dataclasses.dataclass
class Said:
    """What a file says: methods, the tables, and the other options as a command line has them."""

    methods: list[str]
    tables: dict[str, dict[str, Any]]
    options: dict[str, list[str]]


def read(path: str, known: Collection[str]) -> Said:
    """What the file says; `known` are the names of options, of which dashes or underscores are the same.

    Raises:
        InputError: a file that cannot be read, a key that is not known, a value that is no option's.
    """
    said = Said([], {name: {} for name in TABLES}, {})
    for key, value in load(path).items():
        name = key.replace("-", "_")
        if name == "methods":
            said.methods = [str(word) for word in (value if isinstance(value, list) else [value])]
        elif name not in known:
            raise unknown(f"key in {path}", key, {"methods", *(option.replace("_", "-") for option in known)})
        elif name in TABLES:
            said.tables[name] = _flat(path, key, value)
        else:
            said.options[name] = _words(path, key, value)
    return said


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


def _flat(path: str, key: str, value: Any) -> dict[str, Any]:
    """A table whose inner tables became dotted names."""
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key} must be a table of names and values, as in [{key}], got {value!r}")
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= (
            {f"{name}.{n}": v for n, v in _flat(path, name, inner).items()}
            if isinstance(inner, dict)
            else {name: inner}
        )
    return found


def _words(path: str, key: str, value: Any) -> list[str]:
    """An option as words of the command line."""
    option = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [option] if value else []
    several = value if isinstance(value, list) and key in LISTS else [value]
    if any(isinstance(item, list | dict) for item in several):
        raise InputError(f"{path}: {key} must be one value, got {value!r}")
    return [f"{option}={item}" for item in several]


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
