"""A container's side of `/invocations`, as a test wants it to behave."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Asked(BaseHTTPRequestHandler):
    """One request: `said` is its JSON, `dialect` the content type."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answer: Callable[[Asked], None]
    before: Callable[[], None]
    log: list[tuple[str, Any]]

    def do_POST(self) -> None:
        type(self).before()
        self.said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.dialect = self.headers["Content-Type"]
        self.log.append((self.dialect, self.said))
        type(self).answer(self)

    def give(self, said: Any, status: int = 200, length: int | None = None) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def sums(rows: list[dict[str, Any]]) -> list[float]:
    """What the stand-in computes: each row's `a` and `b` together."""
    return [row["a"] + row["b"] for row in rows]


def new(asked: Asked) -> None:
    """MLflow 2.x: `dataframe_records` in, `predictions` out; all else is 400."""
    if asked.dialect != "application/json" or "dataframe_records" not in asked.said:
        asked.give({"error_code": "BAD_REQUEST", "message": "The input must be a JSON dictionary"}, 400)
        return
    asked.give({"predictions": sums(asked.said["dataframe_records"])})


def old(asked: Asked) -> None:
    """MLflow 1.x: records with their own content type in, a list out."""
    if asked.dialect != "application/json; format=pandas-records":
        asked.give({"error_code": "MALFORMED_REQUEST", "message": "Failed to parse input as a DataFrame"}, 400)
        return
    asked.give(sums(asked.said))


@contextmanager
def scoring(
    answer: Callable[[Asked], None], before: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server of that behaviour, which does `before` before it reads a request: its URL, and what it was asked."""
    log: list[tuple[str, Any]] = []
    handler = type("Own", (Asked,), {"answer": answer, "before": staticmethod(before), "log": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask_agent(url: str, path: str = "/infer") -> tuple[int, Any]:
    """An agent's answer to one row of the stand-in's fields: status, and the row or the error."""
    header = {"Content-Type": "application/json; format=pandas-records"}
    request = urllib.request.Request(f"{url}{path}", b'[{"a": 1.5, "b": 2}]', header)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)[0]["out"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]
