"""W3C trace context in and out, and spans at a collector of the test's own, read by OpenTelemetry's own messages."""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edge_agent.http.watch import Watch
from edge_agent.telemetry.trace_collector import Collector
from edge_agent.telemetry.trace_context import read_trace
from edge_agent.telemetry.trace_export import TraceExport
from edgepack.errors import BadInput
from tests.edge_agent.served import Front, Served
from tests.edge_agent.test_split import add, files, routed

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=abc,other=1"}
ROWS = [{"x": [1, 2, 3]}]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A collector on a busy machine answers later than an agent would wait."""
    for name in ("_ANSWER_S", "_LAST_ANSWER_S"):
        monkeypatch.setattr(f"edge_agent.telemetry.trace_export.{name}", 60.0)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (ASKED["traceparent"], True),
        (f"cc-{TRACE}-{PARENT}-01-what.the-future.brings", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}", False),
        ("", False),
    ],
)
def test_a_traceparent_is_read_as_the_recommendation_says(text, is_one):
    trace = read_trace({"traceparent": text})
    assert (trace is not None) == is_one
    if trace is not None:
        assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE, PARENT, True)
        assert trace.span_id not in (PARENT, "0" * 16)


@given(st.text(), st.text())
def test_any_header_is_a_trace_with_identifiers_of_its_own_or_none(parent, state):
    trace = read_trace({"traceparent": parent, "tracestate": state})
    assert trace is None or (len(trace.trace_id), len(trace.parent_id), len(trace.span_id)) == (32, 16, 16)


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "flask"])
def test_a_trace_comes_back_with_a_span_of_ours_and_lies_in_the_log(tmp_path, hot):
    with Served(tmp_path, Front(hot=hot)) as served:
        served.add()
        answer = served.post(rows=ROWS, headers=ASKED)
        version, trace, span, flags = answer.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "01")
        assert span != PARENT
        assert answer.headers["tracestate"] == ASKED["tracestate"]
        tensors = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
        second = served.post("/v2/models/demo/infer", data=json.dumps(tensors), headers=ASKED)
        assert "traceparent" not in served.post(rows=ROWS).headers
        logged = [row["metadata"].get("traceparent") for row in served.post("/logs").json()]
        assert logged == [answer.headers["traceparent"], second.headers["traceparent"], None]
        found = served.post("/logs?dataset[]=metadata.traceparent&limit=1").json()
        assert found == [{"metadata": {"traceparent": logged[0]}}]


@pytest.mark.parametrize("shadow", [["next"], []], ids=["shadow", "split"])
def test_rows_of_several_models_have_it_too(tmp_path, shadow):
    with Served(tmp_path, Front()) as served:
        split = None if shadow else {"next": 1, "main": 1}
        add(served, files(("main", 1), ("next", 2)), [routed(["next", "main"] if split else ["next"], split, shadow)])
        told = served.post(rows=ROWS * 3, headers=ASKED).headers["traceparent"]
        rows = served.post("/logs").json()
    assert [row["metadata"]["traceparent"] for row in rows] == [told] * 3
    assert ["out_next" in row for row in rows] == [bool(shadow)] * 3


@pytest.mark.parametrize("told", ["nonsense", f"00-{'0' * 32}-{PARENT}-01"])
def test_a_header_that_is_no_trace_counts_as_none_and_the_request_is_answered(tmp_path, told):
    with Served(tmp_path, Front()) as served:
        served.add()
        answer = served.post(rows=ROWS, headers={"traceparent": told})
        assert answer.status_code == 200
        assert "traceparent" not in answer.headers


class Receiver:
    """A collector on loopback; answers with `status`."""

    def __init__(self, status=200):
        self.requests = deque()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def exported(tmp_path, collector, ask):
    """What an agent does with `ask` while it exports; its export."""
    export = TraceExport(collector, {"host.name": "line-4"})
    with export, Served(tmp_path, Front(watch=Watch([export], begins=True))) as served:
        served.add(validations={"high": "out.y[0] > 5"})
        ask(served)
    return export


def spans_of(receiver):
    """All spans, through OpenTelemetry's own messages: an unknown or wrong field is an error there."""
    found = []
    for path, _, body in receiver.requests:
        assert path == "/v1/traces"
        for resource in body["resourceSpans"]:  # JSON has ids in hexadecimal, protobuf's own JSON in base64
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    found.append({**span})
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in span:
                            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
        ParseDict(body, ExportTraceServiceRequest())
    return found


