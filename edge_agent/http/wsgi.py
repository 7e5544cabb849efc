"""A WSGI application (PEP 3333) on a connection that a thread has borrowed from the serving thread.

What is not inference goes this way: rare, slow, or without an end, such as the log. The thread writes to the socket
itself, so a client that reads slowly holds up this thread and nobody else.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

from edge_agent.doors.seam import error_body
from edge_agent.http.http1 import AnswerHeads, Head

log = logging.getLogger("edgepack.agent")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Send = Callable[[bytes], object]

_OWN = ("content-type", "content-length", "transfer-encoding")  # not under HTTP_


def environ_of(head: Head, body: bytes | bytearray, server: tuple[str, int], client: str) -> dict[str, Any]:
    """What an application is told of a request. Names with '_' are left out: they would pass for those with '-'."""
    environ = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path.decode("latin-1"),
        "QUERY_STRING": head.query,
        "RAW_URI": head.target,
        "CONTENT_TYPE": head.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": head.version,
        "REMOTE_ADDR": client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in head.headers.items():
        if name not in _OWN and "_" not in name:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


class Reply:
    """One answer of an application, written as it comes."""

    def __init__(self, heads: AnswerHeads, head: Head, send: Send, *, close: bool) -> None:
        self._heads, self._head, self._send, self._close = heads, head, send, close
        self._status, self._headers = "", [("", "")]
        self._is_begun = False
        self._in_chunks = False

    def run(self, application: Application, environ: dict[str, Any]) -> bool:
        """Answer; whether the connection can go on. Raises OSError where the client is gone."""
        try:
            self._write_all(application(environ, self._start))
        except OSError:
            raise
        except Exception:
            given = self._head.headers.get("x-request-id", "")
            log.exception("fault of ours", extra={"fields": {"request_id": given, "path": self._head.target[:200]}})
            if not self._is_begun:
                body = error_body(500, "fault of ours; the agent's log says more")
                self._send(self._heads.whole(500, "application/json", len(body), close=True) + body)
            return False
        return not self._close

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info and self._is_begun:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, headers
        return self._write

    def _write_all(self, pieces: Iterable[bytes]) -> None:
        try:
            if isinstance(pieces, (list, tuple)):
                self._begin(sum(map(len, pieces)))
            for piece in pieces:
                if piece:
                    self._write(piece)
            self._begin(0)
            if self._in_chunks:
                self._send(b"0\r\n\r\n")
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    def _begin(self, length: int | None) -> None:
        """Send the head, once; a length that is not known yet asks for chunks."""
        if self._is_begun:
            return
        self._is_begun = True
        names = {name.lower() for name, _ in self._headers}
        lines = [f"HTTP/1.1 {self._status}", "Server: edgepack", *(f"{name}: {each}" for name, each in self._headers)]
        if "content-length" not in names and self._status[:3] not in ("204", "304"):
            self._in_chunks = length is None and self._head.version != "HTTP/1.0"
            self._close = self._close or (length is None and not self._in_chunks)
            lines.append("Transfer-Encoding: chunked" if self._in_chunks else f"Content-Length: {length or 0}")
        if length is None and not self._in_chunks and "content-length" not in names:
            lines.pop()  # HTTP/1.0: the end of the connection is the end of the body
        lines += ["Connection: close"] if self._close else []
        self._send("\r\n".join(lines).encode("latin-1") + b"\r\n" + self._heads.date() + b"\r\n")
        self._in_chunks = self._in_chunks and self._head.method != "HEAD"

    def _write(self, piece: bytes) -> None:
        self._begin(None)
        if self._head.method != "HEAD":
            self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if self._in_chunks else piece)
