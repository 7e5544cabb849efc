"""Which settings suit a bundle on this very device: tried out with its own golden rows.

Three settings pull at the same CPUs: threads of an engine, processes that answer side by side (replicas), requests that
are at work at once. A small model is only slowed down by more of any; users' code that holds Python's lock gains by
replicas alone. Each setting is measured for one request at a time and for as many as it lets in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from columns.columns import Columns
from edge_agent.pipelines.pace import Pace
from edge_agent.state import Tuning
from runtimes.cpus import usable_cpus, using_threads
from runtimes.pipeline import LoadedPipeline

_NEARLY = 1.1  # of the best
_WARM_UP = 3


@dataclass(frozen=True)
class Setting:
    """One way to run a bundle. `at_once`: requests at work at the same time."""

    threads: int
    replicas: int
    at_once: int


@dataclass(frozen=True)
class Try:
    """A setting and what it gave: time and CPU of a lone request of one row, requests a second, memory of processes."""

    setting: Setting
    row_us: float
    cpu_us: float
    per_s: float
    processes_mib: float

    @property
    def place(self) -> str:
        """Where lone requests are answered; see `edge_agent.http.hot_path`."""
        if self.setting.replicas == 1 and 1000 * self.row_us < Pace.QUICK_NS and not self.processes_mib:
            return "serving thread"
        return "thread of its own"


def settings(cpus: int) -> list[Setting]:
    """What is worth a try on so many CPUs, the plainest first: no more threads in all processes than CPUs."""
    counts = _counts(cpus)
    here = [Setting(threads, 1, at_once) for threads in counts for at_once in counts[1:] or [2]]
    apart = [
        Setting(threads, replicas, replicas + 1)
        for replicas in counts
        for threads in counts
        if replicas > 1 and threads * replicas <= cpus
    ]
    return [*here, *apart]


def tries(folder: Path, environments: Path | None, seconds: float) -> Iterator[Try]:
    """Try each setting for some seconds."""
    for setting in settings(usable_cpus()):
        yield _try(folder, environments, setting, seconds)


def best(tried: Sequence[Try]) -> Tuning:
    """The setting to keep: of those that answer nearly as many requests as any, and a lone one nearly as soon as any of
    these, the plainest.
    """
    most = max(each.per_s for each in tried)
    able = [each for each in tried if each.per_s * _NEARLY >= most]
    quickest = min(each.row_us for each in able)
    chosen = next(each for each in able if each.row_us <= _NEARLY * quickest)
    setting = chosen.setting
    return Tuning(setting.threads, chosen.row_us, setting.replicas, setting.at_once)


def _counts(cpus: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 < cpus:
        counts.append(counts[-1] * 2)
    return counts if cpus == 1 else [*counts, cpus]


def _try(folder: Path, environments: Path | None, setting: Setting, seconds: float) -> Try:
    with using_threads(setting.threads):
        loaded = LoadedPipeline.open(folder, environments, setting.replicas)
    try:
        row = loaded.bundle.golden().inputs.slice(0, 1)
        for _ in range(_WARM_UP * setting.replicas):
            loaded.infer(row)
        row_us, cpu_us = _alone(loaded, row, seconds / 2)
        per_s = _together(loaded, row, setting.at_once, seconds / 2)
        memory = sum(worker.pss_bytes for worker in loaded.workers) / 2**20
        return Try(setting, row_us, cpu_us, per_s, memory)
    finally:
        loaded.close()


def _alone(loaded: LoadedPipeline, row: Columns, seconds: float) -> tuple[float, float]:
    """µs of one request: the shortest, as what other programs take is not the model's; and its CPU, as a mean."""
    shortest, count = float("inf"), 0
    begun, cpu = time.perf_counter(), _cpu_s(loaded)
    while count == 0 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        loaded.infer(row)
        shortest = min(shortest, time.perf_counter() - start)
        count += 1
    return 1e6 * shortest, 1e6 * (_cpu_s(loaded) - cpu) / count


def _together(loaded: LoadedPipeline, row: Columns, clients: int, seconds: float) -> float:
    """Requests a second of several clients, each of which asks again as soon as it is answered."""
    counts = [0] * clients
    begun = time.perf_counter()

    def ask(client: int) -> None:
        while not counts[client] or time.perf_counter() - begun < seconds:
            loaded.infer(row)
            counts[client] += 1

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def _cpu_s(loaded: LoadedPipeline) -> float:
    return time.process_time() + sum(worker.cpu_s for worker in loaded.workers)
