"""What it costs that a python step runs in a worker: the same function in this process and behind the socket; and what
replicas gain for a step that computes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bench.cost import cpu_seconds
from bench.table import Figure
from columns.columns import Columns
from columns.schema import Schema
from runtimes.replicas import Replicas
from runtimes.worker import Job, Limits, Worker

FIELDS, BATCH = 29, 50_000
STEP = """\
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"].max(axis=1)}
"""

COMPUTING = """\
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    total = 0
    for number in range(100_000):
        total += number % 7
    return {"y": input_data["x"][:, 0] * float(total)}
"""
CLIENTS, SECONDS = 4, 3.0


def measure_worker() -> list[Figure]:
    """One row at a time, then 50,000 rows at once, each in this process and in a worker."""
    with running() as (worker, started_s):
        figures = [Figure("worker, start to ready", started_s, "s")]
        for name, rows, times in (("one row", 1, 3000), (f"{BATCH} rows", BATCH, 60)):
            given = np.random.default_rng(0).normal(size=(rows, FIELDS)).astype(np.float32)
            columns = Columns(worker.job.input, {"x": given}, rows)
            alone = _seconds(lambda given=given: given.max(axis=1), times)
            before = cpu_seconds(worker.pid or 0)
            asked = _seconds(lambda columns=columns: worker.infer(columns), times)
            its_cpu = (cpu_seconds(worker.pid or 0) - before) / times
            figures += [
                Figure(f"python step in this process, {name}", 1e6 * alone, "µs"),
                Figure(f"python step in a worker, {name}", 1e6 * asked, "µs"),
                Figure(f"python step in a worker, {name}, its CPU", 1e6 * its_cpu, "µs"),
                Figure(f"python step in a worker, {name}, rows a second", rows / asked, "rows/s"),
            ]
        figures.append(Figure("worker after the load, PSS", worker.pss_bytes / 2**20, "MiB"))
    return [*figures, *_measure_replicas()]


def _measure_replicas() -> list[Figure]:
    """A step that computes for some milliseconds, asked by four clients at once, with one process and with two."""
    figures, rates = [], []
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as place, _replicas(Path(place), count) as replicas:
            row = Columns(replicas.job.input, {"x": np.ones((1, FIELDS), np.float32)}, 1)
            alone = _seconds(partial(replicas.infer, row), 100)
            rates.append(_rate(partial(replicas.infer, row)))
            memory = sum(worker.pss_bytes for worker in replicas.workers) / 2**20
        name = f"computing step, {count} replica{'s' if count > 1 else ''}"
        figures += [
            Figure(f"{name}, one row alone", 1e3 * alone, "ms"),
            Figure(f"{name}, 4 clients", rates[-1], "requests/s"),
            Figure(f"{name}, PSS of all", memory, "MiB"),
        ]
    return [*figures, Figure("2 replicas ÷ 1, requests", rates[1] / rates[0], "x")]


@contextmanager
def _replicas(place: Path, count: int) -> Iterator[Replicas]:
    (place / "step.py").write_text(COMPUTING)
    takes, gives = Schema.parse({"x": f"list<float32>[{FIELDS}]"}), Schema.parse({"y": "float64"})
    job = Job("bench", "step", place, takes, gives, (Path(np.__file__).parents[1],))
    with closing(Replicas.start(job, Limits(threads=1), count, scratch=place / "scratch")) as replicas:
        yield replicas


def _rate(what: Callable[[], object]) -> float:
    """Requests a second of four clients, each of which asks again as soon as it is answered."""
    until = time.perf_counter() + SECONDS

    def ask(_: int) -> int:
        count = 0
        while time.perf_counter() < until:
            what()
            count += 1
        return count

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sum(clients.map(ask, range(CLIENTS))) / SECONDS


@contextmanager
def running() -> Iterator[tuple[Worker, float]]:
    """A worker of the step, with the numpy of this process, and the seconds it took to come up."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "step.py").write_text(STEP)
        takes, gives = Schema.parse({"x": f"list<float32>[{FIELDS}]"}), Schema.parse({"y": "float32"})
        site = Path(np.__file__).parents[1]
        begun = time.perf_counter()
        with Worker.start(Job("bench", "step", Path(place), takes, gives, (site,))) as worker:
            yield worker, time.perf_counter() - begun


def _seconds(what: Callable[[], object], times: int) -> float:
    """Seconds of one call: the median of many, as machines are noisy."""
    taken = []
    for _ in range(times + times // 10):
        begun = time.perf_counter()
        what()
        taken.append(time.perf_counter() - begun)
    return sorted(taken[times // 10 :])[times // 2]
