"""The routes that Wallaroo's SDK asks, and the curl lines of its documentation, without either (see tests/clients)."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tests.edge_agent.served import ARROW, JSON, Served

ROWS = [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]
PATH = "/v1/api/pipelines/infer/demo-1/demo"


@pytest.fixture
def demo(tmp_path, front):
    with Served(tmp_path, front) as served:
        served.add(validations={"high": "out.y[0] > 5"})
        yield served


def arrow_file(rows):
    schema = pa.schema([("x", pa.list_(pa.float32()))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return sink.getvalue().to_pybytes()


def test_the_configuration_names_the_architecture(demo):
    assert demo.get("/v1/api/config").json()["default_arch"] in ("x86", "arm")


def test_rows_as_the_sdk_asks_for_them_are_flat_and_without_metadata(demo):
    query = "?dataset%5B%5D=%2A&dataset.exclude%5B%5D=metadata&dataset.separator=."
    answer = demo.post(PATH + query, ROWS)
    assert answer.status_code == 200
    assert list(answer.json()[0]) == ["time", "in.x", "out.y", "anomaly.count", "anomaly.high"]


@pytest.mark.parametrize(
    ("chosen", "excluded", "columns"),
    [
        (["*"], [], {"time", "in", "out", "anomaly", "metadata"}),
        (["*", "metadata.elapsed"], ["metadata"], {"time", "in", "out", "anomaly", "metadata"}),
        (["metadata.elapsed"], [], {"metadata"}),
        (["time", "out", "check_failures"], [], {"time", "out", "anomaly"}),
        (["meta"], [], {"metadata"}),
        (["*"], ["in", "out.y"], {"time", "anomaly", "metadata"}),
    ],
)
def test_the_datasets_of_its_documentation_are_answered(demo, chosen, excluded, columns):
    query = "&".join([*(f"dataset[]={each}" for each in chosen), *(f"dataset.exclude[]={each}" for each in excluded)])
    row = demo.post(f"{PATH}?{query}", ROWS).json()[0]
    assert set(row) == columns
    if excluded == ["metadata"]:
        assert set(row["metadata"]) == {"elapsed"}


def test_arrow_is_answered_as_an_arrow_file_with_the_time_and_the_count(demo):
    headers = {"Content-Type": ARROW, "Accept": ARROW, "format": "arrow"}
    answer = demo.post(PATH + "?dataset[]=*&dataset.exclude[]=metadata&dataset.separator=.",
                       data=arrow_file(ROWS), headers=headers)  # fmt: skip
    table = pa.ipc.open_file(answer.content).read_all()
    assert table.column_names == ["time", "in.x", "out.y", "anomaly.count", "anomaly.high"]
    assert table["out.y"].to_pylist() == [[12.0], [1.0]]


def test_an_error_has_the_fields_that_the_sdk_shows(demo):
    answer = demo.post(PATH, [{"x": [1, 2]}])
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "status", "error", "source"}


def test_any_deployment_name_leads_to_the_pipeline_and_an_unknown_pipeline_to_none(demo):
    assert demo.post("/v1/api/pipelines/infer/other-77/demo", ROWS).status_code == 200
    assert demo.post("/v1/api/pipelines/infer/demo-1/other", ROWS).status_code == 404


def test_the_doubled_header_of_published_examples_reaches_every_format(demo):
    doubled = {"Content-Type": f"Content-Type: {JSON}"}
    assert demo.post("/pipelines/demo", data=json.dumps(ROWS), headers=doubled).status_code == 200
    custom = {"Content-Type": "Content-Type: application/json; format=wallaroo"}
    assert demo.post("/infer", data=json.dumps({"x": [[1, 2, 3]]}), headers=custom).json() == {"y": [[12.0]]}
