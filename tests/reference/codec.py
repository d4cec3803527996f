"""A real encoder and decoder for every compressor's message: bits packed into bytes, float32 entries.

    data, nbits = encode(spec, value, aux)        # value: float32 (d,)
    value       = decode(spec, (data, nbits), d)

`spec` is what both ends know (compressor, k, s, shared-seed support); `aux` what only the sender knows (a
norm, the factors, the parts of a sum). The receiver knows d and, from the transport, the message's length
nbits, so messages of random size (`threshold`, `bernoulli`) carry no header. `encode` decodes its own message
and raises CodecError unless every entry comes back exactly (-0.0 may come back as 0.0).

| spec | message | bits |
|---|---|---|
| {'kind': 'zero'} | nothing | 0 |
| {'kind': 'float32'} | the entries | 32 d |
| {'kind': 'natural', 'scale': 1} | sign, 8-bit exponent code (0 is zero); scale is known | 9 d |
| {'kind': 'sign'} | scale, signs | 32 + d |
| {'kind': 'levels', 's', 'order'} aux norm | norm, signs, l of norm * l / s | 32 + d(1 + ceil log2(s+1)) |
| {'kind': 'ternary', 'base3': False} aux norm | levels with s = 1 | 32 + 2d |
| {'kind': 'ternary', 'base3': True} aux norm | norm, one number | 32 + ceil(d log2 3) |
| {'kind': 'dithering', 's'} aux norm | norm, signs, l of norm 2^(l - s) | 32 + d(1 + ceil log2(s+1)) |
| {'kind': 'sparse', 'k', 'index', 'entry', 'support'} | indices, the k entries | index + entry's |
| {'kind': 'bitmap', 'entry'} | d-bit mask, kept entries | d + entry's |
| {'kind': 'threshold', 'index', 'entry'} | indices, entries; nbits gives the count | kept(32 + index) |
| {'kind': 'bernoulli', 'inner'} | nothing for the zero vector, else inner's | 0 or inner's |
| {'kind': 'scaled', 'factor', 'inner'} aux (inner value, aux) | inner's; factor is known | inner's |
| {'kind': 'low_rank', 'a', 'b', 'r'} aux (left, right) | factors, value = left @ right.T | 32 r (a + b) |
| {'kind': 'blocks', 'sizes', 'inner'} aux list | the blocks' messages | sum |
| {'kind': 'sum', 'parts': [spec]} aux [(value, aux)] | the parts' messages, added in order | sum |

`entry`, `inner` and `parts` are specs; a spec may be just its kind's name. index: 'log2' (ceil log2 d each),
'int32', 'binom' (one number below C(d, k)), 'none' (`support`, a boolean mask, in the spec).
Without aux a norm is searched for that reproduces the value: a message is right if it decodes to the value.
Low rank is exact when the value is the NumPy float32 product of the given factors; without aux the factors
come from an SVD of the value and decode to it within 1e-5 of its largest entry.
"""

from __future__ import annotations

from math import comb

import numpy as np

from .bits import F32, BitReader, BitWriter, CodecError
from .entries import (
    read_dithering,
    read_float32,
    read_levels,
    read_natural,
    read_sign,
    read_ternary,
    read_zero,
    write_dithering,
    write_float32,
    write_levels,
    write_natural,
    write_sign,
    write_ternary,
    write_zero,
)


def encode(spec, value, aux=None):
    """(bytes, number of bits); raises CodecError when the message would not decode to `value`."""
    spec, value = full(spec), np.asarray(value)
    if value.dtype != F32 or value.ndim != 1:
        raise CodecError(f"float32 vector wanted, got {value.dtype} of shape {value.shape}")
    writer = BitWriter()
    CODECS[spec["kind"]][0](writer, spec, value, aux)
    message = writer.finish()
    back = decode(spec, message, len(value))
    if spec["kind"] == "low_rank" and aux is None:
        same = np.max(np.abs(back - value), initial=0) <= 1e-5 * np.max(np.abs(value), initial=0)
    else:
        same = np.array_equal(back, value)
    if not same:
        worst = int(np.argmax(np.abs(back - value)))
        raise CodecError(f"{spec['kind']}: entry {worst} is {value[worst]!r}, decodes to {back[worst]!r}")
    return message


