"""`State`: the truth about what is active on this device, in SQLite (WAL, synchronous=FULL).

Rules:
- what must survive a power cut (active, previous, assignment, enrolment, receipts, quarantine) is one synced
  transaction each
- the sequence of the accepted assignment is a floor: nothing below it is ever accepted
- `pulse` holds what only helps a human (last check-in, pending rows); it is written without a sync, to spare
  the disk

It knows nothing of files, models or the network.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from edgepack.errors import BadInput, RuntimeFailed
from fleet.messages import Assigned, Assignment, Receipt

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE enrolment (one INTEGER PRIMARY KEY CHECK (one = 1), hub TEXT NOT NULL, device TEXT NOT NULL,
    name TEXT NOT NULL, check_in_s REAL NOT NULL, secret_sha256 TEXT NOT NULL);
CREATE TABLE assignment (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, etag TEXT,
    body BLOB NOT NULL);
CREATE TABLE pipelines (name TEXT PRIMARY KEY, active BLOB NOT NULL, previous BLOB);
CREATE TABLE attempts (manifest TEXT PRIMARY KEY, sequence INTEGER NOT NULL, count INTEGER NOT NULL);
CREATE TABLE quarantine (manifest TEXT PRIMARY KEY, sequence INTEGER NOT NULL, verdict TEXT NOT NULL,
    reason TEXT NOT NULL);
CREATE TABLE receipts (pipeline TEXT, epoch TEXT, segment INTEGER, digest TEXT NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (pipeline, epoch, segment));
CREATE TABLE sent (pipeline TEXT PRIMARY KEY, segments INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE refused_segments (pipeline TEXT, epoch TEXT, segment INTEGER, rows INTEGER NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (pipeline, epoch, segment));
CREATE TABLE pulse (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

Verdict = Literal["failed", "refused"]


@dataclass(frozen=True)
class Enrolled:
    """Who this device is, at which hub, and the hash of the secret that proves it."""

    hub: str
    device: str
    name: str
    check_in_s: float
    secret_sha256: str


@dataclass(frozen=True)
class Installed:
    """What is active under one pipeline's name, and what was before."""

    active: Assigned
    previous: Assigned | None = None


@dataclass(frozen=True)
class Quarantined:
    """A manifest that is not tried again while the assignment's sequence is the same."""

    sequence: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Sent:
    """What of one pipeline reached the hub, and what the hub refused for good."""

    segments: int = 0
    rows: int = 0
    refused_segments: int = 0
    refused_rows: int = 0


LIVE_NOTE = "live "  # before a model's name: what `beat` is told of why its newest files do not serve
PROVIDER_NOTE = "providers "  # before a pipeline's name: what `beat` is told of what its models compute on
SANDBOX_NOTE = "sandbox "  # before a pipeline's name: what `beat` is told of the confinement of its steps


_TUNED = ("threads", "row_us", "replicas", "at_once")  # columns, in the order of a Tuning


@dataclass(frozen=True)
class Tuning:
    """What suits a bundle on this device, and the time of a lone request with it."""

    threads: int  # of each engine
    row_us: float
    replicas: int = 1  # processes of each model
    at_once: int = 0  # requests at work at the same time; 0: as the agent's own setting says


