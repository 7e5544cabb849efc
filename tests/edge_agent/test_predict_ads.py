"""`POST /predict` of what was written for ADS, through real sockets: native models, and score.py in a worker."""

from __future__ import annotations

import json

import pytest

from columns.columns import Columns
from columns.json_value import BYTES_VALUE, JSON_VALUE
from columns.values import object_array
from edgepack.errors import RuntimeFailed


class Reverses:
    """What a worker of score.py offers beside rows: any value in, any out."""

    def infer_value(self, value):
        given = value["json"][0]
        if isinstance(given, bytes):
            return Columns(BYTES_VALUE, {"json": object_array([given[::-1]])}, 1)
        if given == "3":
            raise RuntimeFailed("step 'demo': ValueError: no threes")
        return Columns(JSON_VALUE, {"json": object_array([json.dumps({"prediction": given[::-1], "also": 1})])}, 1)


@pytest.fixture
def ads(served):
    """A pipeline whose one native step came from ADS."""
    served.add(validations={"large": "out.y[0] > 1"}, step={"framework": "ads"})
    return served


@pytest.fixture
def worker(ads):
    """The same, answered by a worker."""
    with ads.serving.lease("demo") as active:
        active.loaded.values = Reverses()
    return ads


def predict(served, body, kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.post("/predict", data=data, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    "body",
    [
        {"x": [[1, 2, 3], [0.5, 0, 0]]},
        {"data": {"x": [[1, 2, 3], [0.5, 0, 0]]}},
        [[1, 2, 3], [0.5, 0, 0]],
        json.dumps({"x": {"0": [1, 2, 3], "1": [0.5, 0, 0]}}),
    ],
)
def test_a_native_model_answers_a_prediction_a_row(ads, body):
    answer = predict(ads, body)
    assert (answer.status_code, answer.json()) == (200, {"prediction": [[12.0], [1.0]]})
    assert [row["anomaly"]["large"] for row in ads.post("/logs").json()] == [True, False]


@pytest.mark.parametrize(
    "body, kind, status, said",
    [
        (b"\x89PNG", "application/octet-stream", 415, "send JSON"),
        (b"[NaN]", "application/json", 400, "no NaN"),
        (b"3", "application/json", 400, "single JSON value"),
        ({"z": [1]}, "application/json", 400, "'z'"),
    ],
)
def test_what_a_native_model_cannot_read_is_refused(ads, body, kind, status, said):
    answer = predict(ads, body, kind)
    assert answer.status_code == status and said in answer.json()["error"]


def test_a_worker_gets_the_body_as_it_is_and_its_answer_is_the_answer(worker):
    answer = predict(worker, [1, 2])
    assert (answer.status_code, answer.json()) == (200, {"prediction": "]2,1[", "also": 1})
    answer = predict(worker, b"\x00abc", "application/octet-stream")
    assert (answer.content, answer.headers["Content-Type"]) == (b"cba\x00", "application/octet-stream")
    first, second = worker.post("/logs").json()
    assert (first["in"], json.loads(first["out"]["json"])["also"]) == ({"json": "[1,2]"}, 1)
    assert first["metadata"]["dropped"] == ["anomaly.large"] and first["anomaly"] == {"count": 0, "large": False}
    assert second["in"] == {"json": "AGFiYw=="}
    answer = predict(worker, 3)
    assert answer.status_code == 422 and "no threes" in answer.json()["error"]
