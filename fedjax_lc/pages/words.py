"""Facts as names and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pairs(facts: Mapping[str, Any], empty: bool = False) -> list[list[str]]:
    """Names and texts; without those that say nothing, unless `empty`."""
    return [[str(name), text(value)] for name, value in facts.items() if empty or value not in (None, "", [], {})]


def text(value: Any) -> str:
    """A value for people.

    >>> text({"gamma": 0.25, "smart": True})
    'gamma: 0.25, smart: yes'
    """
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text(each)}" for name, each in value.items())
    return ", ".join(map(text, value)) if isinstance(value, list | tuple) else str(value)