class State:
    """One connection, usable from several threads; another process may read beside it (`State.read`)."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> State:
        """Open or make the state. Raises BadInput for a newer schema, RuntimeFailed for a damaged file."""
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            state = cls(db, path)
            state._migrate()
        except sqlite3.Error as error:
            raise RuntimeFailed(
                f"state '{path}' does not open: {error}; restore it, or move it away to begin anew"
            ) from error
        return state

    @classmethod
    def read(cls, path: Path) -> State:
        """Open for reading, beside the process that writes. Raises BadInput when there is none."""
        if not path.is_file():
            raise BadInput(
                f"no agent has run with data folder '{path.parent}': choose another with --data", field="data"
            )
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, check_same_thread=False)
            cls._check_version(db, path)
        except sqlite3.Error as error:
            raise RuntimeFailed(f"state '{path}' does not read: {error}") from error
        return cls(db, path)

    def close(self) -> None:
        """Close the file; the state must not be used afterwards."""
        with self._lock:
            self._db.close()

    # Who we are

    def enrolment(self) -> Enrolled | None:
        """Return the enrolment in force."""
        row = self._one("SELECT hub, device, name, check_in_s, secret_sha256 FROM enrolment")
        return Enrolled(*row) if row else None

    def enrol(self, enrolled: Enrolled) -> None:
        """Take on an identity. Another device or hub counts sequences anew, so the floor goes with the old
        one.
        """
        with self._writing() as db:
            before = db.execute("SELECT hub, device FROM enrolment").fetchone()
            if before != (enrolled.hub, enrolled.device):
                db.execute("DELETE FROM assignment")
                db.execute("DELETE FROM attempts")
                db.execute("DELETE FROM quarantine")
            row = (enrolled.hub, enrolled.device, enrolled.name, enrolled.check_in_s, enrolled.secret_sha256)
            db.execute("REPLACE INTO enrolment VALUES (1, ?, ?, ?, ?, ?)", row)

    # What the hub wants

    def assignment(self) -> Assignment | None:
        """Return the last accepted assignment."""
        row = self._one("SELECT body FROM assignment")
        return msgspec.json.decode(row[0], type=Assignment) if row else None

    def etag(self) -> str | None:
        """Return the entity tag that came with the last accepted assignment."""
        row = self._one("SELECT etag FROM assignment")
        return row[0] if row else None

    def floor(self) -> int:
        """Return the highest sequence accepted; 0 before the first assignment."""
        row = self._one("SELECT sequence FROM assignment")
        return row[0] if row else 0

    def accept(self, assignment: Assignment, etag: str | None) -> None:
        """Remember an assignment that `reconcile.objection` let through. A lower sequence is a fault of the
        caller.
        """
        with self._writing() as db:
            row = db.execute("SELECT sequence FROM assignment").fetchone()
            if row and assignment.sequence < row[0]:
                raise RuntimeFailed(f"assignment {assignment.sequence} is below the floor {row[0]}")
            body = msgspec.json.encode(assignment)
            db.execute("REPLACE INTO assignment VALUES (1, ?, ?, ?)", (assignment.sequence, etag, body))

    # What is here

    def installed(self) -> dict[str, Installed]:
        """Return active and previous of every pipeline, by name."""
        rows = self._all("SELECT name, active, previous FROM pipelines ORDER BY name")
        return {
            name: Installed(_assigned(active), _assigned(previous) if previous else None)
            for name, active, previous in rows
        }

    def activate(self, name: str, version: Assigned) -> None:
        """Make a version the active one; the one before becomes `previous`. One transaction: there is no half
        of it.
        """
        with self._writing() as db:
            row = db.execute("SELECT active, previous FROM pipelines WHERE name = ?", (name,)).fetchone()
            active, previous = row or (None, None)
            if active and _assigned(active).manifest != version.manifest:
                previous = active
            db.execute("REPLACE INTO pipelines VALUES (?, ?, ?)", (name, msgspec.json.encode(version), previous))
            db.execute("DELETE FROM attempts WHERE manifest = ?", (version.manifest,))
            db.execute("DELETE FROM quarantine WHERE manifest = ?", (version.manifest,))

    def forget_previous(self, name: str) -> None:
        """Go back to no version but the active one, so that the disk need not hold another."""
        with self._writing() as db:
            db.execute("UPDATE pipelines SET previous = NULL WHERE name = ?", (name,))

    def remove(self, name: str) -> None:
        """Forget a pipeline that is no longer assigned."""
        with self._writing() as db:
            db.execute("DELETE FROM pipelines WHERE name = ?", (name,))

    def let_go(self, manifest: str) -> None:
        """Forget a bundle that leaves this disk on purpose, as what is active and as what was before."""
        with self._writing() as db:
            for name, active, previous in db.execute("SELECT name, active, previous FROM pipelines").fetchall():
                if _assigned(active).manifest == manifest:
                    db.execute("DELETE FROM pipelines WHERE name = ?", (name,))
                elif previous and _assigned(previous).manifest == manifest:
                    db.execute("UPDATE pipelines SET previous = NULL WHERE name = ?", (name,))

    # What went wrong

    def begin_attempt(self, manifest: str, sequence: int) -> int:
        """Count an activation before it begins, so that one which takes the machine down is counted too.
        Returns which it is.
        """
        with self._writing() as db:
            row = db.execute("SELECT sequence, count FROM attempts WHERE manifest = ?", (manifest,)).fetchone()
            count = row[1] + 1 if row and row[0] == sequence else 1
            db.execute("REPLACE INTO attempts VALUES (?, ?, ?)", (manifest, sequence, count))
        return cast(int, count)

    def quarantine(self, manifest: str, quarantined: Quarantined) -> None:
        """Do not try a manifest again under this sequence."""
        with self._writing() as db:
            row = (manifest, quarantined.sequence, quarantined.verdict, quarantined.reason)
            db.execute("REPLACE INTO quarantine VALUES (?, ?, ?, ?)", row)
            db.execute("DELETE FROM attempts WHERE manifest = ?", (manifest,))

    def quarantined(self) -> dict[str, Quarantined]:
        """Return all manifests in quarantine."""
        rows = self._all("SELECT manifest, sequence, verdict, reason FROM quarantine")
        return {manifest: Quarantined(sequence, verdict, reason) for manifest, sequence, verdict, reason in rows}

    # What went home

    def record_receipt(self, pipeline: str, receipt: Receipt) -> None:
        """Remember durably that the hub holds a segment; only then may the spool let it go."""
        with self._writing() as db:
            key = (pipeline, receipt.epoch, receipt.segment)
            done = db.execute(
                "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?)", (*key, receipt.digest, receipt.rows)
            )
            if done.rowcount:
                db.execute("INSERT OR IGNORE INTO sent VALUES (?, 0, 0)", (pipeline,))
                add = "UPDATE sent SET segments = segments + 1, rows = rows + ? WHERE pipeline = ?"
                db.execute(add, (receipt.rows, pipeline))

    def receipts(self, pipeline: str) -> set[tuple[str, int]]:
        """Return (epoch, segment) of all receipts whose segment the spool may still hold."""
        return set(self._all("SELECT epoch, segment FROM receipts WHERE pipeline = ?", (pipeline,)))

    def settle(self, pipeline: str, epoch: str, segment: int) -> None:
        """Forget a receipt whose segment is gone. Needs no sync: a receipt that comes back is settled again."""
        with self._writing(durable=False) as db:
            key = (pipeline, epoch, segment)
            db.execute("DELETE FROM receipts WHERE pipeline = ? AND epoch = ? AND segment = ?", key)

    def refuse_segment(self, pipeline: str, epoch: str, segment: int, rows: int, reason: str) -> None:
        """Remember that the hub refused a segment for good: it stays on disk and is not sent again."""
        with self._writing() as db:
            db.execute(
                "REPLACE INTO refused_segments VALUES (?, ?, ?, ?, ?)",
                (pipeline, epoch, segment, rows, reason),
            )

    def refused_segments(self, pipeline: str) -> dict[tuple[str, int], str]:
        """Return reason by (epoch, segment) of all segments the hub refused."""
        rows = self._all("SELECT epoch, segment, reason FROM refused_segments WHERE pipeline = ?", (pipeline,))
        return {(epoch, segment): reason for epoch, segment, reason in rows}

    def sent(self, pipeline: str) -> Sent:
        """Return the counts of one pipeline."""
        row = self._one("SELECT segments, rows FROM sent WHERE pipeline = ?", (pipeline,)) or (0, 0)
        refused = self._one(
            "SELECT count(*), coalesce(sum(rows), 0) FROM refused_segments WHERE pipeline = ?", (pipeline,)
        )
        return Sent(*row, *(refused or (0, 0)))

    # What a human asks for

    # What `edgepack-agent tune` found

    def tuning(self, manifest: str) -> Tuning | None:
        """The best settings of a bundle on this device, where it was tuned."""
        if not self._one("SELECT 1 FROM sqlite_master WHERE name = 'tuning'"):
            return None
        chosen = ", ".join(name for name in _TUNED if name in self._tuned())
        row = self._one(f"SELECT {chosen} FROM tuning WHERE manifest = ?", (manifest,))  # noqa: S608 - names of ours
        return Tuning(*row) if row else None

    def tune(self, manifest: str, tuning: Tuning) -> None:
        """Keep settings; they hold from the next load of the bundle on."""
        with self._writing() as db:
            # made when it is first needed: the schema of devices that never tuned stays as it is
            db.execute(
                "CREATE TABLE IF NOT EXISTS tuning "
                "(manifest TEXT PRIMARY KEY, threads INTEGER NOT NULL, row_us REAL NOT NULL)"
            )
            for name in sorted({"replicas", "at_once"} - self._tuned()):  # earlier versions had the threads alone
                db.execute(f"ALTER TABLE tuning ADD COLUMN {name} INTEGER NOT NULL DEFAULT {int(name == 'replicas')}")
            names = ", ".join(("manifest", *_TUNED))
            values = (manifest, tuning.threads, tuning.row_us, tuning.replicas, tuning.at_once)
            db.execute(f"INSERT OR REPLACE INTO tuning ({names}) VALUES (?, ?, ?, ?, ?)", values)  # noqa: S608 - as above

    def _tuned(self) -> set[str]:
        """The columns that the table of settings has."""
        return {name for (name,) in self._all("SELECT name FROM pragma_table_info('tuning')")}

    def beat(self, **notes: object) -> None:
        """Write down facts for `edgepack-agent status`; None removes one."""
        with self._writing(durable=False) as db:
            for key, value in notes.items():
                db.execute("REPLACE INTO pulse VALUES (?, ?)", (key, msgspec.json.encode(value).decode()))

    def pulse(self) -> dict[str, object]:
        """Return what `beat` wrote."""
        return {key: msgspec.json.decode(value) for key, value in self._all("SELECT key, value FROM pulse")}

    # How it is kept

    def _migrate(self) -> None:
        self._check_version(self._db, self._path)
        with self._writing() as db:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @staticmethod
    def _check_version(db: sqlite3.Connection, path: Path) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise BadInput(f"state '{path}' has schema {version}, this agent reads {SCHEMA_VERSION}: use a newer agent")

    @contextmanager
    def _writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise RuntimeFailed(f"state '{self._path}' cannot be written: {error}") from error

    def _one(self, query: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        rows = self._all(query, values)
        return rows[0] if rows else None

    def _all(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise RuntimeFailed(f"state '{self._path}' cannot be read: {error}") from error


def _assigned(body: bytes) -> Assigned:
    return msgspec.json.decode(body, type=Assigned)
