"""The Wallaroo door and the house's own, through real sockets."""

from __future__ import annotations

import gzip
import json
import random
import re
import uuid
import zlib

import numpy as np
import pyarrow as pa
import pytest

from columns.arrow import decode_arrow
from tests.edge_agent.served import ARROW, JSON, VERSION
from tests.runtimes.models import identity, linear, lookup

ROWS = [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]


@pytest.fixture
def demo(served):
    served.add(validations={"high": "out.y[0] > 5"})
    return served


def arrow_file(rows=ROWS, form=pa.ipc.new_file, **types):
    schema = pa.schema([("x", types.get("x", pa.list_(pa.float32(), 3)))])
    sink = pa.BufferOutputStream()
    with form(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return sink.getvalue().to_pybytes()


# Answers


def test_rows_are_answered_nested_and_in_order(demo):
    answer = demo.post(rows=ROWS)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    first, second = answer.json()
    assert first["in"] == {"x": [1.0, 2.0, 3.0]}
    assert first["out"] == {"y": [12.0]}
    assert first["anomaly"] == {"count": 1, "high": True}
    assert second["anomaly"] == {"count": 0, "high": False}
    assert list(first) == ["time", "in", "out", "anomaly", "metadata"]
    metadata = first["metadata"]
    assert json.loads(metadata["last_model"]) == {"model_name": "linear", "model_sha": ""}
    assert metadata["pipeline_version"] == VERSION
    assert metadata["partition"] == "line-4"
    assert metadata["dropped"] == []
    assert len(metadata["elapsed"]) == 2
    assert first["time"] > 1_700_000_000_000


def test_a_pipeline_answers_under_its_name_as_well(demo):
    assert demo.post("/pipelines/demo", ROWS).json()[0]["out"] == {"y": [12.0]}


def test_a_separator_asks_for_flat_names(demo):
    query = "?dataset[]=*&dataset.exclude[]=metadata&dataset.separator=."
    row = demo.post("/infer" + query, ROWS).json()[0]
    assert list(row) == ["time", "in.x", "out.y", "anomaly.count", "anomaly.high"]


def test_the_dataset_parameters_choose_columns(demo):
    row = demo.post("/infer?dataset%5B%5D=out&dataset%5B%5D=metadata.elapsed", ROWS).json()[0]
    assert set(row) == {"out", "metadata"}
    assert set(row["metadata"]) == {"elapsed"}


def test_a_column_that_no_result_has_is_refused_before_anything_is_logged(demo):
    answer = demo.post("/infer?dataset[]=nonsense", ROWS)
    assert answer.status_code == 400
    assert "'nonsense'" in answer.json()["error"]
    assert demo.post("/logs").json() == []


@pytest.mark.parametrize(
    ("form", "asked"), [(pa.ipc.new_file, ARROW), (pa.ipc.new_stream, "application/vnd.apache.arrow.stream")]
)
def test_arrow_goes_in_and_comes_back_when_accept_asks(demo, form, asked):
    body = arrow_file(form=form)
    answer = demo.post(data=body, headers={"Content-Type": asked, "Accept": asked})
    assert answer.headers["Content-Type"] == asked
    reader = pa.ipc.open_file if asked == ARROW else pa.ipc.open_stream
    table = reader(answer.content).read_all()
    assert table.column("out.y").to_pylist() == [[12.0], [1.0]]
    assert table.schema.field("anomaly.count").type == pa.uint32()
    assert table.schema.field("time").type == pa.int64()


def test_arrow_without_accept_is_answered_in_json(demo):
    answer = demo.post(data=arrow_file(), headers={"Content-Type": ARROW})
    assert answer.json()[1]["out"] == {"y": [1.0]}


@pytest.mark.parametrize("body", [json.dumps(ROWS).encode(), b" \n" + json.dumps(ROWS).encode(), arrow_file()])
def test_a_body_without_a_content_type_is_known_by_its_look(demo, body):
    assert demo.post(data=body).json()[0]["out"] == {"y": [12.0]}


def test_the_doubled_header_of_published_examples_is_understood(demo):
    for kind, body in ((JSON, json.dumps(ROWS)), (ARROW, arrow_file())):
        assert demo.post(data=body, headers={"Content-Type": f"Content-Type: {kind}"}).status_code == 200


def test_numbers_that_are_not_finite_are_null_in_json(served):
    served.add(model=linear(factor=np.inf))
    assert served.post(rows=[{"x": [1, 0, 1]}]).json()[0]["out"] == {"y": [None]}


def test_a_single_row_pipeline_refuses_two(served):
    served.add(model=identity("float32", [1, 3]), step={"batch": "single", "output": {"y": "list<float32>[3]"}})
    assert served.post(rows=ROWS[:1]).status_code == 200
    answer = served.post(rows=ROWS)
    assert answer.status_code == 400
    assert "one row a request" in answer.json()["error"]


# Refusals


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{"x": [1, 2]}], "'x'"),
        ([{"x": [1, 2, "a"]}], "'x[2]'"),
        ([{"x": None}], "'x'"),
        ([{"y": [1, 2, 3]}], "'y'"),
        ([{"x": [1, 2, 3], "z": 1}], "'z'"),
        ([{}], "'x'"),
        ([], "row"),
        ({"x": [1, 2, 3]}, "list"),
        (7, "list"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_the_field_and_the_next_request_works(demo, rows, field):
    answer = demo.post(rows=rows)
    assert answer.status_code == 400
    body = answer.json()
    assert field in body["error"]
    assert body == {"code": 400, "status": "Error", "error": body["error"], "source": "agent"}
    assert demo.post(rows=ROWS).status_code == 200


@pytest.mark.parametrize("body", [b"", b"[", b'[{"x": [NaN, 1, 2]}]', b"\xff\xfe", b'[{"x": [1e999, 1, 2]}]'])
def test_bodies_that_are_not_json_are_a_400(demo, body):
    assert demo.post(data=body, headers={"Content-Type": JSON}).status_code == 400


@pytest.mark.parametrize("damage", [b"ARROW1", b"\xff\xff\xff\xff\x10", arrow_file()[:-30], b"junk" + arrow_file()])
def test_arrow_that_does_not_read_is_a_400(demo, damage):
    assert demo.post(data=damage, headers={"Content-Type": ARROW}).status_code == 400


def test_arrow_of_another_type_is_refused_by_its_field(demo):
    body = arrow_file([{"x": "text"}], x=pa.string())
    answer = demo.post(data=body, headers={"Content-Type": ARROW})
    assert answer.status_code == 400
    assert "'x'" in answer.json()["error"]


@pytest.mark.parametrize(("body", "kind"), [(json.dumps(ROWS).encode(), JSON), (arrow_file(), ARROW)])
def test_damaged_bodies_never_make_a_fault_of_ours(demo, body, kind):
    chance = random.Random(7)
    for _ in range(250):
        damaged = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        answer = demo.post(data=bytes(damaged), headers={"Content-Type": kind})
        assert answer.status_code in (200, 400), (bytes(damaged), answer.text)
    assert demo.post(rows=ROWS).status_code == 200


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_what_comes_behind_a_packed_body_is_refused_and_never_lost_in_silence(demo, coding, pack):
    packed, headers = pack(json.dumps(ROWS).encode()), {"Content-Type": JSON, "Content-Encoding": coding}
    assert demo.post("/infer", data=packed, headers=headers).status_code == 200
    for behind in (pack(json.dumps(ROWS).encode()), b"junk"):
        answer = demo.post("/infer", data=packed + behind, headers=headers)
        assert answer.status_code == 400
        assert (
            answer.json()["error"] == f"the body goes on behind the end of its {coding} stream: pack it as one stream"
        )


def test_another_media_type_is_a_415_that_says_what_is_read(demo):
    answer = demo.post(data=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"})
    assert answer.status_code == 415
    assert "pandas-records" in answer.json()["error"]
    assert demo.post(data=b"\x00\x01").status_code == 415


def test_rows_that_the_model_cannot_run_are_a_422_and_no_traceback(served):
    served.add(model=linear(declared="k"), step={"input": {"x": "list<float32>"}})
    answer = served.post(rows=[{"x": [1, 2, 3, 4]}])
    assert answer.status_code == 422
    assert "linear" in answer.json()["error"]
    assert served.post(rows=ROWS).status_code == 200


def test_a_value_outside_of_a_models_table_is_a_400(served):
    spec = {"input": {"x": "int64"}, "output": {"y": "float32"}}
    served.add(model=lookup(), step=spec, golden=b'[{"in.x": 0}]')
    assert served.post(rows=[{"x": 99}]).status_code == 400


def test_an_unknown_pipeline_is_a_404_that_lists_those_served(demo):
    answer = demo.post("/pipelines/other", ROWS)
    assert answer.status_code == 404
    assert "'other'" in answer.json()["error"]
    assert "'demo'" in answer.json()["error"]


def test_infer_with_several_pipelines_is_a_404_with_the_list(demo):
    demo.add("second", 3.0)
    answer = demo.post(rows=ROWS)
    assert answer.status_code == 404
    assert "'demo', 'second'" in answer.json()["error"]
    assert demo.post("/pipelines/second", ROWS).json()[0]["out"] == {"y": [18.0]}


def test_unknown_routes_and_wrong_methods_answer_in_json(demo):
    lost, wrong = demo.get("/nope"), demo.get("/infer")
    assert (lost.status_code, wrong.status_code) == (404, 405)
    assert "openapi" in lost.json()["error"]
    assert "POST" in wrong.headers["Allow"]
    assert wrong.json()["code"] == 405


def test_before_a_pipeline_is_loaded_one_is_told_to_come_back(served):
    served.serving.expect(["demo"])
    answer = served.post(rows=ROWS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert served.get("/readyz").status_code == 503
    assert served.get("/readyz").json()["reason"] == "loading demo"
    served.add()
    assert served.get("/readyz").json() == {"status": "ready", "pipelines": ["demo"]}
    assert served.post(rows=ROWS).status_code == 200


def test_a_log_that_is_full_and_may_drop_nothing_refuses_with_503(served):
    served.add(log={"max_bytes": "16Ki", "when_full": "reject"})
    statuses = [served.post(rows=ROWS * 20) for _ in range(20)]
    assert statuses[0].status_code == 200
    assert statuses[-1].status_code == 503
    assert int(statuses[-1].headers["Retry-After"]) >= 1
    assert "out" not in statuses[-1].json()
    assert served.get("/readyz").status_code == 503
    assert "is full" in served.get("/readyz").json()["reason"]


# Request ids and the log


def test_the_request_id_of_the_client_comes_back_and_lies_in_the_log(demo):
    answer = demo.post(rows=ROWS, headers={"X-Request-Id": "line-4/000017"})
    assert answer.headers["X-Request-Id"] == "line-4/000017"
    logged = demo.post("/logs").json()
    assert [row["metadata"]["request_id"] for row in logged] == ["line-4/000017"] * 2


def test_a_request_id_that_cannot_be_one_is_replaced_and_errors_carry_one_too(demo):
    for given in ("", "a" * 129, "with space", "ünï".encode()):
        answer = demo.post(rows=ROWS, headers={"X-Request-Id": given})
        assert uuid.UUID(answer.headers["X-Request-Id"])
    assert uuid.UUID(demo.get("/nope").headers["X-Request-Id"])


def test_the_log_has_every_row_oldest_first_in_the_shape_of_an_answer(demo):
    answers = [row for i in range(5) for row in demo.post(rows=[{"x": [i, 0, 0]}, {"x": [i, 1, 0]}]).json()]
    logged = demo.post("/logs", data=b"{}").json()
    assert [row["metadata"]["seq"] for row in logged] == sorted(row["metadata"]["seq"] for row in logged)
    assert all(row["metadata"]["pipeline"] == "demo" for row in logged)
    assert all(row["metadata"]["bundle"].startswith("sha256:") for row in logged)
    for row in logged:
        for key in ("seq", "epoch", "pipeline", "bundle", "request_id"):
            del row["metadata"][key]
    assert logged == answers


def test_the_log_is_paged_by_sequence_and_focused_like_an_answer(demo):
    for i in range(4):
        demo.post(rows=[{"x": [i, 0, 0]}, {"x": [i, 1, 0]}])
    first = demo.post("/logs?limit=3").json()
    rest = demo.post(f"/logs?after_seq={first[-1]['metadata']['seq']}&dataset[]=in&dataset.separator=.").json()
    assert len(first) == 3
    assert [row["in.x"] for row in rest] == [[1, 1, 0], [2, 0, 0], [2, 1, 0], [3, 0, 0], [3, 1, 0]]
    assert demo.post("/logs?limit=0").json() == []
    assert demo.post("/logs?limit=-1").status_code == 400


def test_the_logs_of_several_pipelines_come_in_turn_or_one_by_name(demo):
    demo.add("second", 3.0)
    demo.post("/pipelines/demo", ROWS)
    demo.post("/pipelines/second", ROWS)
    assert [row["metadata"]["pipeline"] for row in demo.post("/logs").json()] == ["demo"] * 2 + ["second"] * 2
    assert len(demo.post("/logs?limit=3").json()) == 3
    assert len(demo.post("/logs?pipeline=second").json()) == 2
    assert demo.post("/logs?after_seq=1").status_code == 400
    assert demo.post("/logs?pipeline=third").status_code == 404


def test_nothing_is_logged_when_the_log_is_off(served):
    served.add(log={"durability": "off"})
    assert served.post(rows=ROWS).status_code == 200
    assert served.post("/logs").json() == []
    assert not (served.root / "spool" / "demo").exists()


def test_refused_rows_are_not_logged(demo):
    demo.post(rows=[{"x": [1, 2]}])
    assert demo.post("/logs").json() == []


# The house's own door


def test_pipelines_and_models_are_listed_with_versions(demo):
    assert demo.get("/pipelines").json() == {"pipelines": [{"id": "demo", "version": VERSION, "status": "Running"}]}
    (model,) = demo.get("/models").json()["models"]
    assert set(model) == {"name", "sha", "version", "status"}
    assert uuid.UUID(model["version"])


def test_health_is_json_and_the_root_speaks_both_languages(demo):
    assert demo.get("/healthz").json() == {"status": "alive"}
    assert demo.get("/").json() == {"status": "alive"}
    page = demo.get("/", headers={"Accept": "text/html,*/*"})
    assert "text/html" in page.headers["Content-Type"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "list&lt;float32&gt;[3]" in page.text


def test_the_pages_example_is_a_body_that_is_answered(demo):
    page = demo.get("/", headers={"Accept": "text/html"}).text
    example = re.search(r"<textarea[^>]*>(.*?)</textarea>", page, re.S)[1].replace("&#34;", '"')
    assert demo.post(data=example, headers={"Content-Type": JSON}).json()[0]["out"] == {"y": [12.0]}


def test_metrics_count_requests_rows_and_the_log(demo):
    demo.post(rows=ROWS)
    demo.post(rows=[{"x": 1}])
    demo.post("/pipelines/evil", ROWS)
    figures = demo.get("/metrics").text
    assert 'edgepack_requests_total{door="wallaroo",pipeline="demo",code="200"} 1' in figures
    assert 'edgepack_requests_total{door="wallaroo",pipeline="demo",code="400"} 1' in figures
    assert 'edgepack_requests_total{door="wallaroo",pipeline="",code="404"} 1' in figures
    assert 'edgepack_rows_total{pipeline="demo"} 2' in figures
    assert 'edgepack_request_seconds_count{pipeline="demo"} 2' in figures
    assert 'edgepack_spool_rows{pipeline="demo"} 2' in figures
    assert "edgepack_active_bundle{" in figures
    assert "evil" not in figures
    for line in figures.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{.*\})? \S+", line), line


def test_the_openapi_document_has_the_rows_of_each_pipeline(demo):
    document = demo.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/infer", "/pipelines/demo", "/logs", "/metrics"} <= set(document["paths"])
    row = document["components"]["schemas"]["demo-rows"]["items"]
    assert row["properties"]["x"] == {
        "type": "array",
        "items": {"type": "number", "format": "float32"},
        "minItems": 3,
        "maxItems": 3,
    }


def test_an_arrow_answer_reads_back_as_columns(demo):
    answer = demo.post(rows=ROWS, headers={"Accept": ARROW})
    columns = decode_arrow(answer.content, None)
    assert columns.arrays["out.y"].tolist() == [[12.0], [1.0]]
