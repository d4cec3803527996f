"""Networks by name, with their options in one string: `mlp`, `mlp:hidden=100x50`, `resnet18:norm=batch,width=16`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from flax import linen

from fedjax_lc.core import spec
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

MOST, MOST_LAYERS = 100_000, 100  #: units of a layer, and layers, that an option can ask for
_FIELDS = {  #: what an option may be, by the type of its default
    int: spec.Field((int,), fits=lambda value: 1 <= value <= MOST, words=f"a whole number in 1..{MOST}"),
    float: spec.Field((float,), fits=lambda value: 0 <= value < 1, words="a number from 0 to below 1"),
    tuple: spec.Field(
        (tuple,),
        fits=lambda value: len(value) <= MOST_LAYERS and min(value) >= 1 and max(value) <= MOST,
        words=f"whole numbers such as 100x50, at most {MOST_LAYERS} and in 1..{MOST}",
    ),
    str: spec.Field((str,)),
}


def names() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(_MODELS)


def get(text: str, classes: int | None = None, **options: Any) -> linen.Module:
    """The network that a text names, such as `mlp`, `mlp:hidden=100x50` or `resnet18:norm=batch,width=16`.

    Args:
        text: a name of `names()` and, after a colon, fields of the module, as field=value; sizes are joined by x.
        classes: number of outputs, unless the text gives it; ignored by networks of text, whose field is `vocab`.
        options: other fields of the module, unless the text gives them.

    Raises:
        InputError: a name or option is unknown, or a value is of the wrong type.

    Example:
        >>> get("mlp:hidden=100x50", classes=3)  # MLP(hidden=(100, 50), classes=3)
    """
    spelled = spec.parse("model", text)
    make = spelled.look_up(_MODELS)
    fields = _fields(make())
    if not all(option for option, _ in spelled.arguments):
        known = ", ".join(sorted(fields)) or "none"
        raise InputError(f"model {text!r} has a value without its name: write {spelled.name}:option=value with an "
                         f"option of {known}")  # fmt: skip
    given = ({} if classes is None or "classes" not in fields else {"classes": classes}) | options
    for option in given:
        if option not in fields:
            raise unknown(f"option of {spelled.name}", option, fields)
    return make(**(given | spelled.read(fields)))


def _fields(model: linen.Module) -> dict[str, spec.Field]:
    named = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    return {name: _FIELDS[type(getattr(model, name))] for name in named}
