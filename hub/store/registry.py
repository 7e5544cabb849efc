"""Manifests and tags of the registry: which repository knows which manifest, and by which names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from hub.store.tables import manifests, tags


def find_manifest(db: Connection, repository: str, digest: str) -> Row[Any] | None:
    """A manifest that was pushed to this repository."""
    return db.execute(
        select(manifests).where(manifests.c.repository == repository, manifests.c.digest == digest)
    ).one_or_none()


def add_manifest(db: Connection, row: dict[str, object]) -> None:
    """Enter a manifest whose blob is durable; one that is there stays as it is."""
    if find_manifest(db, str(row["repository"]), str(row["digest"])) is None:
        db.execute(manifests.insert().values(**row))


def set_tag(db: Connection, repository: str, name: str, digest: str) -> None:
    """Let a tag name a manifest, whatever it named before."""
    db.execute(tags.delete().where(tags.c.repository == repository, tags.c.name == name))
    db.execute(tags.insert().values(repository=repository, name=name, digest=digest))


def find_tag(db: Connection, repository: str, name: str) -> str | None:
    """The digest that a tag names."""
    return db.execute(
        select(tags.c.digest).where(tags.c.repository == repository, tags.c.name == name)
    ).scalar_one_or_none()


def every_tag(db: Connection, repository: str, after: str, limit: int | None) -> list[str]:
    """Tags of a repository behind a given one, in the order of their bytes."""
    chosen = select(tags.c.name).where(tags.c.repository == repository, tags.c.name > after).order_by(tags.c.name)
    return list(db.execute(chosen.limit(limit)).scalars())


def has_repository(db: Connection, repository: str) -> bool:
    """Whether anything was ever pushed there."""
    return (
        db.execute(select(manifests.c.digest).where(manifests.c.repository == repository).limit(1)).first() is not None
    )


def referrers(db: Connection, repository: str, subject: str, artifact_type: str | None) -> list[Row[Any]]:
    """Manifests whose subject is this digest, of one artifact type where asked."""
    chosen = select(manifests).where(manifests.c.repository == repository, manifests.c.subject == subject)
    if artifact_type is not None:
        chosen = chosen.where(manifests.c.artifact_type == artifact_type)
    return list(db.execute(chosen.order_by(manifests.c.digest)))


def tagged(db: Connection) -> list[Row[Any]]:
    """Every tag with what is known of its manifest: the layout folder's own index is made of it."""
    known = manifests.join(tags, (tags.c.repository == manifests.c.repository) & (tags.c.digest == manifests.c.digest))
    return list(
        db.execute(
            select(tags.c.repository, tags.c.name, manifests.c.digest, manifests.c.media_type, manifests.c.size)
            .select_from(known)
            .order_by(tags.c.repository, tags.c.name)
        )
    )
