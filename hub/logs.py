"""The log as it is read back: pages of result rows in the order in which their segments came, oldest first.

A cursor is `<segment>.<rows of it that were read>`. Segments get their numbers in the order in which they are
committed, so a reader that goes on from a cursor misses nothing that came later.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Row

from columns.columns import Columns, constant
from columns.raw import decode_raw
from columns.records import encode_records
from columns.schema import Schema
from columns.values import object_array
from durable.frames import read_frames
from edgepack.errors import EdgepackError
from hub.hub import Hub
from hub.refusal import Refused
from hub.store import segments
from hub.store.devices import names_of

MOST_ROWS = 10_000
_PAGE_BYTES = 16 << 20  # a page ends early when its rows are this large
_SCAN_BYTES = 256 << 20  # and when so much was searched for rows that match
_PIECE = 1000  # rows encoded at once
_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})")
_ADDED = Schema.parse(
    {"metadata.partition": "string", "metadata.pipeline": "string", "metadata.seq": "int64", "metadata.epoch": "string"}
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in the log, behind `offset` rows of a segment."""

    segment: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Take a cursor from outside."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise Refused(
                400, f"query field 'after' is '{text[:60]}': expected the `next` of a page before", field="after"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.segment}.{self.offset}"


@dataclass(frozen=True)
class LogQuery:
    """What to read: None means any."""

    after: Cursor = Cursor()
    limit: int = 1000
    pipeline: str | None = None
    devices: tuple[str, ...] | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Page:
    """Rows as JSON texts joined by commas, how many, and the cursor behind what was looked at, if anything was."""

    rows: bytes
    count: int
    next: Cursor | None

    def encode(self) -> bytes:
        """The JSON of a `LogPage`."""
        cursor = b"null" if self.next is None else f'"{self.next}"'.encode()
        return b'{"rows":[' + self.rows + b'],"next":' + cursor + b"}"


@dataclass(frozen=True)
class _Piece:
    """Rows of one segment that lie side by side, from `offset` on; `wanted` is false for those that a filter passes
    over.
    """

    segment: int
    offset: int
    rows: Columns
    wanted: bool
    cost: int  # bytes that had to be read for it


class _PageWriter:
    """Fills a page up to its limits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._texts: list[bytes] = []
        self._next: Cursor | None = None
        self._count = self._size = self._scanned = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more goes in."""
        return self._count >= self._limit or self._size >= _PAGE_BYTES or self._scanned >= _SCAN_BYTES

    def add(self, piece: _Piece) -> None:
        """Take a piece, or as much of it as the limit lets in."""
        taken = piece.rows.rows
        if piece.wanted:
            taken = min(taken, self._limit - self._count)
            self._write(piece.rows.slice(0, taken))
        self._next = Cursor(piece.segment, piece.offset + taken)
        self._scanned += piece.cost

    def _write(self, rows: Columns) -> None:
        try:
            text = encode_records(rows)[1:-1]
        except (EdgepackError, ValueError, TypeError) as error:
            # what ingest let through must never stop the log for everybody
            _log.error("%s rows have no JSON and are passed over: %s", rows.rows, error)
            return
        self._texts.append(text)
        self._count, self._size = self._count + rows.rows, self._size + len(text)

    def finish(self) -> Page:
        """The page as it is."""
        return Page(b",".join(self._texts), self._count, self._next)


def read_page(hub: Hub, query: LogQuery) -> Page:
    """Read one page. With a filter it may hold fewer rows than asked for, even none, and yet have a next one."""
    page = _PageWriter(query.limit)
    with hub.database.read() as db:
        names = names_of(db)
        for row in segments.after(db, query.after.segment, query.pipeline, query.devices):
            start = query.after.offset if row.id == query.after.segment else 0
            for piece in _pieces(hub, row, names[row.device], start, query.request_id):
                page.add(piece)
                if page.is_full:
                    return page.finish()
    return page.finish()


def newest_rows(hub: Hub, count: int) -> list[Columns]:
    """The rows that came last, newest first, one row each; for the web page."""
    found: list[Columns] = []
    with hub.database.read() as db:
        names = names_of(db)
        rows = segments.newest(db, count)
    for row in rows:
        pieces = list(_pieces(hub, row, names[row.device], max(0, row.rows - count), None))
        singles = [piece.rows.slice(at, at + 1) for piece in pieces for at in range(piece.rows.rows)]
        found += reversed(singles)
        if len(found) >= count:
            break
    return found[:count]


def _pieces(hub: Hub, row: Row[Any], device_name: str, start: int, request_id: str | None) -> Iterator[_Piece]:
    """The rows of a segment from `start` on.

    A segment that the disk no longer gives back is passed over, and logged.
    """
    if start >= row.rows:
        return
    offset, cost = 0, row.size
    try:
        data = hub.segments.read(row.device, row.epoch, row.number, row.digest)
        for frame in read_frames(data, row.epoch):
            skipped = max(0, start - offset)
            if skipped < frame.rows:
                block = decode_raw(frame.payload)
                for begin, end, wanted in _stretches(block, skipped, request_id):
                    rows = block.slice(begin, end)
                    if wanted:
                        rows = _described(rows, frame.first_seq + begin, row, device_name)
                    yield _Piece(row.id, offset + begin, rows, wanted, cost)
                    cost = 0
            offset += frame.rows
    except (EdgepackError, OSError) as error:
        _log.error("segment %s of %s epoch %s does not read: %s", row.number, device_name, row.epoch, error)


def _described(block: Columns, first_seq: int, row: Row[Any], device_name: str) -> Columns:
    """Add what the hub knows better than the device says: whose row it is, and its place there."""
    own = [name for name in block.schema.names if name not in _ADDED]
    said = {"metadata.partition": device_name, "metadata.pipeline": row.pipeline, "metadata.epoch": row.epoch}
    arrays = {name: constant(object_array([text]), block.rows) for name, text in said.items()}
    arrays["metadata.seq"] = np.arange(first_seq, first_seq + block.rows, dtype=np.int64)
    return block.select(own).merge(Columns(_ADDED, arrays, block.rows))


def _stretches(block: Columns, start: int, request_id: str | None) -> Iterator[tuple[int, int, bool]]:
    """Runs of rows that a filter treats alike, in pieces that are encoded at once."""
    for begin, end, wanted in _runs(block, request_id):
        for at in range(max(begin, start), end, _PIECE):
            yield at, min(at + _PIECE, end), wanted


def _runs(block: Columns, request_id: str | None) -> Iterator[tuple[int, int, bool]]:
    ids = block.arrays.get("metadata.request_id")
    if request_id is None or ids is None or ids.dtype != object:
        yield 0, block.rows, request_id is None
        return
    wanted = ids == request_id
    edges = np.flatnonzero(wanted[1:] != wanted[:-1]) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), block.rows], strict=True):
        yield begin, end, bool(wanted[begin])
