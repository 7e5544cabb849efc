"""Published versions of pipelines: an index, and its manifests by target."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, func, select

from fleet.messages import PipelineView
from hub.store.tables import pipelines


def publish(db: Connection, view: PipelineView) -> None:
    """Make a version the newest of its pipeline; one that was published before becomes the newest again."""
    newest = db.execute(select(func.coalesce(func.max(pipelines.c.edition), 0))).scalar_one()
    db.execute(pipelines.delete().where(pipelines.c.pipeline == view.pipeline, pipelines.c.index_digest == view.index))
    db.execute(
        pipelines.insert().values(
            pipeline=view.pipeline,
            index_digest=view.index,
            version=view.version,
            manifests=view.manifests,
            published_at=view.published_at,
            edition=newest + 1,
        )
    )


def every_version(db: Connection) -> list[PipelineView]:
    """All that was ever published, newest first."""
    return _views(db.execute(select(pipelines).order_by(pipelines.c.edition.desc())).all())


def versions(db: Connection, pipeline: str) -> list[PipelineView]:
    """All versions of one pipeline, newest first."""
    chosen = select(pipelines).where(pipelines.c.pipeline == pipeline)
    return _views(db.execute(chosen.order_by(pipelines.c.edition.desc())).all())


def is_published(db: Connection, pipeline: str) -> bool:
    """Whether a pipeline was ever published."""
    return db.execute(select(pipelines.c.edition).where(pipelines.c.pipeline == pipeline).limit(1)).first() is not None


def names(db: Connection) -> list[str]:
    """The name of every pipeline that was ever published."""
    return list(db.execute(select(pipelines.c.pipeline).distinct()).scalars())


def _views(rows: Sequence[Row[tuple[object, ...]]]) -> list[PipelineView]:
    return [PipelineView(row.pipeline, row.index_digest, row.manifests, row.version, row.published_at) for row in rows]
