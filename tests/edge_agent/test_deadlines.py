"""Time limits: a request that takes too long is told so, a slow client is not waited for, health is never held up."""

from __future__ import annotations

import json
import select
import socket
import threading

import pytest

from edge_agent.http.server import Limits
from tests.edge_agent.served import JSON, Front, Gated, Served, until
from tests.edge_agent.test_doors_sockets import HEAD, status_and_body

ROWS = [{"x": [1, 2, 3]}]


@pytest.fixture
def served(tmp_path):
    """A server that waits for slow clients for a short time only."""
    with Served(tmp_path, Front(limits=Limits(receive_s=0.4))) as served:
        yield served


def test_a_request_that_takes_too_long_gets_a_503_and_is_not_logged(tmp_path):
    with Served(tmp_path, Front(threads=1, limits=Limits(request_s=0.4))) as served:
        model = Gated(served.add())
        answer = served.post(rows=ROWS)  # while the model still computes
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "longer than it may" in answer.json()["error"]
        served.server.limits = Limits()
        model.go_on.set()
        assert served.post(rows=[{"x": [4, 5, 6]}]).status_code == 200  # behind the first, in the same thread
        assert [row["in"]["x"] for row in served.post("/logs").json()] == [[4, 5, 6]]
        figures = served.get("/metrics").text
        assert 'edgepack_requests_total{door="wallaroo",pipeline="demo",code="503"} 1' in figures


def test_health_and_short_requests_are_not_held_up_by_a_slow_model(tmp_path):
    with Served(tmp_path, Front()) as served:
        model = Gated(served.add())
        served.add("quick")
        served.post("/pipelines/quick", ROWS)
        asking = threading.Thread(target=served.post, kwargs={"path": "/pipelines/demo", "rows": ROWS})
        asking.start()
        assert model.begun.wait(30)
        with Other(served) as other:
            assert other.ask("GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200")
            body = json.dumps(ROWS)
            head = f"POST /pipelines/quick HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\n"
            assert other.ask(f"{head}Content-Length: {len(body)}\r\n\r\n{body}").startswith(b"HTTP/1.1 200")
        assert asking.is_alive()
        model.go_on.set()
        asking.join()


class Other:
    """A second client."""

    def __init__(self, served):
        self._socket = socket.create_connection(("127.0.0.1", served.server.port), timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self, text):
        self._socket.sendall(text.encode())
        return self._socket.recv(65536)


@pytest.mark.parametrize("start", [b"POST /infer HT", HEAD, HEAD + b"Content-Length: 50\r\n\r\n[{"])
def test_a_request_that_trickles_in_is_ended_with_a_408(served, start):
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
        client.sendall(start)
        for _ in range(12):
            if select.select([client], [], [], 0.1)[0]:
                break
            client.sendall(b" ")
        status, body = status_and_body(client.recv(65536))
    assert (status, body["code"]) == (408, 408)


def test_an_idle_connection_is_closed_without_a_word(tmp_path):
    served = Served(tmp_path, Front(limits=Limits(idle_s=0.4)))
    with served, socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
        assert client.recv(100) == b""


def test_a_client_that_does_not_read_its_answer_is_dropped(served):
    served.add()
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(ROWS * 30_000).encode()
        client.sendall(b"%bContent-Length: %d\r\n\r\n" % (HEAD, len(body)) + body)
        answered = 'code="200"} 1'
        until(lambda: answered in served.server._hot.metrics.render(served.serving), "the answer is on its way")
        until(lambda: not served.server._connections, "the connection is dropped")
