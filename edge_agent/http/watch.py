"""`Watch`: whoever wants to see each request end: the access log, the export of traces. Off unless asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edge_agent.doors.seam import Call, Route
from edge_agent.telemetry.events import event
from edge_agent.telemetry.trace_context import TraceContext, begin_trace, read_trace

log = logging.getLogger("edgepack.access")


class Witness(Protocol):
    """One who sees requests end; in the serving thread, so that it waits for nothing."""

    def ended(self, route: Route, call: Call, status: int, end_ns: int) -> None:
        """A request has its answer. `end_ns` is of `time.perf_counter_ns`."""


class Watch:
    """Shows each request to some witnesses. With `begins` every request is a trace, else those whose client says so."""

    def __init__(self, witnesses: Sequence[Witness], *, begins: bool = False) -> None:
        self._witnesses, self._begins = tuple(witnesses), begins

    def begin(self, headers: Mapping[str, str]) -> TraceContext | None:
        """The trace of a request."""
        trace = read_trace(headers) if "traceparent" in headers else None
        return begin_trace(sampled=True) if trace is None and self._begins else trace

    def ended(self, route: Route, call: Call, status: int) -> None:
        """A request has its answer."""
        end_ns = time.perf_counter_ns()
        for witness in self._witnesses:
            witness.ended(route, call, status, end_ns)


class AccessLog:
    """A line a request. Neither queries nor headers nor bodies stand in it: they may hold what is secret."""

    def ended(self, route: Route, call: Call, status: int, end_ns: int) -> None:
        """Log it."""
        took_ms = round((end_ns - call.started_ns) / 1e6, 3)
        traced: dict[str, Any] = {"trace_id": call.trace.trace_id} if call.trace is not None else {}
        event(
            log, "request", request_id=call.request_id, method=call.method, route=route.pattern, door=route.protocol,
            pipeline=call.pipeline, code=status, rows=call.rows, took_ms=took_ms, **traced,
        )  # fmt: skip
