"""One agent with the example's pipeline: start to first answer, memory, and the cost of a row by log durability."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.builds import EXAMPLE
from bench.cost import cpu_seconds, pss_mib
from bench.table import Figure
from examples.demo.load import ARROW, RECORDS, arrow_body
from examples.demo.programs import Program, free_port

WARM_UP, REQUESTS = 200, 2000
DURABILITIES = ("off", "relaxed", "commit")


def measure_serving() -> list[Figure]:
    """Start an agent for each durability, ask it one row at a time over one connection, in both formats."""
    figures = [_onnxruntime_alone()]
    for durability in DURABILITIES:
        with agent(durability) as (program, port, started_s):
            if durability == "commit":
                figures.append(Figure("start to first answer", started_s, "s", "≤ 0.6 s"))
            for name, media_type, body in _bodies():
                figures += _one_row(f"one row, {name}, log {durability}", program.pid, port, media_type, body)
            if durability == "commit":
                figures.append(Figure("agent after the load, PSS", pss_mib(program.pid), "MiB", "≤ 100 MiB"))
    return figures


@contextmanager
def agent(durability: str) -> Iterator[tuple[Program, int, float]]:
    """An agent serving the example, with another log durability. Gives program, port and seconds to the first answer.

    The bundle is imported by a first run: what is timed is the start of a device that has its bundle.
    """
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "wine-line"
        shutil.copytree(EXAMPLE, project)
        toml = project / "edgepack.toml"
        text = re.sub(r"(?m)^\[log\]\n(^[^\[].*\n)*", "", toml.read_text())
        toml.write_text(f'{text}\n[log]\ndurability = "{durability}"\n')
        port = free_port()
        data = str(Path(place) / "data")
        first = Program("edgepack", "serve", str(project), "--port", str(port), "--data", data, log=Path(place) / "log")
        first.wait_for(f"http://127.0.0.1:{port}/readyz")
        first.stop()
        begun = time.perf_counter()
        program = Program("edgepack-agent", "run", "--port", str(port), "--data", data, log=Path(place) / "log")
        try:
            _wait_for_answer(port)
            yield program, port, time.perf_counter() - begun
        finally:
            program.stop()


def _wait_for_answer(port: int) -> None:
    _, media_type, body = _bodies()[0]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/infer", body, {"Content-Type": media_type})
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.005)
        finally:
            connection.close()
    raise SystemExit("bench: the agent gave no answer within 30 s")


def _one_row(name: str, pid: int, port: int, media_type: str, body: bytes) -> list[Figure]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": media_type, "Accept": media_type}
    seconds = []
    for number in range(WARM_UP + REQUESTS):
        if number == WARM_UP:
            cpu_before = cpu_seconds(pid)
        begun = time.perf_counter()
        connection.request("POST", "/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        seconds.append(time.perf_counter() - begun)
    cpu = cpu_seconds(pid) - cpu_before
    ranked = sorted(seconds[WARM_UP:])
    return [
        Figure(f"{name}, p50", 1e6 * ranked[REQUESTS // 2], "µs"),
        Figure(f"{name}, p99", 1e6 * ranked[REQUESTS * 99 // 100], "µs"),
        Figure(f"{name}, CPU a request", 1e6 * cpu / REQUESTS, "µs"),
    ]


def _bodies() -> list[tuple[str, str, bytes]]:
    row = json.loads((EXAMPLE / "golden.json").read_text())[0]["in.inputs"]
    return [("records", RECORDS, json.dumps([{"inputs": row}]).encode()), ("Arrow", ARROW, arrow_body([row]))]


def _onnxruntime_alone() -> Figure:
    """The floor: the same model and row in a bare loop of this process."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(EXAMPLE / "wine-line.onnx"), options, providers=["CPUExecutionProvider"])
    row = np.asarray([json.loads((EXAMPLE / "golden.json").read_text())[0]["in.inputs"]], np.float32)
    name = session.get_inputs()[0].name
    for _ in range(WARM_UP):
        session.run(None, {name: row})
    begun = time.process_time()
    for _ in range(REQUESTS):
        session.run(None, {name: row})
    return Figure("onnxruntime alone, one row, CPU", 1e6 * (time.process_time() - begun) / REQUESTS, "µs")
