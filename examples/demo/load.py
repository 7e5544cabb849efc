"""Applications on the factory floor: threads that ask for inferences and note what became of each request."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

RECORDS = "application/json; format=pandas-records"
ARROW = "application/vnd.apache.arrow.file"


@dataclass
class Tally:
    """What the applications saw: rows answered and rows whose answer was cut off, by request id; seconds of requests.

    `put_off` counts answers of 503: nothing was done, and the application asks again later.
    """

    answered: dict[str, int] = field(default_factory=dict)
    cut_off: dict[str, int] = field(default_factory=dict)
    put_off: int = 0
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rows_answered(self) -> int:
        """Rows for which an application holds an answer."""
        return sum(self.answered.values())

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latency, in ms."""
        ranked = sorted(self.seconds)
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Application:
    """One client with one kept-alive connection to the agent."""

    def __init__(self, port: int, pipeline: str, tally: Tally) -> None:
        self._path, self._tally = f"/pipelines/{pipeline}", tally
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, rows: Sequence[list[float]], arrow: bool) -> None:
        """Send rows in one request and note the outcome. A refused connection is no request: nothing was sent."""
        request_id = uuid.uuid4().hex
        body = arrow_body(rows) if arrow else json.dumps([{"inputs": row} for row in rows]).encode()
        media_type = ARROW if arrow else RECORDS
        headers = {"Content-Type": media_type, "Accept": media_type, "X-Request-Id": request_id}
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError:
            time.sleep(0.05)
            return
        begun = time.perf_counter()
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self._tally.cut_off[request_id] = len(rows)
            self._connection.close()
            return
        if answer.status == 503:
            self._tally.put_off += 1
            time.sleep(0.05)
            return
        self._tally.seconds.append(time.perf_counter() - begun)
        if answer.status == 200 and _rows_in(data, arrow) == len(rows):
            self._tally.answered[request_id] = len(rows)
        else:
            self._tally.refused.append(f"{answer.status}: {data[:200]!r}")


def ask_all(port: int, pipeline: str, rows: list[list[float]], tally: Tally) -> None:
    """Every row alone and all rows in one request, in both formats."""
    with Application(port, pipeline, tally) as application:
        for arrow in (False, True):
            for row in rows:
                application.ask([row], arrow)
            application.ask(rows, arrow)


@contextmanager
def steady_load(port: int, pipeline: str, rows: list[list[float]], tally: Tally, threads: int) -> Iterator[None]:
    """Keep `threads` applications asking, one to three rows a request, about 50 requests a second each."""
    stop = threading.Event()

    def work(offset: int) -> None:
        with Application(port, pipeline, tally) as application:
            for turn in itertools.count(offset):
                if stop.is_set():
                    return
                start = turn % len(rows)
                application.ask(rows[start : start + 1 + turn % 3], arrow=turn % 2 == 1)
                stop.wait(0.02)

    workers = [threading.Thread(target=work, args=(17 * each,)) for each in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def arrow_body(rows: Sequence[list[float]]) -> bytes:
    """The rows as an Arrow file, as pyarrow writes it."""
    table = pa.table({"inputs": pa.array(rows, pa.list_(pa.float32(), len(rows[0])))})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _rows_in(data: bytes, arrow: bool) -> int:
    if arrow:
        count: int = pa.ipc.open_file(pa.BufferReader(data)).read_all().num_rows
        return count
    return len(json.loads(data))
