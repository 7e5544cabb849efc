"""The door of KServe v1, through real sockets."""

from __future__ import annotations

import json

import pytest

from tests.runtimes.models import graph, helper


@pytest.fixture
def demo(served):
    served.add()
    return served


def two_sided() -> bytes:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    sides = {"a": ("float32", ["n"]), "b": ("float32", ["n"])}, {"s": ("float32", ["n"]), "d": ("float32", ["n"])}
    return graph(nodes, *sides)


def predict(served, body, name="demo"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.post(f"/v1/models/{name}:predict", data=data, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2, 3], [0.5, 0, 0]]},
        {"instances": [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]},
        {"inputs": {"x": [[1, 2, 3], [0.5, 0, 0]]}},
        {"inputs": [[1, 2, 3], [0.5, 0, 0]]},
        {"signature_name": "serving_default", "instances": [[1, 2, 3], [0.5, 0, 0]]},
    ],
)
def test_predictions_hold_one_element_a_row(demo, body):
    answer = predict(demo, body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": [[12.0], [1.0]]}
    assert [row["out"]["y"] for row in demo.post("/logs").json()] == [[12.0], [1.0]]


def test_several_fields_are_an_object_a_row(served):
    served.add(
        model=two_sided(),
        golden=b"[]",
        step={"input": {"a": "float32", "b": "float32"}, "output": {"s": "float32", "d": "float32"}},
    )
    for body in ({"instances": [{"a": 3, "b": 1}]}, {"inputs": {"a": [3], "b": [1]}}):
        assert predict(served, body).json() == {"predictions": [{"s": 4.0, "d": 2.0}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        ([1], 'expected {"instances"'),
        ({}, 'expected {"instances"'),
        ({"instances": {"x": []}}, "'instances' is no list"),
        ({"instances": []}, "has 0 rows"),
        ({"instances": [[1, 2]]}, "row 0 field 'x'"),
        ({"instances": [{"z": 1}]}, "unknown field 'z'"),
        ({"instances": [[1, 2, 3]], "extra": 1}, "unknown member 'extra'"),
        ({"instances": [[1, 2, None]]}, "found null"),
        (b'{"instances": [[1, 2, NaN]]}', "no NaN"),
    ],
)
def test_what_does_not_fit_is_a_400_that_names_it(demo, body, said):
    answer = predict(demo, body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert predict(demo, {"instances": [[1, 2, 3]]}).status_code == 200


def test_models_are_listed_and_ready(demo):
    assert demo.get("/v1/models").json() == {"models": ["demo"]}
    assert demo.get("/v1/models/demo").json() == {"name": "demo", "ready": True}
    assert demo.get("/v1/models/other").status_code == 404
    assert predict(demo, {"instances": [[1, 2, 3]]}, "other").status_code == 404
