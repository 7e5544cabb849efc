"""Which segments came home: one row each, in the order in which they came, which is the order of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from hub.store.tables import segments


def find(db: Connection, device: str, epoch: str, number: int) -> Row[Any] | None:
    """The segment that came under this name, if one did."""
    return db.execute(
        select(segments).where(segments.c.device == device, segments.c.epoch == epoch, segments.c.number == number)
    ).one_or_none()


def find_clash(db: Connection, device: str, epoch: str, pipeline: str, first_seq: int, end_seq: int) -> Row[Any] | None:
    """A segment of the same epoch with some of the same rows, or of another pipeline: an epoch is one spool's."""
    same_epoch = select(segments).where(segments.c.device == device, segments.c.epoch == epoch)
    # segments of an epoch do not overlap, so only the last one that begins before our end can reach into our rows
    before = db.execute(
        same_epoch.where(segments.c.first_seq < end_seq).order_by(segments.c.first_seq.desc()).limit(1)
    ).one_or_none()
    if before is not None and before.end_seq > first_seq:
        return before
    other = db.execute(same_epoch.limit(1)).one_or_none()
    return other if other is not None and other.pipeline != pipeline else None


def add(db: Connection, **row: object) -> None:
    """Enter a segment whose file is durable."""
    db.execute(segments.insert().values(**row))


def after(db: Connection, segment_id: int, pipeline: str | None, devices: Sequence[str] | None) -> Iterator[Row[Any]]:
    """Segments from this id on, oldest first, of one pipeline and of certain devices where asked."""
    chosen = select(segments).where(segments.c.id >= segment_id)
    if pipeline is not None:
        chosen = chosen.where(segments.c.pipeline == pipeline)
    if devices is not None:
        chosen = chosen.where(segments.c.device.in_(devices))
    yield from db.execute(chosen.order_by(segments.c.id))


def has_rows(db: Connection, pipeline: str) -> bool:
    """Whether a pipeline has a segment."""
    return db.execute(select(segments.c.id).where(segments.c.pipeline == pipeline).limit(1)).first() is not None


def pipelines_of(db: Connection) -> list[str]:
    """The name of every pipeline that has a segment."""
    return list(db.execute(select(segments.c.pipeline).distinct()).scalars())


def newest(db: Connection, count: int) -> list[Row[Any]]:
    """The segments that came last, newest first."""
    return list(db.execute(select(segments).order_by(segments.c.id.desc()).limit(count)))


def newest_id(db: Connection) -> int:
    """The id of the segment that came last; 0 for none."""
    found: int = db.execute(select(func.coalesce(func.max(segments.c.id), 0))).scalar_one()
    return found


def totals(db: Connection) -> tuple[int, int, int]:
    """How many segments, rows and bytes came home."""
    count, rows, size = db.execute(
        select(func.count(), func.coalesce(func.sum(segments.c.rows), 0), func.coalesce(func.sum(segments.c.size), 0))
    ).one()
    return int(count), int(rows), int(size)
