"""Law 10: every message goes through a real bit-packed encoder, comes back exactly, and is no longer than its price."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from fedjax_lc import compressors
from tests.contract.compressor_examples import EXAMPLES, INDEX, D, one_hot
from tests.reference import codec
from tests.reference.entries import ORDERS

C = compressors
SEEDED = ("none", "seed")
RANDOM_SIZE = (C.Threshold, C.TopEnergy, C.TopPerBit, C.TopPrice, C.TopPowerLaw)
# Elias lengths are expectations; a message's own length has no bound to check.
SPECS = [example.spec for example in EXAMPLES if "elias" not in example.spec]


def leaves(c, x, u, sent=None):
    """Every message that goes over the wire, [(compressor, message, entries that exist)], replayed part by part."""
    if isinstance(c, C.Chain):
        outer = c.first.apply(x, u[0], sent)
        places = [] if outer.sent is None else [("places", outer, sent)]
        return places + leaves(c.second, outer.value, u[1], outer.sent)
    if isinstance(c, C.Induced):
        rough = c.contractive.apply(x, u[0], sent)
        return leaves(c.contractive, x, u[0], sent) + leaves(c.unbiased, x - rough.value, u[1], sent)
    if isinstance(c, C.FCC):
        parts = []
        for r in range(c.rounds):
            u_round = jax.tree.map(lambda leaf, r=r: leaf[r], u)
            parts += leaves(c.inner, x, u_round, sent)
            x = x - c.inner.apply(x, u_round, sent).value
        return parts
    if isinstance(c, C.PerBlock):
        parts, start = [], 0
        for (_, size, number), u_run in zip(c._runs(x.shape[-1]), u, strict=True):
            for b in range(number):
                block = x[start : start + size]
                parts += leaves(c.inner, block, jax.tree.map(lambda leaf, b=b: leaf[b], u_run))
                start += size
        return parts
    if isinstance(c, C.Compensated):
        residual = x - c.base.apply(x, u).value
        return leaves(c.base, x, u) + leaves(C.LowRank(c.rank, c.rows), residual, None)
    return [(c, c.apply(x, u, sent), sent)]


def spec_of(c, message, d):
    """How the codec writes the message of a single compressor."""
    if isinstance(c, C.Scaled):
        return {"kind": "scaled", "factor": 1 / (1 + c.inner.omega(d)), "inner": spec_of(c.inner, message, d)}
    if isinstance(c, C.Bernoulli):
        mask = {"kind": "bitmap", "entry": "float32"}
        given = {"kind": "sparse", "index": "none", "support": message.sent, "entry": "float32"}
        return {"kind": "bernoulli"} if c.per == "vector" else mask if c.index == "mask" else given
    if isinstance(c, C.LowRank):
        return {"kind": "low_rank", "a": c.rows, "b": d // c.rows, "r": c.rank}
    if isinstance(c, C.BlockSign):
        return {"kind": "blocks", "sizes": [min(c.block, d - s) for s in range(0, d, c.block)], "inner": "sign"}
    if isinstance(c, RANDOM_SIZE) and c.index not in SEEDED:
        return {"kind": "threshold", "index": c.index}
    if hasattr(c, "index"):
        index = "none" if c.index in SEEDED else c.index
        return {"kind": "sparse", "index": index, "support": message.sent, "entry": "float32"}
    dense = {"identity": "float32", "zero": "zero", "natural": "natural", "sign": "sign"}
    if c.name in dense:
        return {"kind": dense[c.name]}
    if isinstance(c, C.Ternary):
        return {"kind": "ternary", "base3": c.code == "base3"}
    return {"kind": "dithering" if isinstance(c, C.NaturalDithering) else "levels", "s": c.s}


def length(c, message, exist, index):
    """Bits of the encoded message; the codec raises unless it decodes to the value exactly."""
    value = np.asarray(message.value)
    if c == "places":
        places = np.asarray(message.sent)
        spec = {"kind": "sparse", "index": index, "support": places, "entry": "zero"}
        return codec.encode(spec, np.zeros_like(value))[1]
    c = compressors.with_index(c, index)
    sent = None if message.sent is None else np.asarray(message.sent)
    if exist is not None:
        value, sent = value[np.asarray(exist)], sent[np.asarray(exist)]
    message = C.Message(value, 0, 0, 0, 0, sent)
    spec = spec_of(c, message, len(value))
    if spec["kind"] != "levels":
        return codec.encode(spec, value)[1]
    for order in ORDERS:
        try:
            return codec.encode(spec | {"order": order}, value)[1]
        except codec.CodecError:
            continue
    raise codec.CodecError(f"{c}: no order of operations decodes to {value}")


@functools.cache
def wired(spec):
    """(key, x) -> (value, bits by convention, [(message, entries that exist)]), and the compressors of the list."""
    c, kinds = compressors.parse(spec), []

    @jax.jit
    def run(key, x):
        u = c.draw(key, D, x.dtype)
        parts = leaves(c, x, u)
        kinds[:] = [kind for kind, _, _ in parts]
        bits = {index: compressors.with_index(c, index).apply(x, u).bits for index in INDEX}
        return c.apply(x, u).value, bits, [(message, exist) for _, message, exist in parts]

    return run, kinds


def inputs():
    gaussian = np.random.default_rng(3).normal(size=D)
    zeros = np.where(np.arange(D) % 2, gaussian, 0)
    return [v.astype(np.float32) for v in (gaussian, one_hot(D), np.ones(D), zeros, 1e20 * gaussian, np.zeros(D))]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("spec", SPECS)
def test_messages_round_trip_within_their_price(spec):
    run, kinds = wired(spec)
    for seed, x in enumerate(inputs()):
        value, bits, parts = run(jax.random.key(seed), x)
        assert value.dtype == np.float32
        for index in INDEX:
            total = sum(length(kind, *part, index) for kind, part in zip(kinds, parts, strict=True))
            assert total <= float(bits[index]), (index, x)
            if "|" not in spec and x.all():
                assert total == float(bits[index]), (index, x)