def decode(spec, message, d):
    """The float32 vector of length d; the whole message must be used up."""
    reader = BitReader(*message)
    spec = full(spec)
    value = CODECS[spec["kind"]][1](reader, spec, d)
    if reader.left():
        raise CodecError(f"{reader.left()} bits left over")
    return value


def full(spec):
    return {"kind": spec} if isinstance(spec, str) else spec


def write_part(writer, spec, value, aux=None):
    spec = full(spec)
    CODECS[spec["kind"]][0](writer, spec, value, aux)


def read_part(reader, spec, d):
    spec = full(spec)
    return CODECS[spec["kind"]][1](reader, spec, d)


# Sparse kinds.


def support_of(spec, value):
    """Ascending indices sent: the spec's support, or the nonzeros filled up to k with the first zeros."""
    if spec.get("support") is not None:
        chosen = np.flatnonzero(spec["support"]).tolist()
        if np.any(np.delete(value, chosen)):
            raise CodecError("sparse: nonzero entries outside the support")
        return chosen
    if spec["index"] == "none":
        raise CodecError("sparse: index 'none' needs the support known to both ends in the spec")
    chosen = np.flatnonzero(value).tolist()
    if len(chosen) > spec["k"]:
        raise CodecError(f"sparse: {len(chosen)} nonzero entries, k is {spec['k']}")
    zeros = np.flatnonzero(value == 0).tolist()
    return sorted(chosen + zeros[: spec["k"] - len(chosen)])


def index_bits(convention, d, k):
    return {
        "none": 0,
        "log2": k * (d - 1).bit_length(),
        "int32": 32 * k,
        "binom": (comb(d, k) - 1).bit_length(),
    }[convention]


def write_indices(writer, convention, chosen, d):
    if convention == "binom":
        rank = sum(comb(index, place + 1) for place, index in enumerate(chosen))
        writer.write(rank, index_bits(convention, d, len(chosen)))
    elif convention != "none":
        for index in chosen:
            writer.write(index, index_bits(convention, d, 1))


def read_indices(reader, convention, d, k):
    if convention != "binom":
        return [reader.read(index_bits(convention, d, 1)) for _ in range(k)]
    rank, chosen = reader.read(index_bits(convention, d, k)), []
    index = d
    for place in range(k, 0, -1):
        index -= 1
        while comb(index, place) > rank:
            index -= 1
        rank -= comb(index, place)
        chosen.append(index)
    return chosen[::-1]


def scatter(d, chosen, entries):
    out = np.zeros(d, F32)
    out[chosen] = entries
    return out


def write_sparse(writer, spec, value, aux):
    chosen = support_of(spec, value)
    write_indices(writer, spec["index"], chosen, len(value))
    write_part(writer, spec.get("entry", "float32"), value[chosen], aux)


def read_sparse(reader, spec, d):
    if spec["index"] == "none":
        chosen = np.flatnonzero(spec["support"]).tolist()
    else:
        k = spec["k"] if spec.get("support") is None else int(np.sum(spec["support"]))
        chosen = read_indices(reader, spec["index"], d, k)
    return scatter(d, chosen, read_part(reader, spec.get("entry", "float32"), len(chosen)))


def write_bitmap(writer, spec, value, aux):
    for entry in value:
        writer.write(int(entry != 0), 1)
    write_part(writer, spec.get("entry", "float32"), value[value != 0], aux)


def read_bitmap(reader, spec, d):
    chosen = [j for j in range(d) if reader.read(1)]
    return scatter(d, chosen, read_part(reader, spec.get("entry", "float32"), len(chosen)))


ENTRY_BITS = {"float32": 32, "natural": 9}


