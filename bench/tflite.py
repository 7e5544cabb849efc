"""What TFLite costs a request: rows of one size again and again and of sizes that change, one thread and two, large
requests whole and in pieces. In one process, without sockets.

CPU is that of the process with all its threads; each figure is the best of some rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.table import Figure
from bundle.pipeline import StepSpec
from runtimes.cpus import using_threads
from runtimes.memory import resident_bytes
from runtimes.tflite import TfliteRuntime
from runtimes.tflite_interpreters import Interpreters
from tests import tflite_models

_ROUNDS, _ROUND_S = 7, 0.05
_SIZES = (1, 7, 256)
_MANY = 200  # sizes that come once each
_NETS: dict[str, tuple[Callable[[], bytes], tuple[int, ...], str, str]] = {
    "dense 29x8": (
        lambda: tflite_models.dense(np.random.default_rng(0).normal(size=(29, 8)).astype(np.float32)),
        (29,),
        "list<float32>[29]",
        "list<float32>[8]",
    ),
    "6 convolutions of 32x32": (
        tflite_models.convolutions,
        (32, 32, 3),
        "list<list<list<float32>[3]>[32]>[32]",
        "list<list<list<float32>[32]>[32]>[32]",
    ),
}


def measure_tflite() -> list[Figure]:
    """All of it, for a small dense net and for convolutions."""
    figures: list[Figure] = []
    for net in _NETS:
        for threads in (1, 2):
            figures += list(_sizes(net, threads))
        figures += list(_changing(net))
    return [*figures, *_pieces()]


def _sizes(net: str, threads: int) -> Iterator[Figure]:
    """Requests of one size again and again."""
    with _loaded(net, threads) as runtime:
        for rows in _SIZES:
            cpu_us, wall_us = _cost(runtime, [_rows(net, rows)])
            name = f"tflite, {net}, {rows} row{'' if rows == 1 else 's'}, {threads} thread{'' if threads == 1 else 's'}"
            yield Figure(f"{name}, CPU", cpu_us, "µs")
            yield Figure(f"{name}, wall", wall_us, "µs")


def _changing(net: str) -> Iterator[Figure]:
    """Sizes that take turns: with an interpreter for each, and with one that is given another size each time."""
    requests = [_rows(net, rows) for rows in _SIZES]
    costs = []
    for kept in (4, 1):
        with _loaded(net, 1) as runtime:
            runtime.interpreters = Interpreters(runtime._made, runtime._resize, runtime._shapes_of_one(), kept)
            costs.append(_cost(runtime, requests)[0])
            yield Figure(f"tflite, {net}, {_SIZES} in turn, {kept} kept, CPU", costs[-1], "µs")
    with _loaded(net, 1) as runtime:
        before = resident_bytes()
        for rows in range(1, _MANY + 1):
            runtime.infer({"x": _rows(net, rows)}, rows)
        yield Figure(f"tflite, {net}, after {_MANY} sizes: interpreters kept", len(runtime.interpreters.kept), "")
        yield Figure(f"tflite, {net}, after {_MANY} sizes: memory grown", (resident_bytes() - before) / 2**20, "MiB")


def _pieces() -> Iterator[Figure]:
    """A large request of each net in pieces of different sizes."""
    for net in _NETS:
        request = _rows(net, 256)
        with _loaded(net, 1) as runtime:
            for rows in (runtime.rows_at_once, 8, 32, 256):
                runtime.rows_at_once = rows
                before = resident_bytes()
                cpu_us, _ = _cost(runtime, [request])
                name = f"tflite, {net}, 256 rows, {min(rows, 256)} at once"
                yield Figure(f"{name}, CPU", cpu_us, "µs")
                yield Figure(f"{name}, memory grown", (resident_bytes() - before) / 2**20, "MiB")


@contextmanager
def _loaded(net: str, threads: int) -> Iterator[TfliteRuntime]:
    make, _, takes, gives = _NETS[net]
    step = StepSpec(
        name="net", model="net.tflite", framework="tflite", runtime="tflite", input={"x": takes}, output={"y": gives}
    )
    with tempfile.TemporaryDirectory() as folder, using_threads(threads):
        path = Path(folder) / "net.tflite"
        path.write_bytes(make())
        with closing(TfliteRuntime.load(path, step)) as runtime:
            yield runtime


def _rows(net: str, count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *_NETS[net][1])).astype(np.float32)


def _cost(runtime: TfliteRuntime, requests: list[np.ndarray]) -> tuple[float, float]:
    """µs of CPU and of time that a request takes, of those given in turn."""
    turn = cycle(requests)
    for _ in range(3 * len(requests)):
        x = next(turn)
        runtime.infer({"x": x}, len(x))
    best_cpu = best_wall = float("inf")
    for _ in range(_ROUNDS):
        count, cpu, begun = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - begun < _ROUND_S or count % len(requests):
            x = next(turn)
            runtime.infer({"x": x}, len(x))
            count += 1
        best_cpu = min(best_cpu, (time.process_time() - cpu) / count)
        best_wall = min(best_wall, (time.perf_counter() - begun) / count)
    return 1e6 * best_cpu, 1e6 * best_wall
