"""What the agent counts, and how `/metrics` tells it (Prometheus text format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from edge_agent.serving import Serving

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one agent. `observe` may be called by several threads at once."""

    def __init__(self) -> None:
        self.queue: Callable[[], int] = lambda: 0  # requests that wait for a thread; the hot path sets it
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = {}
        self._rows: dict[str, int] = {}
        self._latency: dict[str, _Histogram] = {}

    def observe(self, pipeline: str, status: int, rows: int, seconds: float) -> None:
        """Count one inference request. `pipeline` is empty where none was found: clients make no labels."""
        with self._lock:
            self._requests[pipeline, status] = self._requests.get((pipeline, status), 0) + 1
            self._rows[pipeline] = self._rows.get(pipeline, 0) + rows
            if pipeline not in self._latency:
                self._latency[pipeline] = _Histogram()
            self._latency[pipeline].add(seconds)

    def render(self, serving: Serving) -> str:
        """All figures as text."""
        with self._lock:
            lines = list(self._counted())
        lines += _family("edgepack_queue", "gauge", "Requests that wait for a thread.", [({}, self.queue())])
        lines += _of_pipelines(serving)
        return "\n".join(lines) + "\n"

    def _counted(self) -> Iterator[str]:
        requests = [
            ({"pipeline": name, "status": str(status)}, n) for (name, status), n in sorted(self._requests.items())
        ]
        yield from _family("edgepack_requests_total", "counter", "Inference requests.", requests)
        rows = [({"pipeline": name}, n) for name, n in sorted(self._rows.items())]
        yield from _family("edgepack_rows_total", "counter", "Rows answered.", rows)
        yield "# HELP edgepack_request_seconds Time from the first byte of the body to the answer."
        yield "# TYPE edgepack_request_seconds histogram"
        for name, histogram in sorted(self._latency.items()):
            yield from histogram.lines("edgepack_request_seconds", {"pipeline": name})


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: dict[str, str]) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), self._counts, strict=True):
            total += count
            yield _sample(f"{name}_bucket", {**labels, "le": bound}, total)
        yield _sample(f"{name}_sum", labels, self._sum)
        yield _sample(f"{name}_count", labels, total)


def _of_pipelines(serving: Serving) -> Iterator[str]:
    """What is true of the active pipelines now: which bundle, and how full their spools are."""
    pipelines = serving.pipelines
    active = [({"pipeline": p.name, "version": p.version, "manifest": p.manifest}, 1) for p in pipelines]
    yield from _family("edgepack_active_bundle", "gauge", "The bundle that answers, in its labels.", active)
    yield from _family(
        "edgepack_ready", "gauge", "1 when every pipeline is loaded.", [({}, int(not serving.waiting_for))]
    )
    yield from _workers(serving)
    yield from _family("edgepack_provider", "gauge", "1 for what a step computes on, else 0.", _providers(serving))
    stats = [(pipeline.name, pipeline.spool.stats()) for pipeline in pipelines]
    for figure in sorted({figure for _, each in stats for figure in each}):
        samples = [({"pipeline": name}, each[figure]) for name, each in stats if figure in each]
        yield from _family(f"edgepack_spool_{figure}", "gauge", f"Of the inference log: {figure}.", samples)


def _workers(serving: Serving) -> Iterator[str]:
    """What the processes of python steps do and take."""
    found = [
        (
            {"pipeline": pipeline.name, "step": runtime.worker.job.name, "sandbox": runtime.worker.sandbox},
            runtime.worker,
        )
        for pipeline in serving.pipelines
        for runtime in pipeline.loaded.workers
    ]
    up = [(labels, int(worker.pid is not None)) for labels, worker in found]
    yield from _family("edgepack_worker_up", "gauge", "1 when the step's process answers.", up)
    restarts = [(labels, worker.restarts) for labels, worker in found]
    yield from _family("edgepack_worker_restarts_total", "counter", "Times the process was started again.", restarts)
    memory = [(labels, worker.pss_bytes) for labels, worker in found]
    yield from _family("edgepack_worker_pss_bytes", "gauge", "Its proportional share of memory.", memory)


def _providers(serving: Serving) -> list[tuple[dict[str, str], float]]:
    """A line a step and execution provider: 0, with the reason, for one that was asked for and is not used."""
    lines: list[tuple[dict[str, str], float]] = []
    for pipeline in serving.pipelines:
        for step, choice in pipeline.loaded.providers.items():
            said = {"pipeline": pipeline.name, "step": step}
            lines += [({**said, "provider": name}, 1) for name in choice.used]
            lines += [({**said, "provider": name, "reason": why}, 0) for name, why in choice.skipped.items()]
    return lines


def _family(name: str, kind: str, words: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
