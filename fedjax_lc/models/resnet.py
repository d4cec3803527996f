"""Pre-activation residual networks for images of 32x32 (arXiv 1603.05027)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen

from fedjax_lc.core.errors import unknown
from fedjax_lc.models.layers import Conv, check_images

GROUPS = 32  #: groups of GroupNorm; fewer if the number of channels is no multiple of it
NORMS = ("group", "batch")


class Norm(linen.Module):
    """GroupNorm or BatchNorm: both have a scale and a bias for each channel.

    In training mode BatchNorm uses the statistics of the batch, and updates its averages with momentum 0.9.
    """

    kind: str

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.kind not in NORMS:
            raise unknown("norm", self.kind, NORMS)
        if self.kind == "batch":
            return linen.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
        return linen.GroupNorm(num_groups=math.gcd(GROUPS, x.shape[-1]), epsilon=1e-5)(x)


class Block(linen.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), with a 1x1 convolution of relu(norm(x)) for x where shapes differ."""

    features: int
    strides: int
    norm: str

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        active = linen.relu(Norm(self.norm)(x, train))
        if self.strides != 1 or x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), strides=self.strides, padding=0, use_bias=False)(active)
        out = Conv(self.features, (3, 3), strides=self.strides, padding=1, use_bias=False)(active)
        out = linen.relu(Norm(self.norm)(out, train))
        return x + Conv(self.features, (3, 3), padding=1, use_bias=False)(out)


class ResNet18(linen.Module):
    """Pre-activation ResNet-18, the variant of LIEC's CIFAR-10 experiments: 11,171,146 parameters for 3 channels.

    x (B, H, W, C) -> (B, classes). There is no norm after the last block, and the mean over places comes before the
    last layer.

    Attributes:
        norm: "group" or "batch"; both have the same number of parameters.
        width: channels of the first of four stages.
        stages: number of blocks of each stage.

    Raises:
        InputError: the norm is unknown, or inputs are no images.

    Example:
        >>> ResNet18(norm="batch").init(key, jnp.ones((1, 32, 32, 3)))
    """

    classes: int = 10
    norm: str = "group"
    width: int = 64
    stages: tuple[int, ...] = (2, 2, 2, 2)

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        check_images(x)
        x = Conv(self.width, (3, 3), padding=1, use_bias=False)(x)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                strides = 2 if stage and not block else 1
                x = Block(self.width * 2**stage, strides, self.norm)(x, train)
        return linen.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


class ResNet34(ResNet18):
    """Pre-activation ResNet-34, see `ResNet18`."""

    stages: tuple[int, ...] = (3, 4, 6, 3)
