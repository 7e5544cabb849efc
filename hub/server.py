"""The hub on a socket: cheroot, TLS where asked, limits on what may come, and a clean end."""

from __future__ import annotations

import errno
import logging
from typing import Any

from cheroot import wsgi
from flask import Flask

from edgepack.errors import BadInput
from hub.config import HubConfig

_HEADER_LIMIT = 16 << 10  # bytes of one request's headers
_DRAIN_LIMIT = 1 << 20  # bytes of an unread body that are read away to keep a connection
_log = logging.getLogger(__name__)


class Server:
    """A listening hub: `url` is known before `serve` is called, so that a port of 0 can be printed."""

    def __init__(self, app: Flask, config: HubConfig) -> None:
        self._server = _HubServer((config.host.strip("[]"), config.port), app.wsgi_app, config.threads)
        if config.tls_cert is not None:
            self._server.ssl_adapter = _tls(config)
        self._prepare(config)
        host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        scheme = "http" if config.tls_cert is None else "https"
        self.url = f"{scheme}://{host}:{self._server.bind_addr[1]}"

    def serve(self) -> None:
        """Answer requests until `stop`."""
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

    def __init__(self, address: tuple[str, int], app: Any, threads: int) -> None:
        super().__init__(address, app, threads, "edgepack hub", request_queue_size=128, timeout=30, shutdown_timeout=5)
        self.gateway = _Gateway
        self.max_request_header_size = _HEADER_LIMIT
        self.keep_alive_conn_limit = 1000

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """What cheroot would print."""
        _log.log(level, "%s", msg.strip(), exc_info=traceback)


class _Gateway(wsgi.Gateway_10):
    """Closes a connection on which an unread body lies, instead of reading it all, or taking it for the next
    request.
    """

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """See WSGI."""
        write = super().start_response(status, headers, exc_info)
        body = self.req.rfile
        unread = not body.closed if self.req.chunked_read else getattr(body, "remaining", 0) > _DRAIN_LIMIT
        if unread or ("Connection", "close") in headers:
            self.req.close_connection = True
        return write


def _tls(config: HubConfig) -> Any:
    from cheroot.ssl.builtin import BuiltinSSLAdapter

    try:
        return BuiltinSSLAdapter(str(config.tls_cert), str(config.tls_key))
    except OSError as error:  # ssl.SSLError is one
        raise BadInput(f"TLS files '{config.tls_cert}' and '{config.tls_key}' do not load: {error}") from error
