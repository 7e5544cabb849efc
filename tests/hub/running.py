"""A real hub on a loopback socket, and a client that holds every answer of the native API against the OpenAPI table."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import httpx
import msgspec
import numpy as np

from arch.target import Target
from bundle import media
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec, StepSpec
from columns import Columns, Schema, encode_raw
from durable.frames import encode_frame
from edgepack.launch import enter_house
from fleet import credentials, messages, wire
from hub.app import create_app
from hub.config import HubConfig
from hub.hub import Hub
from hub.openapi import ROOT, ROUTES, refusals_of
from hub.server import Server
from oci.digest import Digest

enter_house()
EPOCH = "0123456789abcdef"


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class RunningHub:
    """A hub with its socket, its admin and as many devices as a test wants."""

    def __init__(self, data: Path, clock: Clock, **settings: object) -> None:
        self.clock = clock
        self.config = HubConfig(data, port=0, **{"threads": 8, **settings})
        self.hub = Hub.open(self.config, clock)
        self.server = Server(self.config)
        self.server._server.expiration_interval = 0.02  # so that a test's hub stops at once
        self.thread = threading.Thread(target=self.server.serve, args=(create_app(self.hub),))
        self.thread.start()
        self.url = self.server.url
        self.http = httpx.Client(
            base_url=self.url, timeout=60, trust_env=False, event_hooks={"response": [check_answer]}
        )

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.hub.admin_token}"}

    def close(self) -> None:
        self.http.close()
        self.server.stop()
        self.thread.join(60)
        self.hub.close()

    def token(self, **fields: object) -> str:
        answer = self.http.post("/api/v1/tokens", json=fields, headers=self.admin)
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]

    def device(self, name: str = "press-1", target: str = "x86/none") -> Device:
        secret = credentials.make_secret()
        asked = messages.EnrolRequest(self.token(), name, target, credentials.hash_secret(secret))
        answer = self.http.post("/api/v1/enrol", json=msgspec.to_builtins(asked))
        assert answer.status_code == 200, answer.text
        return Device(self, answer.json()["device"], name, secret)

    def logs(self, **query: object) -> dict:
        answer = self.http.get("/api/v1/logs", params=query, headers=self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def every_row(self, **query: object) -> list[dict]:
        rows, page = [], self.logs(**query)
        rows += page["rows"]
        while page["next"]:
            page = self.logs(**query, after=page["next"])
            rows += page["rows"]
        return rows


class Device:
    """An enrolled device, as the hub sees it."""

    def __init__(self, running: RunningHub, device: str, name: str, secret: str) -> None:
        self.running, self.id, self.name, self.secret = running, device, name, secret
        self.headers = {"Authorization": f"Bearer {credentials.device_bearer(device, secret)}"}

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.running.http.get(path, headers={**self.headers, **headers})

    def put(self, path: str, body: object) -> httpx.Response:
        return self.running.http.put(path, json=msgspec.to_builtins(body), headers=self.headers)

    def upload(self, number: int, data: bytes, *, epoch: str = EPOCH, **headers: str) -> httpx.Response:
        sent = {
            **self.headers,
            "Content-Type": wire.SEGMENT_TYPE,
            wire.SEGMENT_DIGEST: Digest.of(data),
            wire.SEGMENT_PIPELINE: "wine",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.running.http.put(wire.segment_path(self.id, epoch, number), content=data, headers=sent)


def check_answer(response: httpx.Response) -> None:
    """Every answer under /api/v1 is one that the table has for its route, and decodes as what it says."""
    path = response.request.url.path
    if not path.startswith(ROOT) or response.request.method == "OPTIONS":
        return
    response.read()
    routes = [route for route in ROUTES if re.fullmatch(re.sub(r"{\w+}", "[^/]+", ROOT + route.path), path)]
    route = next((route for route in routes if route.method == response.request.method), None)
    status = response.status_code
    if route is None:
        assert status in (404, 405), (path, status)
    elif status in route.answers:
        kind = route.answers[status]
        assert (
            (response.content == b"") if kind is None else msgspec.json.decode(response.content, type=kind) is not None
        )
        return
    else:
        assert status in refusals_of(route), (route.operation, status, response.text)
    body = msgspec.json.decode(response.content, type=messages.ErrorBody)
    assert body.code == status and body.source == "hub" and "\n" not in body.error and body.error


def rows_block(first: int, rows: int, pipeline: str = "wine", request: str | None = None) -> Columns:
    """Result rows as the agent logs them."""
    schema = Schema.parse(
        {
            "time": "int64",
            "in.inputs": "list<float32>[3]",
            "out.label": "int64",
            "anomaly.count": "uint32",
            "metadata.partition": "string",
            "metadata.pipeline": "string",
            "metadata.request_id": "string",
            "metadata.bundle": "string",
        }
    )
    number = np.arange(first, first + rows)
    return Columns.of(
        schema,
        {
            "time": 1_700_000_000_000 + number,
            "in.inputs": np.repeat(number[:, None], 3, 1).astype(np.float32) / 4,
            "out.label": number,
            "anomaly.count": np.zeros(rows, np.uint32),
            "metadata.partition": ["?"] * rows,
            "metadata.pipeline": [pipeline] * rows,
            "metadata.request_id": [request or f"r-{each}" for each in number.tolist()],
            "metadata.bundle": ["sha256:00"] * rows,
        },
    )


def frame(first: int, rows: int, epoch: str = EPOCH, block: Columns | None = None, says: int | None = None) -> bytes:
    payload = b"".join(encode_raw(block or rows_block(first, rows)))
    return encode_frame(epoch, first, rows if says is None else says, payload) + payload


def segment(first: int, *sizes: int, epoch: str = EPOCH) -> bytes:
    """A sealed segment: frames of so many rows, one after another."""
    data = b""
    for size in sizes:
        data += frame(first, size, epoch)
        first += size
    return data


def small_bundle(
    folder: Path, name: str = "wine", targets: tuple[str, ...] = ("x86", "arm"), weight: bytes = b"weights"
):
    """A bundle index that a hub publishes; the model's bytes are never run here."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"model-{Digest.of(weight).hex[:8]}.onnx"
    model.write_bytes(weight)
    step = StepSpec(name, "model.onnx", "onnx", "onnx", {"inputs": "list<float32>[3]"}, {"label": "int64"})
    golden = json.dumps([{"in.inputs": [1, 2, 3], "out.label": 1}]).encode()
    return pack(PipelineSpec(name, [step]), {"model.onnx": model}, golden, [Target.parse(each) for each in targets])


