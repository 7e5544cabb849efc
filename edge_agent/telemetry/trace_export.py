"""`TraceExport`: spans to an OpenTelemetry collector, over OTLP/HTTP as JSON.

Source: the OTLP specification 1.x ("OTLP/HTTP", "JSON Protobuf Encoding": ids in hexadecimal, 64-bit numbers as text).
A request is a server span; its stages are spans below it. The serving thread only puts aside what a span is made of;
a thread of its own makes and sends them. Where the collector is away or slow, spans are dropped and counted: telemetry
never holds up an answer, and nothing of it is kept on the disk.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edge_agent.doors.seam import Call, Route
from edge_agent.pipelines.stages import Stages
from edge_agent.telemetry.events import event
from edge_agent.telemetry.trace_collector import Collector
from edge_agent.telemetry.trace_context import TraceContext, new_id

log = logging.getLogger("edgepack.agent")

_SERVER, _INTERNAL, _ERROR = 2, 1, 2  # SpanKind, StatusCode
_WAITING = 2048  # requests put aside; the oldest go first
_BATCH = 256
_PAUSE_S = 1.0
_ANSWER_S = 5.0
_LAST_ANSWER_S = 1.0  # when the agent stops
_QUIET_S = 60.0  # between two lines about a collector that is away


class TraceExport:
    """Sends spans until it is closed; use as a context manager. A `Witness`."""

    def __init__(self, collector: Collector, resource: Mapping[str, str]) -> None:
        """`resource` says whose spans these are: attributes beside `service.name`."""
        import urllib3

        self._collector = collector
        self._resource = _attributes({"service.name": collector.service, **resource})
        self._http = urllib3.PoolManager(num_pools=1, retries=False)
        self._waiting: deque[_Ended] = deque()
        self._sent = self._dropped = 0
        self._said = -_QUIET_S
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def counts(self) -> dict[str, int]:
        """Spans by what became of them."""
        return {"sent": self._sent, "dropped": self._dropped}

    def ended(self, route: Route, call: Call, status: int, end_ns: int) -> None:
        """Put a request aside whose trace is recorded."""
        trace = call.trace
        if trace is None or not trace.is_sampled or not route.counted:
            return
        if len(self._waiting) >= _WAITING:
            self._dropped += 1 + len(_stages(self._waiting.popleft()))
        self._waiting.append(
            _Ended(
                trace, route, call.pipeline, call.rows, call.request_id, status, call.stages, bool(call.logged),
                call.started_ns, call.answered_ns, end_ns, time.time_ns(),
            )
        )  # fmt: skip

    def __enter__(self) -> TraceExport:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(_LAST_ANSWER_S + 1)

    def _run(self) -> None:
        while not self._closing.wait(_PAUSE_S):
            while self._waiting and self._send() and not self._closing.is_set():
                pass
        while self._send():
            pass
        self._http.clear()

    def _send(self) -> bool:
        """Send what waits, a batch of it; False where that did not work."""
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        if not batch:
            return False
        spans = [span for ended in batch for span in _spans(ended)]
        why = self._post(spans)
        if why is None:
            self._sent += len(spans)
            return True
        self._dropped += len(spans)
        if time.monotonic() - self._said >= _QUIET_S:
            self._said = time.monotonic()
            event(log, "trace collector takes nothing", level=logging.WARNING, why=why, dropped=self._dropped)
        return False

    def _post(self, spans: list[dict[str, Any]]) -> str | None:
        """Why the collector did not take these, or None."""
        from urllib3.exceptions import HTTPError

        scoped = [{"scope": {"name": "edgepack"}, "spans": spans}]
        body = json.dumps({"resourceSpans": [{"resource": {"attributes": self._resource}, "scopeSpans": scoped}]})
        headers = {"Content-Type": "application/json", **dict(self._collector.headers)}
        try:
            patience_s = _LAST_ANSWER_S if self._closing.is_set() else _ANSWER_S
            answer = self._http.request(
                "POST", self._collector.url, body=body.encode(), headers=headers, timeout=patience_s
            )
        except (HTTPError, OSError) as error:
            return type(error).__name__
        return None if answer.status < 300 else f"status {answer.status}"


class _Ended(NamedTuple):
    """A request as it was put aside: without its body, which may be large. Times in ns of `perf_counter_ns`."""

    trace: TraceContext
    route: Route
    pipeline: str
    rows: int
    request_id: str
    status: int
    stages: Stages | None
    is_logged: bool
    started_ns: int
    answered_ns: int
    end_ns: int
    at_ns: int  # as end_ns, but since the epoch


def _spans(ended: _Ended) -> Iterator[dict[str, Any]]:
    """The request's own span, then one for each of its stages."""
    trace, route, epoch_ns = ended.trace, ended.route, ended.at_ns - ended.end_ns
    span = {
        **_span(trace.trace_id, trace.span_id, trace.parent_id, f"{route.method} {route.pattern}"),
        **_times(epoch_ns, ended.started_ns, ended.end_ns),
        "kind": _SERVER,
        "attributes": _attributes(
            {
                "http.request.method": route.method,
                "http.route": route.pattern,
                "http.response.status_code": ended.status,
                "edgepack.door": route.protocol,
                "edgepack.pipeline": ended.pipeline,
                "edgepack.rows": ended.rows,
                "edgepack.request_id": ended.request_id,
            }
        ),
    }
    if trace.state:
        span["traceState"] = trace.state
    if ended.status >= 500:
        span["status"] = {"code": _ERROR}
    yield span
    for name, start_ns, end_ns in _stages(ended):
        yield {
            **_span(trace.trace_id, new_id(64), trace.span_id, name),
            **_times(epoch_ns, start_ns, end_ns),
            "kind": _INTERNAL,
        }


def _stages(ended: _Ended) -> list[tuple[str, int, int]]:
    """Name, start and end of each stage: they follow one another, up to the moment when the last of them was over."""
    stages = ended.stages
    if stages is None:
        return []
    took = [("parse", stages.parse_ns)]
    took += [(f"step {name}", ns) for name, ns in zip(stages.steps, stages.steps_ns, strict=False)]
    took += [("validations", stages.validations_ns)] if stages.validations_ns else []
    took.append(("submit", stages.submit_ns))
    at, found = stages.ended_ns - sum(ns for _, ns in took), []
    for name, took_ns in took:
        found.append((name, at, at + took_ns))
        at += took_ns
    if ended.answered_ns:
        found.append(("encode", stages.ended_ns, ended.answered_ns))
        found += [("spool", ended.answered_ns, ended.end_ns)] if ended.is_logged else []
    return found


def _span(trace_id: str, span_id: str, parent_id: str, name: str) -> dict[str, Any]:
    own = {"traceId": trace_id, "spanId": span_id, "name": name}
    return {**own, "parentSpanId": parent_id} if parent_id else own


def _times(epoch_ns: int, start_ns: int, end_ns: int) -> dict[str, str]:
    return {"startTimeUnixNano": str(epoch_ns + start_ns), "endTimeUnixNano": str(epoch_ns + end_ns)}


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]
