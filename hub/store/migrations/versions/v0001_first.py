"""The first tables: tokens, devices, assignments, inventories, pipelines, segments, manifests, tags.

Written out, not taken from `tables.py`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _fleet()
    _published()
    _log()


def _fleet() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("group_name", sa.String()),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.Float()),
        sa.Column("revoked_at", sa.BigInteger()),
    )
    living = sa.text("revoked_at IS NULL")
    op.create_index("devices_name", "devices", ["name"], unique=True, sqlite_where=living, postgresql_where=living)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("group_name", sa.String()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(), sa.ForeignKey("devices.id")),
    )
    op.create_table(
        "assignments",
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("pipelines", sa.JSON(), nullable=False),
    )
    op.create_table(
        "inventories",
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), primary_key=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("inventory", sa.JSON(), nullable=False),
    )


def _published() -> None:
    op.create_table(
        "pipelines",
        sa.Column("pipeline", sa.String(), primary_key=True),
        sa.Column("index_digest", sa.String(), primary_key=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("manifests", sa.JSON(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("edition", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "manifests",
        sa.Column("repository", sa.String(), primary_key=True),
        sa.Column("digest", sa.String(), primary_key=True),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("artifact_type", sa.String()),
        sa.Column("subject", sa.String()),
        sa.Column("annotations", sa.JSON(), nullable=False),
    )
    op.create_index("manifests_subject", "manifests", ["repository", "subject"])
    op.create_table(
        "tags",
        sa.Column("repository", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("digest", sa.String(), nullable=False),
    )


def _log() -> None:
    op.create_table(
        "segments",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("device", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("epoch", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("end_seq", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("device", "epoch", "number", name="segments_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("segments_pipeline", "segments", ["pipeline", "id"])
    op.create_index("segments_rows", "segments", ["device", "epoch", "first_seq"])
