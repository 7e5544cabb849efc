"""Tracks: what differs from an earlier message in nothing but numbers is answered as ever, but sooner."""

from __future__ import annotations

import json
import random
import socket
import threading
from contextlib import ExitStack

import numpy as np
import pytest

from bundle.pipeline import LogPolicy
from columns.arrow import ARROW_STREAM, decode_arrow, encode_arrow
from columns.columns import Columns
from columns.schema import Schema
from edge_agent.http.server import Limits
from edge_agent.pipelines.pace import Pace
from edgepack.errors import RuntimeFailed
from tests.edge_agent.served import Front, Served, refusing_syncs
from tests.runtimes.models import linear

SCHEMA = Schema.parse({"x": "list<float32>[3]"})
OIP_SIZE = "Inference-Header-Content-Length"
WARM_UP = 6
LOGS = ["off", "relaxed", "commit"]


class Client:
    """One connection that always sends the same head, and reads whole answers."""

    def __init__(self, served, form):
        self.form, self.rest = form, b""
        self.sock = socket.create_connection(("127.0.0.1", served.server.port), timeout=30)
        served.clients.enter_context(self.sock)

    def message(self, row):
        x = np.array([row], np.float32)
        if self.form == "oip":
            return self.tensor(x)
        body = encode_arrow(Columns.of(SCHEMA, {"x": x}), "stream")
        path = "/infer?dataset[]=out" if self.form == "arrow, outputs only" else "/infer"
        lines = [f"Content-Type: {ARROW_STREAM}", f"Accept: {ARROW_STREAM}"]
        return self.head(path, lines, len(body)) + body

    def tensor(self, x):
        raw = x.tobytes()
        said = {"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
        text = json.dumps({"inputs": [said], "parameters": {"binary_data_output": True}}).encode()
        head = self.head("/v2/models/demo/infer", [f"{OIP_SIZE}: {len(text)}"], len(text) + len(raw))
        return head + text + raw

    def head(self, path, lines, length):
        return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {length}", *lines, "", ""]).encode()

    def ask(self, row):
        return self.talk(self.message(row))

    def talk(self, *pieces):
        """Send a message, in pieces; status, headers, body."""
        for piece in pieces:
            self.sock.sendall(piece)
        return self.answer()

    def answer(self):
        data, self.rest = self.rest, b""
        while b"\r\n\r\n" not in data:
            data += self.received()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["Content-Length"]):
            body += self.received()
        self.rest = body[int(headers["Content-Length"]) :]
        return int(lines[0].split()[1]), headers, body[: int(headers["Content-Length"])]

    def received(self):
        data = self.sock.recv(1 << 16)
        assert data, "the server closed the connection"
        return data

    def result(self, row):
        """The one output, and the headers."""
        status, headers, body = self.ask(row)
        assert status == 200, body
        return self.output(headers, body), headers

    def output(self, headers, body):
        if self.form == "oip":
            return float(np.frombuffer(body[int(headers[OIP_SIZE]) :], np.float32)[0])
        return float(decode_arrow(body).arrays["out.y"].ravel()[0])


FORMS = ["arrow", "arrow, outputs only", "oip"]


@pytest.fixture(autouse=True)
def every_small_request_is_quick(monkeypatch):
    """By the clock of a busy machine no model is quick, and what is not has no track."""
    monkeypatch.setattr(Pace, "QUICK_NS", 1 << 60)


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front()) as served, ExitStack() as served.clients:
        yield served


def tracks(served):
    return list(served.server._hot.tracks)


def on_track(served, form, **more):
    """A client whose messages have a track."""
    served.add(**more)
    client = Client(served, form)
    for turn in range(WARM_UP):
        client.ask([turn + 0.25, 2.5, -1.75])
    assert len(tracks(served)) == 1
    return client


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("form", FORMS)
def test_answers_on_a_track_have_their_own_values_and_ids_and_their_rows_are_logged(served, form, log):
    client = on_track(served, form, log={"durability": log})
    rows = [[turn, 0.5, -turn] for turn in range(20)]
    found = [client.result(row) for row in rows]
    assert [value for value, _ in found] == [2 * sum(row) for row in rows]
    assert tracks(served), "the track did not last"
    ids = [headers["X-Request-Id"] for _, headers in found]
    assert len(set(ids)) == len(ids)
    logged = served.post("/logs").json()[WARM_UP:]
    if log == "off":
        assert logged == []
        return
    assert [row["in"]["x"] for row in logged] == rows
    assert [row["out"]["y"] for row in logged] == [[2 * sum(row)] for row in rows]
    assert [row["metadata"]["request_id"] for row in logged] == ids
    assert [row["metadata"]["seq"] for row in logged] == list(range(WARM_UP + 1, WARM_UP + 21))
    assert all(row["time"] > 1_700_000_000_000 and min(row["metadata"]["elapsed"]) > 0 for row in logged)


