"""What each device should run, with a sequence number that only grows."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from fleet.messages import Assigned
from hub.store.tables import assignments


def current(db: Connection, device: str) -> tuple[int, dict[str, Assigned]]:
    """Sequence and pipelines of a device; 0 and none before the first assignment."""
    row = db.execute(select(assignments).where(assignments.c.device == device)).one_or_none()
    return (row.sequence, msgspec.convert(row.pipelines, dict[str, Assigned])) if row else (0, {})


def replace(db: Connection, device: str, sequence: int, pipelines: dict[str, Assigned]) -> None:
    """Put another assignment in the place of a device's."""
    db.execute(assignments.delete().where(assignments.c.device == device))
    db.execute(assignments.insert().values(device=device, sequence=sequence, pipelines=msgspec.to_builtins(pipelines)))
