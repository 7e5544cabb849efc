"""Overload: what finds no room is told so at once, and what was accepted keeps its latency."""

from __future__ import annotations

import json
import socket
import threading

import requests

from edge_agent.http.server import Limits
from edge_agent.http.threads import Threads
from tests.edge_agent.served import JSON, Front, Gated, Served, until
from tests.edge_agent.test_doors_sockets import HEAD, status_and_body

ROWS = [{"x": [1, 2, 3]}]


def test_beyond_threads_and_queue_requests_are_refused_at_once(tmp_path):
    with Served(tmp_path, Front(threads=1, queue=2, limits=Limits(request_s=60))) as served:
        model, answers = Gated(served.add()), []

        def ask():
            answer = requests.post(
                served.url + "/infer", data=json.dumps(ROWS), headers={"Content-Type": JSON}, timeout=60
            )
            answers.append((answer.status_code, answer.headers.get("Retry-After")))

        clients = [threading.Thread(target=ask) for _ in range(10)]
        for client in clients:
            client.start()
        until(lambda: len(answers) == 7, "all but one at work and two waiting are refused while the model computes")
        assert answers == [(503, "1")] * 7
        model.go_on.set()
        for client in clients:
            client.join()
        assert answers[7:] == [(200, None)] * 3
        assert len(served.post("/logs").json()) == 3
        assert "edgepack_queue 0" in served.get("/metrics").text


def test_a_client_that_sends_many_requests_at_once_is_answered_in_order(tmp_path):
    with Served(tmp_path, Front()) as served:
        served.add()
        bodies = [json.dumps([{"x": [turn, 0, 0]}]).encode() for turn in range(200)]
        with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
            client.sendall(b"".join(b"%bContent-Length: %d\r\n\r\n" % (HEAD, len(body)) + body for body in bodies))
            found = b""
            while found.count(b"HTTP/1.1 200") < 200 or not found.endswith(b"}]"):
                found += client.recv(1 << 16)
        rows = [json.loads(part.split(b"\r\n\r\n", 1)[1])[0] for part in found.split(b"HTTP/1.1 200 OK")[1:]]
        assert [row["out"]["y"] for row in rows] == [[2.0 * turn] for turn in range(200)]


def test_more_connections_than_there_is_room_for_cost_the_idlest_only(tmp_path):
    with Served(tmp_path, Front(limits=Limits(connections=8))) as served:
        served.add()
        clients = [socket.create_connection(("127.0.0.1", served.server.port), timeout=30) for _ in range(20)]
        assert served.post(rows=ROWS).status_code == 200
        for client in clients:
            client.close()


def test_large_bodies_share_a_bounded_room(tmp_path):
    limits = Limits(body_bytes=1 << 20, bodies_bytes=2 << 20)
    with Served(tmp_path, Front(limits=limits)) as served:
        served.add()
        start = b"%bContent-Length: %d\r\n\r\n[" % (HEAD, 1 << 20)
        clients = [socket.create_connection(("127.0.0.1", served.server.port), timeout=30) for _ in range(3)]
        for client in clients[:2]:
            client.sendall(start)
        until(lambda: served.server._held == 2 << 20, "room is set aside for two")
        clients[2].sendall(start)
        status, body = status_and_body(clients[-1].recv(65536))
        assert status == 503
        assert "large bodies" in body["error"]
        for client in clients:
            client.close()
        until(lambda: served.server._held == 0, "the room is given back")
        assert served.post(rows=ROWS).status_code == 200


def test_threads_are_started_when_needed_and_end_when_told():
    threads, done = Threads("test", 2, 1), threading.Event()
    gate = threading.Event()
    assert [threads.submit(gate.wait) for _ in range(4)] == [True, True, True, False]
    until(lambda: threads.waiting == 1, "both threads have begun")
    gate.set()
    until(lambda: threads.submit(done.set), "there is room again")
    assert done.wait(30)
    threads.stop()
    for thread in threads._threads:
        thread.join(30)
        assert not thread.is_alive()
