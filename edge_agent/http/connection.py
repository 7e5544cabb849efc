"""`Connection`: one client's TCP connection as the serving thread sees it: read a request, wait for its answer, write.

All methods run in the serving thread and none of them blocks. A request that is answered elsewhere leaves its
connection `BUSY`: then nothing is read from it, so a client cannot pile up requests.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from enum import IntEnum
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any

from edge_agent.http.http1 import Chunks, Head, Refused, too_large

if TYPE_CHECKING:
    from edge_agent.http.server import Server
    from edge_agent.http.track import Track

_RECEIVE = 1 << 16
_LINGER_S = 2  # for a client that still sends a body nobody wants
_SLOWEST_BODY = 100_000  # bytes a second: what a body may take beyond the time for a head
_IOV = 512  # pieces that one sendmsg takes; the kernel's own limit is 1024
_GONE = EPOLLHUP | EPOLLERR

Buffer = bytes | bytearray | memoryview


class State(IntEnum):
    """What a connection is at."""

    IDLE = 0
    READING = 1
    BUSY = 2
    WRITING = 3
    LINGERING = 4
    CLOSED = 5


class Connection:
    """A client's connection."""

    __slots__ = (
        "body", "chunks", "deadline", "got", "head", "held", "is_gone", "lingers", "mask", "out", "received", "request",
        "server", "sock", "state", "stays", "track",
    )  # fmt: skip

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self.state = State.IDLE
        self.mask = EPOLLIN
        self.deadline = server.now + server.limits.idle_s
        self.received = b""  # and not looked at yet
        self.head: Head | None = None  # of a request whose body is not whole
        self.body = bytearray()  # of `head`, `got` bytes of it
        self.got = 0
        self.held = 0  # bytes of the body that count against the limit of all bodies
        self.chunks: Chunks | None = None
        self.out: list[memoryview] = []  # of an answer, not sent yet
        self.stays = True  # open after the answer
        self.lingers = False  # after the answer, until the client has had a chance to read it
        self.is_gone = False  # the client has closed both ways; whoever is at work for it does not know yet
        self.request: Any = None  # what is being answered, for those who answer
        self.track: Track | None = None  # of the last request

    def on_event(self, mask: int) -> None:
        """What epoll reports."""
        if self.state is State.WRITING:
            self._send()
        elif self.state is not State.BUSY:
            self._receive()
        elif mask & _GONE:
            self.is_gone = True
            self.server.unwatch(self)
        else:
            self.server.watch(self, 0)  # it asks again before it has its answer: let it wait

    @property
    def asks_nothing(self) -> bool:
        """Whether no request has come in so far as its head."""
        return self.state is State.IDLE or (self.state is State.READING and self.head is None)

    # Reading

    def _receive(self) -> None:
        try:
            if self.got < len(self.body):
                count = self.sock.recv_into(memoryview(self.body)[self.got :])
                self._on_body(count)
                return
            data = self.sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if self.state is State.LINGERING:
            if not data:
                self.close()
        elif data:
            if self.track is None or self.state is not State.IDLE or not self.track.follow(self, data):
                self.feed(data)
        else:
            self._on_end()

    def _on_body(self, count: int) -> None:
        if not count:
            self._on_end()
            return
        self.got += count
        if self.got == len(self.body) and self.head is not None:
            self._whole(self.head, self.body)

    def _on_end(self) -> None:
        """The client will send nothing more."""
        if self.head is None:
            self.close()
        elif self.chunks is not None:
            self.refuse(400, "the body is cut short in the middle of a chunk")
        else:
            self.refuse(400, f"the body is cut short: {len(self.body)} bytes were announced, {self.got} came")

    def feed(self, data: bytes) -> None:
        """Take bytes of a request."""
        try:
            if self.chunks is not None and self.head is not None:
                self._feed_chunks(self.head, self.chunks, data)
            else:
                self._feed_head(self.received + data if self.received else data)
        except Refused as refused:
            self.refuse(refused.status, str(refused))

    def _feed_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        limit = self.server.limits.header_bytes
        if end < 4 or end > limit:
            if len(data) > limit:
                is_line = b"\r\n" not in data[:limit]
                raise Refused(414 if is_line else 413, f"the head of the request is larger than {limit} bytes")
            if self.state is State.IDLE:
                self.state, self.deadline = State.READING, self.server.now + self.server.limits.receive_s
            self.received = data.lstrip(b"\r\n")
            return
        head = self.server.head_of(data[:end])
        if head.length > self.server.limits.body_bytes:
            raise Refused(413, too_large(self.server.limits.body_bytes))
        missing = head.length - (len(data) - end)
        if head.expects_100:
            with contextlib.suppress(OSError):  # who has gone is noticed when the body does not come
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.is_chunked or missing > 0:
            self._begin_body(head, data[end:])
            return
        self.received = data[end + head.length :] if missing else b""
        self.server.on_request(self, head, data[end : end + head.length])

    def _begin_body(self, head: Head, start: bytes) -> None:
        limits = self.server.limits
        self.held = limits.body_bytes if head.is_chunked else head.length
        if not self.server.hold(self.held):
            self.held = 0
            raise Refused(503, "too many large bodies at once: come back in a moment")
        self.state, self.received, self.head = State.READING, b"", head
        self.deadline = self.server.now + limits.receive_s + self.held / _SLOWEST_BODY
        if head.is_chunked:
            self.chunks = Chunks(limits.body_bytes)
            self._feed_chunks(head, self.chunks, start)
        else:
            self.body, self.got = _room(head), len(start)
            self.body[: len(start)] = start

    def _feed_chunks(self, head: Head, chunks: Chunks, data: bytes) -> None:
        chunks.feed(data)
        if chunks.is_whole:
            self.received = chunks.rest
            self._whole(head, chunks.body)

    def _whole(self, head: Head, body: bytearray) -> None:
        self.head, self.chunks, self.body, self.got = None, None, bytearray(), 0
        self.server.on_request(self, head, body)

    # Writing

    def refuse(self, status: int, message: str) -> None:
        """Answer what is no request, and close once the client had a chance to read it."""
        self.stays, self.head, self.chunks, self.body, self.got = False, None, None, bytearray(), 0
        self.received = b""
        self.lingers = True
        self.write(self.server.refusal(status, message))

    def _linger(self) -> None:
        """Read on for a moment: closing with bytes unread resets the connection before the answer is seen."""
        self.state, self.deadline = State.LINGERING, self.server.now + _LINGER_S
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
        else:
            self.server.watch(self, EPOLLIN)

    def write(self, data: bytes) -> None:
        """Send an answer in one piece."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent == len(data):
            self._sent()
        else:
            self.out = [memoryview(data)[sent:]]
            self._wait_to_send()

    def write_pieces(self, pieces: Sequence[Buffer]) -> None:
        """Send an answer without putting its pieces together first."""
        self.out = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        self._send()

    def _send(self) -> None:
        try:
            sent = self.sock.sendmsg(self.out[:_IOV])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        while self.out and sent >= len(self.out[0]):
            sent -= len(self.out.pop(0))
        if self.out:
            self.out[0] = self.out[0][sent:]
            self._wait_to_send()
        else:
            self._sent()

    def _wait_to_send(self) -> None:
        self.state, self.deadline = State.WRITING, self.server.now + self.server.limits.receive_s
        self.server.watch(self, EPOLLOUT)

    def _sent(self) -> None:
        """The answer is on its way: on with the next request, or the end."""
        self.request = None
        if self.held:
            self.server.release(self.held)
            self.held = 0
        if self.lingers and not self.is_gone:
            self._linger()
            return
        if not self.stays or self.is_gone:
            self.close()
            return
        self.state, self.deadline = State.IDLE, self.server.now + self.server.limits.idle_s
        if self.mask != EPOLLIN:
            self.server.watch(self, EPOLLIN)
        if self.received:
            self.server.soon(self.go_on)

    def go_on(self) -> None:
        """Look at what came while the last request was answered."""
        if self.state is State.IDLE and self.received:
            data, self.received = self.received, b""
            self.feed(data)

    def on_deadline(self) -> None:
        """The time for what this connection is at is over."""
        if self.state is State.BUSY:
            self.server.on_late(self)
        elif self.state is State.READING:
            self.refuse(408, "the request did not come in whole in the time it has: send it again")
        else:
            self.close()

    def close(self) -> None:
        """End it. One whose request is being answered elsewhere ends when that is over."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        if self.held:
            self.server.release(self.held)
            self.held = 0
        self.server.forget(self)
        self.sock.close()


def _room(head: Head) -> bytearray:
    """Memory for a body. Tensors behind a head of JSON (OIP) get to lie at a multiple of 8: else they are copied."""
    text = head.headers.get("inference-header-content-length", "0")
    skew = -int(text) % 8 if text.isdigit() and len(text) < 18 else 0
    room = bytearray(skew + head.length)
    del room[:skew]  # moves the start, and no byte
    return room
