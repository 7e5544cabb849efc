"""The server itself: heads, chunks and WSGI answers by the letter, and a stop that loses nothing."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.http.connection import State
from edge_agent.http.http1 import AnswerHeads, Chunks, Refused, parse_head
from edge_agent.http.server import Server
from edge_agent.http.wsgi import Reply
from tests.edge_agent.served import JSON, Front, Gated, Served, until


def head(*lines, first="GET /a?b=1 HTTP/1.1", host="Host: a"):
    return "\r\n".join([first, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def test_a_head_is_taken_apart():
    found = parse_head(head("X-One: 1", "x-one:2", "Accept:\t*/* ", first="POST /a%20b/c?d=%20 HTTP/1.1"))
    assert (found.method, found.path, found.query, found.keeps_alive) == ("POST", b"/a b/c", "d=%20", True)
    assert found.headers == {"host": "a", "x-one": "1, 2", "accept": "*/*"}


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        (head("Connection: close"), False),
        (head("Connection: keep-alive, CLOSE"), False),
        (head(first="GET / HTTP/1.0"), False),
        (head("Connection: keep-alive", first="GET / HTTP/1.0", host=""), True),
    ],
)
def test_who_keeps_a_connection(lines, keeps):
    assert parse_head(lines).keeps_alive is keeps


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(host=""), 400),
        (head("Host: b"), 400),
        (head("Content-Length: 1", "Content-Length: 1"), 400),
        (head("Content-Length: +1"), 400),
        (head("Content-Length: 1, 1"), 400),
        (head("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding: chunked, gzip"), 501),
        (head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (head("X : 1"), 400),
        (head(" folded"), 400),
        (head("X: a\nContent-Length: 5"), 400),
        (head("X: a\x00b"), 400),
        (head(first="GET  / HTTP/1.1"), 400),
        (head(first="GET / HTTP/2.0"), 505),
        (head(first="GET /\xe9 HTTP/1.1"), 400),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(data, status):
    with pytest.raises(Refused) as caught:
        parse_head(data)
    assert caught.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_make_the_head_parser_fail_in_another_way(data):
    try:
        parse_head(data + b"\r\n\r\n")
    except Refused as refused:
        assert refused.status in (400, 501, 505)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 9), st.binary(max_size=5))
def test_chunks_are_read_however_they_are_cut(pieces, step, behind):
    data = (
        b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: 1\r\n\r\n" + behind
    )
    chunks = Chunks(1000)
    at = 0
    while not chunks.is_whole:
        chunks.feed(data[at : at + step])
        at += step
    assert bytes(chunks.body) == b"".join(pieces)
    assert chunks.rest + data[at:] == behind


@pytest.mark.parametrize(
    "data", [b"g\r\n", b"-1\r\n", b"0x1\r\n", b"1_0\r\n", b"1\r\nab\r\n", b"1\n", b"\r\n", b"1" * 5000]
)
def test_what_is_no_chunk_is_refused(data):
    with pytest.raises(Refused):
        Chunks(1000).feed(data)


def test_an_answers_head_is_whole_and_dated():
    text = AnswerHeads().whole(503, "application/json", 5, (("Retry-After", "1"),), close=True).decode()
    lines = text.split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert {"Content-Length: 5", "Retry-After: 1", "Connection: close", "Content-Type: application/json"} <= set(lines)
    assert any(line.startswith("Date: ") and line.endswith(" GMT") for line in lines)
    assert text.endswith("\r\n\r\n")


def asked(application, method="GET", version=11, path="/"):
    with Server(application, "127.0.0.1", 0) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection._http_vsn, connection._http_vsn_str = version, f"HTTP/1.{version - 10}"
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
    return answer, body


def test_an_answer_without_a_length_is_sent_in_chunks_or_to_the_end_of_the_connection():
    def streaming(environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        yield from (b"one ", b"", b"two")

    answer, body = asked(streaming)
    assert (answer.headers["Transfer-Encoding"], body) == ("chunked", b"one two")
    answer, body = asked(streaming, version=10)
    assert (answer.headers["Transfer-Encoding"], body) == (None, b"one two")


def test_an_application_that_fails_is_a_500_in_json_and_the_server_lives(caplog):
    def failing(environ, start):
        raise ValueError("no")

    answer, body = asked(failing)
    assert answer.status == 500
    assert b'"code":500' in body


def test_an_application_is_told_what_pep_3333_asks_for():
    seen = {}

    def noting(environ, start):
        seen.update(environ)
        start("200 OK", [("Content-Length", "0")])
        return [b""]

    asked(noting, path="/a%2Fb%C3%A9?x=1")
    assert (seen["PATH_INFO"].encode("latin-1").decode(), seen["QUERY_STRING"]) == ("/a/bé", "x=1")
    assert (seen["REQUEST_METHOD"], seen["wsgi.url_scheme"], seen["SCRIPT_NAME"]) == ("GET", "http", "")


def test_a_stop_is_quick_and_idle_connections_do_not_hold_it_up(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.http.server._STOP_S", 100.0)
    with Served(tmp_path, Front()) as served:
        served.add()
        served.get("/healthz")  # its connection stays open
        begun = time.monotonic()
        served.server.stop()
        assert time.monotonic() - begun < 50  # it would be given up after 100


@pytest.mark.parametrize("is_late", [False, True], ids=["idle", "just answered"])
def test_a_request_that_is_on_its_way_when_the_server_stops_is_answered(tmp_path, monkeypatch, is_late):
    monkeypatch.setattr("edge_agent.http.server._STOP_S", 60.0)
    monkeypatch.setattr("edge_agent.http.server._PARTING_S", 60.0)
    run, go_on = Reply.run, threading.Event()
    monkeypatch.setattr(Reply, "run", lambda *given: (run(*given), go_on.wait(60))[0])
    with Served(tmp_path, Front()) as served:
        served.add()
        connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=30)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        if not is_late:
            go_on.set()
            until(lambda: [each.state for each in list(served.server._connections.values())] == [State.IDLE])
        stopping = threading.Thread(target=served.server.stop)
        stopping.start()
        until(lambda: served.server._stopping is not None)
        go_on.set()
        connection.request("POST", "/infer", '[{"x": [1, 2, 3]}]', {"Content-Type": JSON})
        answer = connection.getresponse()
        assert json.loads(answer.read())[0]["out"] == {"y": [12.0]}
        assert answer.headers["Connection"] == "close"
        connection.close()
        stopping.join()


def test_a_stop_lets_an_inference_end(tmp_path):
    with Served(tmp_path, Front()) as served:
        model, answers = Gated(served.add()), []
        asking = threading.Thread(target=lambda: answers.append(served.post(rows=[{"x": [1, 2, 3]}])))
        asking.start()
        assert model.begun.wait(30)
        stopping = threading.Thread(target=served.server.stop)
        stopping.start()
        until(lambda: served.server._stopping is not None)
        model.go_on.set()
        asking.join()
        stopping.join()
        assert answers[0].json()[0]["out"] == {"y": [12.0]}
        assert answers[0].headers["Connection"] == "close"
