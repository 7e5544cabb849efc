"""Damaged bodies through the doors of other protocols: 4xx or an answer, never a fault of ours, and life goes on."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pytest

from columns.oip import encode_request
from columns.oip_tensors import Tensor
from tests.columns.test_encodings import mutant
from tests.edge_agent.served import Front, Served
from tests.edge_agent.test_oip import identity

TENSORS = [Tensor("x", "FP32", np.array([[1, 2, 3], [0.5, 0, 0]], np.float32))]
RAW, SIZE = encode_request(TENSORS, raw=True)
TEXTS, TEXTS_SIZE = encode_request([Tensor("x", "BYTES", np.array([["a", "bc"]], object))], raw=True)
HEADER = "Inference-Header-Content-Length"
JSON = {"Content-Type": "application/json"}

BODIES = {
    "oip": ("/v2/models/demo/infer", encode_request(TENSORS, raw=False)[0], {}),
    "oip raw": ("/v2/models/demo/infer", RAW, {HEADER: str(SIZE)}),
    "oip texts": ("/v2/models/texts/infer", TEXTS, {HEADER: str(TEXTS_SIZE)}),
    "oip bare": ("/v2/models/demo/infer", TENSORS[0].array.tobytes(), {HEADER: "0"}),
    "oip gzip": ("/v2/models/demo/infer", gzip.compress(RAW), {HEADER: str(SIZE), "Content-Encoding": "gzip"}),
    "kserve": ("/v1/models/demo:predict", json.dumps({"instances": [[1, 2, 3]]}).encode(), JSON),
    "predict": ("/predict?model=demo", json.dumps({"x": [[1, 2, 3]]}).encode(), JSON),
    "custom json": ("/pipelines/demo", json.dumps([{"x": [1, 2, 3]}]).encode(),
                    {"Content-Type": "application/json; format=wallaroo"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served"), Front()) as served:
        served.add()
        texts = {side: {name: "list<string>[2]"} for side, name in (("input", "x"), ("output", "y"))}
        served.add("texts", model=identity("BYTES", ["n", 2]), golden=b"[]", step=texts)
        yield served


@pytest.mark.parametrize("name", BODIES)
def test_damaged_bodies_are_refused_or_answered_and_the_next_right_one_is_answered(served, name):
    path, body, headers = BODIES[name]
    chance, answered, refused = random.Random(11), 0, 0
    for _ in range(250):
        answer = served.post(path, data=mutant(body, chance), headers=headers)
        assert answer.status_code in (200, 400, 404, 413, 415, 422), answer.text
        if answer.status_code == 200:
            answered += 1
        else:
            refused += 1
            assert "\n" not in answer.json()["error"]
    assert refused
    assert served.post(path, data=body, headers=headers).status_code == 200


@pytest.mark.parametrize("name", BODIES)
def test_bodies_cut_short_are_refused(served, name):
    path, body, headers = BODIES[name]
    for length in {0, 1, len(body) // 2 - 1, len(body) - 1}:
        answer = served.post(path, data=body[:length], headers=headers)
        assert answer.status_code == 400, answer.text
