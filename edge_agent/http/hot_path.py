"""`HotPath`: inference requests between the connection and the doors, without a framework.

A request is answered in the serving thread where that takes less than handing it over would, or where its client is
the only one there; else in one of few threads before a bounded queue. What finds no room there is told to come back, at
once. Rows that are being logged hold their answer back: all that came in one turn of the serving thread share a write,
and with `commit` a sync. A message that comes again and again goes by `edge_agent.http.track`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edge_agent.doors.seam import Answer, Call, Route, Table, refusal, request_id_of, respond, settle
from edge_agent.http.connection import Connection
from edge_agent.http.http1 import AnswerHeads, Head
from edge_agent.http.threads import Threads
from edge_agent.http.track import Held, Track, track_of
from edge_agent.http.watch import Watch
from edge_agent.pipelines.active_pipeline import Kept
from edge_agent.pipelines.inference import PACED_BYTES
from edge_agent.pipelines.serving import Late, Serving
from edge_agent.telemetry.metrics import Metrics
from edge_agent.telemetry.trace_context import read_trace
from edgepack.errors import Unreachable

_WORTH_A_TRACK = 4  # times that a message comes
_MOST_TRACKS = 64
_LARGEST_ON_TRACK = 1 << 20  # bytes of a body: to lay a track for it takes some milliseconds

Found = tuple[Route, dict[str, str]]
Finish = Callable[[Connection, Answer, str], None]


class Busy(Unreachable):
    """All threads are at work, and enough requests wait for them."""


class HotPath:
    """Answers the routes of a table. Every method but `_run` is called by the serving thread."""

    def __init__(
        self,
        table: Table,
        serving: Serving,
        metrics: Metrics,
        *,
        threads: int = 2,
        queue: int = 64,
        watch: Watch | None = None,
        most_bytes: int = 64 << 20,
    ) -> None:
        self._table, self.serving, self.metrics = table, serving, metrics
        self._watch, self._most_bytes = watch, most_bytes
        self._threads = Threads("infer", threads, queue, lambda: serving.wanted_threads)
        serving.while_waking = self._threads.aside
        self._unflushed: list[Kept] = []
        self.turn = 0  # of the serving thread
        self.tracks: dict[Track, None] = {}
        self.busy: dict[Track, None] = {}  # those followed in this turn
        self.metrics.queue = lambda: self._threads.waiting
        self.metrics.queue_limit = queue

    def connect(self, finish: Finish, call_soon: Callable[[Callable[[], None]], None], heads: AnswerHeads) -> None:
        """Say where answers go, how another thread gets something done in the serving thread, and answers' heads."""
        self._finish, self._call_soon, self.heads = finish, call_soon, heads

    def find(self, head: Head) -> Found | None:
        """The route of a request, or None where it is none of ours."""
        try:
            return self._table.find(head.method, head.path.decode())
        except UnicodeDecodeError:
            return None

    def take(self, connection: Connection, head: Head, body: bytes | bytearray, found: Found) -> None:
        """Answer a request: now, or later."""
        if head.track is not None:
            connection.track = head.track
            if connection.stays and head.track.follow_body(connection, body):
                return
        route, params = found
        request_id = request_id_of(head.headers.get("x-request-id"))
        call = Call(head.method, head.path.decode(), head.query, head.headers, body, request_id)
        call.deadline, call.most_bytes = connection.deadline, self._most_bytes
        if self._watch is not None or "traceparent" in head.headers:
            call.trace = read_trace(head.headers) if self._watch is None else self._watch.begin(head.headers)
        connection.request = (route, call)
        if self._is_quick(connection, route, params, head, body):
            call.wants_trail = self._is_worth_a_track(head, call)
            answer = respond(route, self.serving, call, params)
            if call.trail is not None:
                self._lay_track(route, head, call, answer)
            self._answered(connection, route, call, answer)
        elif not self._threads.submit(partial(self._run, connection, route, call, params)):
            self.metrics.refuse("queue")
            busy = Busy("too many requests at once: come back in a moment", retry_after_s=1)
            self._end(connection, route, call, refusal(busy, route.error_body))

    def flush(self) -> None:
        """Once a turn: have the rows written that this turn's requests have put on their way."""
        self.turn += 1
        kept, self._unflushed = self._unflushed, []
        busy, self.busy = self.busy, {}
        for track in busy:
            for ticket, batch in track.submit():
                ticket.then(partial(self._call_soon, partial(track.settle, ticket, batch)))
                kept.append(ticket)
        for each in kept:
            each.flush()

    def tick(self) -> None:
        """Now and then: end the tracks that lead to what answers no more."""
        for track in [track for track in self.tracks if track.is_stale]:
            track.end()

    def on_late(self, connection: Connection) -> None:
        """Tell a client that its request takes longer than it may. What comes of it later goes nowhere."""
        asked = connection.request
        route, call = (asked.track.route, asked.track.call_of(asked)) if isinstance(asked, Held) else asked
        self.metrics.refuse("late")
        late = Late("the request took longer than it may: ask again, or send fewer rows at once", retry_after_s=1)
        self._end(connection, route, call, refusal(late, route.error_body))

    def refuse(self, connection: Connection, route: Route, call: Call, error: Exception) -> None:
        """Answer a request that ended with an error."""
        self._end(connection, route, call, refusal(error, route.error_body, call.request_id))

    def refused(self, status: int) -> None:
        """Count what never became a request."""
        self.metrics.refuse_status(status)

    def stop(self) -> None:
        """Let the threads end."""
        self._threads.stop()

    def _is_worth_a_track(self, head: Head, call: Call) -> bool:
        """Whether a message has come often enough; one that gave no track is tried again ever more rarely."""
        head.seen += 1
        often = head.seen >= _WORTH_A_TRACK and head.seen & (head.seen - 1) == 0
        return (
            often
            and len(call.body) <= _LARGEST_ON_TRACK
            and bool(head.raw)
            and call.trace is None
            and self._watch is None
            and head.track is None
        )

    def _lay_track(self, route: Route, head: Head, call: Call, answer: Answer) -> None:
        track = track_of(self, route, head, call, answer)
        if track is not None:
            if len(self.tracks) >= _MOST_TRACKS:
                next(iter(self.tracks)).end()
            head.track = track
            self.tracks[track] = None

    def _is_quick(
        self, connection: Connection, route: Route, params: dict[str, str], head: Head, body: bytes | bytearray
    ) -> bool:
        if route.runs != "by_pace":
            return route.runs == "inline"
        if "content-encoding" in head.headers:
            return False  # a small body may unpack to a large one
        name = params.get("pipeline")
        if len(body) <= PACED_BYTES and self.serving.is_quick(name):
            return True
        return connection.server.has_one_client and self.serving.is_calm(name, len(body))

    def _run(self, connection: Connection, route: Route, call: Call, params: dict[str, str]) -> None:
        """In a thread."""
        call.is_busy = self._threads.waiting > 0
        call.is_busy = self._threads.waiting > 0
        answer = respond(route, self.serving, call, params)
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
            self.metrics.observe(route, call, answer.status)
        if call.trace is not None:
            answer.headers = (*answer.headers, *call.trace.headers)
        if self._watch is not None:
            self._watch.ended(route, call, answer.status)
        self._finish(connection, answer, call.request_id)