@pytest.mark.parametrize("form", FORMS)
def test_head_and_body_are_those_of_the_ordinary_way(served, form):
    client = on_track(served, form)
    row = [1.0, 2.0, 3.0]
    ours = client.ask(row)
    for track in tracks(served):
        track.end()
    ordinary = client.ask(row)
    assert tracks(served) == []
    assert ours[0] == ordinary[0] == 200
    assert list(ours[1]) == list(ordinary[1])
    assert {**ours[1], "X-Request-Id": "", "Date": ""} == {**ordinary[1], "X-Request-Id": "", "Date": ""}
    if form != "arrow":
        assert ours[2] == ordinary[2]
        return
    first, second = decode_arrow(ours[2]), decode_arrow(ordinary[2])
    assert first.schema == second.schema
    for name in first.schema.names:
        if name not in ("time", "metadata.elapsed"):
            assert first.arrays[name].tolist() == second.arrays[name].tolist(), name


@pytest.mark.parametrize("form", FORMS)
def test_a_message_with_any_other_byte_is_answered_as_without_a_track(served, form):
    """300 messages with one byte or length wrong: what comes back is what a server without tracks says."""
    client = on_track(served, form)
    message, chance = client.message([1.5, 2.5, 3.5]), random.Random(7)
    head = message.index(b"\r\n\r\n") + 4
    numbers = message.index(np.array([1.5, 2.5, 3.5], np.float32).tobytes())
    kept = tracks(served)[0]
    for _ in range(150):
        place = chance.choice([i for i in range(head, len(message)) if not numbers <= i < numbers + 12])
        other = bytearray(message)
        other[place] ^= 1 << chance.randrange(8)
        status, _, body = client.talk(bytes(other))
        kept.head.track = None  # the same once more, without it
        again, _, said = client.talk(bytes(other))
        kept.head.track = kept
        assert status == again
        assert status == 200 or body == said
    assert client.result([1, 2, 4])[0] == 14.0


def test_special_floats_are_numbers_like_others(served):
    client = on_track(served, "oip")
    assert client.result([np.inf, 1, 1])[0] == np.inf
    assert np.isnan(client.result([np.nan, 1, 1])[0])
    assert tracks(served)


def test_a_message_in_pieces_and_two_at_once_are_answered(served):
    client = on_track(served, "arrow")
    message = client.message([1, 1, 1])
    head = message.index(b"\r\n\r\n") + 4
    for cut in (5, head, head + 10, len(message) - 1):
        status, headers, body = client.talk(message[:cut], message[cut:])
        assert (status, client.output(headers, body)) == (200, 6.0)
    client.sock.sendall(message + message)
    assert [client.answer()[0] for _ in range(2)] == [200, 200]


def test_a_large_body_of_a_client_that_is_alone_is_answered_on_a_track(served):
    active = served.add(log={"durability": "off"})
    active.pace.is_calm = lambda size: True  # by the clock of a busy machine no model is calm
    client, chance, followed = Client(served, "oip"), np.random.default_rng(3), []
    for turn in range(2 * WARM_UP):
        x = chance.normal(size=(6000, 3)).astype(np.float32)
        status, headers, body = client.talk(client.tensor(x))
        assert status == 200
        found = np.frombuffer(body[int(headers[OIP_SIZE]) :], np.float32)
        assert np.allclose(found, 2 * x.sum(axis=1), atol=1e-4)
        if turn == WARM_UP:
            (track,) = tracks(served)
            follow = track.follow_body
            track.follow_body = lambda *given, follow=follow: followed.append(follow(*given)) or followed[-1]
    assert followed == [True] * (WARM_UP - 1)
    other = Client(served, "oip")
    assert other.talk(other.tensor(x))[0] == 200
    assert followed[-1] is False  # two are there: the model may hold nobody up


def test_a_model_that_does_not_run_as_it_did_ends_the_track_and_the_ordinary_way_answers(served):
    client = on_track(served, "arrow")
    (track,) = tracks(served)

    def fail(inputs):
        raise RuntimeFailed("another shape")

    track._run = fail
    assert client.result([1, 1, 1])[0] == 6.0
    assert track.is_over


def test_another_version_answers_at_once_and_the_old_model_is_let_go(served):
    client = on_track(served, "arrow")
    old = tracks(served)[0]
    assert client.result([1, 1, 1])[0] == 6.0
    served.add(model=linear(factor=5.0))
    assert client.result([1, 1, 1])[0] == 15.0
    assert old.is_over
    for turn in range(WARM_UP):
        assert client.result([turn, 0.5, 0.25])[0] == 5 * (turn + 0.75)
    assert len(tracks(served)) == 1


def test_a_removed_pipeline_and_one_of_several_do_not_answer_without_a_name(served):
    client = on_track(served, "arrow")
    served.add("other")
    assert client.ask([1, 1, 1])[0] == 404
    served.serving.remove("other")
    served.serving.remove("demo")
    assert client.ask([1, 1, 1])[0] == 503


