"""Digests of what decides results: arrays by content, functions by their code and what they close over.

Two processes agree on a digest: neither addresses nor places of files or lines enter it. A function is what it does:
its code, constants, defaults, closed-over values, nested functions, and the global values that its code names. Where it
comes from an installed library, or from the part of this package that all methods share, it is known by its name (the
versions of both are compared apart), as far as that name leads to it; a closure such as an optax schedule never is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
PACKAGE = __name__.partition(".")[0]
METHODS = f"{PACKAGE}.algorithms."  #: below it, apart from its frames, each file is the code of a method


def digest(*things: Any) -> str:
    """A digest of sixteen hexadecimal digits.

    >>> digest(lambda x: 2 * x) == digest(lambda x: 2 * x), digest(lambda x: 2 * x) == digest(lambda x: 3 * x)
    (True, False)
    """
    return _Digester().of(things).hex()[:16]


def digest_apart(thing: Any, known: Iterable[type] = ()) -> tuple[str, dict[str, str]]:
    """The digest of a tree of dataclasses without its functions, and the digests of those, by the name of their field.

    Classes that no library defines count as functions, by their names, unless they are among the `known` ones.

    >>> digest_apart(Hparams(gamma=0.1, client_schedule=lambda t: 1 / (t + 1)))
    ('1f0c5ae94bd2c3f7', {'client_schedule': '9d2f41a5b0c6e813'})
    """
    digester = _Digester(apart=True)
    digester.known = {id(cls): (cls, _hash(cls.__qualname__)) for cls in known}
    rest = digester.of(thing).hex()[:16]
    return rest, {name: digest(*parts) for name, parts in sorted(digester.apart.items())}


class _Digester:
    """Walks a value; `apart` collects the digests of functions in fields, by name."""

    def __init__(self, apart: bool = False) -> None:
        self.collects, self.apart = apart, dict[str, list[bytes]]()
        self.known: dict[int, tuple[Any, bytes]] = {}  # functions, classes and modules; each kept alive with its id
        self.open: list[int] = []

    def of(self, thing: Any) -> bytes:
        if isinstance(thing, PLAIN):
            return _hash(type(thing).__name__, repr(thing))
        if id(thing) in self.open:  # a function that calls itself, say
            return _hash("again", len(self.open) - self.open.index(id(thing)))
        if id(thing) in self.known:
            return self.known[id(thing)][1]
        self.open.append(id(thing))
        try:
            result = _hash(*self.parts(thing))
        finally:
            self.open.pop()
        if isinstance(thing, types.FunctionType | type | types.ModuleType):
            self.known[id(thing)] = thing, result
        return result

    def parts(self, thing: Any) -> Iterator[Any]:
        """What a value is made of: words, bytes and digests."""
        if isinstance(thing, np.ndarray | np.generic | jax.Array):
            yield from self.array(thing)
        elif isinstance(thing, list | tuple):
            yield from (self.name(type(thing)), *map(self.of, thing))
        elif isinstance(thing, Mapping):
            yield from ("mapping", *sorted(self.of(key) + self.of(value) for key, value in thing.items()))
        elif isinstance(thing, set | frozenset):
            yield from ("set", *sorted(map(self.of, thing)))
        elif isinstance(thing, types.ModuleType):
            yield from ("module", thing.__name__, *_source(thing))
        elif isinstance(thing, type):
            yield from self.of_class(thing)
        elif isinstance(thing, types.CodeType):
            yield from self.code(thing)
        elif isinstance(thing, types.FunctionType):
            yield from self.function(thing)
        elif isinstance(thing, types.MethodType):
            yield from ("method", self.of(thing.__self__), self.of(thing.__func__))
        elif isinstance(thing, functools.partial):
            yield from ("partial", self.of(thing.func), self.of(thing.args), self.of(thing.keywords))
        elif dataclasses.is_dataclass(thing):
            yield from self.fields(thing)
        elif _by_name(thing) or isinstance(thing, types.BuiltinFunctionType):
            yield from ("name", str(thing.__module__), thing.__qualname__)
        elif callable(getattr(thing, "__wrapped__", None)):
            yield from ("wrapper", self.name(type(thing)), self.of(thing.__wrapped__))
        else:
            yield from self.other(thing)

    def array(self, array: Any) -> Iterator[Any]:
        if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            yield str(jax.random.key_impl(array))
            array = jax.random.key_data(array)
        array = np.asarray(array)
        yield from ("array", str(array.dtype), repr(array.shape))
        yield self.of(array.tolist()) if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()

    def fields(self, thing: Any) -> Iterator[Any]:
        """Of a dataclass: its fields, or what its `content()` says in their place."""
        yield self.name(type(thing))
        named = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        for name, value in (thing.content() if hasattr(thing, "content") else named).items():
            yield name
            if self.collects and callable(value) and not (dataclasses.is_dataclass(value) or _by_name(value)):
                self.apart.setdefault(name, []).append(self.of(value))
                yield "function"
            else:
                yield self.of(value)

    def name(self, cls: type) -> Any:
        """Of an instance's class; one of a user is collected where functions are."""
        if self.collects and not _is_library(cls.__module__) and id(cls) not in self.known:
            if cls.__qualname__ not in self.apart:
                self.apart[cls.__qualname__] = [self.of(cls)]
            return f"{cls.__module__}.{cls.__qualname__}"
        return self.of(cls)

    def of_class(self, cls: type) -> Iterator[Any]:
        yield from ("class", cls.__module__ if _is_library(cls.__module__) else "", cls.__qualname__)
        if _is_library(cls.__module__):
            return
        yield from map(self.of, cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            private = name.startswith("__") or name == "_abc_impl"  # pickling, say, leaves notes in such names
            if not private or isinstance(value, types.FunctionType):
                yield from (name, self.of(_unwrapped(value)))
        if dataclasses.is_dataclass(cls):
            yield from (self.of((field.name, field.default)) for field in dataclasses.fields(cls))

    def function(self, function: types.FunctionType) -> Iterator[Any]:
        if _by_name(function):
            yield from ("name", function.__module__, function.__qualname__)
            return
        code = function.__code__
        yield from ("function", self.of(code), self.of(function.__defaults__), self.of(function.__kwdefaults__))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is empty yet
                yield from (name, self.of(cell.cell_contents))
        if not _is_library(function.__module__):
            for name in sorted(set(_names(code)) & function.__globals__.keys()):
                yield from (name, self.of(function.__globals__[name]))

    def code(self, code: types.CodeType) -> Iterator[Any]:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        yield from ("code", repr(counts), repr(names), code.co_code, code.co_exceptiontable, self.of(code.co_consts))

    def other(self, thing: Any) -> Iterator[Any]:
        """A node of a pytree by its children, another object by what pickling would keep, else by its words."""
        yield self.name(type(thing))
        flat = jax.tree_util.default_registry.flatten_one_level(thing)
        if flat is not None:
            children, structure = flat
            yield from (self.of(list(children)), self.of(structure))
            return
        try:
            kept = thing.__reduce_ex__(4)
        except Exception:
            yield ADDRESS.sub("", repr(thing))
            return
        plain = kept if isinstance(kept, str) else [list(x) if isinstance(x, Iterator) else x for x in kept]
        yield self.of(plain)


def _hash(*parts: Any) -> bytes:
    state = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(text).to_bytes(8, "little"))
        state.update(text)
    return state.digest()


