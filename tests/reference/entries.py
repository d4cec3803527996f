"""Messages of dense vectors: floats, powers of two, signs, and a norm with one level per entry."""

from __future__ import annotations

import numpy as np

from .bits import F32, CodecError

# Dense kinds.


def write_zero(writer, spec, value, aux):
    if np.any(value):
        raise CodecError("zero: the value is not zero")


def read_zero(reader, spec, d):
    return np.zeros(d, F32)


def write_float32(writer, spec, value, aux):
    for entry in value:
        writer.write_float(entry)


def read_float32(reader, spec, d):
    return np.array([reader.read_float() for _ in range(d)], F32)


def write_natural(writer, spec, value, aux):
    """Code 0 is zero, code e + 127 the power 2^e, -126 <= e <= 127."""
    for entry in value / F32(spec.get("scale", 1)):
        fraction, exponent = np.frexp(np.abs(entry))
        if entry != 0 and (fraction != 0.5 or not -126 <= exponent - 1 <= 127):
            raise CodecError(f"natural: {entry!r} is not a power of two from 2^-126 to 2^127")
        writer.write(int(np.signbit(entry)), 1)
        writer.write(0 if entry == 0 else int(exponent) - 1 + 127, 8)


def read_natural(reader, spec, d):
    scale, out = F32(spec.get("scale", 1)), []
    for _ in range(d):
        negative, code = reader.read(1), reader.read(8)
        entry = F32(0) if code == 0 else np.ldexp(F32(1), code - 127)
        out.append((-entry if negative else entry) * scale)
    return np.array(out, F32)


def write_sign(writer, spec, value, aux):
    writer.write_float(np.max(np.abs(value), initial=0))
    for entry in value:
        writer.write(int(entry < 0), 1)


def read_sign(reader, spec, d):
    scale = reader.read_float()
    return np.array([-scale if reader.read(1) else scale for _ in range(d)], F32)


# Norm and levels.

ORDERS = {
    "norm*(level/s)": lambda norm, level, s: norm * (level / s),
    "norm*level/s": lambda norm, level, s: norm * level / s,
    "norm/s*level": lambda norm, level, s: norm / s * level,
    "norm*(level*(1/s))": lambda norm, level, s: norm * (level * (F32(1) / s)),
    "norm*level*(1/s)": lambda norm, level, s: norm * level * (F32(1) / s),
}


def level_value(norm, level, spec):
    """norm * level / s in float32; the last bit depends on the order of the operations."""
    order = ORDERS[spec.get("order", "norm*(level/s)")]
    return order(F32(norm), np.asarray(level, F32), F32(spec["s"]))


def levels_of(value, norm, spec):
    """Integer levels that give |value| exactly under this norm, or None."""
    if norm == 0:
        return None if np.any(value) else np.zeros(len(value), int)
    with np.errstate(over="ignore", invalid="ignore"):
        levels = np.rint(np.abs(value.astype(float)) * spec["s"] / float(norm))
        exact = np.array_equal(level_value(norm, levels, spec), np.abs(value))
    return levels.astype(int) if exact and np.all(levels <= spec["s"]) else None


def find_norm(value, spec):
    """Some norm that reproduces the value: largest entry = norm * level / s for one of the levels."""
    largest = np.max(np.abs(value), initial=F32(0))
    for level in range(spec["s"], 0, -1):
        with np.errstate(over="ignore"):
            candidates = neighbours(F32(float(largest) * spec["s"] / level), 3)
        for norm in candidates:
            if np.isfinite(norm) and levels_of(value, norm, spec) is not None:
                return norm
    raise CodecError(f"levels: no norm makes every entry a multiple of norm/{spec['s']}")


def neighbours(value, count):
    """value and the floats up to `count` steps above and below it."""
    out, above, below = [value], value, value
    for _ in range(count):
        above, below = np.nextafter(above, F32(np.inf)), np.nextafter(below, F32(0))
        out += [above, below]
    return out


def norm_and_levels(spec, value, aux):
    norm = find_norm(value, spec) if aux is None else F32(aux)
    levels = levels_of(value, norm, spec)
    if levels is None:
        raise CodecError(f"levels: the entries are not multiples of {norm!r}/{spec['s']}")
    return norm, levels


def write_levels(writer, spec, value, aux):
    norm, levels = norm_and_levels(spec, value, aux)
    writer.write_float(norm)
    for entry, level in zip(value, levels, strict=True):
        writer.write(int(entry < 0), 1)
        writer.write(int(level), spec["s"].bit_length())


def read_levels(reader, spec, d):
    """s.bit_length() = ceil log2(s+1)."""
    norm, out = reader.read_float(), []
    for _ in range(d):
        negative, level = reader.read(1), reader.read(spec["s"].bit_length())
        entry = level_value(norm, level, spec)
        out.append(-entry if negative else entry)
    return np.array(out, F32)


def write_ternary(writer, spec, value, aux):
    if not spec.get("base3"):
        return write_levels(writer, spec | {"s": 1}, value, aux)
    norm, levels = norm_and_levels(spec | {"s": 1}, value, aux)
    number = 0
    for entry, level in zip(value, levels, strict=True):
        number = 3 * number + (2 if entry < 0 else int(level))
    writer.write_float(norm)
    writer.write(number, (3 ** len(value) - 1).bit_length())


def read_ternary(reader, spec, d):
    if not spec.get("base3"):
        return read_levels(reader, spec | {"s": 1}, d)
    norm, number = reader.read_float(), reader.read((3**d - 1).bit_length())
    out = []
    for _ in range(d):
        number, digit = divmod(number, 3)
        out.append([F32(0), norm, -norm][digit])
    return np.array(out[::-1], F32)


def write_dithering(writer, spec, value, aux):
    """Level 0 is zero, level l is norm 2^(l-s); without aux the largest entry serves as the norm."""
    s = spec["s"]
    norm = np.max(np.abs(value), initial=F32(0)) if aux is None else F32(aux)
    writer.write_float(norm)
    for entry in value:
        level = 0
        if entry != 0:
            fraction, exponent = np.frexp(np.abs(float(entry)) / float(norm))
            level = int(exponent) - 1 + s
            if fraction != 0.5 or not 1 <= level <= s:
                raise CodecError(f"dithering: {entry!r} is not one of the {s} levels of {norm!r}")
        writer.write(int(entry < 0), 1)
        writer.write(level, s.bit_length())


def read_dithering(reader, spec, d):
    norm, s, out = reader.read_float(), spec["s"], []
    for _ in range(d):
        negative, level = reader.read(1), reader.read(spec["s"].bit_length())
        entry = F32(0) if level == 0 else np.ldexp(norm, level - s)
        out.append(-entry if negative else entry)
    return np.array(out, F32)