def test_an_idle_track_of_a_replaced_version_ends_by_itself(served):
    on_track(served, "arrow")
    old = tracks(served)[0]
    ended = threading.Event()
    end = old.end
    old.end = lambda: (end(), ended.set())
    served.add(model=linear(factor=5.0))
    assert ended.wait(30)


def test_another_log_policy_holds_from_the_next_row_on(served):
    client = on_track(served, "arrow", log={"durability": "relaxed"})
    served.spools["demo"].change_policy(LogPolicy(durability="off"))
    client.ask([1, 1, 1])
    served.spools["demo"].change_policy(LogPolicy(durability="commit"))
    client.ask([2, 2, 2])
    assert [row["in"]["x"] for row in served.post("/logs").json()[WARM_UP:]] == [[2, 2, 2]]


def test_a_log_that_refuses_is_a_503_and_the_next_row_is_taken(served):
    client = on_track(served, "arrow", log={"durability": "commit"})
    with refusing_syncs(served.spools["demo"]):
        status, headers, _ = client.ask([1, 1, 1])
    assert (status, headers["Retry-After"]) == (503, "1")
    assert client.result([2, 2, 2])[0] == 12.0
    assert [row["in"]["x"] for row in served.post("/logs").json()[WARM_UP:]] == [[2, 2, 2]]


def test_a_row_whose_disk_takes_too_long_is_a_503_while_others_are_answered(served):
    client = on_track(served, "arrow", log={"durability": "commit"})
    spool = served.spools["demo"]
    real, gate = spool._log._disk, threading.Event()
    slow = type("Slow", (type(real),), {})()
    slow.sync = lambda handle: (gate.wait(30), real.sync(handle))[1]
    spool._log._sync_pace.note(1.0)
    spool._log._disk = slow
    served.server.limits = Limits(request_s=0.4)
    status, headers, body = client.ask([1, 1, 1])
    assert (status, headers["Retry-After"]) == (503, "1")
    assert b"longer than it may" in body
    assert served.get("/v2/health/live").status_code == 200
    served.server.limits = Limits()
    gate.set()
    assert client.result([2, 2, 2])[0] == 12.0


def test_requests_of_many_connections_share_frames_and_none_is_mixed_up(served):
    served.add(log={"durability": "commit"})
    wrong = []

    def ask(index):
        client = Client(served, FORMS[index % 3])
        for turn in range(40):
            row = [index, turn, 0.5]
            if client.result(row)[0] != 2 * sum(row):
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(tracks(served)) == 3
    logged = served.post("/logs").json()
    assert sorted(row["in"]["x"] for row in logged) == [[i, t, 0.5] for i in range(12) for t in range(40)]
    assert len({row["metadata"]["request_id"] for row in logged}) == 480


@pytest.mark.parametrize("log", LOGS)
def test_requests_on_a_track_are_in_the_figures(served, log):
    client = on_track(served, "arrow", log={"durability": log})
    for _ in range(10):
        client.ask([1, 2, 3])
    text = served.get("/metrics").text
    assert f'edgepack_requests_total{{door="wallaroo",pipeline="demo",code="200"}} {WARM_UP + 10}' in text
    assert f'edgepack_rows_total{{pipeline="demo"}} {WARM_UP + 10}' in text
    assert f'edgepack_stage_seconds_count{{pipeline="demo",stage="parse"}} {WARM_UP + 10}' in text


def test_a_client_that_names_its_requests_gets_its_names_back(served):
    client = on_track(served, "arrow")
    message = client.message([1, 1, 1]).replace(b"Host: a\r\n", b"Host: a\r\nX-Request-Id: line-4/7\r\n")
    for _ in range(WARM_UP):
        assert client.talk(message)[1]["X-Request-Id"] == "line-4/7"


def test_json_chunked_bodies_and_validated_pipelines_have_no_track(served):
    served.add(validations={"high": "out.y[0] > 5"})
    client = Client(served, "arrow")
    for turn in range(2 * WARM_UP):
        assert client.result([turn, 0.5, 0.25])[0] == 2 * turn + 1.5
        assert served.post(rows=[{"x": [turn, 0.5, 0.25]}]).json()[0]["out"]["y"] == [2 * turn + 1.5]
    served.add(name="plain")
    body = b"POST /pipelines/plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    message = client.message([1.5, 2.5, 3.5])
    inner = message[message.index(b"\r\n\r\n") + 4 :]
    whole = body + f"Content-Type: {ARROW_STREAM}\r\n\r\n{len(inner):x}\r\n".encode() + inner + b"\r\n0\r\n\r\n"
    assert [client.talk(whole)[0] for _ in range(2 * WARM_UP)] == [200] * 2 * WARM_UP
    assert tracks(served) == []
