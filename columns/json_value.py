"""JSON beside pandas-records: columns by name, instances one a row, and the one value of a step without schema.

Three shapes of a body, by which an answer takes its own:
- columns, `{"x": [row, row]}`: answered as columns
- rows, `[row, row]`: a row is an object of all fields or, for a single field, its value; answered one element a row,
  the value of a single output field, an object for several (KServe v1 "instances" and "predictions")
- one record, `{"x": row}`: one row, answered with its element alone

A step without schema takes and gives one JSON value, or bytes: one row with the field `json`, as JSON text. A program
that wants to know how it was asked has text beside it: the query, the headers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import orjson

from columns.columns import MAX_ROWS, Columns
from columns.json_values import json_values
from columns.records import encode_records
from columns.schema import Field, Schema
from columns.types import StructOf
from columns.values import column_from_values, object_array
from edgepack.errors import BadInput

Shape = Literal["columns", "rows", "record"]
Body = bytes | bytearray | memoryview

VALUE = "json"  # the field of a step without schema
QUERY, HEADERS = "query", "headers"  # beside it, where a step wants them: `a=1&b=2`; a JSON object as text
JSON_VALUE = Schema.parse({VALUE: "string"})
BYTES_VALUE = Schema.parse({VALUE: "binary"})

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def value_schema(array: np.ndarray[Any, Any]) -> Schema:
    """The schema of a step without one for this column of values: of JSON text, or of bytes."""
    return BYTES_VALUE if len(array) and isinstance(array[0], bytes) else JSON_VALUE


def asked_schema(*beside: str) -> Schema:
    """The input of a step without schema that is told how it was asked: the value, then text by these names."""
    return Schema.parse({VALUE: "string", **dict.fromkeys(beside, "string")})


def is_value(schema: Schema) -> bool:
    """Whether a schema is one value, of JSON text or bytes, perhaps with how it was asked for."""
    beside = schema.names[1:]
    is_one = schema.fields[:1] in (JSON_VALUE.fields, BYTES_VALUE.fields)
    return is_one and set(beside) <= {QUERY, HEADERS} and all(schema[name].text == "string" for name in beside)


def whole_schema(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Schema:
    """As `value_schema`, with what stands beside the value."""
    beside = (name for name in (QUERY, HEADERS) if name in arrays)
    return Schema((*value_schema(arrays[VALUE]), *Schema.parse(dict.fromkeys(beside, "string"))))


def with_asked(columns: Columns, beside: Mapping[str, str]) -> Columns:
    """Values and, the same for all, how they were asked for."""
    if not beside:
        return columns
    texts = {name: object_array([text] * columns.rows) for name, text in beside.items()}
    arrays = {**columns.arrays, **texts}
    return Columns(whole_schema(arrays), arrays, columns.rows)


def load_json(body: Body) -> Any:
    """The value of a body. Raises BadInput, also for the NaN and infinities that only Python's JSON reads."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if _is_python_json(bytes(body)):
            raise BadInput("JSON has no NaN and no infinity: send such numbers as Arrow or raw tensors") from error
        raise BadInput(f"the body is not JSON: {error}") from error


def columns_of(value: Any, schema: Schema) -> tuple[Columns, Shape]:
    """The rows of any JSON value, and which shape it has. Raises BadInput that names row and field."""
    if isinstance(value, list):
        return from_rows(value, schema), "rows"
    if not isinstance(value, dict):
        raise BadInput(f"the body is a single JSON value: expected columns, {_example(schema)}")
    try:
        return from_columns(value, schema), "columns"
    except BadInput as refusal:
        try:
            return from_rows([value], schema), "record"
        except BadInput:
            raise refusal from None


def from_columns(value: dict[str, Any], schema: Schema) -> Columns:
    """Columns by name, each a list of one value a row."""
    schema.check_names(value, "the body")
    for name in schema.names:
        if not isinstance(value[name], list):
            raise BadInput(f"field '{name}' is no list of one value a row: expected {_example(schema)}", field=name)
    rows = len(value[schema.names[0]])
    for name in schema.names:
        _check_rows(name, len(value[name]), rows)
    arrays = {field.name: column_from_values(field, value[field.name], json=True) for field in schema}
    return Columns(schema, arrays, rows)


