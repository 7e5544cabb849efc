"""What a worker does for a step without schema: one JSON value in, one out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from runtimes.shim.edgepack_worker.json_value import of_values


def asked(answer: Any, *values: Any) -> list[Any]:
    column = np.array([json.dumps(value) for value in values], dtype=object)
    return [json.loads(text) for text in of_values(answer)({"json": column}, len(values))["json"]]


def test_each_value_is_asked_by_itself() -> None:
    seen = []

    def answer(arrays: dict[str, Any], rows: int) -> Any:
        seen.append((rows, arrays["json"].shape))
        return {"json": [arrays["json"][0]]}

    values = [{"a": [1, 2]}, [1, 2], "text", None, 1.5]
    assert asked(answer, *values) == values
    assert seen == [(1, (1,))] * len(values)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"json": [{"a": 1}]}, {"a": 1}),
        ({"json": np.array([2.5])}, 2.5),
        ({"json": {"a": 1}}, {"a": 1}),
        ({"json": [1, 2]}, [1, 2]),
        ({"label": np.array([1, 2]), "score": np.float32(0.5)}, {"label": [1, 2], "score": 0.5}),
    ],
)
def test_an_answer_is_taken_as_people_give_it(given: Any, expected: Any) -> None:
    assert asked(lambda arrays, rows: given, 0) == [expected]


@pytest.mark.parametrize("given", [{"json": [float("nan")]}, {"json": [object()]}, {"a": {1, 2}}])
def test_what_json_cannot_hold_is_refused(given: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        asked(lambda arrays, rows: given, 0)
