"""The database: migrated, durable by its settings, alone with its writer."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from edgepack.errors import BadInput, RuntimeFailed
from hub.config import HubConfig
from hub.hub import Hub
from hub.store import Database
from hub.store.tables import metadata


@pytest.fixture
def database(tmp_path):
    made = Database.open(tmp_path / "hub.sqlite")
    yield made
    made.close()


def test_the_migrations_leave_exactly_the_tables(database):
    with database.read() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_what_is_committed_is_synced(database):
    with database.read() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_write_that_raises_leaves_nothing(database):
    with pytest.raises(KeyError), database.write() as db:
        db.exec_driver_sql("INSERT INTO tags VALUES ('a', 'b', 'c')")
        raise KeyError
    with database.read() as db:
        assert db.exec_driver_sql("SELECT * FROM tags").all() == []


def test_a_reader_sees_one_moment(database):
    with database.read() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM tags").scalar() == 0
        with database.write() as writer:
            writer.exec_driver_sql("INSERT INTO tags VALUES ('a', 'b', 'c')")
        assert reader.exec_driver_sql("SELECT count(*) FROM tags").scalar() == 0
    with database.read() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM tags").scalar() == 1


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "hub.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(RuntimeFailed, match=r"hub\.sqlite.*not a database"):
        Database.open(tmp_path / "hub.sqlite")


def test_a_database_of_a_newer_edgepack_is_refused(tmp_path):
    database = Database.open(tmp_path / "hub.sqlite")
    with database.write() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(RuntimeFailed, match="newer edgepack"):
        Database.open(tmp_path / "hub.sqlite")


def test_one_process_owns_a_data_folder(tmp_path):
    hub = Hub.open(HubConfig(tmp_path / "hub"))
    with pytest.raises(BadInput, match="in use"):
        Hub.open(HubConfig(tmp_path / "hub"))
    hub.close()
    Hub.open(HubConfig(tmp_path / "hub")).close()


def test_the_admin_token_is_made_once_and_kept_for_its_owner(tmp_path):
    hub = Hub.open(HubConfig(tmp_path / "hub"))
    token = hub.admin_token
    assert hub.is_new and hub.token_file.stat().st_mode & 0o777 == 0o600
    hub.close()
    again = Hub.open(HubConfig(tmp_path / "hub"))
    assert (again.admin_token, again.is_new) == (token, False)
    again.close()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="data folder"):
        Hub.open(HubConfig(tmp_path / "file" / "hub"))
