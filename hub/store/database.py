"""`Database`: the SQLite file, opened so that what was committed survives a power cut, and brought to the newest
form.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError

from edgepack.errors import RuntimeFailed

_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One SQLite file.

    Any number of readers, and one writer at a time, so that nobody waits for a lock by polling.
    """

    def __init__(self, path: Path, connections: int = 20) -> None:
        self._engine = create_engine(f"sqlite:///{path}", pool_size=connections, max_overflow=connections)
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._writing = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open or make the file and run the migrations it lacks.

        Raises RuntimeFailed for one that is damaged or newer.
        """
        database = cls(path)
        try:
            _migrate(database._engine)
        except (DatabaseError, RuntimeFailed) as error:
            database.close()
            raise RuntimeFailed(f"database '{path}' does not open: {reason_of(error)}") from error
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: everything read through it is of one moment."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, alone: durable when the block ends, nothing of it there when the block raises."""
        with self._writing, self._engine.connect() as plain:
            connection = plain.execution_options(edgepack_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection; SQLite folds its log into the file with the last one."""
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, _: object) -> None:
    # isolation_level None: sqlite3 begins nothing by itself; _begin does, and so DDL is transactional too
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("edgepack_begin", "BEGIN"))


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise RuntimeFailed(f"{error} (made by a newer edgepack?)") from error


def reason_of(error: Exception) -> str:
    """What SQLite itself said, in one line: SQLAlchemy adds the statement, its values and a link."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return " ".join(str(said).split())
