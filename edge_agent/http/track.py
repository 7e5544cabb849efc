"""`Track`: what a request leaves behind for the next ones that differ from it in nothing but numbers.

A client sends the same message over and over: the same head, the same layout around other numbers. What the doors work
out for it comes to the same each time, but for these numbers, the model's answer, the time and the request id. So a
message that has come a few times is taken apart once, by trying out what its door does (`columns.places`,
`columns.templates`), and from then on compared byte for byte and answered by filling holes.

Rules:
- a message that differs anywhere else goes the ordinary way, and so does one that the model does not take as before;
- a track is made of an answer that was right, and kept only if it gives the very same bytes;
- it ends when another version takes the pipeline's place, the log gets another policy, or the model is no longer quick;
- rows of one turn of the serving thread are logged together, and their answers leave when they are kept.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from columns.columns import Columns
from columns.places import places_of
from columns.templates import Stencil
from edge_agent.doors.seam import Answer, Buffer, Call, Route, next_request_id
from edge_agent.http.connection import Connection, State
from edge_agent.http.http1 import Head
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import PACED_BYTES
from edgepack.errors import EdgepackError, RuntimeFailed, Unreachable
from runtimes.protocol import BindableRuntime

if TYPE_CHECKING:
    from edge_agent.http.hot_path import HotPath
    from edge_agent.inference_log.spool import Alike
    from edge_agent.pipelines.active_pipeline import Kept

_TIME, _ELAPSED = struct.Struct("<q"), struct.Struct("<qq")
_VARYING = ("time", "metadata.elapsed")

Array = np.ndarray[Any, np.dtype[Any]]


class Trail(NamedTuple):
    """What a door says of a request it has answered with one row, so that a track can be made of it."""

    active: ActivePipeline
    inputs: Mapping[str, Array]  # as the engine got them
    decode: Callable[[bytes], Mapping[str, Array]]  # the same, of another body
    row: Columns  # as it is logged
    encode: Callable[[Columns], bytes]  # the answer's body, of another row


class Held(NamedTuple):
    """An answer that waits for its row to be kept."""

    track: Track
    connection: Connection
    answer: bytes
    row: tuple[Buffer, ...]  # its request id first
    times: tuple[int, int, int, int]


class Track:
    """The track of one message. All methods are called by the serving thread."""

    def __init__(self, hot: HotPath, route: Route, head: Head, trail: Trail, form: _Form) -> None:
        self.hot, self.route, self.head, self.active = hot, route, head, trail.active
        self._size, self._cut, self._others = form.size, itemgetter(*form.slices), form.others
        at = len(head.raw)
        self._cut_body = itemgetter(
            *(slice(max(0, each.start - at), each.stop and each.stop - at) for each in form.slices)
        )
        self._others_of_body = (form.others[0][at:], *form.others[1:])
        self._run, self._log = form.run, form.log
        self._answer_start, self._pieces, self._pick = form.answer_start, form.pieces, itemgetter(*form.sources)
        self._generation, self._policy = hot.serving.generation, trail.active.spool.policy
        self._turn = -1
        self._date = b""
        self._time = b""
        self._model_ns = 0
        self._late = 0.0
        self._held: list[Held] = []
        self._lines: list[tuple[int, ...]] = []  # for the figures, of answers that wait for nothing
        self.is_over = False

    def follow(self, connection: Connection, data: bytes) -> bool:
        """Answer a message, now or when its row is kept; False where it has to go the ordinary way."""
        started = time.perf_counter_ns()
        if len(data) != self._size:
            return False
        parts = self._cut(data)
        return parts[::2] == self._others and self._answer(connection, parts[1::2], started)

    def follow_body(self, connection: Connection, body: bytes | bytearray) -> bool:
        """As `follow`, for a message whose head is known to be the track's."""
        started = time.perf_counter_ns()
        if len(body) != self._size - len(self.head.raw):
            return False
        parts = self._cut_body(memoryview(body))  # large ones are not copied
        return parts[::2] == self._others_of_body and self._answer(connection, parts[1::2], started)

    def _answer(self, connection: Connection, inputs: Sequence[Buffer], started: int) -> bool:
        if self._turn != self.hot.turn and not self._begin_turn(connection):
            return False
        asked = time.perf_counter_ns()
        try:
            outputs = self._run(inputs)
        except RuntimeFailed:  # the ordinary way says why
            self.end()
            return False
        ran = time.perf_counter_ns()
        row = (next_request_id(), self._time, _ELAPSED.pack(asked - started, ran - asked), *inputs, *outputs)
        pieces = self._pieces.copy()
        pieces[1::2] = self._pick(row)
        answer = b"".join(pieces)
        made = time.perf_counter_ns()
        self._model_ns = ran - asked
        if self._log is None:
            self._lines.append((made - started, 1, asked - started, -1, -1, made - ran, ran - asked))
            connection.write(answer)
        else:
            connection.request = held = Held(self, connection, answer, row, (started, asked, ran, made))
            connection.state, connection.deadline = State.BUSY, self._late
            self._held.append(held)
        return True

    def _begin_turn(self, connection: Connection) -> bool:
        """Once a turn: whether the track still leads to what answers, and what all of the turn's answers say alike."""
        hot = self.hot
        if self.is_over or self.is_stale:
            self.end()
            connection.track = None
            return False
        pace = self.active.pace
        if self._model_ns:
            if self._size <= PACED_BYTES:
                pace.note(self._model_ns)
            pace.note_size(self._model_ns, self._size)
            self._model_ns = 0
        server = connection.server
        if not (pace.is_quick or (server.has_one_client and pace.is_calm(self._size))):
            return False
        self._time = _TIME.pack(time.time_ns() // 1_000_000)
        date = hot.heads.date()
        if date is not self._date:
            self._date = date
            self._pieces[0] = hot.heads.start(200, self._answer_start[0]) + self._answer_start[1]
        self._late = server.now + server.limits.request_s
        self._turn = hot.turn
        hot.busy[self] = None
        return True

    @property
    def is_stale(self) -> bool:
        """Whether something else answers by now, or the log has another policy."""
        return self._generation != self.hot.serving.generation or self.active.spool.policy is not self._policy

    def end(self) -> None:
        """Lead nowhere from now on, and let go of the engine."""
        self.is_over, self._turn, self._run = True, -1, _lead_nowhere
        if self.head.track is self:
            self.head.track, self.head.seen = None, 0
        self.hot.tracks.pop(self, None)

    # Rows on their way into the log

    def submit(self) -> list[tuple[Kept, list[Held]]]:
        """At the end of a turn: put its rows on their way; and whose answers wait for them."""
        if self._lines:
            self._note(self._lines)
            self._lines = []
        held, self._held = self._held, []
        found = []
        while held and self._log is not None:
            batch, held = held[: self._log.most], held[self._log.most :]
            try:
                kept = self.active.spool.submit_alike(self._log, [each.row for each in batch])
            except Unreachable as error:
                self._refuse(batch, error)
            else:
                found.append((kept, batch))
        return found

    def settle(self, kept: Kept, batch: list[Held]) -> None:
        """Let answers leave whose rows are kept, or refusals where they are not."""
        try:
            kept.wait()
        except Exception as error:  # noqa: BLE001 - the last one who can answer the clients
            self._refuse(batch, error)
            return
        now, lines = time.perf_counter_ns(), []
        for held in batch:
            connection = held.connection
            if connection.request is not held:
                continue  # its client was told that it took too long
            connection.request = None
            started, asked, ran, made = held.times
            lines.append((now - started, 1, asked - started, -1, now - made, made - ran, ran - asked))
            if connection.is_gone:
                connection.close()
            else:
                connection.write(held.answer)
        self._note(lines)

    def _note(self, lines: Sequence[tuple[int, ...]]) -> None:
        self.hot.metrics.observe_alike(self.route, self.active.name, self.active.loaded.step_names, lines)

    def _refuse(self, batch: Sequence[Held], error: Exception) -> None:
        for held in batch:
            if held.connection.request is held:
                call = self.call_of(held)
                self.hot.refuse(held.connection, self.route, call, error)

    def call_of(self, held: Held) -> Call:
        """A held answer's request as the doors know one, for what goes wrong with it."""
        head = self.head
        call = Call(head.method, head.path.decode(), head.query, head.headers, b"", bytes(held.row[0]).decode())
        call.started_ns, call.pipeline = held.times[0], self.active.name
        held.connection.request = (self.route, call)
        return call


class _Form(NamedTuple):
    """What a track is made of."""

    size: int
    slices: list[slice]  # of the message: what does not change at even places, an input at odd ones
    others: tuple[bytes, ...]  # what stands at the even ones
    run: Callable[[Sequence[Buffer]], list[bytes]]
    log: Alike | None
    answer_start: tuple[str, bytes]  # media type, and what comes between the date and the request id
    pieces: list[bytes]  # of an answer, holes at odd places
    sources: list[int]  # what of a row goes there


def track_of(hot: HotPath, route: Route, head: Head, call: Call, answer: Answer) -> Track | None:
    """The track of a message that got an answer; None where it has none."""
    trail = call.trail
    if trail is None or answer.status != 200 or trail.active.short_way is None:
        return None
    if not head.keeps_alive or head.is_chunked or head.expects_100:
        return None  # what comes is more than head and body, or what goes more than the answer
    try:
        form = _form_of(trail, head.raw, call, answer)
    except EdgepackError:  # a model that does not run the same twice, say: the ordinary way goes on
        return None
    return None if form is None else Track(hot, route, head, trail, form)


def _form_of(trail: Trail, head: bytes, call: Call, answer: Answer) -> _Form | None:
    engine, row, spool = trail.active.loaded.tensors, trail.row, trail.active.spool
    if not isinstance(engine, BindableRuntime):
        return None
    ins, outs = ([field.name for field in side] for side in (engine.tensor_inputs, engine.tensor_outputs))
    varying = (*_VARYING, *(f"in.{name}" for name in ins), *(f"out.{name}" for name in outs))
    inputs, message = {name: trail.inputs[name] for name in ins}, head + bytes(call.body)
    places = places_of(message[len(head) :], inputs, trail.decode)
    slices = places and _slices([places[name] for name in ins], len(head))
    stencil = slices and Stencil.of(trail.encode, row, varying)
    if not slices or not stencil or not stencil.names or trail.encode(row) != answer.join():
        return None
    run, data = engine.bind(inputs), [inputs[name].tobytes() for name in ins]
    if run is None or [*data, *run(data)] != [row.arrays[name].tobytes() for name in varying[len(_VARYING) :]]:
        return None
    log = spool.alike(row, varying, call.request_id, bundle=trail.active.manifest)
    if log is None and spool.policy.durability != "off":
        return None
    start, pieces = _answer_of(stencil, row, answer)
    sources = [0, *(1 + varying.index(name) for name in stencil.names)]
    others = tuple(message[each] for each in slices[::2])
    return _Form(len(message), slices, others, run, log, (answer.media_type, start), pieces, sources)


def _answer_of(stencil: Stencil, row: Columns, answer: Answer) -> tuple[bytes, list[bytes]]:
    """What stands before the request id of an answer, without status, media type and date; and its pieces."""
    length = sum(map(len, stencil.pieces)) + sum(row.arrays[name].nbytes for name in stencil.names)
    more = "".join([f"\r\n{name}: {value}" for name, value in answer.headers]).encode("latin-1")
    begin = b"%b\r\n\r\n%b" % (more, stencil.pieces[0])
    return b"Content-Length: %d\r\nX-Request-Id: " % length, [b"", b"", begin, *stencil.pieces[1:]]


def _slices(places: Sequence[tuple[int, int]], at: int) -> list[slice] | None:
    """A message in slices: the inputs at odd places. None where they do not come in their order."""
    slices, before = [], 0
    for begin, stop in places:
        if at + begin < before:
            return None
        slices += [slice(before, at + begin), slice(at + begin, at + stop)]
        before = at + stop
    return [*slices, slice(before, None)]


def _lead_nowhere(inputs: Sequence[Buffer]) -> list[bytes]:
    raise RuntimeFailed("the pipeline has been replaced")
