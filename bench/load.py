"""Load on an HTTP server: `python -m bench.load PORT PATH CONNECTIONS SECONDS BODY_FILE [HEADER: VALUE]...`

It has to be quicker than what it measures: a server that waits for its clients spends its time on falling asleep.

Every connection asks, waits for the whole answer and asks again. Prints one JSON object. A process of its own, so that
it can be pinned to a CPU that the server does not have.
"""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import time
from pathlib import Path

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")


_TIMEOUT = struct.pack("ll", 30, 0)  # seconds, microseconds


class _Client:
    """One connection with one request in flight."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = memoryview(request)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for timeout in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # Python's own would poll before each call
            self.socket.setsockopt(socket.SOL_SOCKET, timeout, _TIMEOUT)
        self.begun = 0.0
        self._found = b""
        self._missing = self._whole = -1

    def ask(self) -> None:
        self._found, self._missing, self.begun = b"", -1, time.perf_counter()
        self.socket.sendall(self._request)

    def is_answered(self) -> bool:
        """Take what has come; whether the answer is whole. Raises RuntimeError for any but 200."""
        data = self.socket.recv(1 << 16 if self._missing < 1 << 16 else 1 << 20)
        if len(data) == self._whole and data.startswith(b"HTTP/1.1 200"):
            return True  # as the one before
        if not data:
            raise RuntimeError("the server closed the connection")
        if self._missing < 0:
            self._found += data
            head, end, body = self._found.partition(b"\r\n\r\n")
            if not end:
                return False
            if b" 200 " not in head[:16]:
                raise RuntimeError(self._found[:300].decode("latin-1"))
            match = _LENGTH.search(head + b"\r\n")
            self._missing = int(match[1]) - len(body) if match else 0
            self._whole = len(data) if not self._missing else -1
        else:
            self._missing -= len(data)
        return self._missing <= 0


def run(port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Ask for some seconds; rate and latencies."""
    clients = {client.socket.fileno(): client for client in (_Client(port, request) for _ in range(connections))}
    poll, took = select.epoll(), []
    for handle, client in clients.items():
        poll.register(handle, select.EPOLLIN)
        client.ask()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for handle, _ in poll.poll(1):
            client = clients[handle]
            if client.is_answered():
                took.append(time.perf_counter() - client.begun)
                client.ask()
    spent, ranked = time.perf_counter() - begun, sorted(took)
    for client in clients.values():
        client.socket.close()
    middle, late = ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100]
    return {"requests": len(took), "rate": len(took) / spent, "p50_ms": 1e3 * middle, "p99_ms": 1e3 * late}


def request_bytes(path: str, headers: list[str], body: bytes) -> bytes:
    """A whole POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


if __name__ == "__main__":
    asked = request_bytes(sys.argv[2], sys.argv[6:], Path(sys.argv[5]).read_bytes())
    print(json.dumps(run(int(sys.argv[1]), asked, int(sys.argv[3]), float(sys.argv[4]))))
