"""What the agent counts, and how `/metrics` tells it (Prometheus text format 0.0.4).

Noting a request costs less than a microsecond. Only one thread at a time may note, the serving thread; another may
ask for the text meanwhile. Names and labels are a promise: docs/agent-http.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.pipelines.serving import Serving, Tally
from edge_agent.telemetry.prometheus import Labels, Samples, family, histogram
from runtimes.memory import resident_bytes

if TYPE_CHECKING:
    from edge_agent.doors.seam import Call, Route

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TIMES_S = (
    1e-06, 2.5e-06, 5e-06, 1e-05, 2.5e-05, 5e-05, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_TIMES_NS = np.array([round(bound * 1e9) for bound in _TIMES_S])
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
_ROWS_ARRAY = np.array(_ROWS)
_FOLDED = 256  # requests that are noted before they are counted: together they cost a fifth

# Status of an answer to what did not become a request → why, as a label.
_REASONS = {408: "slow", 413: "too_large", 414: "too_large", 503: "busy"}


class Counts:
    """A histogram of whole numbers: how many lie up to each bound and above the one before, and above all of them."""

    def __init__(self, bounds: np.ndarray) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0

    @property
    def counts(self) -> list[int]:
        """One number a bound, and one more."""
        found: list[int] = self._counts.tolist()
        return found

    def add(self, values: np.ndarray) -> None:
        """Count values."""
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self.total += int(values.sum())


class _Figures:
    """Of one pipeline's inference requests; times in ns.

    The serving thread appends a line of numbers a request; they are counted later, many at once, by who comes first.
    A number below zero is none.
    """

    STAGES = ("parse", "validations", "spool", "encode")  # in the order of a line, behind the request and its rows

    def __init__(self) -> None:
        self.noted: list[tuple[int, ...]] = []
        self.names: tuple[str, ...] = ()  # of the steps, whose times end a line
        self.request, self.rows = Counts(_TIMES_NS), Counts(_ROWS_ARRAY)
        self.stages = {stage: Counts(_TIMES_NS) for stage in self.STAGES}
        self.steps: dict[str, Counts] = {}
        self._lock = threading.Lock()

    def follow(self, names: tuple[str, ...]) -> None:
        """Another version answers from now on, whose steps have these names."""
        self.fold()
        self.names = names
        self.steps.update({name: Counts(_TIMES_NS) for name in names if name not in self.steps})

    def fold(self) -> None:
        """Count what was noted. Lines that are appended meanwhile stay for the next time."""
        with self._lock:
            lines = self.noted[:]
            del self.noted[: len(lines)]
            if lines:
                places = (self.request, self.rows, *self.stages.values(), *(self.steps[name] for name in self.names))
                for counts, values in zip(places, np.array(lines, np.int64).T, strict=True):
                    counts.add(values[values >= 0])


class Metrics:
    """Counters of one agent."""

    def __init__(self) -> None:
        self.queue: Callable[[], int] = lambda: 0  # requests that wait for a thread; the hot path sets it
        self.queue_limit = 0  # how many may
        self.exported: Callable[[], dict[str, int]] = dict  # spans by what became of them; a trace export sets it
        self._requests: dict[tuple[str, str, int], int] = {}
        self._figures: dict[str, _Figures] = {}
        self._refused = {"queue": 0, "late": 0, "busy": 0, "slow": 0, "too_large": 0, "malformed": 0}

    def observe(self, route: Route, call: Call, status: int) -> None:
        """Count one inference request that has its answer. Where no pipeline was found its label stays empty: clients
        make no labels.
        """
        figures = self._counting(route, call.pipeline, status, 1)
        now, stages = time.perf_counter_ns(), call.stages
        if stages is None or status != 200:
            figures.noted.append((now - call.started_ns, -1, -1, -1, -1, -1, *(-1 for _ in figures.names)))
            return
        _, parse_ns, steps_ns, validations_ns, submit_ns, ended_ns = stages
        if stages.steps is not figures.names:
            figures.follow(stages.steps)
        spool_ns = submit_ns + now - call.answered_ns if call.logged else -1
        encode_ns = call.answered_ns - ended_ns
        took = now - call.started_ns
        figures.noted.append((took, call.rows, parse_ns, validations_ns or -1, spool_ns, encode_ns, *steps_ns))

    def observe_alike(
        self, route: Route, pipeline: str, steps: tuple[str, ...], lines: Sequence[tuple[int, ...]]
    ) -> None:
        """As `observe`, for requests to one pipeline that succeeded: a line each, as `_Figures` says."""
        figures = self._counting(route, pipeline, 200, len(lines))
        if steps is not figures.names:
            figures.follow(steps)
        figures.noted += lines

    def _counting(self, route: Route, pipeline: str, status: int, requests: int) -> _Figures:
        """Count requests; the figures of their pipeline, with room for lines."""
        key = (route.protocol, pipeline, status)
        self._requests[key] = self._requests.get(key, 0) + requests
        figures = self._figures.get(pipeline)
        if figures is None:
            figures = self._figures[pipeline] = _Figures()
        elif len(figures.noted) >= _FOLDED:
            figures.fold()
        return figures

    def refuse(self, reason: str) -> None:
        """Count what found no room (`queue`) or took too long (`late`)."""
        self._refused[reason] += 1

    def refuse_status(self, status: int) -> None:
        """Count what never became a request, by the status that its client was told."""
        self._refused[_REASONS.get(status, "malformed")] += 1

    def tally(self, pipeline: str) -> Tally:
        """What was counted of one pipeline so far."""
        counts = [(code == 200, n) for (_, name, code), n in list(self._requests.items()) if name == pipeline]
        succeeded = sum(n for is_success, n in counts if is_success)
        failed = sum(n for is_success, n in counts if not is_success)
        figures = self._figures.get(pipeline)
        if figures is None:
            return Tally(succeeded, failed)
        figures.fold()
        stages = {name: counts.total for name, counts in figures.stages.items()}
        stages["steps"] = sum(counts.total for counts in figures.steps.values())
        return Tally(succeeded, failed, figures.rows.total, stages)

    def render(self, serving: Serving) -> str:
        """All figures as text."""
        lines = [*self._counted(), *_of_process(), *_of_pipelines(serving)]
        return "\n".join(lines) + "\n"

    def _counted(self) -> Iterator[str]:
        # list() of a dictionary's items is one step for other threads, a loop over them is not
        requests = sorted(list(self._requests.items()))
        samples = [({"door": d, "pipeline": p, "code": str(code)}, n) for (d, p, code), n in requests]
        yield from family("edgepack_requests_total", "counter", "Inference requests.", samples)
        refused = [({"reason": reason}, n) for reason, n in self._refused.items()]
        yield from family("edgepack_refused_total", "counter", "What got no answer of a door, by reason.", refused)
        yield from family("edgepack_queue", "gauge", "Requests that wait for a thread.", [({}, self.queue())])
        yield from family("edgepack_queue_limit", "gauge", "How many of them may.", [({}, self.queue_limit)])
        named = sorted(list(self._figures.items()))
        for _, figures in named:
            figures.fold()
        rows = [({"pipeline": name}, each.rows.total) for name, each in named]
        yield from family("edgepack_rows_total", "counter", "Rows answered.", rows)
        batches = [({"pipeline": name}, each.rows) for name, each in named]
        yield from _histograms("edgepack_batch_rows", "Rows of a request.", batches, 1)
        requested = [({"pipeline": name}, each.request) for name, each in named]
        yield from _histograms("edgepack_request_seconds", "From the whole request to its answer.", requested, 1e-9)
        staged = [(labels, counts) for name, each in named for labels, counts in _stages(name, each)]
        yield from _histograms("edgepack_stage_seconds", "Time in each stage of a request.", staged, 1e-9)
        spans = [({"fate": fate}, n) for fate, n in self.exported().items()]
        yield from family("edgepack_spans_total", "counter", "Spans for the trace collector, by their fate.", spans)


def _stages(pipeline: str, figures: _Figures) -> Iterator[tuple[Labels, Counts]]:
    for stage, counts in figures.stages.items():
        yield {"pipeline": pipeline, "stage": stage}, counts
    for step, counts in list(figures.steps.items()):
        yield {"pipeline": pipeline, "stage": "step", "step": step}, counts


def _histograms(name: str, words: str, found: Iterable[tuple[Labels, Counts]], unit: float) -> Iterator[str]:
    bounds = _ROWS if unit == 1 else _TIMES_S
    yield from histogram(name, words, bounds, [(labels, each.counts, each.total * unit) for labels, each in found])


def _of_process() -> Iterator[str]:
    """What the agent itself takes."""
    yield from family(
        "edgepack_resident_bytes", "gauge", "Memory of the agent's own process.", [({}, resident_bytes())]
    )


def _of_pipelines(serving: Serving) -> Iterator[str]:
    """What is true of the active pipelines now: which bundle, and how full their spools are."""
    pipelines = serving.pipelines
    active = [({"pipeline": p.name, "version": p.version, "manifest": p.manifest}, 1) for p in pipelines]
    yield from family("edgepack_active_bundle", "gauge", "The bundle that answers, in its labels.", active)
    ready: Samples = [({}, int(not serving.waiting_for))]
    yield from family("edgepack_ready", "gauge", "1 when every pipeline is loaded.", ready)
    yield from _workers(serving)
    yield from family("edgepack_provider", "gauge", "1 for what a step computes on, else 0.", _providers(serving))
    yield from family("edgepack_provider_nodes", "gauge", "Nodes of a model that a provider has.", _nodes(serving))
    yield from family(
        "edgepack_engine_threads", "gauge", "Threads that a native model computes with.", _threads(serving)
    )
    memory = [
        ({"pipeline": pipeline.name, "model": model}, size)
        for pipeline in pipelines
        for model, size in pipeline.loaded.memory_bytes.items()
    ]
    yield from family("edgepack_model_bytes", "gauge", "Memory that a native model took when it was loaded.", memory)
    stats = [(pipeline.name, pipeline.spool.stats()) for pipeline in pipelines]
    for figure in sorted({figure for _, each in stats for figure in each}):
        samples = [({"pipeline": name}, each[figure]) for name, each in stats if figure in each]
        yield from family(f"edgepack_spool_{figure}", "gauge", f"Of the inference log: {figure}.", samples)


def _workers(serving: Serving) -> Iterator[str]:
    """What the processes of steps do and take: of python steps, and of native ones that have replicas."""
    found = [
        (
            {
                "pipeline": pipeline.name,
                "step": worker.job.name,
                "replica": str(worker.replica),
                "sandbox": worker.sandbox,
            },
            worker,
        )
        for pipeline in serving.pipelines
        for worker in pipeline.loaded.workers
    ]
    up = [(labels, int(worker.pid is not None)) for labels, worker in found]
    yield from family("edgepack_worker_up", "gauge", "1 when the step's process answers.", up)
    restarts = [(labels, worker.restarts) for labels, worker in found]
    yield from family("edgepack_worker_restarts_total", "counter", "Times the process was started again.", restarts)
    memory = [(labels, worker.pss_bytes) for labels, worker in found]
    yield from family("edgepack_worker_pss_bytes", "gauge", "Its proportional share of memory.", memory)


def _providers(serving: Serving) -> Samples:
    """A line a step and execution provider: 0, with the reason, for one that was asked for and is not used."""
    lines: list[tuple[Labels, float]] = []
    for pipeline in serving.pipelines:
        for step, choice in pipeline.loaded.providers.items():
            said = {"pipeline": pipeline.name, "step": step}
            lines += [({**said, "provider": name}, 1) for name in choice.used]
            lines += [({**said, "provider": name, "reason": why}, 0) for name, why in choice.skipped.items()]
    return lines


def _nodes(serving: Serving) -> Samples:
    """How many nodes of each model a provider has, where the engine says it."""
    return [
        ({"pipeline": pipeline.name, "step": step, "provider": name}, sum(kinds.values()))
        for pipeline in serving.pipelines
        for step, choice in pipeline.loaded.providers.items()
        for name, kinds in choice.nodes.items()
    ]


def _threads(serving: Serving) -> Samples:
    return [
        ({"pipeline": pipeline.name, "step": step, "engine": choice.engine}, choice.threads)
        for pipeline in serving.pipelines
        for step, choice in pipeline.loaded.providers.items()
        if choice.threads
    ]
