"""What HTTP clients do to a server below the level of routes, byte by byte."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest

from edge_agent.http.server import Limits, Server
from edgepack.errors import BadInput
from tests.edge_agent.served import JSON, Served, until
from tests.runtimes.models import GOLDEN

BODY = json.dumps([{"x": [1, 2, 3]}]).encode()
HEAD = b"POST /infer HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture
def served(tmp_path, front):
    with Served(tmp_path, front) as served:
        served.add()
        yield served


def talk(served, *parts, half_close=False):
    """Send bytes, return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


def status_and_body(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


def works(served):
    return served.post(rows=[{"x": [1, 2, 3]}]).json()[0]["out"] == {"y": [12.0]}


def test_a_body_cut_short_is_a_400_and_is_not_logged(served):
    answer = talk(served, HEAD + b"Content-Length: 500\r\n\r\n" + BODY, half_close=True)
    status, body = status_and_body(answer)
    assert status == 400
    assert "cut short" in body["error"]
    assert served.post("/logs").json() == []
    assert works(served)


def test_a_chunked_body_is_read_and_the_connection_stays(served):
    http_ = http.client.HTTPConnection("127.0.0.1", served.server.port)
    for _ in range(2):
        http_.request("POST", "/infer", iter([BODY[:7], BODY[7:]]), {"Content-Type": JSON}, encode_chunked=True)
        answer = http_.getresponse()
        assert (answer.status, json.loads(answer.read())[0]["out"]) == (200, {"y": [12.0]})
    http_.close()


@pytest.mark.parametrize("chunks", [b"zz\r\n[]\r\n", b'5\r\n[{"x', b"2\r\n[]XX0\r\n\r\n", b"-5\r\n[]\r\n0\r\n\r\n"])
def test_a_badly_chunked_body_is_a_400(served, chunks):
    answer = talk(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, half_close=True)
    assert status_and_body(answer)[0] == 400
    assert works(served)


@pytest.fixture
def small_limit(served, monkeypatch):
    monkeypatch.setattr("edge_agent.http.connection._LINGER_S", 30)  # it ends with the client's side of the connection
    served.server.limits = Limits(body_bytes=100_000)


def test_a_body_above_the_limit_is_a_413_in_json_while_the_client_still_sends(served, small_limit):
    body = b"[" + b" " * 3_000_000
    answer = talk(served, HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body, half_close=True)
    status, said = status_and_body(answer)
    assert status == 413
    assert said["code"] == 413
    assert works(served)


def test_a_chunked_body_above_the_limit_is_a_413(served, small_limit):
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = talk(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 10, half_close=True)
    assert status_and_body(answer)[0] == 413
    assert works(served)


def test_the_default_limit_is_64_mib(served):
    answer = talk(served, HEAD + b"Content-Length: %d\r\n\r\n" % ((64 << 20) + 1), half_close=True)
    assert status_and_body(answer)[0] == 413


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"nonsense\r\n\r\n", {400}),
        (b"GET / HTTP/9.9\r\n\r\n", {505}),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbroken header\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", {413}),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\n\r\n", {414}),
        (HEAD + b"Content-Length: -5\r\n\r\n", {400}),
        (HEAD + b"Content-Length: 1_0\r\n\r\n0123456789", {400}),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", {501}),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: a\r\n\r\n", {404}),
        (b"GET /pipelines/..%2f..%2fetc HTTP/1.1\r\nHost: a\r\n\r\n", {404, 405}),
    ],
)
def test_garbage_is_refused_in_json_and_the_next_request_works(served, request_bytes, statuses):
    status, body = status_and_body(talk(served, request_bytes, half_close=True))
    assert status in statuses
    assert body["code"] == status
    assert body["source"] == "agent"
    assert works(served)


def test_a_client_that_hangs_up_in_the_middle_harms_nobody(served, caplog):
    for cut in (b"", HEAD[:20], HEAD, HEAD + b"Content-Length: 500\r\n\r\n" + BODY):
        with socket.create_connection(("127.0.0.1", served.server.port)) as connection:
            connection.sendall(cut)
    assert works(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_two_requests_in_one_packet_are_both_answered(served):
    one = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert talk(served, one + last).count(b'{"status":"alive"}') == 2


def test_a_client_that_expects_100_continue_gets_it(served):
    answer = talk(
        served, HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY
    )
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_a_busy_port_is_one_line_that_names_it(served):
    with pytest.raises(BadInput, match=rf"port {served.server.port} on 127.0.0.1 is in use") as caught:
        Server(lambda environ, start: [], "127.0.0.1", served.server.port)
    assert caught.value.field == "port"


def test_an_address_of_another_machine_is_refused(served):
    with pytest.raises(BadInput, match=r"'203\.0\.113\.7' is no address of this machine"):
        Server(lambda environ, start: [], "203.0.113.7", 0)


def test_small_packets_are_not_held_back(served):
    with socket.create_connection(("127.0.0.1", served.server.port)):
        listening = served.server._socket
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_stop_ends_requests_in_progress_and_takes_no_more():
    entered, answered = threading.Event(), []

    def slow(environ, start):
        entered.set()
        time.sleep(0.4)
        start("200 OK", [("Content-Length", "4")])
        return [b"done"]

    server = Server(slow, "127.0.0.1", 0).start()

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/")
        answered.append(connection.getresponse().read())
        connection.close()

    client = threading.Thread(target=ask)
    client.start()
    assert entered.wait(30)
    server.stop()
    client.join()
    assert answered == [b"done"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_switches_under_load_fail_no_request(served):
    """Eight clients ask without pause while the pipeline is replaced again and again; old versions are closed."""
    stop, failures, answers = threading.Event(), [], []
    versions = [served.serving.pipelines[0].loaded]

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", served.server.port)
        while not stop.is_set():
            connection.request("POST", "/infer", BODY, {"Content-Type": JSON})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                failures.append(body)
            else:
                answers.append(json.loads(body)[0]["out"]["y"][0])
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for turn in range(10):
        enough = len(answers) + 2 * len(clients)  # each client asks at least once after this moment
        until(lambda enough=enough: len(answers) > enough or failures)
        versions.append(
            served.add(factor=3.0 if turn % 2 == 0 else 2.0, golden=GOLDEN[:-1] + b" " * turn + b"]").loaded
        )
    stop.set()
    for client in clients:
        client.join()
    assert failures == []
    assert set(answers) == {12.0, 18.0}
    assert len(served.post("/logs").json()) == len(answers)
    assert [version._steps[0]._session is None for version in versions] == [True] * 10 + [False]
