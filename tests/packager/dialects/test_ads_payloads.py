"""What a native model reads of a payload of `POST /predict`: all that a generated score.py reads."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest

from columns.schema import Schema
from edge_agent.doors.ads import rows_of
from edgepack.errors import BadInput

NUMBERS = Schema.parse({"age": "int64", "income": "float64", "is_new": "bool"})


def npy(array: Any) -> str:
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def test_a_native_model_reads_every_form_that_a_generated_score_py_reads() -> None:
    columns = {"age": [1, 2], "income": [10.5, 3.0], "is_new": [True, False]}
    frame = json.dumps({name: dict(enumerate(values)) for name, values in columns.items()})
    rows = [[1, 10.5, True], [2.0, 3, False]]
    forms: list[Any] = [
        columns, rows, frame, {"data": columns}, {"data": rows},
        {"data": frame, "data_type": "<class 'pandas.core.frame.DataFrame'>"},
        {"data": npy(np.array([[1, 10.5, 1], [2, 3, 0]])), "data_type": "<class 'numpy.ndarray'>"},
        {"data": {"__ads_torch_tensor__": 1, "dtype": "torch.float32", "data": rows}, "data_type": "torch.Tensor"},
        [dict(zip(columns, row, strict=True)) for row in rows[:1]] + [dict(zip(columns, [2, 3.0, False], strict=True))],
    ]  # fmt: skip
    for form in forms:
        found = rows_of(form, NUMBERS)
        assert {name: found[name].tolist() for name in columns} == columns, form


@pytest.mark.parametrize(
    "payload, said",
    [
        (3, "single JSON value"),
        ("text", "not JSON"),
        ({"data": "3"}, "no DataFrame"),
        ([[1, 2.0]], "row 0 has 2 values, expected 3"),
        ({"age": [1], "income": [1.0]}, "is_new"),
        ({"age": [1.5], "income": [1.0], "is_new": [True]}, "age"),
        ({"data": "%%", "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": 3, "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": npy(np.array([None])), "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": npy(np.zeros((2, 3, 4))), "data_type": "numpy.ndarray"}, r"shape \[2, 3, 4\]"),
        ({"data": npy(np.array(["a"])), "data_type": "numpy.ndarray"}, "rows of numbers"),
    ],
)
def test_what_a_native_model_cannot_read_is_named(payload: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        rows_of(payload, NUMBERS)


@pytest.mark.parametrize(
    "field, value", [("income", None), ("income", "10.5"), ("income", True), ("age", 1.5), ("when", 1_700_000_000_000)]
)
def test_a_native_model_is_stricter_than_pandas_as_the_guide_says(field: str, value: Any) -> None:
    schema = Schema.parse({"age": "int64", "income": "float64", "when": "string"})
    row = {"age": 1, "income": 10.5, "when": "2026-01-02"}
    assert rows_of([dict(reversed(row.items()))], schema)["income"].tolist() == [10.5]
    for payload in ([{**row, field: value}], {name: [{**row, field: value}[name]] for name in row}):
        with pytest.raises(BadInput, match=field):
            rows_of(payload, schema)
