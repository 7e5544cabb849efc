"""One message: magic, two lengths, a JSON head, a body. The parent's side is `runtimes.child`.

A large body lies in memory shared with the parent, one piece for each direction; the head then says how much of it. A
body of 6 MB takes a fifth of the time that the socket needs, and less where the machine has other work.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

START = struct.Struct("<4sIQ")
MAGIC = b"EPW1"
SHARED_FROM = 1 << 16  # bytes


class Gone(Exception):
    """The other side closed the socket."""


class Channel:
    """The child's end: a socket and two pieces of shared memory, by their numbers."""

    def __init__(self, numbers: str) -> None:
        socket_number, *shared = (int(number) for number in numbers.split(","))
        self._connection = socket.socket(fileno=socket_number)
        self._inbox, self._outbox = (_mapped(number) for number in shared)
        self._keeps_input = False

    def receive(self) -> Any:
        """Wait for one message and return its body: writable, as users' code may change what it is given."""
        magic, head_size, body_size = START.unpack(self._exactly(START.size))
        if magic != MAGIC:
            raise Gone
        head = json.loads(bytes(self._exactly(head_size)))
        if head.get("shared"):
            return memoryview(self._inbox)[: head["shared"]]
        return self._exactly(body_size)

    def done(self, body: Any) -> None:
        """A body is no longer used by us. If users' code keeps parts of it, shared memory is not used for it again."""
        if isinstance(body, memoryview):
            body.release()
            try:
                self._inbox.resize(len(self._inbox))  # to the size it has: refused while anything points into it
            except BufferError:
                self._keeps_input = True

    def put(self, body: Sequence[Any]) -> tuple[int, bytes]:
        """Copy the buffers of an answer to where they are sent from: (bytes in shared memory, bytes for the socket)."""
        views = [memoryview(part).cast("B") for part in body if memoryview(part).nbytes]
        size = sum(len(view) for view in views)
        if not SHARED_FROM <= size <= len(self._outbox):
            return 0, b"".join(views)
        at = 0
        for view in views:
            self._outbox[at : at + len(view)] = view
            at += len(view)
        return size, b""

    def send(self, head: dict[str, Any], shared: int = 0, body: bytes = b"") -> None:
        """Send one message."""
        said = json.dumps({**head, "shared": shared, "keeps_input": self._keeps_input}).encode()
        start = START.pack(MAGIC, len(said), len(body)) + said
        for piece in [start, body] if len(body) > SHARED_FROM else [start + body]:
            self._connection.sendall(piece)

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = self._connection.recv_into(view)
            if not count:
                raise Gone
            view = view[count:]
        return buffer


def _mapped(number: int) -> mmap.mmap:
    mapped = mmap.mmap(number, os.fstat(number).st_size)
    os.close(number)
    return mapped