class Pusher:
    """Pushes the way the spec describes it, one request at a time."""

    def __init__(self, running: RunningHub) -> None:
        self.http, self.headers = running.http, running.admin

    def blob(self, repository: str, data: bytes) -> str:
        digest = Digest.of(data)
        begun = self.http.post(f"/v2/{repository}/blobs/uploads/", headers=self.headers)
        assert begun.status_code == 202, begun.text
        done = self.http.put(begun.headers["Location"], params={"digest": digest}, content=data, headers=self.headers)
        assert done.status_code == 201, done.text
        return digest

    def manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> httpx.Response:
        headers = {**self.headers, "Content-Type": media_type}
        return self.http.put(f"/v2/{repository}/manifests/{reference}", content=data, headers=headers)

    def image(self, repository: str, image, reference: str | None = None) -> httpx.Response:
        for blob in image.blobs():
            with blob.open() as file:
                self.blob(repository, file.read())
        made = image.manifest
        return self.manifest(repository, reference or made.descriptor.digest, made.data, made.descriptor.media_type)

    def publish(self, index, tag: str = "latest") -> httpx.Response:
        repository = index.annotations[media.NAME]
        for image in index.images:
            answer = self.image(repository, image)
            assert answer.status_code == 201, answer.text
        return self.manifest(repository, tag, index.manifest.data, index.manifest.descriptor.media_type)
