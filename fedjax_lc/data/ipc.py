"""How many bytes an Arrow file or stream says it unpacks to, by the heads of its messages, before any is unpacked.

Source: Apache Arrow, "Columnar format" (Message.fbs: Message, RecordBatch, DictionaryBatch, Buffer, BodyCompression);
FlatBuffers, "Internals" (tables, their fields, vectors).
"""

from __future__ import annotations

import struct
from typing import Any

_FILE = b"ARROW1\0\0"
_HEADER, _LENGTH, _DATA, _BUFFERS, _COMPRESSION = 2, 0, 1, 2, 3  # places of fields in their tables


def claimed(content: bytes) -> int:
    """The bytes of all buffers once unpacked, and one a row at least. Raises what pyarrow does for a damaged file."""
    import pyarrow.ipc

    messages = pyarrow.ipc.MessageReader.open_stream(content[len(_FILE) :] if content.startswith(_FILE) else content)
    total = 0
    for message in iter(lambda: _next(messages), None):
        if message.type in ("record batch", "dictionary"):
            head = message.metadata.to_pybytes()
            batch = _table(head, _table(head, 0), _HEADER)
            batch = _table(head, batch, _DATA) if message.type == "dictionary" else batch
            total += max(_rows(head, batch), _unpacked(head, batch, message.body.to_pybytes()))
    return total


def _next(messages: Any) -> Any:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _rows(head: bytes, batch: int) -> int:
    place = _field(head, batch, _LENGTH)
    return struct.unpack_from("<q", head, place)[0] if place else 0


def _unpacked(head: bytes, batch: int, body: bytes) -> int:
    """The bytes of a batch's buffers; each that is packed says its size in its first 8 bytes, -1 if it is not."""
    if not _field(head, batch, _COMPRESSION):
        return len(body)
    place = _field(head, batch, _BUFFERS)
    start = place + struct.unpack_from("<I", head, place)[0]
    total = 0
    for k in range(struct.unpack_from("<I", head, start)[0]):
        at, size = struct.unpack_from("<qq", head, start + 4 + 16 * k)
        total += max(size, struct.unpack_from("<q", body, at)[0]) if size >= 8 else 0
    return total


def _table(head: bytes, table: int, field: int | None = None) -> int:
    """The place of the table that the root (at place 0, without a field) or a field of a table points to."""
    place = table if field is None else _field(head, table, field)
    return place + struct.unpack_from("<I", head, place)[0]


def _field(head: bytes, table: int, field: int) -> int:
    """The place of a field of a table; 0 if it is left out."""
    fields = table - struct.unpack_from("<i", head, table)[0]
    if 4 + 2 * field >= struct.unpack_from("<H", head, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", head, fields + 4 + 2 * field)[0]
    return table + offset if offset else 0
