"""`POST /predict` of what was written for Oracle ADS: the answer is all that score.py's predict() returns.

Where score.py runs in a worker, the body goes to it as it is. Where its model was converted, the forms that a
generated score.py reads are read here: an object of columns, rows, JSON text of a DataFrame, and what ADS's client
sends, `{"data": ..., "data_type": ...}` with a DataFrame or an array.
"""

from __future__ import annotations

import base64
import binascii
import io
import time
from typing import Any

import numpy as np

from columns.columns import Columns
from columns.json_value import BYTES_VALUE, encode_rows, encode_value, from_columns, from_rows, load_json, one_value
from columns.schema import Schema
from columns.types import rank
from edge_agent.doors.seam import Buffer, Call
from edge_agent.doors.values import OCTETS
from edge_agent.pipelines import inference
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import WrongMediaType
from edge_agent.pipelines.value_inference import infer_value
from edgepack.errors import BadInput

FRAMEWORK = "ads"
MOST_ARRAY = 64 << 20  # bytes of an array in base64, unpacked
_TENSOR = "__ads_torch_tensor__"  # a tensor of torch as JSON: dtype, shape and data
_FORMS = "expected columns {field: [values]}, rows, or what ADS's client sends ({data, data_type})"


def is_ads(active: ActivePipeline) -> bool:
    """Whether a pipeline is one score.py, or the model of one."""
    steps = active.loaded.spec.steps
    return len(steps) == 1 and steps[0].framework == FRAMEWORK and steps[0].routing is None


def predict(active: ActivePipeline, call: Call, body: Buffer, *, is_json: bool) -> tuple[bytes, str]:
    """Answer one body as score.py does: JSON text or bytes, with the media type."""
    if active.loaded.values is None and not active.loaded.takes_any:
        return _native(active, call, body, is_json=is_json), inference.JSON
    start = time.perf_counter_ns()
    value = one_value(body, is_json=is_json)
    if active.loaded.values is not None:
        answer = infer_value(active, active.loaded.values, call, value, time.perf_counter_ns() - start)
    else:
        answer = inference.outputs_of(active, inference.infer(active, call, lambda _: value))
    return encode_value(answer), OCTETS if answer.schema == BYTES_VALUE else inference.JSON


def _native(active: ActivePipeline, call: Call, body: Buffer, *, is_json: bool) -> bytes:
    if not is_json:
        raise WrongMediaType(
            f"pipeline '{active.name}' takes {active.loaded.input.listing}: send JSON", field="Content-Type"
        )
    result = inference.infer(active, call, lambda schema: rows_of(load_json(body), schema))
    return b'{"prediction":' + encode_rows(inference.outputs_of(active, result)) + b"}"


def rows_of(value: Any, schema: Schema) -> Columns:
    """The rows of a payload. Raises BadInput that names what does not fit."""
    kind = value.get("data_type", "") if isinstance(value, dict) else ""
    found = value.get("data", value) if isinstance(value, dict) and "data" not in schema else value
    if isinstance(kind, str) and "numpy.ndarray" in kind:
        return _of_array(_array(found), schema)
    if isinstance(found, dict) and _TENSOR in found and _TENSOR not in schema:
        found = found.get("data")
    if isinstance(found, str):
        found = load_json(found.encode())
        if not isinstance(found, (dict, list)):
            raise BadInput(f"the text in 'data' is no DataFrame: {_FORMS}", field="data")
    if isinstance(found, dict):
        return from_columns({name: _column(each, name, schema) for name, each in found.items()}, schema)
    if not isinstance(found, list):
        raise BadInput(f"the body is a single JSON value: {_FORMS}")
    if len(schema) > 1 and found and all(isinstance(row, list) for row in found):
        return from_rows([_record(row, at, schema) for at, row in enumerate(found)], schema)
    return from_rows(found, schema)


def _column(column: Any, name: str, schema: Schema) -> Any:
    """A column's values; DataFrame.to_json writes an object of them by row."""
    values = list(column.values()) if isinstance(column, dict) else column
    if name not in schema or not isinstance(values, list):
        return values
    return [_as_field(value, schema[name].text) for value in values]


def _record(row: list[Any], at: int, schema: Schema) -> dict[str, Any]:
    if len(row) != len(schema):
        raise BadInput(f"row {at} has {len(row)} values, expected {len(schema)}: {schema.listing}")
    return {field.name: _as_field(value, field.text) for field, value in zip(schema, row, strict=True)}


def _as_field(value: Any, type_: str) -> Any:
    """A number as its field has it, where that is the same: rows of an array are all floats, or all integers."""
    if isinstance(value, float) and "int" in type_ and value.is_integer():
        return int(value)
    return bool(value) if type_ == "bool" and type(value) in (int, float) and value in (0, 1) else value


def _array(text: Any) -> np.ndarray:
    """An array that ADS's client packed: a .npy file in base64, of numbers."""
    if not isinstance(text, str) or len(text) > MOST_ARRAY * 4 // 3 + 4:
        raise BadInput(f"'data' is no .npy file in base64 of at most {MOST_ARRAY} bytes", field="data")
    try:
        data = base64.b64decode(text, validate=True)
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError, SyntaxError, MemoryError, RecursionError) as error:
        raise BadInput(
            f"'data' is no .npy file in base64: {' '.join(str(error).split())[:200]}", field="data"
        ) from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise BadInput(f"'data' is an array of {array.dtype}: expected rows of numbers", field="data")
    return array


def _of_array(array: np.ndarray, schema: Schema) -> Columns:
    """Rows of an array: its columns in the order of the fields, or all of it for a single field of its rank."""
    if len(schema) == 1 and rank(schema.fields[0].type) == array.ndim - 1:
        return from_rows(array.tolist(), schema)
    if array.ndim != 2:
        raise BadInput(f"'data' has shape {list(array.shape)}: expected rows of {len(schema)} values", field="data")
    return from_rows([_record(row, at, schema) for at, row in enumerate(array.tolist())], schema)
