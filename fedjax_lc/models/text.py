"""A recurrent network for characters, with a fast recurrence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from flax.linen.dtypes import promote_dtype
from jax import lax

from fedjax_lc.core.errors import InputError


class CharLSTM(linen.Module):
    """Next-character prediction as in LEAF and FedOpt (arXiv 2003.00295): x (B, T) whole -> (B, T, vocab).

    820,522 parameters with the 90 tokens of FedOpt (86 characters; padding, unknown, begin and end), recalled only:
    90*8 of the embedding, 4*256*(8+256+1) and 4*256*(256+256+1) of the layers, 257*90 of the output.

    Args:
        vocab: number of tokens, of inputs and of outputs at every position.
        embedding: size of a token's vector.
        hidden: size of a layer's state.
        layers: number of layers.

    Raises:
        InputError: inputs that are not whole numbers (B, T).
    """

    vocab: int = 90
    embedding: int = 8
    hidden: int = 256
    layers: int = 2

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if jnp.ndim(x) != 2 or not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            raise InputError(f"the network takes tokens (B, T) of whole numbers, got {jnp.result_type(x)} of shape "
                             f"{jnp.shape(x)}: load a text such as shakespeare")  # fmt: skip
        x = linen.Embed(self.vocab, self.embedding)(x)
        for _ in range(self.layers):
            x = LSTM(self.hidden)(x)
        return linen.Dense(self.vocab)(x)


def _gate_bias(key: Any, shape: tuple[int], dtype: Any) -> jax.Array:
    """(4h,) initial bias: one for the forget gate, zero for the others."""
    return jnp.repeat(jnp.array([0, 1, 0, 0], dtype), shape[0] // 4)


class LSTM(linen.Module):
    """Long short-term memory from a zero state: x (B, T, k) -> (B, T, hidden).

    Gates in the order input, forget, candidate, output. Initial values are those of Keras: Glorot-uniform kernel,
    orthogonal recurrent kernel, and a bias of one for the forget gate.
    """

    hidden: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gates = 4 * self.hidden
        kernel = self.param("kernel", linen.initializers.glorot_uniform(), (x.shape[-1], gates), jnp.float32)
        recurrent = self.param("recurrent", linen.initializers.orthogonal(), (self.hidden, gates), jnp.float32)
        bias = self.param("bias", _gate_bias, (gates,), jnp.float32)
        x, kernel, recurrent, bias = promote_dtype(x, kernel, recurrent, bias)
        return recur(x @ kernel + bias.reshape(1, 1, -1), recurrent)


@jax.custom_vjp
def recur(inputs: jax.Array, recurrent: jax.Array) -> jax.Array:
    """States h_t (B, T, h) of (c, h)_t = cell(c_{t-1}, inputs_t + h_{t-1} R): inputs (B, T, 4h), R = recurrent (h, 4h).

    The gradient of R is summed over time by one product after the loop, 3 times faster on a CPU than adding to it at
    every step. Derivatives: reverse mode, and forward over reverse.
    """
    return _forward(inputs, recurrent)[0]


def _cell(c: jax.Array, gates: jax.Array) -> tuple[jax.Array, jax.Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def _forward(inputs: jax.Array, recurrent: jax.Array) -> tuple[jax.Array, Any]:
    def step(state: tuple[jax.Array, jax.Array], given: jax.Array) -> Any:
        c, h = state
        gates = given + h @ recurrent
        new = _cell(c, gates)
        return new, (new[1], (c, h, gates))

    start = jnp.zeros((inputs.shape[0], recurrent.shape[0]), inputs.dtype)
    out, seen = lax.scan(step, (start, start), inputs.swapaxes(0, 1))[1]
    return out.swapaxes(0, 1), (recurrent, seen)


def _backward(residuals: Any, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    recurrent, (cs, hs, gates) = residuals
    across = recurrent.T

    def step(slopes: tuple[jax.Array, jax.Array], at: Any) -> Any:
        c, gates, slope = at
        of_c, of_gates = jax.vjp(_cell, c, gates)[1]((slopes[0], slopes[1] + slope))
        return (of_c, of_gates @ across), of_gates

    zero = jnp.zeros_like(cs[0])
    of_gates = lax.scan(step, (zero, zero), (cs, gates, slope.swapaxes(0, 1)), reverse=True)[1]
    return of_gates.swapaxes(0, 1), jnp.einsum("tbh,tbg->hg", hs, of_gates)


recur.defvjp(_forward, _backward)
