"""A hub whose disk is really full: a small tmpfs in a mount namespace of its own. What clients are told, what is
logged, and that everything works again once there is room.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, event

from edgepack.commands._hub_client import HubClient
from edgepack.errors import Unreachable
from fleet import credentials, messages, wire
from hub.store.devices import find_device
from oci.blob import BytesBlob
from oci.credentials import Bearer
from oci.digest import Digest
from oci.registry import Registry
from tests.hub.running import EPOCH, Clock, RunningHub, segment
from tests.hub.test_server import Program

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
FULL = "the hub's disk is full: nothing was kept; make room on it, then try again"


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


small_disk = pytest.mark.skipif(not _can_mount(), reason="no user namespaces: a small disk cannot be mounted")


class SmallDisk(Program):
    """A hub on a disk of 4 MiB that nobody outside its mount namespace sees."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.data.mkdir()
        mount = f"mount -t tmpfs -o size=4m tmpfs '{self.data}' && exec \"$@\""
        self.command = [*NAMESPACE, "sh", "-c", mount, "sh", *self.command]

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self.process.pid}/root{self.data}")

    def fill(self) -> None:
        with (self.seen / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 10):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()

    def logged(self) -> list[str]:
        """End it, and return what it logged: never a traceback."""
        code, errors = self.end()
        assert code == 0
        assert "Traceback" not in errors and "sqlalche" not in errors.lower(), errors
        return errors.splitlines()


@pytest.fixture
def hub(tmp_path):
    made = SmallDisk(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.end()


@small_disk
def test_a_push_that_finds_no_room_is_told_so_at_once(hub):
    blob = BytesBlob.of(os.urandom(20 << 20), "application/octet-stream")
    token = hub.admin["Authorization"].removeprefix("Bearer ")
    waits = []
    with Registry(hub.url.removeprefix("http://"), Bearer(token), sleep=waits.append) as registry:
        with pytest.raises(Unreachable) as error:
            registry.push_blob("box", blob)
        assert f"answers 507: {FULL}" in str(error.value)
        assert waits == []
        small = BytesBlob.of(os.urandom(1 << 20), "application/octet-stream")
        registry.push_blob("box", small)
        assert registry.has_blob("box", small.descriptor.digest)
    assert list((hub.seen / "uploads").iterdir()) == []
    lines = hub.logged()
    assert len(lines) == 1 and "PATCH /v2/box/blobs/uploads/" in lines[0] and lines[0].endswith(FULL)


def test_presence_that_finds_no_room_is_logged_once_and_written_later(tmp_path, caplog, monkeypatch):
    with contextlib.closing(RunningHub(tmp_path / "hub", Clock())) as running:
        device, presence = running.device(), running.hub.presence
        presence._stop.set()  # its thread writes when it likes
        presence._thread.join()
        presence.flush()
        presence.note(device.id)
        with monkeypatch.context() as patch:
            patch.setattr("hub.presence.save_seen", _no_room)
            presence._flush_quietly()
            presence._flush_quietly()
        assert [record.getMessage() for record in caplog.records] == [
            "presence not written, tried again every 5.0 s: database or disk is full"
        ]
        presence.flush()
        with running.hub.database.read() as db:
            assert find_device(db, device.id).last_seen == running.clock.now


def _no_room(db: Connection, seen: dict[str, float]) -> None:
    """SQLite's own refusal: the file may not grow, and is asked to."""
    pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
    db.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    try:
        db.exec_driver_sql("CREATE TABLE large AS SELECT zeroblob(10000000) AS data")
    finally:
        db.exec_driver_sql("PRAGMA max_page_count=1000000000")


def test_a_database_that_another_program_holds_is_busy(tmp_path, caplog):
    with contextlib.closing(RunningHub(tmp_path / "hub", Clock())) as running:
        engine = running.hub.database._engine
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=50"))
        holder = sqlite3.connect(running.config.data / "hub.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answer = running.http.post("/api/v1/tokens", json={}, headers=running.admin)
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "5"
        assert answer.json()["error"] == "the hub's database is busy: nothing was kept; try again later"
        assert [record.exc_info for record in caplog.records] == [None]
        holder.close()
        assert running.token()


@small_disk
def test_a_database_without_room_is_one_clear_line(hub):
    token = hub.admin["Authorization"].removeprefix("Bearer ")
    with HubClient(hub.url, token) as client:
        hub.fill()
        with pytest.raises(Unreachable) as error:
            for _ in range(200):  # SQLite has room of its own in the pages of its log
                client.make_token(None, 60)
        assert f"answered 507: {FULL}" in str(error.value)
        assert client.devices().devices == []
        hub.make_room()
        assert client.make_token(None, 60).token
    assert all(line.endswith(FULL) for line in hub.logged())


@small_disk
def test_a_segment_has_its_receipt_only_when_it_is_durable_and_comes_home_later(hub):
    secret = credentials.make_secret()
    with hub.client() as client:
        token = client.post("/api/v1/tokens", json={}, headers=hub.admin).json()["token"]
        asked = messages.EnrolRequest(token, "press-1", "x86/none", credentials.hash_secret(secret))
        device = client.post("/api/v1/enrol", json=msgspec.to_builtins(asked)).json()["device"]
        data = segment(0, *[50] * 40)
        headers = {
            "Authorization": f"Bearer {credentials.device_bearer(device, secret)}",
            "Content-Type": wire.SEGMENT_TYPE,
            wire.SEGMENT_DIGEST: Digest.of(data),
            wire.SEGMENT_PIPELINE: "wine",
        }
        hub.fill()
        refused = client.put(wire.segment_path(device, EPOCH, 0), content=data, headers=headers)
        assert refused.status_code == 507 and refused.json()["error"] == FULL and refused.headers["Retry-After"] == "60"
        assert client.get("/api/v1/logs", headers=hub.admin).json()["rows"] == []
        hub.make_room()
        assert client.put(wire.segment_path(device, EPOCH, 0), content=data, headers=headers).status_code == 201
        page = client.get("/api/v1/logs?limit=5000", headers=hub.admin).json()
        assert [row["metadata"]["seq"] for row in page["rows"]] == list(range(2000))
    assert len(hub.logged()) == 1
