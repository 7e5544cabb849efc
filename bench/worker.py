"""What it costs that a python step runs in a worker: the same function in this process and behind the socket."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.cost import cpu_seconds
from bench.table import Figure
from columns.columns import Columns
from columns.schema import Schema
from runtimes.worker import Job, Worker

FIELDS, BATCH = 29, 50_000
STEP = """\
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"].max(axis=1)}
"""


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
    return figures


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
