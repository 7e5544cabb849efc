"""Damaged requests: whatever comes, the hub answers without a fault of its own and keeps what it has."""

from __future__ import annotations

import contextlib
import json
import random
import socket

from tests.hub.running import EPOCH, RunningHub, segment

MUTANTS = 1500
PIECES = (
    b"%00",
    b"../",
    b"%ff",
    b'"',
    b"{",
    b"[[[[",
    b"9" * 30,
    b"-1",
    "😀".encode(),
    b"null",
    b"1e999",
    b"\r\n",
    b"\x00",
)


def seeds(running: RunningHub, device, index) -> list[bytes]:
    admin, own = running.admin["Authorization"], device.headers["Authorization"]
    image, to = index.images[0].manifest, f"/api/v1/segments/{device.id}/{EPOCH}/1"
    segment_type = "application/vnd.edgepack.segment.v1"
    return [
        request("POST", "/api/v1/tokens", admin, b'{"group":"abc"}'),
        request("POST", "/api/v1/enrol", "", b'{"token":"join-a-b","name":"a","target":"x86","secret_sha256":"00"}'),
        request("PUT", "/api/v1/inventory", own, b'{"target":"x","version":"1","sequence":1,"pipelines":{}}'),
        request(
            "PUT", "/api/v1/assignments/press-1", admin, json.dumps({"pipelines": {"wine": index.digest}}).encode()
        ),
        request("PUT", to, own, segment(10, 2), segment_type),
        request("PUT", "/v2/wine/manifests/x", admin, image.data, image.descriptor.media_type),
        request("POST", f"/v2/wine/blobs/uploads/?mount=sha256:{'0' * 64}&from=a", admin, b""),
        request("GET", "/api/v1/logs?limit=10&after=1.2&pipeline=wine&device=press-1&request_id=r-1", admin),
        request("GET", "/v2/wine/manifests/latest", own),
        request("GET", f"/v2/wine/blobs/{image.descriptor.digest}", own + "\r\nRange: bytes=0-5"),
        request("GET", "/v2/wine/tags/list?n=1&last=a", own),
        request("POST", "/login", "", b"token=abc", "application/x-www-form-urlencoded"),
        request("GET", "/", "x\r\nCookie: edgepack_hub=1.2"),
        request("GET", "/static/hub.css", ""),
    ]


def request(
    method: str, path: str, authorization: str, body: bytes | None = None, kind: str = "application/json"
) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n"
    if body is not None:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + (body or b"")


def damage(chance: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, how = chance.randrange(len(made)), chance.random()
        if how < 0.4:
            made[at] = chance.randrange(256)
        elif how < 0.6:
            del made[at : at + chance.randint(1, 8)]
        else:
            made[at:at] = chance.choice(PIECES)
    return bytes(made)


def exchange(running: RunningHub, data: bytes) -> bytes:
    host, port = running.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_no_damaged_request_is_a_fault_of_the_hub(running, published):
    device = running.device()
    device.upload(0, segment(0, 3))
    chance = random.Random(11)
    originals = seeds(running, device, published)
    statuses = set()
    for _ in range(MUTANTS):
        sent = damage(chance, chance.choice(originals))
        status = exchange(running, sent)[9:12]
        statuses.add(status)
        # 505: a version of HTTP that there is not
        assert not status.startswith(b"5") or status in (b"503", b"505"), sent
    assert {b"400", b"401", b"404"} <= statuses
    assert [row["metadata"]["seq"] for row in running.every_row()][:3] == [0, 1, 2]


def test_a_header_that_continues_none_is_refused(running):
    assert exchange(running, b"GET /healthz HTTP/1.1\r\n folded\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400")
