"""`HotPath`: inference requests between the connection and the doors, without a framework.

A request is answered in the serving thread where that takes less than handing it over would, else in one of few
threads before a bounded queue; what finds no room there is told to come back, at once. Rows that are being logged hold
their answer back: all that came in one turn of the serving thread share a write, and with `commit` a sync.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from edge_agent.connection import Connection
from edge_agent.doors.seam import Answer, Call, Route, Table, refusal, request_id_of, respond, settle
from edge_agent.http1 import Head
from edge_agent.inference import PACED_BYTES
from edge_agent.metrics import Metrics
from edge_agent.serving import Kept, Late, Serving
from edge_agent.threads import Threads
from edgepack.errors import Unreachable

Found = tuple[Route, dict[str, str]]
Finish = Callable[[Connection, Answer, str], None]


class Busy(Unreachable):
    """All threads are at work, and enough requests wait for them."""


class HotPath:
    """Answers the routes of a table. Every method but `_run` is called by the serving thread."""

    def __init__(self, table: Table, serving: Serving, metrics: Metrics, *, threads: int = 2, queue: int = 64) -> None:
        self._table, self._serving, self._metrics = table, serving, metrics
        self._threads = Threads("infer", threads, queue)
        self._unflushed: list[Kept] = []
        self._metrics.queue = lambda: self._threads.waiting

    def connect(self, finish: Finish, call_soon: Callable[[Callable[[], None]], None]) -> None:
        """Say where answers go, and how another thread gets something done in the serving thread."""
        self._finish, self._call_soon = finish, call_soon

    def find(self, head: Head) -> Found | None:
        """The route of a request, or None where it is none of ours."""
        try:
            return self._table.find(head.method, head.path.decode())
        except UnicodeDecodeError:
            return None

    def take(self, connection: Connection, head: Head, body: bytes | bytearray, found: Found) -> None:
        """Answer a request: now, or later."""
        route, params = found
        request_id = request_id_of(head.headers.get("x-request-id"))
        call = Call(head.method, head.path.decode(), head.query, head.headers, body, request_id)
        call.deadline = connection.deadline
        connection.request = (route, call)
        if self._is_quick(route, params, head, body):
            self._answered(connection, route, call, respond(route, self._serving, call, params))
        elif not self._threads.submit(partial(self._run, connection, route, call, params)):
            busy = Busy("too many requests at once: come back in a moment", retry_after_s=1)
            self._end(connection, route, call, refusal(busy, route.error_body))

    def flush(self) -> None:
        """Once a turn: have the rows written that this turn's requests have put on their way."""
        kept, self._unflushed = self._unflushed, []
        for each in kept:
            each.flush()

    def on_late(self, connection: Connection) -> None:
        """Tell a client that its request takes longer than it may. What comes of it later goes nowhere."""
        route, call = connection.request
        late = Late("the request took longer than it may: ask again, or send fewer rows at once", retry_after_s=1)
        self._end(connection, route, call, refusal(late, route.error_body))

    def stop(self) -> None:
        """Let the threads end."""
        self._threads.stop()

    def _is_quick(self, route: Route, params: dict[str, str], head: Head, body: bytes | bytearray) -> bool:
        if route.runs != "by_pace":
            return route.runs == "inline"
        if "content-encoding" in head.headers:
            return False  # a small body may unpack to a large one
        return len(body) <= PACED_BYTES and self._serving.is_quick(params.get("pipeline"))

    def _run(self, connection: Connection, route: Route, call: Call, params: dict[str, str]) -> None:
        """In a thread."""
        call.is_busy = self._threads.waiting > 0
        call.is_busy = self._threads.waiting > 0
        answer = respond(route, self._serving, call, params)
        self._call_soon(partial(self._answered, connection, route, call, answer))

    def _answered(self, connection: Connection, route: Route, call: Call, answer: Answer) -> None:
        if not call.logged:
            self._end(connection, route, call, answer)
            return
        self._unflushed += call.logged
        # one log writes in order: the last of several is written after the others
        call.logged[-1].then(partial(self._call_soon, partial(self._settled, connection, route, call, answer)))

    def _settled(self, connection: Connection, route: Route, call: Call, answer: Answer) -> None:
        self._end(connection, route, call, settle(route, call, answer))

    def _end(self, connection: Connection, route: Route, call: Call, answer: Answer) -> None:
        if connection.request is None or connection.request[1] is not call:
            return  # the client was told that it took too long
        connection.request = None
        if route.counted:
            self._metrics.observe(call.pipeline, answer.status, call.rows, time.perf_counter() - call.started)
        self._finish(connection, answer, call.request_id)