def write_threshold(writer, spec, value, aux):
    chosen = np.flatnonzero(value).tolist()
    if spec["index"] == "none":
        raise CodecError("threshold: the support depends on the value, its indices must be sent")
    write_indices(writer, spec["index"], chosen, len(value))
    write_part(writer, spec.get("entry", "float32"), value[chosen])


def read_threshold(reader, spec, d):
    """The count is the one whose message has the length that arrived (each entry adds bits)."""
    entry = full(spec.get("entry", "float32"))
    width, length = ENTRY_BITS[entry["kind"]], reader.left()
    counts = [k for k in range(d + 1) if k * width + index_bits(spec["index"], d, k) == length]
    if len(counts) != 1:
        raise CodecError(f"threshold: {len(counts)} counts have a message of {length} bits")
    chosen = read_indices(reader, spec["index"], d, counts[0])
    return scatter(d, chosen, read_part(reader, entry, counts[0]))


# Wrappers.


def write_bernoulli(writer, spec, value, aux):
    if np.any(value):
        write_part(writer, spec.get("inner", "float32"), value, aux)


def read_bernoulli(reader, spec, d):
    return read_part(reader, spec.get("inner", "float32"), d) if reader.left() else np.zeros(d, F32)


def write_scaled(writer, spec, value, aux):
    inner, inner_aux = (value / F32(spec["factor"]), None) if aux is None else aux
    write_part(writer, spec["inner"], np.asarray(inner, F32), inner_aux)


def read_scaled(reader, spec, d):
    return F32(spec["factor"]) * read_part(reader, spec["inner"], d)


def write_low_rank(writer, spec, value, aux):
    a, b, r = spec["a"], spec["b"], spec["r"]
    if aux is None:
        left, singular, right = np.linalg.svd(value.reshape(a, b).astype(float), full_matrices=False)
        aux = left[:, :r] * singular[:r], right[:r].T
    for factor, rows in zip(aux, (a, b), strict=True):
        write_float32(writer, spec, np.asarray(factor, F32).reshape(rows * r), None)


def read_low_rank(reader, spec, d):
    a, b, r = spec["a"], spec["b"], spec["r"]
    left = read_float32(reader, spec, a * r).reshape(a, r)
    right = read_float32(reader, spec, b * r).reshape(b, r)
    return (left @ right.T).ravel()


def write_blocks(writer, spec, value, aux):
    start = 0
    for b, size in enumerate(spec["sizes"]):
        write_part(writer, spec["inner"], value[start : start + size], None if aux is None else aux[b])
        start += size


def read_blocks(reader, spec, d):
    if sum(spec["sizes"]) != d:
        raise CodecError(f"blocks: sizes add up to {sum(spec['sizes'])}, the vector has {d}")
    return np.concatenate([read_part(reader, spec["inner"], size) for size in spec["sizes"]])


def write_sum(writer, spec, value, aux):
    for part, (part_value, part_aux) in zip(spec["parts"], aux, strict=True):
        write_part(writer, part, np.asarray(part_value, F32), part_aux)


def read_sum(reader, spec, d):
    total = np.zeros(d, F32)
    for part in spec["parts"]:
        total = total + read_part(reader, part, d)
    return total


CODECS = {
    "zero": (write_zero, read_zero),
    "float32": (write_float32, read_float32),
    "natural": (write_natural, read_natural),
    "sign": (write_sign, read_sign),
    "levels": (write_levels, read_levels),
    "ternary": (write_ternary, read_ternary),
    "dithering": (write_dithering, read_dithering),
    "sparse": (write_sparse, read_sparse),
    "bitmap": (write_bitmap, read_bitmap),
    "threshold": (write_threshold, read_threshold),
    "bernoulli": (write_bernoulli, read_bernoulli),
    "scaled": (write_scaled, read_scaled),
    "low_rank": (write_low_rank, read_low_rank),
    "blocks": (write_blocks, read_blocks),
    "sum": (write_sum, read_sum),
}