def _unwrapped(value: Any) -> Any:
    """The function in what a class holds."""
    if isinstance(value, property):
        return (value.fget, value.fset)
    if isinstance(value, functools.cached_property):
        return value.func
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _names(code: types.CodeType) -> Iterable[str]:
    """The global names that code may use, nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _by_name(thing: Any) -> bool:
    """Whether it belongs to a library and its name leads to it."""
    module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or not _is_library(module):
        return False
    place: Any = sys.modules.get(module)
    for name in path.split("."):
        place = getattr(place, name, None)
    return place is thing


@functools.cache
def _is_library(module: str | None) -> bool:
    """Whether a module's code is known by its name: of Python, of an installed package, of this one's foundation."""
    top = (module or "").partition(".")[0]
    if top == PACKAGE:
        return not str(module).startswith(METHODS) or str(module).startswith(f"{METHODS}frames")
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if top in sys.stdlib_module_names and top != "__main__":
        return True
    return file is not None and _is_installed(Path(file))


def _is_installed(file: Path) -> bool:
    places = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
    return bool({"site-packages", "dist-packages"} & {*file.parts}) or any(file.is_relative_to(p) for p in places)


def _source(module: types.ModuleType) -> Iterator[str]:
    """The text of a user's module, which a function names as a whole."""
    file = getattr(module, "__file__", None)
    if file is not None and not _is_library(module.__name__):
        with contextlib.suppress(OSError):
            yield Path(file).read_text(errors="replace")


@functools.cache
def of_package(names: tuple[str, ...]) -> str:
    """The digest of the source of these files and folders of the package."""
    root, state = Path(__file__).parents[1], hashlib.sha256()
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            state.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return state.hexdigest()[:16]
