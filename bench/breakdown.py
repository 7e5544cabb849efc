"""Where each microsecond of a one-row request goes: `python -m bench breakdown`. In one process, without sockets.

Every stage is timed in a loop of its own, at its best, by the thread's CPU clock; the rest of the whole is what lies
between the stages. Requests come eight a turn of the serving thread, as from eight connections. System calls come on
top: a bare loop that answers the same bytes over loopback (`echo`) shows what these cost.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from select import EPOLLIN
from typing import Any

import numpy as np

from bench import models
from bench.load import request_bytes, run
from bench.serve import _body
from bench.table import Figure
from durable.frames import encode_frame
from edge_agent.doors import TABLE
from edge_agent.doors.seam import next_request_id
from edge_agent.http.connection import Connection, State
from edge_agent.http.hot_path import HotPath
from edge_agent.http.server import Server
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines import inference
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.metrics import Metrics
from runtimes.pipeline import LoadedPipeline

_TURNS, _ROUNDS = 300, 9
_AT_ONCE = 8  # requests in a turn


class _Wire:
    """Stands for a socket that always holds one request, and takes every answer at once."""

    def __init__(self, request: bytes) -> None:
        self._request = request

    def recv(self, size: int) -> bytes:
        return self._request

    def send(self, data: bytes) -> int:
        self.last = data
        return len(data)

    def fileno(self) -> int:
        return -1


def measure_breakdown() -> list[Figure]:
    """One row as Arrow, by what the log promises."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = _bundle(work)
        headers, body = _body("arrow", "tensor", np.random.default_rng(7).normal(size=(1, models.WIDTH)).astype("f4"))
        figures = []
        for durability in ("off", "relaxed", "commit"):
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
    request = request_bytes("/infer", headers, body)
    named = request_bytes("/infer", [*headers, "X-Request-Id: line-4"], body)  # such a message leaves no track
    ways = {"whole request": _Turn(server, request), "whole request, ordinary way": _Turn(server, named)}
    for turn in ways.values():
        for _ in range(20):
            turn()
            time.sleep(0.005)  # the first rows wait for a segment, and a disk has to show that it is quick
    stages = {**_ordinary(active, headers, body), **_on_track(server, active)}
    figures = [Figure(f"{title}: {name}", _best_us(stage), "µs") for name, stage in stages.items()]
    return [*figures, *(Figure(f"{title}: {name}", _best_us(turn) / _AT_ONCE, "µs") for name, turn in ways.items())]


class _Turn:
    """Some connections that all ask in one turn of the serving thread."""

    def __init__(self, server: Server, request: bytes) -> None:
        self._server, wire = server, _Wire(request)
        self._connections = [Connection(server, wire) for _ in range(_AT_ONCE)]  # type: ignore[arg-type]

    def __call__(self) -> None:
        self._server.now = time.monotonic()
        for connection in self._connections:
            connection.on_event(EPOLLIN)
        self._server._end_turn()
        while any(connection.state is State.BUSY for connection in self._connections):
            time.sleep(0.0001)  # the disk is waited for in a thread
            self._server._end_turn()


def _ordinary(active: ActivePipeline, headers: list[str], body: bytes) -> dict[str, Callable[[], object]]:
    """What a request without a track goes through."""
    given = dict(line.lower().split(": ", 1) for line in headers)
    decode = lambda: inference.decode(body, given["content-type"], active.loaded.input)  # noqa: E731
    columns = decode()
    row, _ = active.short_way.result(columns, 1)  # type: ignore[union-attr,misc]
    engine: Any = active.loaded.tensors
    return {
        "ordinary way, decode Arrow": decode,
        "ordinary way, onnxruntime": lambda: engine.infer_tensors(columns.arrays),
        "ordinary way, result with onnxruntime": lambda: active.short_way.result(columns, 1),  # type: ignore[union-attr]
        "ordinary way, encode Arrow": lambda: inference.encode(row, given["accept"], None),
    }


def _on_track(server: Server, active: ActivePipeline) -> dict[str, Callable[[], object]]:
    """What a request on a track goes through, and the work of a turn by request."""
    track = next(iter(server._hot.tracks))  # type: ignore[union-attr]
    message = track.head.raw + bytes(track._size - len(track.head.raw))
    inputs = track._cut(message)[1::2]
    row = (next_request_id(), bytes(8), bytes(16), *inputs, *track._run(inputs))
    lines = [(1,) * (6 + len(active.loaded.step_names))]

    def answer() -> bytes:
        pieces = track._pieces.copy()
        pieces[1::2] = track._pick(row)
        return b"".join(pieces)

    stages: dict[str, Callable[[], object]] = {
        "compare the message, cut out the numbers": lambda: track._cut(message)[::2] == track._others,
        "onnxruntime, bound": lambda: track._run(inputs),
        "request id": next_request_id,
        "answer": answer,
        "figures": lambda: track._note(lines),
    }
    if track._log is not None:
        alike, rows = track._log, [row] * _AT_ONCE
        block = alike.rows.encode(rows)
        stages |= {
            f"block of {_AT_ONCE} rows": lambda: alike.rows.encode(rows),
            f"frame of {_AT_ONCE} rows": lambda: encode_frame("0" * 16, 1, _AT_ONCE, block),
        }
    return stages


def _best_us(stage: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.thread_time()
        for _ in range(_TURNS):
            stage()
        best = min(best, (time.thread_time() - begun) / _TURNS)
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
