"""Golden rows of a step without schema: JSON values in the file, JSON text in the columns."""

from __future__ import annotations

import json

import pytest

from bundle.golden import GoldenRows, compare
from columns.json_value import JSON_VALUE

ROWS = [{"in.json": {"x": [1, 2.5], "name": "é"}, "out.json": [1, None]}, {"in.json": "text", "out.json": 3}]


def test_values_stand_in_the_file_as_they_are_and_survive_a_round_trip() -> None:
    golden = GoldenRows.decode(json.dumps(ROWS).encode(), JSON_VALUE, JSON_VALUE)
    assert [json.loads(text) for text in golden.inputs["json"]] == [row["in.json"] for row in ROWS]
    assert json.loads(golden.encode()) == ROWS
    again = GoldenRows.decode(golden.encode(), JSON_VALUE, JSON_VALUE)
    assert again.encode() == golden.encode()


def outputs(*values: object) -> GoldenRows:
    rows = [{"in.json": None, "out.json": value} for value in values]
    return GoldenRows.decode(json.dumps(rows).encode(), JSON_VALUE, JSON_VALUE)


@pytest.mark.parametrize(
    "one, other, passed",
    [
        ({"a": 1.0, "b": [2]}, {"b": [2], "a": 1.0 + 1e-9}, True),
        ({"a": 1.0}, {"a": 1.1}, False),
        ({"a": 1.0}, {"a": 1.0, "b": 1}, False),
        ([1, 2], [1, 3], False),
        ("é", "é", True),
        (None, 0, False),
    ],
)
def test_answers_are_compared_as_values(one: object, other: object, passed: bool) -> None:
    first, second = outputs(one).outputs, outputs(other).outputs
    assert first is not None and second is not None
    assert compare(first, second, 1e-5).passed is passed
