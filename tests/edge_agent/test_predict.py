"""The door of ADS and Cortex, and Wallaroo's custom JSON, through real sockets."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from columns.json_value import JSON_VALUE
from columns.values import object_array
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION

COLUMNS, ROWS = {"x": [[1, 2, 3], [0.5, 0, 0]]}, [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]


@pytest.fixture
def demo(served):
    served.add()
    return served


class Echo:
    """A runtime of a step without schema, as a worker is one: it gives back the value it takes, in a list."""

    input = output = JSON_VALUE

    def infer(self, arrays, rows):
        return {"json": object_array([f"[{value}]" for value in arrays["json"].tolist()])}

    def close(self):
        pass


@pytest.fixture
def free(served):
    """A pipeline without schema: one JSON value in, one out."""
    active = served.add()
    loaded = LoadedPipeline(active.loaded.bundle, [Echo()])
    served.serving.switch("demo", replace(active, loaded=loaded))
    return served


def predict(served, body, query="", kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.post(f"/predict{query}", data=data, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("body", "prediction"),
    [
        (COLUMNS, {"y": [[12.0], [1.0]]}),
        (ROWS, [[12.0], [1.0]]),
        ([[1, 2, 3], [0.5, 0, 0]], [[12.0], [1.0]]),
        ({"x": [1, 2, 3]}, [12.0]),
    ],
)
def test_a_prediction_has_the_shape_of_its_request(demo, body, prediction):
    answer = predict(demo, body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"prediction": prediction}
    assert demo.post("/logs").json()[0]["out"] == {"y": [12.0]}


def test_custom_json_of_wallaroo_is_answered_by_the_outputs_alone(demo):
    headers = {"Content-Type": "application/json; format=wallaroo"}
    for path in ("/infer", "/pipelines/demo", "/v1/api/pipelines/infer/demo-1/demo"):
        answer = demo.post(path, data=json.dumps(COLUMNS), headers=headers)
        assert answer.json() == {"y": [[12.0], [1.0]]}


def test_a_model_and_a_version_may_be_named(demo):
    assert predict(demo, COLUMNS, f"?model=demo&version={VERSION}").status_code == 200
    assert predict(demo, COLUMNS, "?model=other").status_code == 404
    answer = predict(demo, COLUMNS, "?model=demo&version=7")
    assert answer.status_code == 404
    assert VERSION in answer.json()["error"]


def test_without_a_name_one_pipeline_answers_and_of_several_none(demo):
    demo.add("second", factor=3.0)
    answer = predict(demo, COLUMNS)
    assert answer.status_code == 404
    assert "'demo', 'second'" in answer.json()["error"]
    assert predict(demo, COLUMNS, "?model=second").json() == {"prediction": {"y": [[18.0], [1.5]]}}


@pytest.mark.parametrize(
    ("body", "said", "status"),
    [
        (b"", "the body is empty", 400),
        (b"{", "not JSON", 400),
        (b"[NaN]", "no NaN", 400),
        (b"3", "single JSON value", 400),
        ({"z": [1]}, "unknown field 'z'", 400),
        ({"x": []}, "0 rows", 400),
    ],
)
def test_what_does_not_fit_is_named(demo, body, said, status):
    answer = predict(demo, body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_bytes_are_for_pipelines_without_fields_of_their_own(demo):
    answer = predict(demo, b"\x89PNG", kind="application/octet-stream")
    assert answer.status_code == 415
    assert "send JSON" in answer.json()["error"]


@pytest.mark.parametrize("value", [{"a": [1, None, "é"]}, [1, 2], "text", 3, None, True])
def test_a_step_without_schema_takes_any_json_value_as_one_row(free, value):
    assert predict(free, value).json() == {"prediction": [value]}
    answer = free.post("/infer", data=json.dumps(value), headers={"Content-Type": "application/json; format=wallaroo"})
    assert answer.json() == [value]
    rows = free.post("/logs").json()
    assert [json.loads(row["in"]["json"]) for row in rows] == [value, value]
    assert [json.loads(row["out"]["json"]) for row in rows] == [[value], [value]]


def test_each_instance_of_kserve_is_a_value_for_a_step_without_schema(free):
    body = json.dumps({"instances": [{"a": 1}, "text", None]})
    answer = free.post("/v1/models/demo:predict", data=body)
    assert answer.json() == {"predictions": [[{"a": 1}], ["text"], [None]]}
    assert len(free.post("/logs").json()) == 3


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/predict", COLUMNS, "application/json"),
        ("/infer", ROWS, "application/json; format=pandas-records"),
        ("/v1/models/demo:predict", {"instances": [[1, 2, 3]]}, "application/json"),
    ],
)
def test_every_door_unpacks_bodies_and_packs_answers_that_are_asked_for(demo, path, body, kind):
    headers = {"Content-Type": kind, "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    answer = demo.post(path, data=gzip.compress(json.dumps(body).encode()), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "12.0" in answer.text
    plain = demo.post(path, data=json.dumps(body), headers={"Content-Type": kind})
    assert "Content-Encoding" not in plain.headers
