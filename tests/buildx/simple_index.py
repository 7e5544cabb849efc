"""A package index on loopback, as the simple repository API has it (PEP 503): one folder of wheels, served by the real
HTTP server of the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def serving(wheels: Path) -> Iterator[str]:
    """Serve the wheels of a folder; gives the index's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *_, folder, name = ["", *self.path.rstrip("/").split("/")]
            found = sorted(path for path in wheels.glob("*.whl") if _name(path) == name)
            if folder == "simple" and found:
                self._answer(_page(found), "text/html")
            elif folder == "files" and (wheels / name).is_file():
                self._answer((wheels / name).read_bytes(), "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _answer(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _page(wheels: list[Path]) -> bytes:
    links = [
        f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
        for path in wheels
    ]
    return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


def _name(path: Path) -> str:
    return path.name.partition("-")[0].lower().replace("_", "-")
