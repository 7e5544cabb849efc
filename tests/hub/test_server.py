"""The hub as a program: sockets, TLS, signals, crashes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from edgepack.errors import BadInput, RuntimeFailed
from fleet import credentials, wire
from hub.config import HubConfig
from hub.hub import Hub
from hub.server import Server
from oci.digest import Digest
from tests.certificates import make_certificate
from tests.hub.running import EPOCH, segment

ROOT = Path(__file__).parents[2]


class Program:
    """`edgepack hub` in a process of its own, with a data folder that outlives it."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.data = place / "hub"
        self.command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]
        self.command += ["hub", "--data", str(self.data), "--port", "0", *arguments]
        self.environment = {**os.environ, "XDG_CONFIG_HOME": str(place / "config"), "PYTHONUNBUFFERED": "1"}
        self.lines: list[str] = []

    def start(self) -> str:
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        while not self.lines or not self.lines[-1].startswith("hub: "):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.lines.append(line)
        self.url = self.lines[-1].split()[1]
        self.admin = {"Authorization": f"Bearer {(self.seen / 'admin-token').read_text().strip()}"}
        return self.url

    @property
    def seen(self) -> Path:
        """The data folder as this process sees it."""
        return self.data

    def end(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def client(self, **settings) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, **settings)


@pytest.fixture
def program(tmp_path):
    made = Program(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.communicate()


def test_the_token_is_printed_once_and_signals_end_the_hub_cleanly(program):
    assert program.lines[0].startswith("admin token: epa_")
    assert program.lines[0].split()[2] == (program.data / "admin-token").read_text().strip()
    assert program.end(signal.SIGTERM) == (0, "")
    program.start()
    assert len(program.lines) == 1
    code, errors = program.end(signal.SIGINT)
    assert code == 130 and errors.strip() == "interrupted"


def test_every_receipted_segment_is_there_once_after_kills_in_mid_ingest(program):
    with program.client(headers=program.admin) as http:
        secret = credentials.make_secret()
        token = http.post("/api/v1/tokens", json={}).json()["token"]
        body = {"token": token, "name": "a", "target": "x86", "secret_sha256": credentials.hash_secret(secret)}
        device = http.post("/api/v1/enrol", json=body).json()["device"]
    bearer = {"Authorization": f"Bearer {credentials.device_bearer(device, secret)}"}
    receipts: set[int] = set()
    numbers = iter(range(10_000))
    chance = random.Random(3)

    def upload(http: httpx.Client, number: int) -> None:
        data = segment(number * 20, 20)
        headers = {
            "Content-Type": wire.SEGMENT_TYPE,
            wire.SEGMENT_DIGEST: Digest.of(data),
            wire.SEGMENT_PIPELINE: "wine",
        }
        answer = http.put(wire.segment_path(device, EPOCH, number), content=data, headers={**bearer, **headers})
        assert answer.status_code in (200, 201), answer.text
        receipts.add(number)

    def work() -> None:
        with contextlib.suppress(httpx.HTTPError), program.client() as http:
            while True:
                upload(http, next(numbers))

    for _ in range(4):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        before = len(receipts)
        while len(receipts) < before + 6 and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        time.sleep(chance.random() / 10)
        program.process.kill()
        for thread in threads:
            thread.join()
        program.process.communicate()
        program.start()
    assert len(receipts) > 20
    assert rows_of(program) >= receipts
    with program.client() as http:
        for number in range(next(numbers)):
            upload(http, number)
    assert rows_of(program) == receipts


def rows_of(program: Program) -> set[int]:
    """The segments that the log has; fails if one is there in part or twice."""
    seen: list[int] = []
    with program.client(headers=program.admin) as http:
        after = None
        while True:
            page = http.get("/api/v1/logs", params={"limit": 10_000, **({"after": after} if after else {})}).json()
            seen += [row["metadata"]["seq"] for row in page["rows"]]
            after = page["next"]
            if after is None:
                break
    assert len(seen) == len(set(seen)) and len(seen) % 20 == 0
    return {seq // 20 for seq in seen}


def test_tls_is_spoken_where_it_is_asked_for(tmp_path):
    cert, key = make_certificate(tmp_path, hosts="DNS:localhost,IP:127.0.0.1")
    program = Program(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key), "--host", "0.0.0.0")
    url = program.start()
    try:
        import ssl

        assert url.startswith("https://")
        program.url = url.replace("0.0.0.0", "localhost")
        with program.client(verify=ssl.create_default_context(cafile=str(cert))) as http:
            assert http.get("/healthz").json() == {"status": "ok"}
            assert (
                "Secure"
                in http.post("/login", data={"token": program.admin["Authorization"][7:]}).headers["Set-Cookie"]
            )
        with httpx.Client(trust_env=False) as plain, contextlib.suppress(httpx.HTTPError):
            plain.get(program.url.replace("https", "http"), timeout=5)
    finally:
        code, errors = program.end()
    assert code == 0 and "Traceback" not in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hub.example"])
def test_a_hub_off_loopback_is_refused_without_tls(tmp_path, host):
    with pytest.raises(BadInput, match="TLS"):
        HubConfig(tmp_path, host).check()


def test_tls_files_are_both_needed_and_must_be_there(tmp_path):
    with pytest.raises(BadInput, match="both"):
        HubConfig(tmp_path, tls_cert=tmp_path / "c").check()
    with pytest.raises(BadInput, match="does not exist"):
        HubConfig(tmp_path, tls_cert=tmp_path / "c", tls_key=tmp_path / "k").check()
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        HubConfig(tmp_path, host).check()


def test_a_busy_port_is_one_line(running):
    port = int(running.url.rpartition(":")[2])
    with pytest.raises(BadInput, match=f"port {port} of 127.0.0.1 is in use"):
        Server(HubConfig(running.config.data, port=port))


def test_a_first_start_that_fails_makes_nothing_and_the_next_prints_the_token(running, tmp_path):
    port, place = running.url.rpartition(":")[2], tmp_path / "place"
    place.mkdir()
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for wrong in (("--port", port), ("--tls-cert", str(bad), "--tls-key", str(bad))):
        failed = Program(place, *wrong)
        done = subprocess.run(failed.command, cwd=ROOT, env=failed.environment, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == "", done.stderr
        assert not failed.data.exists()
    program = Program(place)
    program.start()
    assert program.lines[0].startswith("admin token: epa_")
    assert program.end()[0] == 0


def test_a_first_start_whose_database_does_not_open_leaves_the_token_to_the_next(tmp_path):
    (tmp_path / "hub.sqlite").mkdir()
    with pytest.raises(RuntimeFailed, match="does not open"):
        Hub.open(HubConfig(tmp_path))
    (tmp_path / "hub.sqlite").rmdir()
    with contextlib.closing(Hub.open(HubConfig(tmp_path))) as hub:
        assert hub.is_new


def exchange(running, request: bytes, *, half_close: bool = False) -> bytes:
    """Send raw bytes, and perhaps that no more will come; read until the hub closes."""
    host, port = running.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # it may refuse in the middle, and has said why by then
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
    return answer


def test_an_unread_body_never_becomes_the_next_request(running):
    hidden = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
    head = b"PUT /api/v1/inventory HTTP/1.1\r\nHost: a\r\n"
    answer = exchange(running, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked, half_close=True)
    assert answer.startswith(b"HTTP/1.1 401") and answer.count(b"HTTP/1.1 ") == 1
    answer = exchange(running, head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden, half_close=True)
    assert answer.startswith(b"HTTP/1.1 401") and answer.count(b"HTTP/1.1 ") == 1


def test_chunks_that_are_none_are_refused_without_being_read(running):
    head = b"POST /api/v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"zz\r\n", b"ffffffffff\r\n" + b"x" * 1000, b"-5\r\n", b"1" * 5000, b"5\r\nhelloworld\r\n", b"\r\n"):
        answer = exchange(running, head + chunk + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1, chunk


def test_an_announced_giant_is_not_read_before_it_is_refused(running):
    head = b"PUT /v2/box/blobs/uploads/%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n" % (b"0" * 32)
    started = time.monotonic()
    assert exchange(running, head + b"x" * 100_000).startswith(b"HTTP/1.1 401")
    assert time.monotonic() - started < 60


def test_a_body_that_is_cut_short_keeps_nothing(running):
    device = running.device()
    data = segment(0, 3)
    head = [
        f"PUT {wire.segment_path(device.id, EPOCH, 0)} HTTP/1.1",
        "Host: a",
        f"Authorization: {device.headers['Authorization']}",
        f"Content-Type: {wire.SEGMENT_TYPE}",
        f"{wire.SEGMENT_DIGEST}: {Digest.of(data)}",
        f"{wire.SEGMENT_PIPELINE}: wine",
        f"Content-Length: {len(data)}",
    ]
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data[:50])
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):  # until the hub is done with it
                pass
    assert running.every_row() == []
    assert device.upload(0, data).status_code == 201


def test_a_full_disk_is_told_and_the_next_upload_works(running, monkeypatch):
    device = running.device()
    data = segment(0, 3)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hub.segment_files.publish", full)
        answer = device.upload(0, data)
        assert answer.status_code == 507 and "disk is full" in answer.json()["error"] and answer.headers["Retry-After"]
    assert running.every_row() == []
    assert device.upload(0, data).status_code == 201
