"""`Server`: what is under the doors: cheroot with our limits, one process, a thread a request in progress.

One process, so that the log can gather the rows of all threads into one write. cheroot speaks plain text
when it refuses a request before the application sees it; here those answers are JSON like all others.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import orjson
from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest, KnownLengthRFile

from edgepack.errors import BadInput

BODY_LIMIT = 64 << 20  # bytes
HEADER_LIMIT = 16 << 10  # bytes
THREADS = 16

_TIMEOUT_S = 10  # of one read or write, and of an idle connection
_STOP_S = 8  # for requests in progress when the server stops: below the 10 s that `docker stop` grants
_LINGER_S = 2  # for a client that still sends a body nobody wants
_IDLE_CONNECTIONS = 1024
_LONGEST_CHUNK_LINE = 4096  # bytes: a chunk's length with extensions, or a trailer

log = logging.getLogger("edgepack.agent")

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


class BodyTooLarge(BadInput):
    """The body is larger than this server takes."""


class Server:
    """Bound when made, answering from `start` to `stop`; port 0 takes any that is free."""

    def __init__(self, application: Application, host: str, port: int, threads: int = THREADS) -> None:
        self._cheroot = _Cheroot((host, port), application, threads)
        try:
            self._cheroot.prepare()
        except OSError as error:
            raise BadInput(_why_not_bound(host, port, error), field="port") from error
        self._thread = threading.Thread(target=self._cheroot.serve, name="doors", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers, for a client on this machine."""
        host, port = self._cheroot.bind_addr[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def port(self) -> int:
        """The port, also when 0 was asked for."""
        return int(self._cheroot.bind_addr[1])

    def start(self) -> Server:
        """Answer, in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take no more requests, end those in progress, and return."""
        self._cheroot.stop()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Request(HTTPRequest):
    """cheroot's request with JSON refusals, strict body lengths, and no body left in the pipe."""

    def read_request_headers(self) -> bool:
        try:
            if not super().read_request_headers():  # type: ignore[no-untyped-call]
                return False
        except UnboundLocalError:  # cheroot's, over a first header line that continues none
            self.simple_response("400 Bad Request", "a header line continues none")
            return False
        length = self.inheaders.get(b"Content-Length")
        if length is not None and (not length.isdigit() or self.chunked_read):
            # int() takes '+5', '-5', '1_0'; two lengths at once is how requests are smuggled (RFC 9112 §6.3)
            self.simple_response("400 Bad Request", "Content-Length is not one plain number of bytes")
            return False
        return True

    def respond(self) -> None:
        """As cheroot's, with a strict reader of chunked bodies."""
        if self.chunked_read:
            self.rfile = ChunkedBody(self.conn.rfile, self.server.max_request_body_size)
        else:
            self.rfile = KnownLengthRFile(self.conn.rfile, int(self.inheaders.get(b"Content-Length", 0)))
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")
        if self.chunked_read and not self.rfile.ended:
            self.close_connection = True
            _linger(self.conn.socket)

    def simple_response(self, status: str, msg: str = "") -> None:
        self.close_connection = True
        body = error_body(int(status[:3]), msg or status[4:])
        head = f"{self.server.protocol} {status}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        try:
            self.conn.wfile.write(head.encode("latin-1") + body)
        except OSError:
            return
        if status.startswith("413"):
            _linger(self.conn.socket)


class ChunkedBody:
    """A chunked body, by the letter of RFC 9112 §7.1: cheroot's reader takes '-5', '0x5' and '1_0' for sizes."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self.ended = False

    def read(self, size: int = -1) -> bytes:
        """The whole body, whatever `size` says. Raises BadInput for what is no chunk, BodyTooLarge above the limit."""
        parts, left = [], self._limit
        while not self.ended and (length := self._next_length()):
            left -= length
            if left < 0:
                raise BodyTooLarge(f"the body is larger than {self._limit >> 20} MiB: send fewer rows at once")
            parts.append(self._stream.read(length))
            if len(parts[-1]) != length or self._stream.read(2) != b"\r\n":
                raise BadInput("the body is cut short in the middle of a chunk")
        self._skip_trailers()
        return b"".join(parts)

    def _next_length(self) -> int:
        line = self._stream.readline(_LONGEST_CHUNK_LINE)
        digits = line.split(b";", 1)[0].strip()
        if not line.endswith(b"\r\n") or not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
            raise BadInput("the body is badly chunked: expected the length of the next chunk in hexadecimal digits")
        return int(digits, 16)

    def _skip_trailers(self) -> None:
        while not self.ended:
            line = self._stream.readline(_LONGEST_CHUNK_LINE)
            if not line.endswith(b"\r\n"):
                raise BadInput("the body is cut short behind its last chunk")
            self.ended = line == b"\r\n"


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request


class _Cheroot(wsgi.Server):
    ConnectionClass = _Connection
    keep_alive_conn_limit = _IDLE_CONNECTIONS
    expiration_interval = 0.2  # seconds; also what a stop waits for at most
    max_request_header_size = HEADER_LIMIT
    max_request_body_size = BODY_LIMIT
    nodelay = True

    def __init__(self, address: tuple[str, int], application: Application, threads: int) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            server_name="edgepack",
            request_queue_size=128,
            timeout=_TIMEOUT_S,
            shutdown_timeout=_STOP_S,
        )

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: Any) -> socket.socket:
        """Bind, and leave no socket open where that fails."""
        try:
            socket_.bind(bind_addr)
        except OSError:
            socket_.close()
            raise
        return socket_

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """A client that goes away or sends garbage is no event; a fault of ours is."""
        log.log(level if level >= logging.ERROR else logging.DEBUG, "http server: %s", msg, exc_info=traceback)


def error_body(code: int, message: str) -> bytes:
    """The JSON of every error answer of the agent."""
    return orjson.dumps({"code": code, "status": "Error", "error": message, "source": "agent"})


def _linger(connection: socket.socket) -> None:
    """Read on for a moment: closing with bytes unread resets the connection before the answer is seen."""
    deadline = time.monotonic() + _LINGER_S
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_LINGER_S)
        while time.monotonic() < deadline and connection.recv(1 << 16):
            pass
    except OSError:
        return


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    text = str(error)
    if "Address already in use" in text:
        return f"port {port} on {host} is in use by another program: choose another with --port"
    if "Permission denied" in text:
        return f"port {port} on {host} needs rights this user lacks: choose one above 1023 with --port"
    if "Cannot assign" in text or "not known" in text:
        return f"'{host}' is no address of this machine: choose another with --host"
    return f"cannot listen on {host}, port {port}: {text}"
