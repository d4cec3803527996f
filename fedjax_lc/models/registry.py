"""Networks by name, with their options in one string: `mlp`, `mlp:hidden=100x50`, `resnet18:norm=batch,width=16`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from flax import linen

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.models import nets, resnet, text

_MODELS: dict[str, Callable[..., linen.Module]] = {
    "linear": nets.Linear,
    "mlp": nets.MLP,
    "cnn": nets.SmallCNN,
    "mnist_cnn": nets.MnistCNN,
    "fashion_cnn": nets.FashionCNN,
    "lenet": nets.TanhLeNet,
    "emnist_cnn": nets.EmnistCNN,
    "resnet18": resnet.ResNet18,
    "resnet18_bn": functools.partial(resnet.ResNet18, norm="batch"),
    "resnet34": resnet.ResNet34,
    "char_lstm": text.CharLSTM,
    "char_lstm_small": functools.partial(text.CharLSTM, hidden=128, layers=1),
}

_WORDS = {int: "a whole number, 1 or more", float: "a number from 0 to below 1", tuple: "whole numbers such as 100x50"}
_ALLOWED: dict[type, Callable[[Any], bool]] = {
    int: lambda value: value >= 1,
    float: lambda value: 0 <= value < 1,
    tuple: lambda value: min(value) >= 1,
    str: lambda value: True,
}


def names() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(_MODELS)


def get(spec: str, classes: int | None = None, **options: Any) -> linen.Module:
    """The network that a string names, such as `mlp`, `mlp:hidden=100x50` or `resnet18:norm=batch,width=16`.

    Args:
        spec: a name of `names()` and, after a colon, fields of the module, as field=value; sizes are joined by x.
        classes: number of outputs, unless the string gives it; ignored by networks of text, whose field is `vocab`.
        options: other fields of the module, unless the string gives them.

    Raises:
        InputError: a name or option is unknown, or a value is of the wrong type.

    Example:
        >>> get("mlp:hidden=100x50", classes=3)  # MLP(hidden=(100, 50), classes=3)
    """
    name, _, rest = spec.strip().partition(":")
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    kinds = _kinds(_MODELS[name]())
    given = dict(options)
    if classes is not None and "classes" in kinds:
        given["classes"] = classes
    for piece in rest.split(",") if rest else []:
        option, equals, value = (part.strip() for part in piece.partition("="))
        if not equals:
            raise InputError(f"model {spec!r}: {piece!r} has no value, write {name}:option=value with an option of "
                             f"{', '.join(sorted(kinds)) or 'none'}")  # fmt: skip
        given[option] = _convert(spec, option, kinds.get(option, str), value)
    for option in given:
        if option not in kinds:
            raise unknown(f"option of {name}", option, kinds)
    return _MODELS[name](**given)


def _kinds(model: linen.Module) -> dict[str, type]:
    """The type of each option: that of its default value."""
    return {f.name: type(getattr(model, f.name)) for f in dataclasses.fields(model) if f.name not in ("parent", "name")}


def _convert(spec: str, option: str, kind: type, value: str) -> Any:
    try:
        converted = tuple(int(part) for part in value.split("x")) if kind is tuple else kind(value)
        if not _ALLOWED[kind](converted):
            raise ValueError
    except ValueError:
        raise InputError(f"model {spec!r}: {option} must be {_WORDS[kind]}, got {value!r}") from None
    return converted
