"""Convolution and pooling with the parameters of flax, computed by the route that is fastest on the platform.

XLA is slow at gradients of convolutions inside a loop, or with one kernel per client. A convolution is then computed as
a product of patches and kernel, batched over clients; `platforms.convolution_route` chooses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen
from flax.linen.dtypes import promote_dtype
from jax import lax

from fedjax_lc.core import platforms
from fedjax_lc.core.errors import InputError, unknown

ROUTES = ("auto", "native", "patches")

_route = jax.make_user_context(default_value="auto")  # part of what jax.jit caches by


@contextlib.contextmanager
def convolutions(route: str) -> Iterator[None]:
    """Within the block trace convolutions whose `route` is "auto" by this route: "native", "patches" or "auto".

    Raises:
        InputError: the route is unknown.

    Example:
        >>> with fl.models.convolutions("native"):
        ...     outputs = model.apply(params, images)
    """
    with _route(_known(route)):
        yield


def convolution_route(route: str = "auto") -> str:
    """The route of a convolution traced now, "native" or "patches"; by default "native" on a TPU, "patches" elsewhere.

    Example:
        >>> with fl.models.convolutions("native"):
        ...     convolution_route()
        'native'
    """
    if _known(route) == "auto":
        route = _route.value
    return route if route != "auto" else platforms.convolution_route()


def _known(route: str) -> str:
    if route not in ROUTES:
        raise unknown("route of convolutions", route, ROUTES)
    return route


class Conv(linen.Module):
    """`flax.linen.Conv` for images, x (B, H, W, cin) -> (B, H', W', cout), with the same parameters and results.

    Attributes:
        features: cout, the number of output channels.
        kernel_size: (kh, kw).
        padding: "SAME", "VALID", or the number of zeros on every side of the image.
        route: "native" (XLA's convolution), "patches" (product of patches and kernel) or "auto", see
            `convolution_route`.

    Raises:
        InputError: the route is unknown, inputs are no images, or images are smaller than the kernel.

    Example:
        >>> Conv(32, (3, 3), strides=2, padding=1).apply(variables, jnp.ones((8, 28, 28, 1))).shape
        (8, 14, 14, 32)
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: str | int = "SAME"
    use_bias: bool = True
    route: str = "auto"

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        check_images(x)
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", linen.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", linen.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias)
        convolve = _by_patches if convolution_route(self.route) == "patches" else _natively
        out = convolve(x, kernel, self.strides, _margins(x, self.kernel_size, self.strides, self.padding))
        return out if bias is None else out + bias.reshape(1, 1, 1, -1)


def check_images(x: jax.Array) -> None:
    """Raise InputError unless x is (B, H, W, C)."""
    if jnp.ndim(x) != 4:
        raise InputError(f"the network takes images (B, H, W, C), got an array of shape {jnp.shape(x)}: reshape the "
                         "features, or take a network of vectors such as mlp")  # fmt: skip


def _margins(x: jax.Array, window: tuple[int, int], strides: int, padding: str | int) -> list[tuple[int, int]]:
    """Zeros before and after the image's height and width."""
    if isinstance(padding, int):
        margins = [(padding, padding)] * 2
    else:
        margins = [(int(a), int(b)) for a, b in lax.padtype_to_pads(x.shape[1:3], window, (strides, strides), padding)]
    for size, width, margin in zip(x.shape[1:3], window, margins, strict=True):
        if size + sum(margin) < width:
            raise _too_small(x, window)
    return margins


def _too_small(x: jax.Array, window: tuple[int, int]) -> InputError:
    return InputError(f"a window of {window[0]}x{window[1]} does not fit in {x.shape[1]}x{x.shape[2]}: the images are "
                      "too small for the network, take another such as cnn")  # fmt: skip


def _natively(x: jax.Array, kernel: jax.Array, strides: int, margins: list[tuple[int, int]]) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), margins, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # fmt: skip


def _by_patches(x: jax.Array, kernel: jax.Array, strides: int, margins: list[tuple[int, int]]) -> jax.Array:
    """Convolution as a product of patches and kernel; row (b, i, j) is the patch of image b at (i, j).

    Patches are cut in two stages, first along the width and then along the height, so that they and their gradients
    take kw + kh shifted copies instead of kw kh. Strips are set into one array, because XLA would compute concatenated
    strips again for every row.
    """
    kh, kw, cin, cout = kernel.shape
    x = jnp.pad(x, [(0, 0), *margins, (0, 0)])
    height, width = ((size - k) // strides + 1 for size, k in zip(x.shape[1:3], (kh, kw), strict=True))
    ends = (height - 1) * strides + 1, (width - 1) * strides + 1
    strips = jnp.zeros((*x.shape[:2], width, kw * cin), x.dtype)
    for j in range(kw):
        strips = strips.at[..., j * cin : (j + 1) * cin].set(x[:, :, j : j + ends[1] : strides])
    patches = jnp.concatenate([strips[:, i : i + ends[0] : strides] for i in range(kh)], axis=-1)
    patches = patches.reshape(x.shape[0] * height * width, -1)
    return _product(patches, kernel.reshape(-1, cout)).reshape(x.shape[0], height, width, cout)


def _product(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """rows (r, k) times kernel (k, c), with the kernel's gradient computed as (G^T rows)^T instead of rows^T G.

    With more rows than columns this is 1.7 times faster on a CPU. The barrier keeps XLA from undoing it.
    """
    if rows.shape[0] < rows.shape[1]:
        return rows @ kernel
    return jnp.einsum("rk,ck->rc", rows, lax.optimization_barrier(kernel.T))


def max_pool(x: jax.Array, window: int) -> jax.Array:
    """Maxima of x (B, H, W, C) over disjoint squares of side `window`; incomplete squares at the margin are dropped.

    Equal to `flax.linen.max_pool(x, (window, window), (window, window))`, except that several largest entries of a
    square share the gradient equally, while in flax the first one gets it all.

    Raises:
        InputError: images smaller than the window.

    Example:
        >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).ravel()  # [5, 7, 13, 15]
    """
    return jnp.max(_squares(x, window), axis=(2, 4))


def _squares(x: jax.Array, window: int) -> jax.Array:
    """(B, H', window, W', window, C)"""
    check_images(x)
    batch, height, width, channels = x.shape
    high, wide = height // window, width // window
    if not high or not wide:
        raise _too_small(x, (window, window))
    return x[:, : high * window, : wide * window].reshape(batch, high, window, wide, window, channels)


def flat(x: jax.Array) -> jax.Array:
    """(B, ...) -> (B, entries)"""
    return x.reshape(x.shape[0], -1)
