"""The tables as the newest migration leaves them. A test holds them and the migrations together."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("secret_sha256", String, nullable=False),
    Column("group_name", String),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_by", String, ForeignKey("devices.id")),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("target", String, nullable=False),
    Column("group_name", String),
    Column("secret_sha256", String, nullable=False),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("last_seen", Float),
    Column("revoked_at", BigInteger),
    # the name of a revoked device may be given again; its rows in the log keep it
    Index(
        "devices_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

assignments = Table(
    "assignments",
    metadata,
    Column("device", String, ForeignKey("devices.id"), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("pipelines", JSON, nullable=False),  # name -> fleet.messages.Assigned
)

inventories = Table(
    "inventories",
    metadata,
    Column("device", String, ForeignKey("devices.id"), primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("inventory", JSON, nullable=False),  # fleet.messages.Inventory
)

pipelines = Table(
    "pipelines",
    metadata,
    Column("pipeline", String, primary_key=True),
    Column("index_digest", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("manifests", JSON, nullable=False),  # target -> digest of the manifest
    Column("published_at", BigInteger, nullable=False),
    Column("edition", BigInteger, nullable=False),  # grows with each publish: a clock never decides what is newest
)

segments = Table(
    "segments",
    metadata,
    Column("id", Integer, primary_key=True),  # the order of the log
    Column("device", String, ForeignKey("devices.id"), nullable=False),
    Column("epoch", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("pipeline", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("end_seq", BigInteger, nullable=False),  # one past the last row; gaps make it more than first_seq + rows
    Column("received_at", BigInteger, nullable=False),
    UniqueConstraint("device", "epoch", "number", name="segments_once"),
    Index("segments_pipeline", "pipeline", "id"),
    Index("segments_rows", "device", "epoch", "first_seq"),
    sqlite_autoincrement=True,
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("media_type", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("artifact_type", String),
    Column("subject", String),
    Column("annotations", JSON, nullable=False),
    Index("manifests_subject", "repository", "subject"),
)

tags = Table(
    "tags",
    metadata,
    Column("repository", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),
)