def test_a_request_is_a_span_of_its_clients_trace_with_its_stages_below(tmp_path):
    with Receiver() as receiver:
        secret = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret%21"}
        collector = Collector.read({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **secret})
        export = exported(tmp_path, collector, lambda served: served.post(rows=ROWS, headers=ASKED))
        spans = spans_of(receiver)
        assert receiver.requests[0][1]["api-key"] == "s3cret!"
        resource = receiver.requests[0][2]["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "edgepack-agent"}} in resource
    assert {"key": "host.name", "value": {"stringValue": "line-4"}} in resource
    (root, *stages) = spans
    assert (root["traceId"], root["parentSpanId"], root["kind"]) == (TRACE, PARENT, 2)
    assert (root["name"], root["traceState"]) == ("POST /infer", ASKED["tracestate"])
    attributes = {each["key"]: next(iter(each["value"].values())) for each in root["attributes"]}
    assert (attributes["http.response.status_code"], attributes["edgepack.pipeline"]) == ("200", "demo")
    assert [each["name"] for each in stages] == ["parse", "step linear", "validations", "submit", "encode", "spool"]
    assert {each["parentSpanId"] for each in stages} == {root["spanId"]}
    times = [int(root["startTimeUnixNano"])]
    times += [int(each[name]) for each in stages for name in ("startTimeUnixNano", "endTimeUnixNano")]
    assert times == sorted(times)
    assert times[-1] <= int(root["endTimeUnixNano"])
    assert export.counts() == {"sent": 7, "dropped": 0}


def test_a_request_without_a_trace_begins_one_and_one_that_is_not_recorded_sends_none(tmp_path):
    def ask(served):
        assert served.post(rows=ROWS).headers["traceparent"].endswith("-01")
        unrecorded = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert served.post(rows=ROWS, headers=unrecorded).headers["traceparent"].endswith("-00")
        served.post(rows=[{}])
        served.get("/v2/health/live")

    with Receiver() as receiver:
        exported(tmp_path, Collector(receiver.url + "/v1/traces"), ask)
        roots = [span for span in spans_of(receiver) if span["kind"] == 2]
    assert [span["name"] for span in roots] == ["POST /infer", "POST /infer"]
    assert not any(span["traceId"] == TRACE or "parentSpanId" in span for span in roots)


@pytest.mark.parametrize("away", [True, False], ids=["away", "refusing"])
def test_spans_are_dropped_and_counted_where_the_collector_takes_none(tmp_path, caplog, away):
    with Receiver(status=503) as receiver:
        url = "http://127.0.0.1:1" if away else receiver.url
        collector = Collector(url + "/v1/traces", (("api-key", "s3cret"),))
        export = exported(tmp_path, collector, lambda served: [served.post(rows=ROWS) for _ in range(3)])
    assert export.counts() == {"sent": 0, "dropped": 21}
    said = [record for record in caplog.records if record.getMessage() == "trace collector takes nothing"]
    assert len(said) == 1
    assert "s3cret" not in str(said[0].__dict__)


def test_what_waits_is_bounded_and_the_oldest_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.telemetry.trace_export._WAITING", 2)
    monkeypatch.setattr("edge_agent.telemetry.trace_export._PAUSE_S", 60.0)
    with Receiver() as receiver:
        export = exported(tmp_path, Collector(receiver.url), lambda served: [
            served.post(rows=ROWS, headers={"X-Request-Id": f"r-{n}"}) for n in range(4)])  # fmt: skip
        names = json.dumps([body for _, _, body in receiver.requests])
    assert ("r-1" in names, "r-2" in names, "r-3" in names) == (False, True, True)
    assert export.counts() == {"sent": 14, "dropped": 14}


def test_the_environment_says_where_spans_go():
    assert Collector.read({}) is None
    general = Collector.read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/", "OTEL_SERVICE_NAME": "line"})
    assert (general.url, general.service) == ("http://c:4318/v1/traces", "line")
    exact = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/in", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}
    assert Collector.read(exact).url == "https://c/in"
    assert Collector.read({**exact, "EDGEPACK_OTLP_ENDPOINT": "http://mine:1"}).url == "http://mine:1/v1/traces"
    with pytest.raises(BadInput, match=r"EDGEPACK_OTLP_ENDPOINT is 'c:4317'.*expected an http URL"):
        Collector.read({"EDGEPACK_OTLP_ENDPOINT": "c:4317"})
