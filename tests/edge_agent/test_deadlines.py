"""Time limits: a request that takes too long is told so, a slow client is not waited for, health is never held up."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from edge_agent.server import Limits
from tests.edge_agent.served import JSON, Front, Served
from tests.edge_agent.test_doors_sockets import HEAD, status_and_body

ROWS = [{"x": [1, 2, 3]}]


class Slow:
    """Holds a pipeline's engine up, as a heavy model would."""

    def __init__(self, active, seconds):
        self.active, self.seconds, self.calls = active, seconds, 0
        self._engine = active.short_way._engine
        active.short_way._engine = self

    def infer_tensors(self, tensors):
        self.calls += 1
        time.sleep(self.seconds)
        return self._engine.infer_tensors(tensors)


@pytest.fixture
def served(tmp_path):
    limits = Limits(request_s=0.4, receive_s=0.4, idle_s=0.8)
    with Served(tmp_path, Front(limits=limits)) as served:
        yield served


def test_a_request_that_takes_too_long_gets_a_503_and_is_not_logged(served):
    slow = Slow(served.add(), 1.2)
    begun = time.monotonic()
    answer = served.post(rows=ROWS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "longer than it may" in answer.json()["error"]
    assert time.monotonic() - begun < 1.1
    time.sleep(1.2)
    assert served.post("/logs").json() == []
    slow.seconds = 0
    assert served.post(rows=ROWS).status_code == 200
    figures = served.get("/metrics").text
    assert 'edgepack_requests_total{door="wallaroo",pipeline="demo",code="503"} 1' in figures


def test_health_and_short_requests_are_not_held_up_by_a_slow_model(served):
    Slow(served.add(), 0.3)
    served.add("quick")
    served.post("/pipelines/quick", ROWS)
    asking = threading.Thread(target=served.post, kwargs={"path": "/pipelines/demo", "rows": ROWS})
    asking.start()
    time.sleep(0.05)
    begun = time.monotonic()
    with Other(served) as other:
        assert other.ask("GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200")
        body = json.dumps(ROWS)
        head = (
            f"POST /pipelines/quick HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        assert other.ask(head + body).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - begun < 0.2
    asking.join()


class Other:
    """A second client."""

    def __init__(self, served):
        self._socket = socket.create_connection(("127.0.0.1", served.server.port), timeout=3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self, text):
        self._socket.sendall(text.encode())
        return self._socket.recv(65536)


@pytest.mark.parametrize("start", [b"POST /infer HT", HEAD, HEAD + b"Content-Length: 50\r\n\r\n[{"])
def test_a_request_that_trickles_in_is_ended_with_a_408(served, start):
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=4) as client:
        client.sendall(start)
        for _ in range(12):
            time.sleep(0.1)
            try:
                client.sendall(b" ")
            except OSError:
                break
        status, body = status_and_body(client.recv(65536))
    assert (status, body["code"]) == (408, 408)


def test_an_idle_connection_is_closed_without_a_word(served):
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=4) as client:
        assert client.recv(100) == b""


def test_a_client_that_does_not_read_its_answer_is_dropped(served):
    served.add()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=4) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(ROWS * 30_000).encode()
        client.sendall(b"%bContent-Length: %d\r\n\r\n" % (HEAD, len(body)) + body)
        deadline = time.monotonic() + 8
        while served.server._connections and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not served.server._connections
