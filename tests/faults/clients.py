"""Applications that ask an agent on several connections, and the book of what they were answered."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.edge_agent.served import ARROW, JSON
from tests.edge_agent.test_wallaroo_sdk import arrow_file

PIPELINE = "demo"
Place = tuple[str, int]  # epoch and sequence
Name = tuple[str, int]  # request id and the row's place in the request


@dataclass
class Book:
    """What left the clients and what came back, until it is closed: an answer after that is none.

    A sync under way may return while the power is being cut, and its answer could not have left a real machine: hence
    the book is closed first, then the power goes.
    """

    answered: dict[str, int] = field(default_factory=dict)  # rows by request id
    asked: dict[str, int] = field(default_factory=dict)
    read: dict[Place, Name] = field(default_factory=dict)  # rows that were read from the log
    refused: list[str] = field(default_factory=list)
    is_open: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_answer(self, request_id: str, rows: int, status: int, body: bytes) -> None:
        with self._lock:
            if self.is_open and status == 200:
                self.answered[request_id] = rows
            elif self.is_open and status != 503:
                self.refused.append(f"{status}: {body[:200]!r}")

    def note_read(self, rows: list[dict[str, Any]]) -> None:
        with self._lock:
            if self.is_open:
                self.read.update((place_of(row), name_of(row)) for row in rows)

    def close(self) -> None:
        with self._lock:
            self.is_open = False


def place_of(row: dict[str, Any]) -> Place:
    """Where a row of the log stands."""
    return row["metadata"]["epoch"], row["metadata"]["seq"]


def name_of(row: dict[str, Any]) -> Name:
    """Which row of which request it is, by what the client sent."""
    return row["metadata"]["request_id"], int(row["in"]["x"][2])


class Client:
    """One application on one kept connection. Row r of its turn t is [number, t, r]: whoever reads the log knows it."""

    def __init__(self, port: int, name: str, number: int, book: Book) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._name, self._number, self._book = name, number, book

    def ask(self, turn: int) -> bool:
        """Ask once; False where the connection is gone."""
        rows = [{"x": [self._number, turn, row]} for row in range(1 + turn % 3)]
        request_id = f"{self._name}-{self._number}-{turn}"
        body, kind = (arrow_file(rows), ARROW) if turn % 4 == 3 else (json.dumps(rows).encode(), JSON)
        self._book.asked[request_id] = len(rows)
        try:
            self._http.request(
                "POST", f"/pipelines/{PIPELINE}", body, {"Content-Type": kind, "X-Request-Id": request_id}
            )
            answer = self._http.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            return False
        self._book.note_answer(request_id, len(rows), answer.status, data)
        return True

    def ask_until(self, stop: threading.Event) -> None:
        for turn in range(1 << 20):
            if stop.is_set() or not self.ask(turn):
                break
        self._http.close()


def read_log(port: int, after: int | None = None) -> list[dict[str, Any]]:
    """The rows of the log behind a sequence, or all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/logs" if after is None else f"/logs?after_seq={after}")
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"the log answers {answer.status}: {data[:200]!r}")
    rows: list[dict[str, Any]] = json.loads(data)
    return rows


def _watch(port: int, after: int | None, book: Book, stop: threading.Event) -> None:
    """Read the log while it is being written, as a person would who follows it."""
    while not stop.wait(0.05):
        try:
            rows = read_log(port, after)
        except (OSError, ValueError, http.client.HTTPException):
            return
        book.note_read(rows)
        after = max((place_of(row)[1] for row in rows), default=after)


@contextmanager
def load(port: int, name: str, book: Book, *, connections: int = 8, after: int | None = None) -> Iterator[None]:
    """Keep clients asking, and one reading the log behind `after`, until the block ends; the book is closed by then."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=Client(port, name, number, book).ask_until, args=(stop,))
        for number in range(connections)
    ]
    threads.append(threading.Thread(target=_watch, args=(port, after, book, stop)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + 90
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
