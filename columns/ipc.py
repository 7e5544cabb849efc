"""What an Arrow message claims about itself, read before Arrow acts on it.

Two claims make Arrow work before anything is validated: the unpacked size of a compressed buffer is
allocated as told, and a delta dictionary is joined to one that nobody has looked at. Neither can be asked
of pyarrow, so the few fields are taken from the message's flatbuffer here (Arrow's format/Message.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgepack.errors import BadInput

MAX_UNPACKED_BYTES = 256 << 20  # of one body: four times what a body may have on the wire

_DICTIONARY, _RECORD = 2, 3
_MESSAGE_TYPE, _MESSAGE_HEADER = 1, 2
_DICTIONARY_BATCH, _DICTIONARY_IS_DELTA = 1, 2
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3


def unpacked_bytes(metadata: memoryview, body: memoryview) -> int:
    """How many bytes the compressed buffers of one message say they unpack to; 0 if it is not compressed.

    Raises BadInput for a delta dictionary and for a message whose claims lie outside it.
    """
    try:
        return _unpacked(metadata, body)
    except struct.error as error:
        raise BadInput("the Arrow body is damaged: a message points outside itself") from error


def _unpacked(metadata: memoryview, body: memoryview) -> int:
    message = _follow(metadata, 0)
    kind_at = _slot(metadata, message, _MESSAGE_TYPE)
    header_at = _slot(metadata, message, _MESSAGE_HEADER)
    kind = _read("<B", metadata, kind_at) if kind_at else 0
    if not header_at or kind not in (_DICTIONARY, _RECORD):
        return 0
    batch = _follow(metadata, header_at)
    if kind == _DICTIONARY:
        delta_at = _slot(metadata, batch, _DICTIONARY_IS_DELTA)
        if delta_at and _read("<B", metadata, delta_at):
            raise BadInput("the Arrow body has a delta dictionary: send each dictionary whole")
        batch_at = _slot(metadata, batch, _DICTIONARY_BATCH)
        if not batch_at:
            return 0
        batch = _follow(metadata, batch_at)
    if not _slot(metadata, batch, _BATCH_COMPRESSION):
        return 0
    return sum(_claims(metadata, batch, body))


def _claims(metadata: memoryview, batch: int, body: memoryview) -> Iterator[int]:
    """The size each compressed buffer begins with; -1 says that it is stored as it is."""
    buffers_at = _slot(metadata, batch, _BATCH_BUFFERS)
    if not buffers_at:
        return
    vector = _follow(metadata, buffers_at)
    for index in range(_read("<I", metadata, vector)):
        at = vector + 4 + 16 * index
        offset, length = _read("<q", metadata, at), _read("<q", metadata, at + 8)
        if length > 0:
            claimed = _read("<q", body, offset)
            yield length if claimed == -1 else claimed if claimed >= 0 else MAX_UNPACKED_BYTES + 1


def _slot(buffer: memoryview, table: int, slot: int) -> int:
    """Where the field of a table lies, 0 for one that is not there."""
    vtable = table - _read("<i", buffer, table)
    if 4 + 2 * slot >= _read("<H", buffer, vtable):
        return 0
    offset = _read("<H", buffer, vtable + 4 + 2 * slot)
    return table + offset if offset else 0


def _follow(buffer: memoryview, at: int) -> int:
    return at + _read("<I", buffer, at)


def _read(form: str, buffer: memoryview, at: int) -> int:
    if at < 0:
        raise struct.error("negative offset")
    number: int = struct.unpack_from(form, buffer, at)[0]
    return number
