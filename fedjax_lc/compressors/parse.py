"""The string form of compressors: `rand_k:4|natural`, the same in Python, on the command line and in result files.

chain := term ("|" term)*          a|b applies a first
term  := name ["(" chain (";" chain)* ")"] [":" arg ("," arg)*]
arg   := value | field "=" value   value: a number, a percentage of d (10%), a word, or sizes (3x4x5)
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from fedjax_lc.compressors.base import INDEX_BITS, Chain, Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import declarations

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
        InputError: an unknown name (with the nearest one), a wrong argument, or unbalanced brackets.

    Example:
        >>> str(parse("rand_k:k=4 | natural"))
        'rand_k:4|natural'
    """
    if isinstance(text, Compressor):
        return text
    terms = [_term(part, text) for part in split(text, "|")]
    chain = terms[0]
    for term in terms[1:]:
        chain = Chain(chain, term)
    return chain


def spell(c: Any) -> str:
    """`name(inner):value,field=value` with only the fields that differ from their defaults; the first goes unnamed."""
    inner = [f"{getattr(c, name)}" for name in _holding(type(c))]
    arguments = []
    for position, field in enumerate(_open_fields(type(c))):
        value = getattr(c, field.name)
        percent = "%" if position == 0 and getattr(c, "unit", "count") == "percent" else ""
        if pytree.is_traced(value) or not _is_default(value, field.default):
            text = _spell_value(value) + percent
            arguments.append(text if position == 0 else f"{field.name}={text}")
    brackets = f"({';'.join(inner)})" if inner else ""
    return c.name + brackets + (":" + ",".join(arguments) if arguments else "")


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
    changes: dict[str, Any] = {name: with_index(getattr(c, name), convention) for name in _holding(type(c))}
    if convention in c.conventions:
        changes["index"] = convention
    return dataclasses.replace(c, **changes)  # type: ignore[type-var]


def for_layers(c: Compressor, sizes: tuple[int, ...]) -> Compressor:
    """`c` with these block sizes for the word layers, in every part that is spelled per_block(...):layers.

    Example:
        >>> for_layers(parse("per_block(natural):layers"), (3, 4)).omega(7)
        0.125
    """
    changes: dict[str, Any] = {name: for_layers(getattr(c, name), sizes) for name in _holding(type(c))}
    if getattr(c, "sizes", None) == "layers":
        changes["layers"] = sizes
    return dataclasses.replace(c, **changes) if changes else c  # type: ignore[type-var]


def split(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators outside brackets, stripped.

    Raises:
        InputError: unbalanced brackets.

    Example:
        >>> split("induced(rand_k:1; natural); identity", ";")
        ['induced(rand_k:1; natural)', 'identity']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise InputError(f"compressor {text!r} has a ')' without its '('")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise InputError(f"compressor {text!r} has a '(' without its ')'")
    return [part.strip() for part in parts]


def number(text: str) -> int | float | str:
    """The number that `text` spells, whole if it can be; `text` itself if it spells none.

    >>> number("3"), number("1e-3"), number("natural")
    (3, 0.001, 'natural')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_default(value: Any, default: Any) -> bool:
    return default is not dataclasses.MISSING and type(value) is type(default) and value == default


def _spell_value(value: Any) -> str:
    if pytree.is_traced(value):
        return "traced"
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if len(value) > 1 else f"{value[0]}x"
    if isinstance(value, str | int):
        return f"{value}"
    short = f"{float(value):g}"
    return short if float(short) == float(value) else f"{float(value)!r}"


def _term(term: str, whole: str) -> Compressor:
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?\s*(?::(.*))?", term, flags=re.S)
    if not match:
        raise InputError(f"cannot read compressor {whole!r} at {term!r}: expected name:arg,field=value, as in rand_k:4")
    name, inner, arguments = match.groups()
    if name not in REGISTRY:
        raise unknown("compressor", name, REGISTRY)
    cls = REGISTRY[name]
    given = _inner(cls, inner, term) | _arguments(cls, arguments or "", term)
    missing = [f.name for f in _open_fields(cls) if f.default is dataclasses.MISSING and f.name not in given]
    if missing:
        raise InputError(f"compressor {term!r} needs {' and '.join(missing)}: write it as {_form(cls)}")
    return cls(**given)


def _form(cls: type[Compressor]) -> str:
    """How a compressor is written, as in per_block(inner):sizes."""
    inner = ";".join(_holding(cls))
    needed = ",".join(f.name for f in _open_fields(cls) if f.default is dataclasses.MISSING)
    return cls.name + (f"({inner})" if inner else "") + (f":{needed}" if needed else "")


def _fields(c: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(c)


def _holding(cls: type[Compressor]) -> list[str]:
    """The fields that are compressors themselves."""
    return [name for name, declared in declarations(cls).items() if declared.admits(Compressor)]


def _open_fields(cls: type[Compressor]) -> list[dataclasses.Field[Any]]:
    """The fields that arguments fill: no compressors, no unit (a % sign sets it), no layers (a network has them)."""
    return [f for f in _fields(cls) if f.name not in (*_holding(cls), "unit", "layers")]


def _inner(cls: type[Compressor], text: str | None, term: str) -> dict[str, Any]:
    """The compressors in brackets."""
    fields = _holding(cls)
    parts = [] if text is None else split(text, ";")
    if len(parts) != len(fields):
        takes = f"takes {len(fields)} in brackets, as in {_form(cls)}" if fields else "takes none in brackets"
        raise InputError(f"compressor {term!r} has {len(parts)} compressors inside: {cls.name} {takes}")
    return dict(zip(fields, map(parse, parts), strict=True))


def _arguments(cls: type[Compressor], text: str, term: str) -> dict[str, Any]:
    """Field values from `a,b,field=c`; unnamed ones fill the fields that are not compressors, in order."""
    fields = {f.name: f for f in _open_fields(cls)}
    given: dict[str, Any] = {}
    for position, piece in enumerate(part.strip() for part in text.split(",") if part.strip()):
        name, _, value = (part.strip() for part in piece.rpartition("="))
        name = name or (list(fields)[position] if position < len(fields) else "")
        if name not in fields:
            takes = ", ".join(fields) or "none"
            raise InputError(f"compressor {term!r} has no argument {name or piece!r} (it takes: {takes})")
        if name in given:
            raise InputError(f"compressor {term!r} gives {name} twice")
        given |= _value(cls, fields[name], value, term)
    return given


def _value(cls: type[Compressor], field: dataclasses.Field[Any], text: str, term: str) -> dict[str, Any]:
    name, declared = field.name, declarations(cls)[field.name]
    if declared.kind == "word":
        return {name: text}
    if text.endswith("%"):
        if name != "k" or "unit" not in {f.name for f in _fields(cls)}:
            raise InputError(f"compressor {term!r}: {name} takes no percentage")
        return {name: _number(text[:-1], term), "unit": "percent"}
    if declared.admits(tuple) and re.fullmatch(r"\d+x|\d+(x\d+)+", text):
        return {name: tuple(int(size) for size in text.rstrip("x").split("x"))}
    if declared.admits(str) and isinstance(number(text), str):
        return {name: text}
    return {name: _number(text, term)}


def _number(text: str, term: str) -> int | float:
    value = number(text)
    if isinstance(value, str):
        raise InputError(f"compressor {term!r}: {text!r} is not a number")
    return value
