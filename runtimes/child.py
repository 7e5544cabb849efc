"""`Child`: one confined process behind a socket: started, asked, ended. What to do when it dies is `runtimes.worker`'s.

    magic `EPW1` · u32 length of the head · u64 length of the body · head (JSON) · body (raw columns)

A large body lies in memory shared by both instead, one piece for each direction; the head then says how much of it.
It cannot be cut or grown, and what is read from it is copied first. Nothing the child sends is believed: lengths are
bounded, the head is a known struct, the body is checked as raw columns.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import signal
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

log = logging.getLogger("edgepack.worker")

ANSWER_LIMIT = 1 << 30  # bytes of one answer's body
_ADD_SEALS, _SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1033, 1, 2, 4  # fcntl(2), "File Sealing"
_HEAD_LIMIT = 1 << 16
_START = struct.Struct("<4sIQ")
_MAGIC = b"EPW1"
_SHARED_FROM, _SHARED_BYTES = 1 << 16, 16 << 20  # what is smaller or larger goes through the socket
_LAST_WORDS = 4000  # characters of standard error that are kept
_ENDING_S = 5.0  # from a closed socket to the end of the process, on a busy machine
_LINES_A_MINUTE = 60  # that reach the log: a model that prints for each row must not fill a disk


class Lost(Exception):
    """The child died, hung or talks nonsense: it must be ended. The message says which."""


class Head(msgspec.Struct, frozen=True):
    """What stands before an answer; `error` when user-made code raised, or our own: then `blame` is its family."""

    error: str = ""
    blame: str = ""
    field: str | None = None  # that the error is about
    absent: bool = False  # a predictor's model is not on this disk: the body says which
    sandbox: str = ""
    shared: int = 0
    keeps_input: bool = False  # users' code holds on to what it was given: that memory is not used again


_HEADS = msgspec.json.Decoder(Head)


class Ends:
    """Both ends of what a child is spoken to by: a socket pair, and shared memory for each direction."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._shared = [_sealed_memory(name) for name in ("inbox", "outbox")]
        self.inbox, self.outbox = (mmap.mmap(number, _SHARED_BYTES) for number in self._shared)
        self.numbers = (self._theirs.fileno(), *self._shared)

    def close_theirs(self) -> None:
        """Close what only the child is to have from now on."""
        self._theirs.close()
        for number in self._shared:
            os.close(number)
        self._shared = []

    def close(self) -> None:
        """Close all of it."""
        self.close_theirs()
        self.ours.close()
        self.inbox.close()
        self.outbox.close()


class Child:
    """One process. `ask` is called by one thread at a time; `end` by any."""

    def __init__(self, process: subprocess.Popen[bytes], ends: Ends, name: str) -> None:
        self.pid = process.pid
        self.name = name
        self._process, self._ends, self._connection = process, ends, ends.ours
        self._keeps_input = False
        self._last: deque[str] = deque()
        self._size = 0

    @classmethod
    def start(cls, command: Sequence[str], ends: Ends, name: str, variables: dict[str, str]) -> Child:
        """Run a command that inherits its ends, and nothing else of ours. Raises OSError, with all ends closed."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=ends.numbers,
                env=variables,
                cwd="/",
            )
        except BaseException:
            ends.close()
            raise
        ends.close_theirs()
        return cls(process, ends, name)

    def ask(self, pieces: Sequence[bytes | memoryview], deadline: float) -> tuple[Head, bytes | bytearray]:
        """Send a body, or none at all, and wait for the answer. Raises Lost, also at the deadline (monotonic s)."""
        try:
            if pieces:
                self._send(pieces, deadline)
            magic, head_size, body_size = _START.unpack(self._exactly(_START.size, deadline))
            if magic != _MAGIC or head_size > _HEAD_LIMIT or body_size > ANSWER_LIMIT:
                raise Lost("it gave an answer that does not read")
            head = _HEADS.decode(self._exactly(head_size, deadline))
            self._keeps_input |= head.keeps_input
            if head.shared:
                return head, self._copied(head.shared)
            return head, self._exactly(body_size, deadline)
        except msgspec.MsgspecError as error:
            raise Lost("it gave an answer that does not read") from error
        except TimeoutError as error:
            raise Lost("it did not answer in time") from error
        except OSError as error:
            raise Lost(self._ending()) from error

    def outlive(self) -> str:
        """Read what it prints until it has ended; returns how it ended. For the thread that started it."""
        assert self._process.stdout is not None  # noqa: S101 - a pipe, as started
        minute, lines = 0.0, 0
        with self._process.stdout as printed:
            while line := printed.readline(_LAST_WORDS):
                text = line.decode(errors="replace").rstrip()
                self._keep(text)
                if time.monotonic() - minute > 60:
                    minute, lines = time.monotonic(), 0
                lines += 1
                if lines <= _LINES_A_MINUTE:
                    log.info("%s: %s", self.name, text)
        self._process.wait()
        return self._ending()

    def end(self) -> None:
        """Kill it. It holds nothing that it would have to put down in order."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Kill it, wait until it is gone, close the socket."""
        self.end()
        self._process.wait()
        self._ends.close()

    @property
    def pss_bytes(self) -> int:
        """Its proportional share of memory (proc(5)); 0 when it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)

    @property
    def cpu_s(self) -> float:
        """CPU seconds it has used so far (proc(5)); 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def last_words(self) -> str:
        """The end of what it printed, in one line."""
        return " ".join(" ".join(self._last).split())[-300:]

    def _send(self, pieces: Sequence[bytes | memoryview], deadline: float) -> None:
        size, head = sum(len(piece) for piece in pieces), b"{}"
        if _SHARED_FROM <= size <= _SHARED_BYTES and not self._keeps_input:
            at, head = 0, b'{"shared":%d}' % size
            for piece in pieces:
                self._ends.inbox[at : at + len(piece)] = piece
                at += len(piece)
            size, pieces = 0, ()
        start = _START.pack(_MAGIC, len(head), size) + head
        if size < _SHARED_FROM:
            start, pieces = b"".join((start, *pieces)), ()
        for piece in (start, *pieces):
            self._connection.settimeout(_left(deadline))
            self._connection.sendall(piece)

    def _copied(self, size: int) -> bytes:
        """What the child put into its memory; it may go on writing there, so it is copied before it is looked at."""
        if not 0 < size <= _SHARED_BYTES:
            raise Lost("it gave an answer that does not read")
        return self._ends.outbox[:size]

    def _exactly(self, size: int, deadline: float) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            self._connection.settimeout(_left(deadline))
            count = self._connection.recv_into(view)
            if not count:
                raise Lost(self._ending())
            view = view[count:]
        return buffer

    def _keep(self, text: str) -> None:
        self._last.append(text)
        self._size += len(text)
        while self._size > _LAST_WORDS and len(self._last) > 1:
            self._size -= len(self._last.popleft())

    def _ending(self) -> str:
        """How it ended, in words; the socket closes a moment before the process is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"it ended {ending(self._process.wait(_ENDING_S))}"
        return "it closed its socket"


def ending(code: int) -> str:
    """An exit status in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _sealed_memory(name: str) -> int:
    """Memory with a number, of a size that nobody can change: cut short, it would end the process that reads it."""
    number = os.memfd_create(f"edgepack-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(number, _SHARED_BYTES)
        fcntl.fcntl(number, _ADD_SEALS, _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW)
    except BaseException:
        os.close(number)
        raise
    return number


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
