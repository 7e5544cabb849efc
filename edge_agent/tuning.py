"""Which settings suit a bundle on this very device: tried out with its own golden rows.

More threads answer a lone request sooner and take CPUs from other requests; a small model is only slowed down by them.
So of the settings that are nearly as quick as the quickest, the one with the fewest threads is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from columns.columns import Columns
from edge_agent.serving import Pace
from edge_agent.state import Tuning
from runtimes.cpus import usable_cpus, using_threads
from runtimes.pipeline import LoadedPipeline

_NEARLY = 1.1  # of the quickest
_WARM_UP = 3


@dataclass(frozen=True)
class Try:
    """One setting and what it gave: time and CPU of a request of one row, at best."""

    threads: int
    row_us: float
    cpu_us: float

    @property
    def place(self) -> str:
        """Where such requests are answered; see `edge_agent.hot_path`."""
        return "serving thread" if 1000 * self.row_us < Pace.QUICK_NS else "thread of its own"


def tries(folder: Path, environments: Path | None, seconds: float) -> list[Try]:
    """Try 1, 2, 4, ... threads, up to the CPUs there are, each for some seconds."""
    return [_try(folder, environments, threads, seconds) for threads in _counts(usable_cpus())]


def best(tried: Sequence[Try]) -> Tuning:
    """The setting to keep."""
    quickest = min(each.row_us for each in tried)
    chosen = next(each for each in tried if each.row_us <= _NEARLY * quickest)
    return Tuning(chosen.threads, chosen.row_us)


def _counts(cpus: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return counts if cpus == 1 else [*counts, cpus]


def _try(folder: Path, environments: Path | None, threads: int, seconds: float) -> Try:
    with using_threads(threads):
        loaded = LoadedPipeline.open(folder, environments)
    try:
        row = loaded.bundle.golden().inputs.slice(0, 1)
        for _ in range(_WARM_UP):
            loaded.infer(row)
        return _measured(loaded, row, threads, seconds)
    finally:
        loaded.close()


def _measured(loaded: LoadedPipeline, row: Columns, threads: int, seconds: float) -> Try:
    """The shortest time, as what other programs take is not the model's; CPU as a mean."""
    shortest, count = float("inf"), 0
    begun, cpu = time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        loaded.infer(row)
        shortest = min(shortest, time.perf_counter() - start)
        count += 1
    return Try(threads, 1e6 * shortest, 1e6 * (time.process_time() - cpu) / count)