def from_rows(rows: list[Any], schema: Schema) -> Columns:
    """Rows: objects of all fields or, for a single field, its values."""
    _check_rows(schema.names[0], len(rows), len(rows))
    if len(schema) == 1 and not all(_is_record(row, schema.fields[0]) for row in rows):
        field = schema.fields[0]
        if any(_is_named(row, field) for row in rows):
            raise BadInput("some rows are objects and some are bare values: send all of one kind", field=field.name)
        return Columns(schema, {field.name: column_from_values(field, rows, json=True)}, len(rows))
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadInput(f"row {index} is no object of the fields {schema.listing}")
        schema.check_names(row, f"row {index}")
    arrays = {field.name: column_from_values(field, [row[field.name] for row in rows], json=True) for field in schema}
    return Columns(schema, arrays, len(rows))


def encode_columns(columns: Columns) -> bytes:
    """An object of columns, each a list of one value a row; NaN and infinities are null."""
    members = [orjson.dumps(field.name) + b":" + _list(field, columns.arrays[field.name]) for field in columns.schema]
    return b"{" + b",".join(members) + b"}"


def encode_rows(columns: Columns) -> bytes:
    """A list of one element a row: the value of a single field, an object for several."""
    if len(columns.schema) == 1:
        field = columns.schema.fields[0]
        return _list(field, columns.arrays[field.name])
    return encode_records(columns, ".")


def encode_shaped(columns: Columns, shape: Shape) -> bytes:
    """Outputs in the shape that the inputs had."""
    if shape == "columns":
        return encode_columns(columns)
    return encode_rows(columns) if shape == "rows" else encode_rows(columns)[1:-1]


def one_value(body: Body, *, is_json: bool) -> Columns:
    """The row of a step without schema: JSON text, checked and without spaces, or the bytes as they are."""
    if not is_json:
        return Columns(BYTES_VALUE, {VALUE: object_array([bytes(body)])}, 1)
    return Columns(JSON_VALUE, {VALUE: object_array([orjson.dumps(load_json(body)).decode()])}, 1)


def values(rows: list[Any]) -> Columns:
    """Several values for a step without schema, one a row."""
    _check_rows(VALUE, len(rows), len(rows))
    return Columns(JSON_VALUE, {VALUE: object_array([orjson.dumps(row).decode() for row in rows])}, len(rows))


def encode_values(columns: Columns) -> bytes:
    """The answers to several values, as one JSON list."""
    return b"[" + b",".join(str(value).encode() for value in columns.arrays[VALUE].tolist()) + b"]"


def encode_value(columns: Columns) -> bytes:
    """The answer of a step without schema: JSON text or bytes, as they are."""
    value = columns.arrays[VALUE][0]
    return bytes(value) if isinstance(value, bytes) else str(value).encode()


def as_texts(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values as JSON text alone, as golden rows hold them: bytes are base64."""
    return object_array(
        [orjson.dumps(base64.b64encode(each).decode()).decode() if isinstance(each, bytes) else each for each in column]
    )


def _list(field: Field, array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype == object:
        return orjson.dumps(json_values(field.type, array.tolist(), exact=False), option=_NUMPY)
    return orjson.dumps(np.ascontiguousarray(array), option=_NUMPY) if array.size else orjson.dumps(array.tolist())


def _is_named(row: Any, field: Field) -> bool:
    return isinstance(row, dict) and row.keys() == {field.name}


def _is_record(row: Any, field: Field) -> bool:
    """Whether an element is an object of fields and not the value of a single struct."""
    if not isinstance(row, dict) or not isinstance(field.type, StructOf):
        return isinstance(row, dict)
    return row.keys() == {field.name} and {field.name} != {name for name, _ in field.type.fields}


def _check_rows(name: str, found: int, rows: int) -> None:
    if not 1 <= found <= MAX_ROWS or found != rows:
        raise BadInput(f"field '{name}' has {found} rows, expected {rows or 'at least 1'}", field=name)


def _example(schema: Schema) -> str:
    inner = ", ".join(f'"{field.name}": [<{field.text}>, ...]' for field in schema.fields[:4])
    return "{" + inner + (", ..." if len(schema) > 4 else "") + "}"


def _is_python_json(body: bytes) -> bool:
    if b"NaN" not in body and b"Infinity" not in body:
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
