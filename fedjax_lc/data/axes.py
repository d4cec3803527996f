"""Pictures: which axis of an array holds the channels, and pictures in files (PNG, JPEG, ...) as arrays of bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedjax_lc.core.errors import InputError
from fedjax_lc.data.files import MOST_UNPACKED, refusing

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".webp")  #: of pictures
_KINDS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")  # Pillow's names; no other decoder is tried
_CHANNELS = range(1, 5)  # grey, with alpha, RGB, with alpha
_LEAST_LIMIT = 1 << 20
_GREY, _COLOURS = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether rows of three axes have their channels last: (height, width, channels), not (channels, height, width).

    An axis of 1 to 4 holds channels; where both ends are so short, or neither is, square pictures decide, and channels
    are last where that decides nothing.

    >>> channels_last((8, 8, 3)), channels_last((3, 8, 8)), channels_last((3, 3, 3))
    (True, False, True)
    """
    first, middle, last = shape
    if (first in _CHANNELS) != (last in _CHANNELS):
        return last in _CHANNELS
    return first == middle or middle != last


def upright(pictures: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Pictures (N, height, width, channels) of an array of four axes, and a note if their channels came first."""
    if channels_last(pictures.shape[1:]):
        return pictures, ()
    size = "x".join(map(str, pictures.shape[1:]))
    made = np.ascontiguousarray(np.moveaxis(pictures, 1, -1))
    return made, (f"pictures of {size} are read with channels first, and kept as {'x'.join(map(str, made.shape[1:]))}",)


def decoded(content: bytes, where: str) -> NDArray[np.uint8]:
    """The picture of a file: (height, width, 1) grey or (height, width, 3), bytes; transparency is left out.

    Raises InputError for a damaged file, one that claims more than its bytes can hold, and one of more than 8 bits.
    """
    from PIL import Image

    with refusing(f"{where}: not a picture that can be read ({', '.join(_KINDS)}); save it again as PNG"):
        picture = Image.open(io.BytesIO(content), formats=_KINDS)
        width, height = picture.size
        if width * height > MOST_UNPACKED * len(content) + _LEAST_LIMIT:
            raise InputError(f"{where}: claims {width} x {height} pixels in {len(content)} bytes; save it again as PNG")
        if picture.mode not in _GREY | _COLOURS:
            raise InputError(f"{where}: has pixels of kind {picture.mode}, not of 8 bits; save it as 8-bit grey or RGB")
        made = np.asarray(picture.convert("L" if picture.mode in _GREY else "RGB"))
    return made.reshape(height, width, -1)


def stacked(pictures: list[NDArray[np.uint8]], names: list[str]) -> NDArray[np.uint8]:
    """Pictures of one size (N, height, width, channels); grey ones among colours become colours.

    Raises InputError for pictures of several sizes, with the names of two.
    """
    for name, picture in zip(names, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            sizes = [" x ".join(map(str, each.shape[:2])) for each in (pictures[0], picture)]
            raise InputError(
                f"{name}: the picture is {sizes[1]}, but {names[0]} is {sizes[0]}: resize them all to one size"
            )
    channels = max(picture.shape[2] for picture in pictures)
    if any(picture.shape[2] != channels for picture in pictures):
        pictures = [np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures]
    return np.stack(pictures)
