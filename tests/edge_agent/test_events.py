"""What the agent prints while it runs: text or JSON lines, a line a request if asked, never a secret."""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
import time
import warnings

import pytest
import urllib3

from edge_agent.doors import TABLE
from edge_agent.doors.seam import Call, Route, respond
from edge_agent.http.watch import AccessLog, Watch
from edge_agent.pipelines.serving import Serving
from edge_agent.telemetry.events import EventFormatter, JsonFormatter, event, set_up_logging
from oci.layout import write_layout
from tests.edge_agent.real_hub import make_bundle
from tests.edge_agent.served import Front, Served
from tests.edge_agent.test_agent_commands import Running, ask, call

log = logging.getLogger("edgepack.agent")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def record(caplog, **fields):
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        event(log, "bundle activated", **fields)
    return caplog.records[0]


def test_an_event_is_one_json_object_with_its_fields(caplog):
    made = record(caplog, pipeline="demo", took_s=0.5, reason='a "b"\nc', path=json, time="mine")
    line = JsonFormatter().format(made)
    assert "\n" not in line
    said = json.loads(line)
    assert TIME.fullmatch(said["time"])
    assert (said["level"], said["event"], said["took_s"]) == ("info", "bundle activated", 0.5)
    assert (said["reason"], said["time_"]) == ('a "b"\nc', "mine")


def test_times_are_in_utc_wherever_the_machine_stands(caplog, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        made = record(caplog)
        made.created, made.msecs = 0.0, 0.0
        assert EventFormatter().format(made).startswith("1970-01-01T00:00:00 ")
        assert json.loads(JsonFormatter().format(made))["time"] == "1970-01-01T00:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("formatter", [EventFormatter, JsonFormatter])
def test_a_traceback_stays_on_the_line_of_its_event(caplog, formatter):
    try:
        raise ValueError("of a test")
    except ValueError:
        log.exception("fault of ours", extra={"fields": {"request_id": "r-1"}})
    line = formatter().format(caplog.records[0])
    assert "\n" not in line
    assert "ValueError: of a test" in line
    assert "r-1" in line


def broken(serving, call):
    raise ZeroDivisionError("of a test")


def test_what_is_our_fault_is_logged_with_the_id_that_the_client_has(caplog):
    answer = respond(Route("POST", "/x", broken), Serving(), Call("POST", "/x", "", {}, b"", "r-7"), {})
    assert answer.status == 500
    assert caplog.records[0].fields == {"request_id": "r-7"}
    assert "ZeroDivisionError" in JsonFormatter().format(caplog.records[0])


def test_an_access_line_has_all_but_what_may_be_secret(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "edgepack.access"), Served(
        tmp_path, Front(watch=Watch([AccessLog()]))) as served:  # fmt: skip
        served.add()
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        headers = {"X-Request-Id": "r-1", "Authorization": "Bearer s3cret", "traceparent": trace}
        served.post("/infer?dataset[]=out&key=s3cret", [{"x": [1, 2, 3]}], headers=headers)
        served.post("/pipelines/demo", [{}])
        served.get("/readyz")
    first, second, third = (line.fields for line in caplog.records if line.name == "edgepack.access")
    assert first.pop("took_ms") > 0
    assert first == {"request_id": "r-1", "method": "POST", "route": "/infer", "door": "wallaroo", "pipeline": "demo",
                     "code": 200, "rows": 1, "trace_id": "a" * 32}  # fmt: skip
    assert (second["code"], second["rows"], "trace_id" in second) == (400, 0, False)
    assert (third["route"], third["code"]) == ("/readyz", 200)
    assert "s3cret" not in str([line.fields for line in caplog.records])


def test_without_being_asked_no_request_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "edgepack.access"), Served(tmp_path, Front()) as served:
        served.add()
        served.post(rows=[{"x": [1, 2, 3]}])
        served.get("/readyz")
    assert not [line for line in caplog.records if line.name == "edgepack.access"]


def test_the_program_prints_json_lines_and_nothing_else_when_asked(tmp_path):
    layout = tmp_path / "layout"
    write_layout(make_bundle(tmp_path / "b"), layout)
    secrets = {"EDGEPACK_JOIN_TOKEN": "join-s3cret", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret"}
    with Running("--bundle", layout, "--data", tmp_path / "data", "--log-format", "json", "--access-log",
                 EDGEPACK_OTLP_ENDPOINT="http://127.0.0.1:1", **secrets) as agent:  # fmt: skip
        assert ask(agent.url)[0] == 200
        with urllib3.PoolManager(retries=False, timeout=60) as pool:
            pool.request("GET", agent.url + "/metrics")
        assert agent.end(signal.SIGTERM) == 0
    said = [json.loads(line) for line in agent.errors.splitlines()]
    assert {"serving", "request", "stopping"} <= {each["event"] for each in said}
    assert [each["route"] for each in said if each["event"] == "request"] == ["/infer", "/metrics"]
    assert all(TIME.fullmatch(each["time"]) for each in said)
    assert "s3cret" not in agent.errors


def test_a_format_that_is_none_is_refused_by_its_name(tmp_path):
    done = call("run", "--data", tmp_path, EDGEPACK_LOG_FORMAT="xml")
    assert done.returncode == 2
    assert "EDGEPACK_LOG_FORMAT is 'xml': expected text or json" in done.stderr


def test_logging_set_up_takes_what_ends_a_thread_and_warnings_of_others(capsys):
    before = logging.getLogger().handlers[:]
    hook, show, levels = threading.excepthook, warnings.showwarning, logging.getLogger("edgepack").level
    try:
        set_up_logging("json")
        try:
            raise ValueError("of a thread")
        except ValueError as error:
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))
        logging.getLogger("urllib3").warning("of others")
    finally:
        logging.captureWarnings(capture=False)
        logging.getLogger().handlers[:] = before
        threading.excepthook, warnings.showwarning = hook, show
        logging.getLogger("edgepack").setLevel(levels)
        logging.getLogger("edgepack.access").setLevel(logging.NOTSET)
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], second["event"]) == ("fault of ours ended a thread", "of others")
    assert "ValueError: of a thread" in first["traceback"]


def test_every_route_has_a_door_with_a_name():
    assert {route.protocol for route in TABLE.routes} >= {"wallaroo", "wallaroo_sdk", "oip", "kserve", "predict"}
