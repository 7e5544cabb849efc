"""`Server`: what is under the doors: one thread that serves all connections, and threads for what takes long.

The serving thread reads requests and writes answers (epoll, HTTP/1.1 by `http1`). Inference goes to the hot path; every
other request, and one without a hot path, to a WSGI application in a thread that borrows the socket.
Why a server of our own: docs/decisions, "serving path".
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from edge_agent.doors.seam import Answer, error_body, request_id_of
from edge_agent.http.connection import Connection, State
from edge_agent.http.hot_path import HotPath
from edge_agent.http.http1 import AnswerHeads, Head, parse_head
from edge_agent.http.listening import listen
from edge_agent.http.threads import Threads
from edge_agent.http.wsgi import Application, Reply, environ_of

_STOP_S = 8.0  # for requests in progress when the server stops: below the 10 s that `docker stop` grants
_PARTING_S = 0.2  # for what clients send while they do not know yet that the server stops
_TICK_S = 0.2  # how exactly deadlines are kept
_KEPT_HEADS = 256
_LONGEST_KEPT_HEAD = 2048
_ONCE = {"x-request-id", "traceparent"}  # headers that differ with each request
_COPIED = 1 << 16  # bytes of an answer: up to here one piece is sent sooner than several

log = logging.getLogger("edgepack.agent")


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    body_bytes: int = 64 << 20
    bodies_bytes: int = 512 << 20  # of all large bodies at once
    header_bytes: int = 16 << 10
    connections: int = 1024
    receive_s: float = 10.0  # for a head; a body has longer, by its length; for an answer to be taken
    idle_s: float = 60.0
    request_s: float = 15.0  # from the whole request to its answer, inference only
    threads: int = 16  # for what is not inference
    queue: int = 64  # requests that wait for one of these


class Server:
    """Bound when made, if not before (`listening`), answering from `start` to `stop`; port 0 takes any that is free."""

    def __init__(
        self,
        application: Application,
        host: str,
        port: int,
        *,
        hot: HotPath | None = None,
        limits: Limits | None = None,
        listening: socket.socket | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.now = time.monotonic()
        self._application, self._hot = application, hot
        self._socket = listening or listen(host, port)
        self._address: tuple[str, int] = self._socket.getsockname()[:2]
        self._threads = Threads("doors", self.limits.threads, self.limits.queue)
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._connections: dict[int, Connection] = {}
        self._heads: dict[bytes, Head] = {}
        self._answer_heads = AnswerHeads()
        self._tasks: deque[Callable[[], None]] = deque()
        self._is_awake = False
        self._held = 0
        self._stopping: float | None = None  # when to give up
        self._accepts = True
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        if hot is not None:
            hot.connect(self._finish, self.call_soon, self._answer_heads)

    # For those who run it

    @property
    def url(self) -> str:
        """Where it answers, for a client on this machine."""
        host, port = self._address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def port(self) -> int:
        """The port, also when 0 was asked for."""
        return self._address[1]

    def start(self) -> Server:
        """Answer, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take no more requests, end those in progress, and return."""
        if self._thread.is_alive():
            self.call_soon(self._begin_stop)
            self._thread.join()
        else:
            self._close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # For connections, in the serving thread

    def head_of(self, data: bytes) -> Head:
        """The parsed head; a client repeats its own, so the last ones are kept. Raises Refused."""
        head = self._heads.get(data)
        if head is None:
            head = parse_head(data)
            head.found = (self._hot.find(head) if self._hot else None) or False
            if len(data) <= _LONGEST_KEPT_HEAD and not _ONCE & head.headers.keys():
                if len(self._heads) >= _KEPT_HEADS:
                    self._heads.clear()
                self._heads[data], head.raw = head, data
        return head

    def on_request(self, connection: Connection, head: Head, body: bytes | bytearray) -> None:
        """A request is whole."""
        connection.state, connection.deadline = State.BUSY, self.now + self.limits.request_s
        connection.stays = head.keeps_alive and self._stopping is None
        if head.found:
            self._hot.take(connection, head, body, head.found)  # type: ignore[union-attr]  # it found the route
            return
        connection.deadline = float("inf")  # the log may stream for long; each write has a deadline of its own
        if not self._threads.submit(partial(self._lend, connection, head, body)):
            if self._hot is not None:
                self._hot.refused(503)
            more = (("X-Request-Id", request_id_of(head.headers.get("x-request-id"))), ("Retry-After", "1"))
            self._answer(connection, Answer(error_body(503, "too many requests at once"), status=503), more)

    def watch(self, connection: Connection, mask: int) -> None:
        """Be told of these events."""
        if connection.mask != mask and not connection.is_gone:
            self._epoll.modify(connection.sock.fileno(), mask)
            connection.mask = mask

    def unwatch(self, connection: Connection) -> None:
        """Be told of nothing more."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(connection.sock.fileno())

    def forget(self, connection: Connection) -> None:
        """A connection is about to be closed."""
        self._connections.pop(connection.sock.fileno(), None)
        if not connection.is_gone:
            self.unwatch(connection)
        self._resume()

    @property
    def has_one_client(self) -> bool:
        """Whether nobody can be waiting behind the client that is being answered."""
        return len(self._connections) == 1

    def hold(self, size: int) -> bool:
        """Set room aside for a large body; False where there is none now."""
        if self._held + size > self.limits.bodies_bytes:
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """Give such room back."""
        self._held -= size

    def soon(self, task: Callable[[], None]) -> None:
        """Do something later in this turn."""
        self._tasks.append(task)

    def on_late(self, connection: Connection) -> None:
        """A request has taken too long."""
        if self._hot is not None and connection.request is not None:
            self._hot.on_late(connection)

    def refusal(self, status: int, message: str) -> bytes:
        """The whole answer to what is no request."""
        if self._hot is not None:
            self._hot.refused(status)
        body = error_body(status, message)
        more = (("Retry-After", "1"),) if status == 503 else ()
        return self._answer_heads.whole(status, "application/json", len(body), more, close=True) + body

    # For other threads

    def call_soon(self, task: Callable[[], None]) -> None:
        """Have something done in the serving thread."""
        self._tasks.append(task)
        if not self._is_awake and threading.current_thread() is not self._thread:
            self._is_awake = True
            with contextlib.suppress(OSError):  # a full pipe wakes as well
                os.write(self._wake_write, b"1")

    # The serving thread

    def _run(self) -> None:
        self._epoll.register(self._socket.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        listening, woken, next_tick = self._socket.fileno(), self._wake_read, 0.0
        connections = self._connections
        while self._stopping is None or (connections and self.now < self._stopping):
            events = self._epoll.poll(_TICK_S)
            self.now = time.monotonic()
            for handle, mask in events:
                connection = connections.get(handle)
                if connection is not None:
                    self._on_event(connection, mask)
                elif handle == listening:
                    self._accept()
                elif handle == woken:
                    os.read(woken, 4096)
                    self._is_awake = False  # in this order: a task of before is done below, one of now wakes again
            self._end_turn()
            if self.now >= next_tick:
                next_tick = self.now + _TICK_S
                self._tick()
        self._close()

    def _on_event(self, connection: Connection, mask: int) -> None:
        try:
            connection.on_event(mask)
        except Exception:
            log.exception("fault of ours on a connection")
            connection.close()

    def _end_turn(self) -> None:
        """Write the rows of this turn, then do what is due, which may lead to more of both."""
        if self._hot is not None:
            self._hot.flush()
        for _ in range(len(self._tasks) + 64):
            if not self._tasks:
                return
            try:
                self._tasks.popleft()()
            except Exception:
                log.exception("fault of ours in the serving thread")
            if not self._tasks and self._hot is not None:
                self._hot.flush()
        os.write(self._wake_write, b"1")  # more is due: look at the sockets in between, without sleeping

    def _tick(self) -> None:
        late = [each for each in self._connections.values() if each.deadline < self.now]
        for connection in late:
            connection.on_deadline()
        if not self._accepts and any(each.asks_nothing for each in self._connections.values()):
            self._resume()  # all were busy when the last one came
        if self._hot is not None:
            self._hot.tick()

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no file handles left: those who wait are taken when a connection ends
                log.warning("no more connections can be taken: %s", error)
                self._pause()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._connections[sock.fileno()] = Connection(self, sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            if len(self._connections) >= self.limits.connections and not self._make_room(connection):
                self._pause()
                return

    def _make_room(self, newest: Connection) -> bool:
        """Close a connection that asks for nothing yet: the one that has least time left to."""
        waiting = [each for each in self._connections.values() if each.asks_nothing and each is not newest]
        if not waiting:
            return False
        min(waiting, key=lambda each: each.deadline).close()
        return True

    def _pause(self) -> None:
        self._epoll.modify(self._socket.fileno(), 0)
        self._accepts = False

    def _resume(self) -> None:
        if not self._accepts and self._stopping is None:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN)
            self._accepts = True

    # Answers

    def _finish(self, connection: Connection, answer: Answer, request_id: str) -> None:
        self._answer(connection, answer, (("X-Request-Id", request_id), *answer.headers))

    def _answer(self, connection: Connection, answer: Answer, headers: Iterable[tuple[str, str]]) -> None:
        if connection.is_gone:
            connection.close()
            return
        body = answer.body
        if isinstance(body, (bytes, bytearray, memoryview)):
            body = (body,)
        length = sum(map(len, body))
        close = not connection.stays
        head = self._answer_heads.whole(answer.status, answer.media_type, length, headers, close=close)
        if length < _COPIED:
            connection.write(b"".join((head, *body)))
        else:
            connection.write_pieces((head, *body))

    def _lend(self, connection: Connection, head: Head, body: bytes | bytearray) -> None:
        """In a thread: let the application answer on the connection's socket."""
        stays = False
        try:
            connection.sock.settimeout(self.limits.receive_s)
            client = str(connection.sock.getpeername()[0])
            reply = Reply(self._answer_heads, head, connection.sock.sendall, close=not connection.stays)
            stays = reply.run(self._application, environ_of(head, body, self._address, client))
        except OSError:
            log.debug("a client went away before it had its answer")
        finally:
            self.call_soon(partial(self._take_back, connection, stays))

    def _take_back(self, connection: Connection, stays: bool) -> None:
        connection.stays = stays  # as its answer said: its next request may be on its way
        with contextlib.suppress(OSError):
            connection.sock.setblocking(False)
        connection.write(b"")
        if self._stopping is not None:
            self._part_from(connection)

    # The end

    def _begin_stop(self) -> None:
        self._stopping = self.now + _STOP_S
        self._accept()  # who is connected by now is served; who connects before the next line is not
        self._socket.close()
        for connection in list(self._connections.values()):
            self._part_from(connection)

    def _part_from(self, connection: Connection) -> None:
        connection.stays, connection.track = False, None
        if connection.state is State.LINGERING:
            connection.close()
        elif connection.state is State.IDLE:  # its next request may be on its way: answered, it hears of the end
            connection.deadline = min(connection.deadline, self.now + _PARTING_S)

    def _close(self) -> None:
        if self._epoll.closed:
            return
        self._is_awake = True  # nobody writes to the pipe any more
        for connection in list(self._connections.values()):
            connection.close()
        self._threads.stop()
        if self._hot is not None:
            self._hot.stop()
        self._socket.close()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
