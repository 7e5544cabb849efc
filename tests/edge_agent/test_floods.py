"""Many connections, slow ones, and ones that end in the middle: who asks properly is answered all the while."""

from __future__ import annotations

import json
import resource
import socket
import struct
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edge_agent.http.connection import State
from edge_agent.http.server import Limits
from tests.edge_agent.served import JSON, Front, Served, until
from tests.faults.device import Device
from tests.faults.wire import read_answers

BODY = json.dumps([{"x": [1, 2, 3]}]).encode()
HEAD = f"POST /pipelines/demo HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\n".encode()
ASKED = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
DAWDLERS = 1000
GROWTH_MIB = 64


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front(limits=Limits(connections=40, receive_s=120.0))) as served:
        served.add()
        yield served


def connect(port):
    return closing(socket.create_connection(("127.0.0.1", port), timeout=30))


def all_of(connection):
    found = b""
    while piece := connection.recv(1 << 16):
        found += piece
    return read_answers(found)


def outputs(answer):
    return [row["out"]["y"] for row in json.loads(answer.body)]


def ask(port):
    with connect(port) as connection:
        connection.sendall(ASKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        (answer,) = all_of(connection)
    assert answer.status == 200
    return outputs(answer)


def test_a_client_that_has_ended_its_side_gets_its_answers(served):
    with connect(served.server.port) as connection:
        connection.sendall(ASKED + HEALTH + ASKED)
        connection.shutdown(socket.SHUT_WR)
        answers = all_of(connection)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert outputs(answers[2]) == [[12.0]]


def test_requests_before_one_that_is_none_are_answered_and_those_behind_are_not(served):
    with connect(served.server.port) as connection:
        connection.sendall(ASKED + HEALTH + b"nonsense\r\n\r\n" + ASKED)
        answers = all_of(connection)
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert answers[-1].headers["connection"] == "close"
    assert len(served.post("/logs").json()) == 1


def test_a_request_that_comes_byte_by_byte_is_answered(served):
    with connect(served.server.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(ASKED)):
            connection.sendall(ASKED[at : at + 1])
        connection.shutdown(socket.SHUT_WR)
        (answer,) = all_of(connection)
    assert outputs(answer) == [[12.0]]


def is_known(server, count, begun):
    """Whether the server has taken so many connections, and read what they have sent, or taken as many as it may."""
    taken = list(server._connections.values())
    return len(taken) >= min(count, 39) and all(each.state is State.READING for each in taken if begun)


def is_full_of_bodies(server, count):
    return sum(each.head is not None for each in list(server._connections.values())) == count


@pytest.mark.parametrize("begun", [b"", b"POST /pipelines/demo HT"], ids=["silent", "half a head"])
def test_connections_that_dawdle_make_room_for_those_that_ask(served, begun):
    with ExitStack() as stack:
        for number in range(100):
            connection = stack.enter_context(connect(served.server.port))
            connection.sendall(begun)
            if number < 40:
                until(lambda number=number: is_known(served.server, number + 1, begun))
        for _ in range(20):
            assert ask(served.server.port) == [[12.0]]
        assert len(served.server._connections) <= 40


def test_where_all_room_is_taken_the_next_are_served_as_soon_as_there_is_some(served):
    with ExitStack() as stack:
        for number in range(1, 41):
            connection = stack.enter_context(connect(served.server.port))
            connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n[")  # half a body is no dawdling yet
            until(lambda number=number: is_full_of_bodies(served.server, number))
        assert not served.server._accepts
        waiting = stack.enter_context(connect(served.server.port))
        waiting.sendall(ASKED)
        connection.close()
        assert waiting.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_clients_that_hang_up_as_they_are_told_to_go_on_are_no_fault(served, caplog):
    for _ in range(50):
        with connect(served.server.port) as connection:
            connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert ask(served.server.port) == [[12.0]]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_thousand_dawdlers_cost_little_memory_and_no_answer(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * DAWDLERS:
        pytest.skip(f"this machine allows {hard} open files, {2 * DAWDLERS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * DAWDLERS), hard))
    try:
        with Device.of_all_doors(tmp_path, tmp_path / "agent.log") as agent, ExitStack() as stack:
            port = agent.port()
            ask(port)
            before = rss_mib(agent)
            for at in range(DAWDLERS):
                connection = stack.enter_context(connect(port))
                connection.sendall(ASKED[: 20 + at % 100])
                if at % 50 == 0:
                    assert ask(port) == [[12.0]]
            assert ask(port) == [[12.0]]
            assert rss_mib(agent) - before < GROWTH_MIB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rss_mib(agent):
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
