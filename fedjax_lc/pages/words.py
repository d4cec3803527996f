"""Facts as names and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pairs(facts: Mapping[str, Any], exact: bool = False) -> list[list[str]]:
    """Names and texts. With `exact` numbers have all their digits, and what says nothing has a dash, else no place."""
    shown = {name: value for name, value in facts.items() if exact or value not in (None, "", [], {})}
    return [[str(name), text(value, exact)] for name, value in shown.items()]


def text(value: Any, exact: bool = False) -> str:
    """A value for people.

    >>> text({"gamma": 0.25, "smart": True})
    'gamma: 0.25, smart: yes'
    """
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.6g}"
    if isinstance(value, int):
        return str(value) if exact else f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text(each, exact)}" for name, each in value.items())
    return ", ".join(text(each, exact) for each in value) if isinstance(value, list | tuple) else str(value)
