"""The small string language of data sets and partitions: `name`, `name:0.1`, `name:0.1,seed=3`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedjax_lc.core.errors import InputError, unknown

_WORDS = {int: "a whole number", float: "a number", str: "a word"}


def parse_call(
    text: str, registry: Mapping[str, Callable[..., Any]], kind: str, hidden: Collection[str] = ()
) -> tuple[str, dict[str, Any]]:
    """The registered name and the keyword arguments that a string such as `dirichlet:0.1` stands for.

    Arguments are given by position or by name and converted by the function's annotations (int, float or str).
    Parameters named in `hidden` are not the string's to set. Raises InputError for an unknown
    name or option and for a value of the wrong type.

    >>> parse_call("f:3,b=0.5", {"f": lambda a, b: None}, "function")  # doctest: +SKIP
    ('f', {'a': 3, 'b': 0.5})
    """
    name, _, rest = text.strip().partition(":")
    if name not in registry:
        raise unknown(kind, name, registry)
    signature = inspect.signature(registry[name], eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name not in hidden]
    types = {p.name: p.annotation for p in parameters}
    arguments: dict[str, Any] = {}
    for place, piece in enumerate(rest.split(",") if rest else []):
        option, value = _option(text, name, place, piece.strip(), list(types))
        arguments[option] = _convert(text, option, types[option], value)
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in arguments]
    if missing:
        raise InputError(f"{kind} {text!r} needs {missing[0]}: write {name}:{missing[0].upper()}")
    return name, arguments


def _option(text: str, name: str, place: int, piece: str, options: list[str]) -> tuple[str, str]:
    option, equals, value = piece.partition("=")
    if equals and option in options:
        return option, value
    if equals and option.isidentifier():
        raise unknown(f"option of {name}", option, options)
    if place >= len(options):
        raise InputError(f"{text!r} has too many arguments: {name} takes at most {len(options)}")
    return options[place], piece


def _convert(text: str, option: str, kind: type, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{text!r}: {option} must be {_WORDS[kind]}, got {value!r}") from None
