"""`/metrics`: read by Prometheus's own parser, and every name of the documentation."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.doors.seam import Call
from edge_agent.doors.table import TABLE
from edge_agent.pipelines.serving import Serving
from edge_agent.pipelines.stages import Stages
from edge_agent.telemetry.metrics import Metrics
from tests.edge_agent.served import Front, Served
from tests.edge_agent.test_split import add, tripled
from tests.runtimes.models import linear, step

DOCS = Path(__file__).parents[2] / "docs" / "agent-http.md"
ROWS = [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front()) as served:
        yield served


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def read(served):
    return families(served.get("/metrics").text)


def samples(families, name):
    """Value by labels, of one sample name."""
    found = [each for family in families.values() for each in family.samples if each.name == name]
    return {tuple(sorted(each.labels.items())): each.value for each in found}


def one(families, name, **labels):
    return samples(families, name)[tuple(sorted(labels.items()))]


def test_requests_are_counted_by_door_pipeline_and_code(served):
    served.add()
    served.post(rows=ROWS)
    served.post("/pipelines/demo", [{"x": 1}])
    served.post("/v2/models/demo/infer", data=b"{")
    served.post("/v1/models/other:predict", data=b"{}")
    served.post("/predict", data=json.dumps(ROWS), headers={"Content-Type": "application/json"})
    served.post("/v1/api/pipelines/infer/d-1/demo", ROWS)
    counted = samples(read(served), "edgepack_requests_total")
    assert {tuple(dict(labels).values()): n for labels, n in counted.items()} == {
        ("200", "wallaroo", "demo"): 1,
        ("400", "wallaroo", "demo"): 1,
        ("400", "oip", "demo"): 1,
        ("404", "kserve", ""): 1,
        ("200", "predict", "demo"): 1,
        ("200", "wallaroo_sdk", "demo"): 1,
    }


def test_each_stage_has_a_histogram_whose_sums_fit_into_the_requests(served):
    steps = [
        step("first", output={"y": "list<float32>[1]"}),
        step("second", input={"y": "list<float32>[1]"}, output={"z": "list<float32>[1]"}),
    ]
    add(served, {"first.onnx": linear(), "second.onnx": tripled()}, steps, validations={"high": "out.z[0] > 1"})
    for _ in range(300):  # more than are counted at once
        assert served.post(rows=ROWS).status_code == 200
    found = read(served)
    stages = samples(found, "edgepack_stage_seconds_count")
    named = {(dict(labels)["stage"], dict(labels).get("step")) for labels in stages}
    assert named == {(name, None) for name in ("parse", "validations", "spool", "encode")} | {
        ("step", "first"), ("step", "second")}  # fmt: skip
    assert set(stages.values()) == {300}
    parts = sum(samples(found, "edgepack_stage_seconds_sum").values())
    assert 0 < parts <= one(found, "edgepack_request_seconds_sum", pipeline="demo")
    assert one(found, "edgepack_request_seconds_bucket", pipeline="demo", le="+Inf") == 300
    assert one(found, "edgepack_batch_rows_bucket", pipeline="demo", le="1") == 0
    assert one(found, "edgepack_batch_rows_bucket", pipeline="demo", le="2") == 300
    assert one(found, "edgepack_batch_rows_sum", pipeline="demo") == 600
    assert one(found, "edgepack_rows_total", pipeline="demo") == 600


def test_a_client_that_repeats_itself_is_counted_like_any_other(served):
    served.add()
    for number in range(300):
        assert served.post(rows=[{"x": [number % 10, 0, 0]}]).status_code == 200
    found = read(served)
    assert one(found, "edgepack_requests_total", door="wallaroo", pipeline="demo", code="200") == 300
    assert one(found, "edgepack_request_seconds_count", pipeline="demo") == 300
    stages = {dict(labels)["stage"]: n for labels, n in samples(found, "edgepack_stage_seconds_count").items()}
    assert stages == {"parse": 300, "validations": 0, "spool": 300, "encode": 300, "step": 300}
    assert one(found, "edgepack_rows_total", pipeline="demo") == 300


def test_tensors_are_counted_as_rows_with_their_stages(served):
    served.add()
    served.post("/v2/models/demo/infer", data=json.dumps({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [4, 3], "data": [1] * 12}]}))  # fmt: skip
    found = read(served)
    assert one(found, "edgepack_rows_total", pipeline="demo") == 4
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="step", step="linear") == 1
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="spool") == 1


def test_a_log_that_is_off_has_no_spool_stage_and_a_refused_request_none_at_all(served):
    served.add(log={"durability": "off"})
    served.post(rows=ROWS)
    served.post(rows=[{}])
    found = read(served)
    assert one(found, "edgepack_request_seconds_count", pipeline="demo") == 2
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="parse") == 1
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="spool") == 0


def test_what_a_model_takes_and_computes_on_is_told(served):
    served.add()
    found = read(served)
    assert one(found, "edgepack_model_bytes", pipeline="demo", model="linear") > 0
    assert one(found, "edgepack_resident_bytes") > 10 << 20
    providers = samples(found, "edgepack_provider")
    assert any(dict(labels)["provider"] == "CPUExecutionProvider" for labels in providers)


def test_what_never_became_a_request_is_counted_by_its_reason(served):
    served.add()
    for data in (b"NONSENSE\r\n\r\n", b"POST /infer HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.server.port), timeout=30) as client:
            client.sendall(data)
            assert client.recv(4096).startswith(b"HTTP/1.1 4")
    refused = samples(read(served), "edgepack_refused_total")
    assert {dict(labels)["reason"]: n for labels, n in refused.items() if n} == {"malformed": 1, "too_large": 1}


def test_names_that_need_escaping_survive_the_parser(served):
    hot, call = Metrics(), Call("POST", "/infer", "", {}, b"", "r")
    call.pipeline, call.rows, call.stages = 'a"b\\c\nd', 1, Stages(('s"t',), 1, (2,), 3, 4, 5)
    hot.observe(TABLE.routes[0], call, 200)
    found = families(hot.render(Serving()))
    assert one(found, "edgepack_rows_total", pipeline='a"b\\c\nd') == 1
    assert one(found, "edgepack_stage_seconds_count", pipeline='a"b\\c\nd', stage="step", step='s"t') == 1


def test_a_new_version_with_other_steps_goes_on_counting():
    metrics = Metrics()
    for names, times in ((("a",), (10,)), (("a", "b"), (10, 20)), (("b",), (20,))):
        call = Call("POST", "/infer", "", {}, b"", "r", pipeline="demo", rows=1)
        call.stages = Stages(names, 1, times, 0, 0, 0)
        metrics.observe(TABLE.routes[0], call, 200)
        metrics.observe(TABLE.routes[0], Call("POST", "/infer", "", {}, b"", "r", pipeline="demo"), 503)
    found = families(metrics.render(Serving()))
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="step", step="a") == 2
    assert one(found, "edgepack_stage_seconds_count", pipeline="demo", stage="step", step="b") == 2
    assert one(found, "edgepack_request_seconds_count", pipeline="demo") == 6


def test_the_documentation_names_every_metric_and_no_other(served):
    served.add()
    served.post(rows=ROWS)
    told = {f"{name}_total" if family.type == "counter" else name for name, family in read(served).items()}
    documented = set(re.findall(r"`(edgepack_[a-z_]+)(?:\{[^`]*\})?`", DOCS.read_text()))
    assert documented == told
