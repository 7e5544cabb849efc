"""A Debian mirror on loopback: a folder behind the standard library's HTTP server, which may stop in mid-file."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class HttpMirror:
    """What is asked of it. Files whose name ends with `held` are given by half, and the rest never."""

    url: str = ""
    held: str = ""
    asked: list[str] = field(default_factory=list)
    is_holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, mirror: HttpMirror, **more) -> None:
        self.mirror = mirror
        super().__init__(*arguments, **more)

    def do_GET(self) -> None:
        self.mirror.asked.append(self.path)
        if not self.mirror.held or not self.path.endswith(self.mirror.held):
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.mirror.is_holding.set()
        self.mirror.released.wait(60)

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def http_mirror(folder: Path, held: str = "") -> Iterator[HttpMirror]:
    """Serve a folder for the time of a test."""
    mirror = HttpMirror(held=held)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, mirror=mirror, directory=str(folder)))
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield mirror
    finally:
        mirror.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
