"""Pickles of plain data, read without a pickle machine: nothing of a file is run, and only plain values are made.

A pickle is a program for a stack machine. This reader knows the operations that Python 2 and 3 write for dicts, lists,
tuples, strings, bytes, whole numbers, None, truth values and NumPy arrays of unsigned bytes, in protocols 0 to 5, and
refuses every other. Functions are never looked up: of those that an array names, each is known by its name alone, and
what it would make is made here, with sizes checked against the bytes at hand.

Source: CPython's Lib/pickletools.py (the operations), NumPy's ndarray.__reduce__ and __reduce_ex__ (arrays).
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError

MOST_OPERATIONS = 2_000_000  #: a file of CIFAR has some 250,000
_MOST_AXES = 4


class _Refused(Exception):
    """What a pickle asks for and may not have."""


class _Name(str):
    """A function or class, by its name alone."""


class _Array:
    """An array of bytes: what its state says, once it came."""

    value: NDArray[np.uint8]


_MARK = object()
_BYTE = _Name("bytes")  # the type of unsigned bytes
_MULTIARRAY = {"numpy.core.multiarray", "numpy._core.multiarray"}
_NUMERIC = {"numpy.core.numeric", "numpy._core.numeric"}
_KNOWN = {
    **{(module, "_reconstruct"): _Name("array") for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _Name("buffer") for module in _NUMERIC},
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("_codecs", "encode"): _Name("encode"),
}


def parse(content: bytes, where: str) -> Any:
    """What a pickle of plain data holds; strings of Python 2 are bytes.

    Raises InputError for any other pickle, and for one that is cut off or damaged; `where` names the file.
    """
    try:
        return _Reader(content).run()
    except _Refused as error:
        raise InputError(f"{where}: not a pickle of plain data (it asks for {error}); get the original file") from None
    # A damaged stream of operations may fail in any way.
    except Exception:
        raise InputError(f"{where}: the pickle is truncated or corrupt; copy or download it again") from None


class _Reader:
    """One pickle on the way: the place in its bytes, the stack, and what is kept to be used again."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes made of strings, of which one may be used again and again

    def run(self) -> Any:
        for _ in range(MOST_OPERATIONS):
            code = self.take(1)
            if code == b".":
                (value,) = self.stack
                return {k: _finished(v) for k, v in value.items()} if type(value) is dict else value
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise _Refused(f"the operation {code.hex()}")
            operation(self)
        raise _Refused(f"more than {MOST_OPERATIONS} operations")

    # --- reading ---

    def take(self, count: int) -> bytes:
        piece = self.content[self.place : self.place + count]
        if len(piece) < count:
            raise EOFError
        self.place += count
        return piece

    def line(self) -> bytes:
        end = self.content.index(b"\n", self.place)
        return self.take(end + 1 - self.place)[:-1]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    # --- the stack ---

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise EOFError
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def since_mark(self) -> list[Any]:
        place = next(k for k in range(len(self.stack) - 1, -1, -1) if self.stack[k] is _MARK)
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def append(self, values: list[Any]) -> None:
        _of_kind(self.stack[-1], list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        _of_kind(self.stack[-1], dict).update(_pairs(values))

    # --- functions by name ---

    def protocol(self) -> None:
        if self.number("<B") > 5:
            raise _Refused("a later protocol")

    def name(self, module: Any, name: Any) -> None:
        place = _word(module), _word(name)
        if place not in _KNOWN:
            raise _Refused(".".join(place))
        self.push(_KNOWN[place])

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if function == "ndarray":
            raise _Refused("numpy.ndarray called")
        made: dict[str, Callable[..., Any]] = {
            "array": self.array,
            "buffer": self.buffer,
            "dtype": self.dtype,
            "encode": self.encode,
        }
        self.push(made[_of_kind(function, _Name)](*_of_kind(arguments, tuple)))

    def array(self, *_: Any) -> _Array:
        return _Array()

    def dtype(self, name: Any, *_: Any) -> _Name:
        if _word(name) != "u1":
            raise _Refused(f"an array of {_word(name)}, not of bytes")
        return _BYTE

    def buffer(self, content: Any, kind: Any, shape: Any, order: Any) -> _Array:
        made = _Array()
        made.value = _shaped(content, kind, shape, {"C": False, "F": True}[order])
        return made

    def encode(self, text: Any, encoding: Any) -> bytes:
        if _word(encoding) != "latin1":
            raise _Refused(f"the encoding {_word(encoding)}")
        self.encoded += len(_of_kind(text, str))
        if self.encoded > len(self.content):
            raise _Refused("more bytes than it holds")
        return text.encode("latin1")

    def build(self) -> None:
        made, state = self.pop(2)
        if isinstance(made, _Array):
            _, shape, kind, fortran, content = _of_kind(state, tuple)
            made.value = _shaped(content, kind, shape, fortran)
        elif made is not _BYTE:
            raise _Refused("the state of an object")
        self.push(made)


def _of_kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _word(value: Any) -> str:
    """A short string, whichever Python wrote it."""
    if type(value) not in (str, bytes):
        raise TypeError
    return (value if type(value) is str else value.decode("latin1"))[:60]


def _shaped(content: Any, kind: Any, shape: Any, fortran: Any) -> NDArray[np.uint8]:
    """The array of a shape over bytes that are there, all of them."""
    if kind is not _BYTE:
        raise _Refused("an array without its type")
    lengths = [_of_kind(length, int) for length in _of_kind(shape, tuple)]
    if len(lengths) > _MOST_AXES or min(lengths, default=0) < 0 or math.prod(lengths) != len(_of_kind(content, bytes)):
        raise ValueError
    return np.frombuffer(content, np.uint8).reshape(lengths, order="F" if fortran else "C")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    """A dict from keys and values in turn; keys are words, whose hashes cannot run deep."""
    keys = values[::2]
    if not all(type(key) in (str, bytes) for key in keys):
        raise _Refused("keys that are no words")
    return dict(zip(keys, values[1::2], strict=True))


def _finished(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


def _decimal(text: bytes) -> int | bool:
    words = {b"00": False, b"01": True}  # how protocol 0 writes truth values
    return words[text] if text in words else int(text.removesuffix(b"L"))


def _quoted(text: bytes) -> bytes:
    """The bytes of a literal in quotation marks, as Python 2 wrote a string."""
    if text[:1] not in (b"'", b'"') or len(text) < 2 or text[-1:] != text[:1]:
        raise ValueError
    return codecs.escape_decode(text[1:-1])[0]


def _nothing(reader: _Reader, *_: Any) -> None:
    """What needs no doing, such as the length of a frame."""


_OPERATIONS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader.protocol,
    b"\x95": lambda m: _nothing(m, m.take(8)),
    b"(": lambda m: m.push(_MARK),
    # numbers, None, truth
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push(_decimal(m.line())),
    b"L": lambda m: m.push(_decimal(m.line())),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    # strings and bytes
    b"S": lambda m: m.push(_quoted(m.line())),
    b"T": lambda m: m.push(m.take(m.number("<I"))),
    b"U": lambda m: m.push(m.take(m.number("<B"))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.push(m.take(m.number("<I")).decode("utf-8")),
    b"\x8c": lambda m: m.push(m.take(m.number("<B")).decode("utf-8")),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    # lists, dicts, tuples
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"l": lambda m: m.push(m.since_mark()),
    b"d": lambda m: m.push(_pairs(m.since_mark())),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.push(tuple(m.pop(1))),
    b"\x86": lambda m: m.push(tuple(m.pop(2))),
    b"\x87": lambda m: m.push(tuple(m.pop(3))),
    b"a": lambda m: m.append(m.pop(1)),
    b"e": lambda m: m.append(m.since_mark()),
    b"s": lambda m: m.set_items(m.pop(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    # what is used again
    b"p": lambda m: m.memo.update({int(m.line()): m.stack[-1]}),
    b"q": lambda m: m.memo.update({m.number("<B"): m.stack[-1]}),
    b"r": lambda m: m.memo.update({m.number("<I"): m.stack[-1]}),
    b"\x94": lambda m: m.memo.update({len(m.memo): m.stack[-1]}),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    # arrays
    b"c": lambda m: m.name(m.line().decode(), m.line().decode()),
    b"\x93": lambda m: m.name(*m.pop(2)),
    b"R": _Reader.reduce,
    b"b": _Reader.build,
}
