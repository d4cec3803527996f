"""What recipes that train networks share: fewer rows, pixels as networks take them, and what to say of the data."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import data

#: crc32 of all training pixels of copies that are known not to be the original
COPIES = {0x738F795D: "CIFAR-10, JPEG re-encoding (quality 75)"}
MNIST_PIXELS = ((0.1307,), (0.3081,))  #: mean and deviation by channel
CIFAR_PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PADDING = 4
UNUSED = 1.0  #: L of problems whose step sizes are all given, so that none need be estimated


@functools.cache
def load(name: str) -> data.Dataset:
    """A data set, read once."""
    return data.load(name)


def shortened(dataset: data.Dataset, rows: int | None, test_rows: int | None) -> data.Dataset:
    """The first rows of a data set, and of its test part; all if None."""
    cut = lambda part, rows: dataclasses.replace(part, features=part.features[:rows], targets=part.targets[:rows])
    return dataclasses.replace(cut(dataset, rows), test=cut(dataset.test, test_rows))


def in_order(dataset: data.Dataset, num_clients: int) -> data.Dataset:
    """The same rows as data that comes split into contiguous parts of one size; what is left over goes."""
    size = len(dataset.targets) // num_clients
    rows = slice(0, size * num_clients)
    split = dataclasses.replace(dataset, features=dataset.features[rows], targets=dataset.targets[rows])
    return dataclasses.replace(split, groups=np.repeat(np.arange(num_clients), size))


def remarks(name: str) -> str:
    """What is known of the copy of a data set that was used, in a sentence; empty of originals."""
    dataset = load(name)
    if not any("not the original" in note for note in dataset.notes):
        return ""
    copy = COPIES.get(zlib.crc32(dataset.features.tobytes()))
    return f"Data: {copy or f'{name}, a copy whose checksums are not those of the original'}."


@functools.cache
def standardised(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[jax.Array], jax.Array]:
    """Bytes (B, H, W, C) -> (x/255 - mean)/std by channel."""

    def prepare(pixels: jax.Array) -> jax.Array:
        shift, scale = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (mean, std))
        return (pixels.astype(jnp.float32) / 255 - shift) / scale

    return prepare


def flip_and_crop(key: Any, images: jax.Array) -> jax.Array:
    """(B, H, W, C) each mirrored with probability 1/2, and a random H x W part of it with zeros around."""
    flip_key, crop_key = jax.random.split(key)
    B, H, W, C = images.shape
    flip = jax.random.bernoulli(flip_key, shape=(B, 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    corners = jax.random.randint(crop_key, (B, 2), 0, 2 * PADDING + 1)
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (H, W, C)))(padded, corners)
