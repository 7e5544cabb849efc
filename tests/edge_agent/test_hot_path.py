"""The hot path: what a client sees is the same on every way, and concurrent commits share a sync."""

from __future__ import annotations

import http.client
import json
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from columns.arrow import decode_arrow
from columns.columns import Columns
from edge_agent.pipelines.inference import _long_way
from edge_agent.pipelines.pace import Pace
from edge_agent.pipelines.quick import ShortWay
from tests.edge_agent.served import ARROW, JSON, Front, Served, refusing_syncs
from tests.runtimes.models import linear

ROWS = [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]
STREAM = "application/vnd.apache.arrow.stream"


def arrow(rows, form=pa.ipc.new_file, kind=None):
    schema = pa.schema([("x", kind or pa.list_(pa.float32(), 3))])
    sink = pa.BufferOutputStream()
    with form(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return sink.getvalue().to_pybytes()


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front()) as served:
        yield served


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/infer", json.dumps(ROWS), {"Content-Type": JSON}),
        ("POST", "/infer/", json.dumps(ROWS), {"Content-Type": JSON}),
        ("POST", "/pipelines/demo?dataset[]=out&dataset.separator=.", json.dumps(ROWS), {"Content-Type": JSON}),
        ("POST", "/infer", arrow(ROWS), {"Content-Type": ARROW, "Accept": ARROW}),
        ("POST", "/infer", b"[", {"Content-Type": JSON}),
        ("POST", "/infer?dataset[]=nonsense", json.dumps(ROWS), {"Content-Type": JSON}),
        ("POST", "/infer", b"a,b", {"Content-Type": "text/csv"}),
        ("POST", "/pipelines/other", json.dumps(ROWS), {"Content-Type": JSON}),
        ("POST", "/pipelines/d%C3%A9", json.dumps(ROWS), {"Content-Type": JSON}),
        ("GET", "/infer", None, {}),
        ("DELETE", "/pipelines/demo", None, {}),
        ("POST", "/v2/models/demo/infer", b"{}", {"Content-Type": "application/json"}),
        ("GET", "/v2/models/demo", None, {}),
        ("GET", "/v2/models/other/ready", None, {}),
        ("GET", "/healthz", None, {}),
        ("HEAD", "/healthz", None, {}),
        ("GET", "/nope", None, {}),
    ],
)
def test_flask_and_the_hot_path_give_the_same_answer(tmp_path, method, path, body, headers):
    seen = []
    for hot in (True, False):
        with Served(tmp_path / str(hot), Front(hot=hot)) as served:
            served.add(validations={"high": "out.y[0] > 5"})
            connection = http.client.HTTPConnection("127.0.0.1", served.server.port)
            for _ in range(2):  # the second time through all that is kept
                connection.request(method, path, body, {**headers, "X-Request-Id": "line-4/7"})
                answer = connection.getresponse()
                text = answer.read()
            connection.close()
            assert answer.headers["X-Request-Id"] == "line-4/7"
            seen.append((answer.status, answer.headers.get_content_type(), answer.headers["Allow"], plain(text)))
            figures = {line for line in served.get("/metrics").text.splitlines() if "_total" in line}
            seen[-1] += (figures,)
    assert seen[0] == seen[1]


def plain(body):
    """A body without times, which differ."""
    if body.startswith(b"ARROW1"):
        columns = decode_arrow(body)
        timed = ("time", "metadata.elapsed")
        return {name: columns.arrays[name].tolist() for name in columns.schema.names if name not in timed}
    text = body.decode()
    try:
        rows = json.loads(text)
    except ValueError:
        return text
    for row in rows if isinstance(rows, list) else []:
        row.pop("time", None)
        row.get("metadata", {}).pop("elapsed", None)
    return rows


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_the_short_way_gives_what_the_long_way_gives(served, rows):
    active = served.add(model=linear(factor=2.0))
    assert isinstance(active.short_way, ShortWay)
    inputs = active.loaded.input
    given = Columns.of(inputs, {"x": np.random.default_rng(1).normal(size=(rows, 3)).astype(np.float32)})
    short, _ = active.short_way.result(given, 5)
    long, _, _ = _long_way(active, given, 5)
    assert short.schema == long.schema
    assert set(short.arrays) == set(long.arrays)
    for name in short.schema.names:
        if name not in ("time", "metadata.elapsed"):
            assert np.array_equal(short.arrays[name], long.arrays[name]), name
        assert short.arrays[name].dtype == long.arrays[name].dtype
        assert short.arrays[name].shape == long.arrays[name].shape


