"""Compressors by name: `rand_k:4|natural`, the same text in Python, on the command line and in result files.

`a|b` applies a first; the rest is the language of `core.spec`, as in `induced(top_k:2;rand_k:10%)` or
`per_block(natural):3x4x5`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from fedjax_lc.compressors.base import INDEX_BITS, Chain, Compressor, argument_fields, inner_fields
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import declarations

MOST_PARTS = 20  #: compressors after or in each other
REGISTRY: dict[str, type[Compressor]] = {}


def register(*classes: type[Compressor]) -> None:
    """Make compressors known to `parse` and `names` under their `name`."""
    for cls in classes:
        REGISTRY[cls.name] = cls


def names() -> list[str]:
    """The names that `parse` knows."""
    return sorted(REGISTRY)


def parse(text: str | Compressor) -> Compressor:
    """The compressor that `text` spells; a compressor passes through. `str(compressor)` spells it back.

    Raises:
        InputError: an unknown name (with the nearest one), a wrong argument, or unbalanced parentheses.

    Example:
        >>> str(parse("rand_k:k=4 | natural"))
        'rand_k:4|natural'
    """
    if isinstance(text, Compressor):
        return text
    if text.count("|") + text.count("(") > MOST_PARTS:
        raise InputError(f"compressor {text!r} has too many parts: at most {MOST_PARTS} after or in each other")
    terms = spec.split("compressor", text, "|")
    if not all(terms):
        raise InputError(f"compressor {text!r} has an empty part: write name:value,field=value, as in rand_k:4|natural")
    return functools.reduce(Chain, map(_term, terms))


def with_index(c: Compressor, convention: str) -> Compressor:
    """`c` with the index convention (log2, binom, int32, none) set in every part that offers it.

    Parts that send no indices, such as joint compressors with a shared seed, stay as they are.

    Raises:
        InputError: an unknown convention.

    Example:
        >>> str(with_index(parse("rand_k:4|natural"), "binom"))
        'rand_k:4,index=binom|natural'
    """
    if convention not in INDEX_BITS:
        raise InputError(f"unknown index convention {convention!r}: expected one of {', '.join(INDEX_BITS)}")
    changes: dict[str, Any] = {name: with_index(getattr(c, name), convention) for name in inner_fields(type(c))}
    if convention in c.conventions:
        changes["index"] = convention
    return dataclasses.replace(c, **changes)  # type: ignore[type-var]


def for_layers(c: Compressor, sizes: tuple[int, ...]) -> Compressor:
    """`c` with these block sizes for the word layers, in every part that is spelled per_block(...):layers.

    Example:
        >>> for_layers(parse("per_block(natural):layers"), (3, 4)).omega(7)
        0.125
    """
    changes: dict[str, Any] = {name: for_layers(getattr(c, name), sizes) for name in inner_fields(type(c))}
    if getattr(c, "sizes", None) == "layers":
        changes["layers"] = sizes
    return dataclasses.replace(c, **changes) if changes else c  # type: ignore[type-var]


def _term(text: str) -> Compressor:
    call = spec.parse("compressor", text)
    cls = call.look_up(REGISTRY)
    inner = inner_fields(cls)
    given = call.read({field.name: _field(cls, field) for field in argument_fields(cls)}, inner)
    given |= {name: parse(given[name]) for name in inner}
    if isinstance(k := given.get("k"), spec.Percent):
        given |= {"k": k.number, "unit": "percent"}
    return cls(**given)


def _field(cls: type[Compressor], field: Any) -> spec.Field:
    """What an argument may be. A number need not be whole for a field that takes whole ones: `validate` says more."""
    declared = declarations(cls)[field.name]
    required = field.default is dataclasses.MISSING
    if declared.kind == "word":
        return spec.Field((str,), required)
    percent = field.name == "k" and "unit" in declarations(cls)
    others = {spec.Percent: percent, tuple: declared.admits(tuple), str: declared.admits(str)}
    return spec.Field((int, float, *(kind for kind, admitted in others.items() if admitted)), required)
