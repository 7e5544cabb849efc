"""Faults that a real hub cannot be made to show: a link that loses answers or cuts them, and a hub that lies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultyLink:
    """A TCP relay in front of a real hub. Everything gets through until a fault is ordered."""

    def __init__(self, hub_url: str) -> None:
        self._hub = urlsplit(hub_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answered_bytes = self.asked_bytes = 0
        self.lost = 0
        self._lose: Callable[[bytes], bool] | None = None
        self._cut_at: list[int] = []
        self._dead = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lose_answers(self, times: int, containing: bytes = b"") -> None:
        """The hub acts on the next requests that contain these bytes, and the device never hears of it."""
        left = iter(range(times))
        self._lose = lambda request: containing in request and next(left, None) is not None

    def cut_each(self, *sizes: int) -> None:
        """Cut the next connections after so many bytes of answers, one after the other."""
        self._cut_at = list(sizes)

    def die(self) -> None:
        """Cut everything and answer nobody until `mend`."""
        self._dead = True
        self._drop_all()

    def mend(self) -> None:
        self._dead = False

    def close(self) -> None:
        self._dead = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop_all()
        for thread in self._threads:
            thread.join(5)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _drop_all(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                if self._dead:
                    device.close()
                else:
                    self._start(self._relay, device)

    def _relay(self, device: socket.socket) -> None:
        budget = self._cut_at.pop(0) if self._cut_at else None
        asked: list[bytes] = []
        try:
            with socket.create_connection((self._hub.hostname, self._hub.port)) as hub, device:
                self._open |= {device, hub}
                self._start(self._upwards, device, hub, asked)
                self._downwards(hub, device, asked, budget)
                for each in (device, hub):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                self._open -= {device, hub}
        except OSError:
            device.close()

    def _upwards(self, device: socket.socket, hub: socket.socket, asked: list[bytes]) -> None:
        with suppress(OSError):
            while data := device.recv(1 << 16):
                asked[:] = [*asked[-3:], data]
                hub.sendall(data)
                self.asked_bytes += len(data)
            hub.shutdown(socket.SHUT_WR)

    def _downwards(self, hub: socket.socket, device: socket.socket, asked: list[bytes], budget: int | None) -> None:
        with suppress(OSError):
            while data := hub.recv(1 << 14):
                if self._lose and self._lose(b"".join(asked)):
                    self.lost += 1
                    return
                data = data if budget is None else data[:budget]
                device.sendall(data)
                self.answered_bytes += len(data)
                if budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        return


Answer = tuple[int, Mapping[str, str], bytes]


class LyingHub:
    """Answers each request with what `tell` makes of method, path and body."""

    def __init__(self, tell: Callable[[str, str, bytes], Answer]) -> None:
        self.requests: list[tuple[str, str]] = []
        said = self.requests

        class Liar(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                said.append((self.command, self.path))
                status, headers, data = tell(self.command, self.path, body)
                self.send_response(status)
                for key, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
