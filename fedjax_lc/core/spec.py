"""The small language of everything that has a name and arguments: `name(inner;inner):value,field=value`.

Compressors, schedules, networks, data sets and partitions are spelled in it; axes of a grid share its values:

    3, 0.1, 1e-3, inf    numbers               true, false, None
    10%                  a percentage          3x4x5, 12x    whole numbers (12x: one)
    natural              a word

A comma or a semicolon within parentheses separates nothing outside them. Whole numbers are those of 64 bits.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fedjax_lc.core.errors import InputError, unknown

MOST_NESTED = 20  #: parentheses within parentheses
_LONG = re.compile(r"[+-]?\d{19,}")
_HEAD = re.compile(r"([^(]*?)\s*(?:\((.*)\))?", flags=re.S)


@dataclasses.dataclass(frozen=True)
class Percent:
    """A number of per cent."""

    number: int | float

    def __str__(self) -> str:
        return f"{spell(self.number)}%"


_WORDS = {
    int: "a whole number",
    float: "a number",
    Percent: "a percentage",
    tuple: "whole numbers such as 3x4",
    bool: "true or false",
    type(None): "None",
    str: "a word",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """What one argument may be.

    Attributes:
        kinds: types of its value; the first that the text spells counts.
        required: whether it must be given.
        fits: whether a value of these types is in range.
        words: what errors say it must be; empty: the kinds.
    """

    kinds: tuple[type, ...]
    required: bool = False
    fits: Callable[[Any], bool] = lambda value: True
    words: str = ""

    def __str__(self) -> str:
        kinds = [kind for kind in self.kinds if not (kind is int and float in self.kinds)]
        return self.words or " or ".join(_WORDS[kind] for kind in kinds)

    def value(self, what: str, text: str) -> Any:
        """The value that `text` spells.

        Raises:
            InputError: it spells none of these types, or a value out of range; `what` begins the message.
        """
        try:
            value = read(text, self.kinds)
        except ValueError:
            raise self.refused(what, text) from None
        if not self.fits(value):
            raise self.refused(what, text)
        return value

    def refused(self, what: str, value: Any) -> InputError:
        """The error for a value that does not fit."""
        beyond = " (64 bits at most)" if _LONG.fullmatch(str(value)) else ""
        return InputError(f"{what} must be {self}{beyond}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class Call:
    """A name with its arguments, which are still text; `str(call)` spells it.

    Attributes:
        name: the name.
        inner: what is in parentheses, between semicolons.
        arguments: (field, value), the field empty where the argument goes by its position.
        what: what is called, such as a compressor, for errors.
        text: how it was written, for errors.
    """

    name: str
    inner: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    what: str = dataclasses.field(default="", compare=False)
    text: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        brackets = f"({';'.join(self.inner)})" if self.inner else ""
        arguments = ",".join(f"{field}={value}" if field else value for field, value in self.arguments)
        return self.name + brackets + (f":{arguments}" if arguments else "")

    def look_up(self, registry: Mapping[str, Any]) -> Any:
        """What is registered under the name.

        Raises:
            InputError: nothing is; with the nearest name.
        """
        if self.name not in registry:
            raise unknown(self.what, self.name, registry)
        return registry[self.name]

    def read(self, fields: Mapping[str, Field], inner: Sequence[str] = ()) -> dict[str, Any]:
        """The arguments by field, converted to the fields' kinds, and the text in parentheses by the names of `inner`.

        Raises:
            InputError: too many arguments, one that there is not, that is given twice, that is missing or that has a
                value of another kind; another number of things in parentheses.
        """
        here = f"{self.what} {self.text!r}"
        if len(self.inner) != len(inner):
            takes = f"{len(inner)}, as in {self.name}({';'.join(inner)})" if inner else "none"
            raise InputError(f"{here} has {len(self.inner)} {self.what}s in parentheses: {self.name} takes {takes}")
        given: dict[str, Any] = {}
        for position, (field, value) in enumerate(self.arguments):
            if not field and position >= len(fields):
                takes = f"at most {len(fields)} ({', '.join(fields)})" if fields else "none"
                raise InputError(f"{here} has too many arguments: {self.name} takes {takes}")
            name = field or list(fields)[position]
            if name not in fields:
                raise unknown(f"option of {self.name}", name, fields)
            if name in given:
                raise InputError(f"{here} gives {name} twice")
            given[name] = fields[name].value(f"{here}: {name}", value)
        required = [name for name, field in fields.items() if field.required]
        if missing := [name for name in required if name not in given]:
            needed = tuple(("", name.upper()) for name in required)
            raise InputError(f"{here} needs {' and '.join(missing)}: write {Call(self.name, tuple(inner), needed)}")
        return dict(zip(inner, self.inner, strict=True)) | given


def parse(what: str, text: str) -> Call:
    """The name and the arguments that `text` spells.

    Args:
        what: what is called, such as a compressor, for errors.

    Raises:
        InputError: another form, or unbalanced parentheses.

    Example:
        >>> parse("partition", "dirichlet:0.1, min_partition_size=3").arguments
        (('', '0.1'), ('min_partition_size', '3'))
    """
    colon = next(iter(_cuts(what, text, ":")), len(text))
    match = _HEAD.fullmatch(text[:colon].strip())
    if match is None:
        raise InputError(f"cannot read {what} {text!r}: expected name:value,field=value or name(inner):value")
    name, inner = match.groups()
    arguments = filter(None, split(what, text[colon + 1 :], ","))
    return Call(
        name, () if inner is None else tuple(split(what, inner, ";")), tuple(map(_argument, arguments)), what, text
    )


def call(what: str, text: str, registry: Mapping[str, Callable[..., Any]], hidden: Collection[str] = ()) -> Any:
    """The name of a registered function and the keyword arguments that `text`, such as `dirichlet:0.1`, spells.

    Their kinds are the annotations of the function's parameters; those in `hidden` are not the text's to set.

    Raises:
        InputError: an unknown name or option, a missing one, or a value of another kind.

    Example:
        >>> def circle(radius: float, colour: str = "red"): ...
        >>> call("shape", "circle:2,colour=blue", {"circle": circle})
        ('circle', {'radius': 2.0, 'colour': 'blue'})
    """
    spelled = parse(what, text)
    signature = inspect.signature(spelled.look_up(registry), eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name not in hidden]
    return spelled.name, spelled.read({p.name: Field((p.annotation,), p.default is p.empty) for p in parameters})


def split(what: str, text: str, separator: str) -> list[str]:
    """The parts of `text` between separators outside parentheses, stripped.

    Raises:
        InputError: unbalanced parentheses.

    Example:
        >>> split("axis", "induced(rand_k:1; natural); identity", ";")
        ['induced(rand_k:1; natural)', 'identity']
    """
    cuts = _cuts(what, text, separator)
    return [text[a + 1 : b].strip() for a, b in zip([-1, *cuts], [*cuts, len(text)], strict=True)]


def _cuts(what: str, text: str, separator: str) -> list[int]:
    """Where the separators outside parentheses are."""
    cuts, depth = [], 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth > MOST_NESTED:
            raise InputError(f"{what} {text!r} nests too deeply: at most {MOST_NESTED} parentheses in each other")
        if depth < 0:
            raise InputError(f"{what} {text!r} has a ')' without its '('")
        if character == separator and depth == 0:
            cuts.append(place)
    if depth:
        raise InputError(f"{what} {text!r} has a '(' without its ')'")
    return cuts


def pair(text: str) -> tuple[str, str]:
    """The name and the value of `name=value`, stripped; the name is empty where there is no `=`."""
    name, equals, value = text.partition("=")
    return (name.strip(), value.strip()) if equals else ("", text.strip())


def read(text: str, kinds: Collection[type]) -> Any:
    """The value that `text` spells, of the first of these types that it can have.

    Raises:
        ValueError: it spells none of them.

    Example:
        >>> read("3", (int, float, str)), read("1e-3", (int, float, str)), read("natural", (int, float, str))
        (3, 0.001, 'natural')
    """
    for kind in kinds:
        try:
            return _READ[kind](text)
        except (KeyError, ValueError):
            continue
    raise ValueError(text)


def spell(value: Any) -> str:
    """The text that `read` takes for this value: numbers in the fewest digits that are exact."""
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if len(value) > 1 else f"{value[0]}x"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | str | Percent):
        return str(value)
    short = f"{float(value):g}"
    return short if float(short) == float(value) else f"{float(value)!r}"


def _argument(text: str) -> tuple[str, str]:
    """The field, empty where the text names none, and the value."""
    field, value = pair(text)
    return (field, value) if field.isidentifier() else ("", text)


def whole(text: str) -> int:
    """The whole number of 64 bits that `text` spells.

    Raises:
        ValueError: it spells none.
    """
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _percent(text: str) -> Percent:
    number, sign, rest = text.partition("%")
    if not sign or rest:
        raise ValueError
    return Percent(read(number, (int, float)))


def _whole_numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+x?|\d+(x\d+)+", text):
        raise ValueError
    return tuple(whole(number) for number in text.rstrip("x").split("x"))


_READ: dict[type, Callable[[str], Any]] = {
    int: whole,
    float: float,
    Percent: _percent,
    tuple: _whole_numbers,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    type(None): lambda text: {"none": None}[text.lower()],
    str: lambda text: text,
}
