"""Frames: how rows lie in a segment; a torn, flipped or foreign byte is noticed and costs no neighbour.

    magic 4 | payload length 4 | rows 4 | sequence of the first row 8 | CRC-32 4 | payload
    (little-endian)

The CRC runs over the head, the log's epoch and the payload. The epoch is not stored: whoever reads knows whose log it
is, and a frame of another log does not pass. Sequences in a segment only grow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from edgepack.errors import BadInput

MAGIC = b"\xe9EPF"
_HEAD = struct.Struct("<4sIIQ")
_CRC = struct.Struct("<I")
FRAME_OVERHEAD = _HEAD.size + _CRC.size  # 24 bytes


class Frame(NamedTuple):
    """Some rows that were appended together; the payload is the caller's encoding of them."""

    first_seq: int
    rows: int
    payload: bytes

    @property
    def end_seq(self) -> int:
        """The sequence after the last row."""
        return self.first_seq + self.rows


def encode_frame(epoch: str, first_seq: int, rows: int, payload: bytes) -> bytes:
    """The bytes of one frame without its payload, which follows."""
    head = _HEAD.pack(MAGIC, len(payload), rows, first_seq)
    return head + _CRC.pack(crc32(payload, crc32(head, crc32(epoch.encode()))))


def read_frames(data: bytes, epoch: str) -> Iterator[Frame]:
    """The frames of a whole segment as it was sealed, each checked.

    Raises BadInput at the first byte that is not as it was written: a hub refuses such a segment.
    """
    offset = 0
    for start, frame in scan_frames(data, epoch):
        if start != offset:
            break
        offset = start + FRAME_OVERHEAD + len(frame.payload)
        yield frame
    if offset != len(data):
        raise BadInput(f"segment of epoch {epoch} is damaged at byte {offset} of {len(data)}: send it again")


def scan_frames(data: bytes, epoch: str, after: int = 0) -> Iterator[tuple[int, Frame]]:
    """Every frame that is whole, with its offset, in order; damaged stretches are stepped over.

    Frames whose sequence is below `after`, or not above the one before, are not believed.
    """
    view, seed = memoryview(data), crc32(epoch.encode())
    offset, budget = 0, 64 * len(data)  # bounds what a payload full of false magics can cost
    while 0 <= offset <= len(data) - FRAME_OVERHEAD and budget >= 0:
        frame = _frame_at(view, offset, seed)
        if frame is not None and frame.first_seq >= after:
            yield offset, frame
            after, offset = frame.end_seq, offset + FRAME_OVERHEAD + len(frame.payload)
        else:
            end = _claimed_end(view, offset)
            budget -= (end or offset) - offset
            # A head that survived says where the next frame starts: a frame inside a payload is not looked at
            # then.
            jump = end is not None and _frame_at(view, end, seed) is not None
            offset = end if jump and end is not None else data.find(MAGIC, offset + 1)


def whole_frames(data: bytes, epoch: str, first_seq: int, end_seq: int) -> list[Frame]:
    """Every frame that is whole and lies within these sequences."""
    found = (frame for _, frame in scan_frames(data, epoch, first_seq))
    return [frame for frame in found if frame.end_seq <= end_seq]


def join_frames(epoch: str, frames: Iterable[Frame]) -> bytes:
    """The frames as they lie in a segment."""
    return b"".join(encode_frame(epoch, each.first_seq, each.rows, each.payload) + each.payload for each in frames)


def length_of(frames: Iterable[Frame]) -> int:
    """How many bytes the frames take."""
    return sum(FRAME_OVERHEAD + len(frame.payload) for frame in frames)


def holes_in(frames: Iterable[Frame], first_seq: int, end_seq: int) -> Iterator[tuple[int, int]]:
    """The sequences, from and up to, that no frame covers."""
    for frame in frames:
        if frame.first_seq > first_seq:
            yield first_seq, frame.first_seq
        first_seq = frame.end_seq
    if end_seq > first_seq:
        yield first_seq, end_seq


def _claimed_end(view: memoryview, offset: int) -> int | None:
    magic, length, _, _ = _HEAD.unpack_from(view, offset)
    end = offset + FRAME_OVERHEAD + int(length)
    return end if magic == MAGIC and end <= len(view) else None


def _frame_at(view: memoryview, offset: int, seed: int) -> Frame | None:
    start = offset + FRAME_OVERHEAD
    if start > len(view):
        return None
    magic, length, rows, first_seq = _HEAD.unpack_from(view, offset)
    if magic != MAGIC or rows == 0 or start + length > len(view):
        return None
    payload = view[start : start + length]
    (expected,) = _CRC.unpack_from(view, offset + _HEAD.size)
    if crc32(payload, crc32(view[offset : offset + _HEAD.size], seed)) != expected:
        return None
    return Frame(first_seq, rows, bytes(payload))
