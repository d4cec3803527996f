"""Bits written and read one number at a time, packed eight to a byte."""

from __future__ import annotations

import numpy as np

F32 = np.float32


class CodecError(ValueError):
    """The value is not one that this message format can carry."""


class BitWriter:
    """Most significant bit first; `finish` pads the last byte with zeros."""

    def __init__(self):
        self.bits = []

    def write(self, number, width):
        if number < 0 or number >> width:
            raise CodecError(f"{number} does not fit in {width} bits")
        self.bits.extend((number >> shift) & 1 for shift in range(width - 1, -1, -1))

    def write_float(self, value):
        self.write(int(np.array(value, F32).view(np.uint32)), 32)

    def finish(self):
        return np.packbits(np.array(self.bits, dtype=np.uint8)).tobytes(), len(self.bits)


class BitReader:
    def __init__(self, data, nbits):
        self.bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))[:nbits].tolist()
        self.position = 0

    def read(self, width):
        if self.left() < width:
            raise CodecError("message too short")
        number = 0
        for bit in self.bits[self.position : self.position + width]:
            number = 2 * number + bit
        self.position += width
        return number

    def read_float(self):
        return np.array(self.read(32), dtype=np.uint32).view(F32)[()]

    def left(self):
        return len(self.bits) - self.position
