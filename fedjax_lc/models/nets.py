"""Small networks for images (B, H, W, C) and vectors, scaled by the caller; outputs (B, classes)."""

from __future__ import annotations

import jax
from flax import linen
from flax.linen import Dense, Dropout

from fedjax_lc.models.layers import Conv, flat, max_pool


class Linear(linen.Module):
    """Softmax regression, x (B, ...) -> (B, classes)."""

    classes: int = 10

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return Dense(self.classes)(flat(x))


class MLP(linen.Module):
    """Fully connected layers of `hidden` units with ReLU, x (B, ...) -> (B, classes).

    Example:
        >>> MLP(hidden=(100, 50), classes=3)
    """

    hidden: tuple[int, ...] = (200,)
    classes: int = 10

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = flat(x)
        for units in self.hidden:
            x = linen.relu(Dense(units)(x))
        return Dense(self.classes)(x)


class SmallCNN(linen.Module):
    """Two convolutions and a hidden layer, for images from 4x4 on: quick on a CPU."""

    classes: int = 10

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = max_pool(linen.relu(Conv(16, (3, 3))(x)), 2)
        x = max_pool(linen.relu(Conv(32, (3, 3))(x)), 2)
        x = linen.relu(Dense(64)(flat(x)))
        return Dense(self.classes)(x)


class MnistCNN(linen.Module):
    """The MNIST network of MCM's deep-learning experiments (arXiv 2102.12528): 21,840 parameters at 28x28x1.

    The source does not give the rate of both dropouts; PyTorch's default, 1/2, is assumed.
    """

    classes: int = 10

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = linen.relu(max_pool(Conv(10, (5, 5), padding="VALID")(x), 2))
        x = Conv(20, (5, 5), padding="VALID")(x)
        x = Dropout(0.5, broadcast_dims=(1, 2), deterministic=not train)(x)  # whole channels
        x = linen.relu(max_pool(x, 2))
        x = linen.relu(Dense(50)(flat(x)))
        x = Dropout(0.5, deterministic=not train)(x)
        return Dense(self.classes)(x)


class FashionCNN(linen.Module):
    """The Fashion-MNIST network of MCM's deep-learning experiments (arXiv 2102.12528): 421,642 parameters at 28x28x1.

    The source does not give the rate of dropout; 1/4 is assumed.
    """

    classes: int = 10
    dropout: float = 0.25

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = max_pool(linen.relu(Conv(32, (3, 3), padding=1)(x)), 2)
        x = max_pool(linen.relu(Conv(64, (3, 3), padding=1)(x)), 2)
        x = Dropout(self.dropout, deterministic=not train)(x)
        x = linen.relu(Dense(128)(flat(x)))
        return Dense(self.classes)(x)


class TanhLeNet(linen.Module):
    """LeNet with tanh and max-pooling, MCM's network of CIFAR-10 (arXiv 2102.12528): 62,006 parameters at 32x32x3."""

    classes: int = 10

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = max_pool(linen.tanh(Conv(6, (5, 5), padding="VALID")(x)), 2)
        x = max_pool(linen.tanh(Conv(16, (5, 5), padding="VALID")(x)), 2)
        x = linen.tanh(Dense(120)(flat(x)))
        x = linen.tanh(Dense(84)(x))
        return Dense(self.classes)(x)


class EmnistCNN(linen.Module):
    """FedOpt's network of EMNIST character recognition (arXiv 2003.00295): 1,206,590 parameters at 28x28x1.

    The architecture is recalled from memory; only the number of parameters was checked.
    """

    classes: int = 62

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = linen.relu(Conv(32, (3, 3), padding="VALID")(x))
        x = max_pool(linen.relu(Conv(64, (3, 3), padding="VALID")(x)), 2)
        x = Dropout(0.25, deterministic=not train)(x)
        x = linen.relu(Dense(128)(flat(x)))
        x = Dropout(0.5, deterministic=not train)(x)
        return Dense(self.classes)(x)
