"""Serving beside other servers, `python -m bench serve`: the figure is CPU time a request, the steady one.

All servers run at once, each pinned to CPU 0 with onnxruntime on one thread; the load is on CPU 1. They take turns in
each round, so that a slow moment of the machine meets all of them; medians over the rounds are printed, and each
promise with what was reached. A server that cannot be installed here is left out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import models, peers
from bench.cost import pss_mib, tree_cpu_seconds
from bench.table import Figure
from columns.arrow import ARROW_STREAM, encode_arrow
from columns.columns import Columns
from columns.schema import Schema

SERVER_CPUS, LOAD_CPUS = {0}, {max(os.sched_getaffinity(0))}
ROUNDS, SECONDS = int(os.environ.get("BENCH_ROUNDS", "3")), float(os.environ.get("BENCH_SECONDS", "1.0"))
MANY = 50_000
_PROGRAMS = Path(sys.executable).parent


@dataclass
class Way:
    """One way to ask one server, and what it cost: by connections, CPU microseconds, rates, latencies of each round."""

    name: str
    pid: int
    port: int
    path: str
    headers: list[str]
    body: bytes
    cpu_us: dict[int, list[float]] = field(default_factory=dict)
    seen: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def measure(self, connections: int, folder: Path) -> None:
        """One turn."""
        file = folder / "body"
        file.write_bytes(self.body)
        command = [sys.executable, "-m", "bench.load", str(self.port), self.path, str(connections), str(SECONDS)]
        before = tree_cpu_seconds(self.pid)
        done = subprocess.run(
            [*command, str(file), *self.headers], capture_output=True, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CPUS),
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"bench: {self.name}: {done.stderr.strip().splitlines()[-1][:300]}")
        result = json.loads(done.stdout)
        spent = tree_cpu_seconds(self.pid) - before
        self.cpu_us.setdefault(connections, []).append(1e6 * spent / result["requests"])
        self.seen.setdefault(connections, []).append(result)

    def cpu(self, connections: int) -> float:
        """Microseconds of CPU a request."""
        return statistics.median(self.cpu_us[connections])

    def figures(self, title: str) -> Iterator[Figure]:
        """What was measured."""
        for connections in self.cpu_us:
            name = f"{title}, {self.name}, c={connections}"
            yield Figure(f"{name}: CPU a request", self.cpu(connections), "µs")
            for key, unit in (("rate", "1/s"), ("p50_ms", "ms"), ("p99_ms", "ms")):
                value = statistics.median(each[key] for each in self.seen[connections])
                yield Figure(f"{name}: {key.removesuffix('_ms')}", value, unit)


# Bodies


def _ways(name: str, pid: int, port: int, paths: dict[str, str], field_name: str, rows: np.ndarray) -> list[Way]:
    found = []
    for protocol, path in paths.items():
        headers, body = _body(protocol.partition(",")[0], field_name, rows)
        found.append(Way(f"{name} [{protocol}]", pid, port, path, headers, body))
    return found


def _body(protocol: str, name: str, rows: np.ndarray) -> tuple[list[str], bytes]:
    json_type, flat = "Content-Type: application/json", rows.reshape(len(rows), -1)
    if protocol == "arrow":
        nested = "float32"
        for size in reversed(rows.shape[1:]):
            nested = f"list<{nested}>[{size}]"
        body = encode_arrow(Columns.of(Schema.parse({name: nested}), {name: rows}), "stream")
        return [f"Content-Type: {ARROW_STREAM}", f"Accept: {ARROW_STREAM}"], body
    tensor = {"name": name, "shape": list(rows.shape), "datatype": "FP32"}
    if protocol == "oip-binary":
        raw = rows.tobytes()
        said = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
        head = json.dumps({**said, "parameters": {"binary_data_output": True}}).encode()
        return ["Content-Type: application/octet-stream", f"{peers.OIP_HEAD}: {len(head)}"], head + raw
    if protocol == "oip":
        return [json_type], json.dumps({"inputs": [{**tensor, "data": flat.ravel().tolist()}]}).encode()
    if protocol == "records":
        return [json_type], json.dumps([{name: row.tolist()} for row in rows]).encode()
    if protocol == "rows":
        return [json_type], json.dumps({"rows": flat.tolist()}).encode()
    return ["Content-Type: application/octet-stream"], rows.tobytes()


# Servers


@contextlib.contextmanager
def _running(process: subprocess.Popen[bytes], way: Way) -> Iterator[float]:
    """Wait for the first answer, and end the process afterwards. Gives the seconds it took."""
    begun = time.perf_counter()
    try:
        while not _answers(way):
            if process.poll() is not None or time.perf_counter() - begun > 60:
                words = str(process.args)
                raise SystemExit(f"bench: {way.name} gives no answer (exit status {process.poll()}): {words}")
            time.sleep(0.005)
        yield time.perf_counter() - begun
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(way: Way) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=20)
    try:
        connection.request("POST", way.path, way.body, dict(line.split(": ", 1) for line in way.headers))
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _agent(model: Path, durability: str, port: int, work: Path) -> subprocess.Popen[bytes]:
    """An agent that has its bundle already, as a device has."""
    project, data = work / f"{model.stem}-{durability}", str(work / f"data-{model.stem}-{durability}")
    project.mkdir()
    shutil.copy(model, project / "m.onnx")
    toml = f'[pipeline]\nname = "m"\n[[steps]]\nmodel = "m.onnx"\n[log]\ndurability = "{durability}"\n'
    (project / "edgepack.toml").write_text(toml)
    first = _program("edgepack", "serve", str(project), "--port", str(port), "--data", data, log=work / "log")
    health = Way("edgepack", first.pid, port, "/v2/repository/index", [], b"{}")
    with _running(first, health):
        deadline = time.monotonic() + 60
        while not _is_ready(port) and time.monotonic() < deadline:
            time.sleep(0.05)
    return _program("edgepack-agent", "run", "--port", str(port), "--data", data, log=work / "log")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _program(*command: str, log: Path) -> subprocess.Popen[bytes]:
    file = log.open("ab")
    return subprocess.Popen(
        [str(_PROGRAMS / command[0]), *command[1:]], stdout=file, stderr=file,
        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CPUS), start_new_session=True,
    )  # fmt: skip


class _Run:
    """Servers that hold one model, and the ways to ask them."""

    def __init__(self, model: Path, work: Path, first_port: int) -> None:
        self.model, self.work, self._port = model, work, first_port
        self.field = "tensor" if model.stem == "small" else "image"
        self.stack = contextlib.ExitStack()
        self.starts: dict[str, float] = {}

    def port(self) -> int:
        self._port += 5
        return self._port

    def agent(self, durability: str, paths: dict[str, str], rows: np.ndarray) -> list[Way]:
        port = self.port()
        process = _agent(self.model, durability, port, self.work)
        ways = _ways(f"edgepack, log {durability}", process.pid, port, paths, self.field, rows)
        self.starts[durability] = self.stack.enter_context(_running(process, ways[0]))
        return ways

    def peer(self, peer: peers.Peer, protocols: list[str], rows: np.ndarray) -> list[Way]:
        port = self.port()
        process = peers.start(peer, self.model, port, self.work / f"{peer.name}-{port}", SERVER_CPUS)
        if process is None:
            return []
        paths = {protocol: peer.paths[protocol] for protocol in protocols}
        ways = _ways(peer.name, process.pid, port, paths, self.field, rows)
        self.starts[peer.name] = self.stack.enter_context(_running(process, ways[0]))
        return ways

    def rounds(self, ways: list[Way], connections: list[int]) -> None:
        for count in connections:
            for turn in range(ROUNDS):
                for way in ways if turn % 2 == 0 else ways[::-1]:
                    way.measure(count, self.work)


def _alone_us(model: Path, rows: np.ndarray) -> float:
    """onnxruntime in a bare loop on the servers' CPU: microseconds of CPU a run."""
    code = (
        "import sys, time, os, numpy as np, onnxruntime as o; os.sched_setaffinity(0, {0}); s = o.SessionOptions();"
        "s.intra_op_num_threads = 1; s = o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider']);"
        "n = s.get_inputs()[0]; x = np.load(sys.argv[2]); [s.run(None, {n.name: x}) for _ in range(5)];"
        "b, t, c = time.perf_counter(), time.process_time(), 0\n"
        "while time.perf_counter() - b < float(sys.argv[3]): s.run(None, {n.name: x}); c += 1\n"
        "print(1e6 * (time.process_time() - t) / c)"
    )
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, rows)
        file.flush()
        command = [sys.executable, "-c", code, str(model), file.name, str(SECONDS)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# What is measured

_ONE = {"arrow": "/infer", "arrow, outputs only": "/infer?dataset[]=out", "oip-binary": "/v2/models/m/infer"}
_ONE_JSON = {"records": "/infer", "oip": "/v2/models/m/infer"}


def measure_serve() -> list[Figure]:
    """One row, many rows, an image; then what was promised."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        small, large = models.small(work / "small.onnx"), models.image_network(work / "image.onnx")
        random = np.random.default_rng(7)
        one = random.normal(size=(1, models.WIDTH)).astype(np.float32)
        many = random.normal(size=(MANY, models.WIDTH)).astype(np.float32)
        image = random.normal(size=(1, 3, 224, 224)).astype(np.float32)
        return [
            *_one_row(_Run(small, work / "one", 18400), one),
            *_many_rows(_Run(small, work / "many", 18500), many),
            *_one_image(_Run(large, work / "image", 18600), image),
        ]


def _one_row(run: _Run, row: np.ndarray) -> list[Figure]:
    run.work.mkdir()
    with run.stack:
        ours = {d: run.agent(d, {**_ONE, **_ONE_JSON}, row) for d in ("off", "relaxed", "commit")}
        fastapi, triton = run.peer(peers.FASTAPI, ["raw", "rows"], row), run.peer(peers.TRITON, ["oip-binary"], row)
        others = [*fastapi, *triton, *run.peer(peers.MLSERVER, ["oip"], row)]
        ways = [*(way for each in ours.values() for way in each), *others]
        run.rounds(ways, [1, 8, 64])
        pss = pss_mib(ours["commit"][0].pid)
    figures = [each for way in ways for each in way.figures("one row")]
    for count in (8, 64):
        for durability, promised in (("off", "≥ 5"), ("relaxed", "≥ 5"), ("commit", "≥ 2.5")):
            best = min(ours[durability][:3], key=lambda way: way.cpu(count))
            words = f"{best.name}, c={count}: requests per CPU second"
            figures += [Figure(f"{words} ÷ Triton", triton[0].cpu(count) / best.cpu(count), "x", promised)] * bool(
                triton
            )
            for way in fastapi if durability != "commit" else []:
                figures.append(Figure(f"{words} ÷ {way.name}", way.cpu(count) / best.cpu(count), "x", "≥ 3"))
    figures.append(Figure("onnxruntime alone, one row: CPU", _alone_us(run.model, row), "µs"))
    figures.append(Figure("agent, log commit: start to first answer", run.starts["commit"], "s", "≤ 0.6"))
    figures.append(Figure("agent, log commit, after the load: PSS", pss, "MiB", "≤ 100"))
    return figures


def _many_rows(run: _Run, rows: np.ndarray) -> list[Figure]:
    run.work.mkdir()
    with run.stack:
        ours = [way for durability in ("off", "commit") for way in run.agent(durability, _ONE, rows)]
        triton = run.peer(peers.TRITON, ["oip-binary"], rows)
        ways = [*ours, *triton, *run.peer(peers.FASTAPI, ["raw"], rows)]
        alone = []
        for _ in range(ROUNDS):
            alone.append(_alone_us(run.model, rows))
            for way in ways:
                way.measure(1, run.work)
    engine = statistics.median(alone)
    figures = [Figure("50,000 rows, onnxruntime alone: CPU", engine, "µs")]
    figures += [each for way in ways for each in way.figures("50,000 rows")]
    for way, promised in zip(ours, ["", "≥ 0.3", "≥ 0.3", "", "", ""], strict=True):
        figures.append(
            Figure(f"50,000 rows, {way.name}: share of onnxruntime alone", engine / way.cpu(1), "x", promised)
        )
        if triton:
            asked = promised and "≥ 1.3"
            figures.append(Figure(f"50,000 rows, {way.name} ÷ Triton", triton[0].cpu(1) / way.cpu(1), "x", asked))
    return figures


def _one_image(run: _Run, image: np.ndarray) -> list[Figure]:
    run.work.mkdir()
    with run.stack:
        ours = run.agent("off", _ONE, image)
        triton = run.peer(peers.TRITON, ["oip-binary"], image)
        ways = [*ours, *triton, *run.peer(peers.FASTAPI, ["raw"], image)]
        alone = []
        for _ in range(ROUNDS):
            alone.append(_alone_us(run.model, image))
            for way in ways:
                way.measure(1, run.work)
        run.rounds(ways, [8])
    engine, best = statistics.median(alone), min(ours, key=lambda way: way.cpu(1))
    figures = [Figure("image, onnxruntime alone: CPU", engine, "µs")]
    figures += [each for way in ways for each in way.figures("image")]
    figures.append(Figure(f"image, {best.name}: share of onnxruntime alone, c=1", engine / best.cpu(1), "x", "≥ 0.9"))
    if triton:
        figures.append(Figure(f"image, {best.name} ÷ Triton, c=1", triton[0].cpu(1) / best.cpu(1), "x", "≥ 1.0"))
    return figures
