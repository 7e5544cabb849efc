"""The hub on a socket: cheroot, TLS where asked, limits on what may come, and a clean end."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any

from cheroot import wsgi
from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from flask import Flask

from edgepack.errors import BadInput
from hub.config import HubConfig

_HEADER_LIMIT = 16 << 10  # bytes of one request's headers
_DRAIN_LIMIT = 1 << 20  # bytes of an unread body that are read away to keep a connection
_CHUNK_LIMIT = 32 << 20  # bytes of one chunk of a chunked body
_LINE_LIMIT = 1 << 10  # bytes of the line before it
_log = logging.getLogger(__name__)


class Server:
    """A socket that listens: `url` is known, and a port or a certificate that will not do is told, before there is
    an application. Who asks before `serve` is called waits.
    """

    def __init__(self, config: HubConfig) -> None:
        self._server = _HubServer((config.host.strip("[]"), config.port), config.threads)
        if config.tls_cert is not None:
            self._server.ssl_adapter = _tls(config)
        self._prepare(config)
        host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        scheme = "http" if config.tls_cert is None else "https"
        self.url = f"{scheme}://{host}:{self._server.bind_addr[1]}"

    def serve(self, app: Flask) -> None:
        """Let an application answer requests until `stop`."""
        self._server.wsgi_app = app.wsgi_app
        self._server.serve()

    def stop(self) -> None:
        """Take no more connections, let running requests end for some seconds, return."""
        self._server.stop()

    def _prepare(self, config: HubConfig) -> None:
        try:
            self._server.prepare()
        except OSError as error:
            busy = error.errno == errno.EADDRINUSE or "in use" in str(error)
            why = "is in use by another program" if busy else f"cannot be listened on ({error})"
            raise BadInput(f"port {config.port} of {config.host} {why}: choose another with --port") from error


class _HubServer(wsgi.Server):
    """cheroot with our limits, and its errors in our log."""

    def __init__(self, address: tuple[str, int], threads: int) -> None:
        super().__init__(address, None, threads, "edgepack hub", request_queue_size=128, timeout=30, shutdown_timeout=5)
        self.gateway = _Gateway
        self.ConnectionClass = _Connection
        self.max_request_header_size = _HEADER_LIMIT
        self.keep_alive_conn_limit = 1000

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """See cheroot, which leaves the socket open when the port is taken."""
        try:
            bound: socket.socket = wsgi.Server.bind_socket(socket_, bind_addr)  # type: ignore[no-untyped-call]
        except OSError:
            socket_.close()
            raise
        return bound

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """What cheroot would print."""
        _log.log(level, "%s", msg.strip(), exc_info=traceback)


class _Headers(HeaderReader):
    """Refuses a first header line that continues none; cheroot fails over it."""

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:
        """Read all headers."""
        try:
            return super().__call__(rfile, hdict)
        except UnboundLocalError as error:
            raise ValueError("a header line continues none") from error


class _Request(HTTPRequest):
    header_reader = _Headers()


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request


class _Gateway(wsgi.Gateway_10):
    """Closes a connection on which a body may lie unread: cheroot would read it all, or take it for a request."""

    def __init__(self, req: Any) -> None:
        if req.chunked_read:
            req.rfile.rfile = _Bounded(req.rfile.rfile)
        super().__init__(req)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """See WSGI."""
        write = super().start_response(status, headers, exc_info)
        # cheroot never reads a chunked body's trailers: what follows one may be anything
        unread = self.req.chunked_read or getattr(self.req.rfile, "remaining", 0) > _DRAIN_LIMIT
        if unread or ("Connection", "close") in headers:
            self.req.close_connection = True
        return write


class _Bounded:
    """What chunks are read from: cheroot takes a whole chunk into memory, however long its sender says it is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Read one chunk."""
        if not 0 <= size <= _CHUNK_LIMIT:
            raise ValueError(f"a chunk of {size} bytes is not taken: at most {_CHUNK_LIMIT}")
        data: bytes = self._file.read(size)
        return data

    def readline(self) -> bytes:
        """Read the length of a chunk."""
        line: bytes = self._file.readline(_LINE_LIMIT)
        return line


def _tls(config: HubConfig) -> Any:
    from cheroot.ssl.builtin import BuiltinSSLAdapter

    try:
        return BuiltinSSLAdapter(str(config.tls_cert), str(config.tls_key))
    except OSError as error:  # ssl.SSLError is one
        raise BadInput(f"TLS files '{config.tls_cert}' and '{config.tls_key}' do not load: {error}") from error
