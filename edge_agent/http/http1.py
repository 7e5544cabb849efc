"""HTTP/1.1 by the letter (RFC 9112), as far as bytes go: request heads, chunked bodies, answer heads. No I/O.

Two readings of one message are how requests are smuggled, so what the RFC does not allow is refused: bare line feeds,
folded headers, blanks before a colon, two lengths, lengths that are no plain number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

_LINE = re.compile(rb"([A-Z][A-Z_-]{0,30}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
_LONGEST_CHUNK_LINE = 4096  # bytes: a chunk's length with extensions, or a trailer
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,15}")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Refused(Exception):
    """What came is no request that can be answered; the connection ends after this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Head:
    """The head of a request. `path` is decoded and still bytes; header names are in lower case."""

    method: str
    target: str
    path: bytes
    query: str
    version: str
    headers: dict[str, str]
    length: int = 0
    is_chunked: bool = False
    keeps_alive: bool = True
    expects_100: bool = False
    found: Any = field(default=None)  # what the server made of method and path, kept with a head that is seen again
    raw: bytes = b""  # as it came, of a head that is kept
    seen: int = 0
    track: Any = None  # what requests with this head leave behind


def parse_head(data: bytes) -> Head:
    """A head with the empty line that ends it. Raises Refused."""
    line, _, fields = data[:-2].partition(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise Refused(400, "the first line is not a request's: expected METHOD PATH HTTP/1.1")
    if match[3] != b"1":
        raise Refused(505, f"HTTP/{match[3].decode()}.{match[4].decode()} is not spoken here: use HTTP/1.1")
    if not _FIELDS.fullmatch(fields):
        raise Refused(400, "a header line is not 'name: value'")
    headers = _headers(fields)
    target = match[2].decode("ascii")
    path, _, query = _origin(target).partition("?")
    minor = match[4].decode()
    head = Head(match[1].decode("ascii"), target, unquote_to_bytes(path), query, f"HTTP/1.{minor}", headers)
    if minor != "0" and "host" not in headers:
        raise Refused(400, "the Host header is missing")
    _frame(head)
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    head.keeps_alive = "keep-alive" in options if minor == "0" else "close" not in options
    head.expects_100 = headers.get("expect", "").lower() == "100-continue" and minor != "0"
    return head


def _origin(target: str) -> str:
    """Path and query of a target that may be a whole URL, as to a proxy."""
    if target.startswith(("http://", "https://")):
        _, slash, rest = target.partition("//")[2].partition("/")
        return "/" + rest if slash else "/"
    return target


def _headers(fields: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in headers and name in ("content-length", "transfer-encoding", "host"):
            raise Refused(400, f"header '{name}' stands twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _frame(head: Head) -> None:
    """How long the body is."""
    length, encoding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
    if length is not None and (encoding is not None or not re.fullmatch("[0-9]{1,18}", length)):
        raise Refused(400, "Content-Length is not one plain number of bytes")
    if encoding is not None and encoding.lower() != "chunked":
        raise Refused(501, f"transfer encoding '{encoding[:40]}' is not known here: send the body as it is, or chunked")
    head.length, head.is_chunked = int(length or 0), encoding is not None


class Chunks:
    """A chunked body, fed as it comes in. `rest` is what came behind its end."""

    def __init__(self, limit: int) -> None:
        self.body = bytearray()
        self.is_whole = False
        self.rest = b""
        self._limit = limit
        self._waiting = bytearray()
        self._left = -1  # of the current chunk with its line end; -1: a length comes next, -2: trailers

    def feed(self, data: bytes) -> None:
        """Take more bytes. Raises Refused for what is no chunk, and above the limit."""
        self._waiting += data
        while not self.is_whole and self._step():
            pass
        if self.is_whole:
            self.rest, self._waiting = bytes(self._waiting), bytearray()

    def _step(self) -> bool:
        if self._left >= 0:
            return self._take_chunk()
        line = self._line()
        if line is None:
            return False
        if self._left == -2:
            self.is_whole = not line
            return True
        digits = line.split(b";", 1)[0].strip(b" \t")
        if not _CHUNK.fullmatch(digits):
            raise Refused(400, "the body is badly chunked: expected the length of the next chunk in hexadecimal digits")
        size = int(digits, 16)
        if len(self.body) + size > self._limit:
            raise Refused(413, too_large(self._limit))
        self._left = size + 2 if size else -2
        return True

    def _take_chunk(self) -> bool:
        if self._left > 2:
            piece = self._waiting[: self._left - 2]
            self.body += piece
            del self._waiting[: len(piece)]
            self._left -= len(piece)
        if self._left > 2 or len(self._waiting) < 2:
            return False
        if self._waiting[:2] != b"\r\n":
            raise Refused(400, "the body is badly chunked: a chunk is longer than it says")
        del self._waiting[:2]
        self._left = -1
        return True

    def _line(self) -> bytes | None:
        end = self._waiting.find(b"\n", 0, _LONGEST_CHUNK_LINE)
        if end < 0:
            if len(self._waiting) >= _LONGEST_CHUNK_LINE:
                raise Refused(400, "the body is badly chunked: a line of it has no end")
            return None
        line = bytes(self._waiting[: end + 1])
        if not line.endswith(b"\r\n"):
            raise Refused(400, "the body is badly chunked: a line of it does not end with CR LF")
        del self._waiting[: end + 1]
        return line[:-2]


def too_large(limit: int) -> str:
    """What a client is told whose body is above the limit."""
    return f"the body is larger than {size_of(limit)}: send fewer rows at once"


def size_of(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / (1 << 20):g} MiB" if count >= 1 << 20 else f"{count} bytes"


class AnswerHeads:
    """Heads of answers. What repeats is kept for a second, as long as the date is the same."""

    def __init__(self) -> None:
        self._starts: dict[tuple[int, str], bytes] = {}
        self._date = b""
        self._second = 0

    def start(self, status: int, media_type: str) -> bytes:
        """All that stands before the length."""
        if int(time.time()) != self._second:
            self.date()
        return self._starts.get((status, media_type)) or self._start(status, media_type)

    def date(self) -> bytes:
        """The Date line of this second."""
        now = int(time.time())
        if self._second != now:
            self._starts = {}
            self._date = f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
            self._second = now
        return self._date

    def whole(
        self, status: int, media_type: str, length: int, more: Iterable[tuple[str, str]] = (), *, close: bool = False
    ) -> bytes:
        """The head of an answer whose length is known."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in more])
        end = b"Connection: close\r\n\r\n" if close else b"\r\n"
        return b"%bContent-Length: %d\r\n%b%b" % (
            self.start(status, media_type),
            length,
            lines.encode("latin-1"),
            end,
        )

    def _start(self, status: int, media_type: str) -> bytes:
        line = f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"
        text = f"{line}\r\nServer: edgepack\r\nContent-Type: {media_type}\r\n"
        start = self._starts[status, media_type] = text.encode("latin-1") + self._date
        return start
