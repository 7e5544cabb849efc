"""The rules of a segment that comes home. Pure: bytes in, a summary out, or a refusal that says what is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass

from columns.raw import decode_raw
from durable.frames import read_frames
from edgepack.errors import EdgepackError
from hub.refusal import Refused

_EPOCH = re.compile(r"[0-9a-f]{16}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_COLUMN = re.compile(r"time|(in|out|out_[^.]+|anomaly|metadata)\.[^\x00-\x1f]+")
_ADDED = ("metadata.seq", "metadata.epoch")


@dataclass(frozen=True)
class SegmentName:
    """Where a segment belongs on its device."""

    device: str
    epoch: str
    number: int

    @classmethod
    def parse(cls, device: str, epoch: str, number: str) -> SegmentName:
        """Take the parts of a path from outside."""
        if not _EPOCH.fullmatch(epoch):
            raise Refused(400, f"epoch '{epoch[:40]}' is not one: expected 16 hexadecimal digits", field="epoch")
        if not _NUMBER.fullmatch(number):
            raise Refused(400, f"segment '{number[:40]}' is not a number from 0 on", field="number")
        return cls(device, epoch, int(number))

    def __str__(self) -> str:
        return f"segment {self.number} of epoch {self.epoch}"


@dataclass(frozen=True)
class Summary:
    """What a segment holds: rows from `first_seq` to before `end_seq`, with gaps where rows were dropped by policy."""

    first_seq: int
    end_seq: int
    rows: int


def check_segment(name: SegmentName, data: bytes) -> Summary:
    """Check every frame of a segment and decode every row block in it.

    Raises Refused 400 for the first that is wrong.
    """
    first, end, rows = -1, 0, 0
    try:
        for frame in read_frames(data, epoch=name.epoch):
            if first >= 0 and frame.first_seq < end:
                raise Refused(400, f"{name}: row {frame.first_seq} comes after row {end - 1}: rows must go up")
            _check_rows(name, frame.first_seq, frame.rows, frame.payload)
            first = frame.first_seq if first < 0 else first
            end, rows = frame.first_seq + frame.rows, rows + frame.rows
    except Refused:
        raise
    except EdgepackError as error:
        raise Refused(400, f"{name} is damaged: {error}; send it again") from error
    if rows == 0:
        raise Refused(400, f"{name} holds no rows: nothing to keep")
    return Summary(first, end, rows)


def _check_rows(name: SegmentName, first_seq: int, rows: int, payload: bytes) -> None:
    if rows > len(payload):
        # equal columns are stored once: a few bytes could claim millions of rows, and every reader would pay for them
        raise Refused(400, f"{name}: the frame at row {first_seq} claims {rows} rows in {len(payload)} bytes")
    block = decode_raw(payload)
    if block.rows != rows:
        raise Refused(400, f"{name}: the frame at row {first_seq} says {rows} rows, its block has {block.rows}")
    for column in block.schema.names:
        if not _COLUMN.fullmatch(column) or column in _ADDED:
            raise Refused(
                400, f"{name}: the block at row {first_seq} has a column '{column[:60]}', which no result row has"
            )