def test_a_pipeline_with_validations_has_no_short_way(served):
    assert served.add(validations={"high": "out.y[0] > 5"}).short_way is None


@pytest.mark.parametrize("form", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float32())])
def test_arrow_bodies_of_a_known_layout_answer_with_their_own_values(served, form, kind):
    served.add()
    for turn in range(8):
        rows = [{"x": [turn, 0.5, 1]}, {"x": [1, turn, 1]}]
        answer = served.post(data=arrow(rows, form, kind), headers={"Content-Type": ARROW, "Accept": STREAM})
        columns = decode_arrow(answer.content)
        assert columns.arrays["out.y"].ravel().tolist() == [2 * turn + 3, 2 * turn + 4]
        assert columns.arrays["in.x"].tolist() == [row["x"] for row in rows]
        assert columns.arrays["time"][0] > 1_700_000_000_000


def test_concurrent_commits_share_a_sync_and_every_row_is_there(tmp_path, served):
    served.add(log={"durability": "commit"})
    syncs = []
    spool = served.spools["demo"]
    sync, spool._log._disk = spool._log._disk.sync, spool._log._disk
    counted = type("Counting", (type(spool._log._disk),), {"sync": lambda self, h: (syncs.append(h), sync(h))[1]})()
    spool._log._disk = counted

    def ask(index):
        connection = http.client.HTTPConnection("127.0.0.1", served.server.port)
        for turn in range(20):
            connection.request("POST", "/infer", json.dumps([{"x": [index, turn, 0]}]), {"Content-Type": JSON})
            answer = connection.getresponse()
            assert json.loads(answer.read())[0]["out"]["y"] == [2.0 * (index + turn)]
        connection.close()

    clients = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    logged = served.post("/logs").json()
    assert sorted(tuple(row["in"]["x"]) for row in logged) == [(i, t, 0) for i in range(16) for t in range(20)]
    assert len(syncs) < 320


def test_an_answer_is_held_back_until_its_rows_are_synced(served):
    served.add(log={"durability": "commit"})
    served.post(rows=ROWS)
    spool, order = served.spools["demo"], []
    real = spool._log._disk.sync
    slow = type("Slow", (type(spool._log._disk),), {})()
    slow.sync = lambda handle: (gate.wait(30), order.append("synced"), real(handle))[2]
    gate = threading.Event()
    spool._log._disk = slow
    asking = threading.Thread(target=lambda: (served.post(rows=ROWS), order.append("answered")))
    asking.start()
    assert served.get("/v2/health/live").status_code == 200  # the serving thread does not wait for the disk
    assert order == []
    gate.set()
    asking.join()
    assert order[:2] == ["synced", "answered"]


def test_a_disk_that_refuses_gives_503_and_the_next_request_works(served):
    served.add(log={"durability": "commit"})
    served.post(rows=ROWS)
    with refusing_syncs(served.spools["demo"]):
        answer = served.post(rows=ROWS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert served.post(rows=ROWS).status_code == 200


def test_only_a_client_that_is_alone_is_answered_in_the_serving_thread_by_a_model_that_is_not_quick(served):
    active, names = served.add(), []
    engine = active.short_way._engine

    class Calm:
        """Takes longer than a request in the serving thread may, and no longer than one who comes can wait."""

        def infer_tensors(self, tensors):
            names.append(threading.current_thread().name)
            time.sleep(0.002)
            return engine.infer_tensors(tensors)

    active.short_way._engine = Calm()
    active.pace.is_calm = lambda size: size <= 100  # by the clock of a busy machine no model is calm
    clients = [http.client.HTTPConnection("127.0.0.1", served.server.port) for _ in range(2)]

    def ask(client, rows):
        client.request("POST", "/infer", json.dumps(rows), {"Content-Type": JSON})
        assert client.getresponse().read()

    try:
        ask(clients[0], ROWS)
        ask(clients[0], ROWS * 10)
        ask(clients[1], ROWS)
        assert [name.partition("-")[0] for name in names] == ["serve", "infer", "infer"]
    finally:
        for client in clients:
            client.close()


def test_a_pipeline_is_calm_for_requests_up_to_the_largest_that_was():
    pace = Pace()
    assert not pace.is_calm(0)
    pace.note_size(Pace.CALM_NS - 1, 1000)
    pace.note_size(1, 10)
    assert pace.is_calm(1000)
    assert not pace.is_calm(1001)
    pace.note_size(Pace.CALM_NS, 10)
    assert not pace.is_calm(10)
