"""Requests as bytes, and whatever a server says to them, read strictly: an answer that is badly framed is a fault."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

SECONDS = 60.0  # for one exchange; a server that takes longer hangs

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """A request whose parts can be changed one by one; `encode` gives it a right length unless it has one."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def encode(self) -> bytes:
        headers = (("Host", "a"), *self.headers)
        framed = self.header("Content-Length") is not None or self.header("Transfer-Encoding") is not None
        if not framed and (self.body or self.method == "POST"):
            headers = (*headers, ("Content-Length", str(len(self.body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace") + self.body


@dataclass(frozen=True)
class Answer:
    """One answer of a server."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class BadlyFramed(Exception):
    """What came back is not a row of HTTP/1.1 answers."""


def exchange(port: int, data: bytes) -> list[Answer]:
    """Send bytes on a connection of their own, end the sending side, and read until the server closes.

    Raises BadlyFramed, TimeoutError, and ConnectionRefusedError where nobody listens any more.
    """
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with contextlib.suppress(ConnectionError):  # it may refuse in the middle, and has said why by then
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                found += piece
    return list(read_answers(found))


def read_answers(data: bytes) -> list[Answer]:
    """All answers in what a server sent. Raises BadlyFramed."""
    answers = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        if not end or not line.startswith(b"HTTP/1.1 ") or not line[9:12].isdigit():
            raise BadlyFramed(f"no answer begins with {data[:80]!r}")
        status = int(line[9:12])
        pairs = (field.decode("latin-1").partition(": ") for field in fields)
        headers = {name.lower(): value for name, _, value in pairs}
        if status < 200:
            data = rest
            continue
        body, data = _body(headers, rest)
        answers.append(Answer(status, headers, body))
    return answers


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes]:
    if headers.get("transfer-encoding") == "chunked":
        return _chunked(rest)
    length = int(headers.get("content-length", "-1"))
    if not 0 <= length <= len(rest):
        raise BadlyFramed(f"an answer of {length} bytes has {len(rest)}")
    return rest[:length], rest[length:]


def _chunked(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        size = int(line or b"x", 16) if end else -1
        if size < 0 or rest[size : size + 2] != b"\r\n":
            raise BadlyFramed("an answer's chunks are cut short")
        body, rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, rest
