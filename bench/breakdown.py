"""Where each microsecond of a one-row request goes: `python -m bench breakdown`. In one process, without sockets.

Every stage is timed in a loop of its own, at its best; the rest of the whole is what lies between the stages. System
calls come on top: a bare loop that answers the same bytes over loopback (`echo`) shows what these cost.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from bench.load import request_bytes, run
from bench.serve import _body
from bench.table import Figure
from edge_agent import inference
from edge_agent.connection import Connection
from edge_agent.doors import TABLE
from edge_agent.doors.seam import Call, request_id_of
from edge_agent.hot_path import HotPath
from edge_agent.metrics import Metrics
from edge_agent.server import Server
from edge_agent.serving import ActivePipeline, Serving
from edge_agent.spool import Spool
from runtimes.pipeline import LoadedPipeline

_TURNS, _ROUNDS = 2000, 7


class _Wire:
    """Stands for a socket that takes everything at once."""

    def send(self, data: bytes) -> int:
        self.last = data
        return len(data)

    def fileno(self) -> int:
        return -1


def measure_breakdown() -> list[Figure]:
    """One row as Arrow, log off and relaxed."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = _bundle(work)
        headers, body = _body("arrow", "tensor", np.random.default_rng(7).normal(size=(1, models.WIDTH)).astype("f4"))
        figures = []
        for durability in ("off", "relaxed"):
            figures += _stages(folder, work / durability, durability, headers, body)
        return [*figures, Figure("system calls of an echo, c=8: CPU a request", _echo_us(headers, body), "µs")]


def _bundle(work: Path) -> Path:
    from arch.target import host_target
    from bundle.bundle import bundles
    from bundle.store import unpack
    from packager import Project, package

    packaged = package(Project.open(models.small(work / "m.onnx")), [host_target()])
    return unpack(bundles(packaged.index)[0], work / "bundles")


def _stages(folder: Path, place: Path, durability: str, headers: list[str], body: bytes) -> list[Figure]:
    import msgspec

    loaded, serving = LoadedPipeline.open(folder), Serving()
    policy = msgspec.structs.replace(loaded.spec.log, durability=durability)
    with Spool(place, policy, "line-4") as spool:
        active = ActivePipeline("m", "6d4d1e4c-3d39-5d6c-8b53-9f2f0a8f6c11", f"sha256:{'a' * 64}", loaded, spool, "l")
        serving.switch("m", active)
        active.pace.note(1)
        server = Server(lambda environ, start: [], "127.0.0.1", 0, hot=HotPath(TABLE, serving, Metrics()))
        server._is_awake = True  # this thread plays the serving thread: nobody has to be woken
        try:
            return _timed(server, active, f"log {durability}", headers, body)
        finally:
            server.stop()
            serving.close()


def _timed(server: Server, active: ActivePipeline, title: str, headers: list[str], body: bytes) -> list[Figure]:
    given = dict(line.lower().split(": ", 1) for line in headers)
    request, connection = request_bytes("/infer", headers, body), Connection(server, _Wire())  # type: ignore[arg-type]
    call = Call("POST", "/infer", "", given, body, "r")
    decode = lambda: inference.decode(body, given["content-type"], active.loaded.input)  # noqa: E731
    columns = decode()
    row, _ = active.short_way.result(columns, 1)  # type: ignore[union-attr,misc]
    engine: Any = active.loaded.tensors

    def whole() -> None:
        connection.feed(request)
        server._end_turn()

    def log() -> None:
        ticket = active.spool.submit(row, call.request_id, bundle=active.manifest)
        if ticket is not None:
            ticket.flush()
            ticket.wait()

    stages: dict[str, Callable[[], object]] = {
        "decode Arrow": decode,
        "onnxruntime": lambda: engine.infer_tensors(columns.arrays),
        "result, with onnxruntime": lambda: active.short_way.result(columns, 1),  # type: ignore[union-attr]
        "log": log,
        "encode Arrow": lambda: inference.encode(row, given["accept"], None),
        "request id": lambda: request_id_of(None),
        "whole request": whole,
    }
    return [Figure(f"{title}: {name}", _best_us(stage), "µs") for name, stage in stages.items()]


def _best_us(stage: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(_TURNS):
            stage()
        best = min(best, (time.perf_counter() - begun) / _TURNS)
    return 1e6 * best


_ECHO = """
import select, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
poll, clients = select.epoll(), {}
poll.register(listening, select.EPOLLIN)
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: 1900\\r\\n\\r\\n" + bytes(1900)
while True:
    for handle, _ in poll.poll():
        if handle == listening.fileno():
            client = listening.accept()[0]
            clients[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
        else:
            try:
                clients[handle].recv(65536) and clients[handle].send(answer) or clients.pop(handle).close()
            except OSError:
                clients.pop(handle).close()
"""


def _echo_us(headers: list[str], body: bytes) -> float:
    from bench.cost import cpu_seconds

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", _ECHO, str(port)])
    try:
        time.sleep(0.5)
        before = cpu_seconds(process.pid)
        result = run(port, request_bytes("/", headers, body), 8, 2.0)
        return 1e6 * (cpu_seconds(process.pid) - before) / result["requests"]
    finally:
        process.terminate()
        process.wait()
