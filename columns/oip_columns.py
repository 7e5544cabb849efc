"""Columns as tensors of the Open Inference Protocol: rows are the first axis.

Numbers and regular lists of them are tensors of their dtype, text and binary (and regular lists of them) are BYTES.
What no tensor holds (nulls, structs, ragged lists, dates) is BYTES as well: one element a row, its value as JSON text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson

from columns.columns import Columns, shape_fits
from columns.json_values import from_exact, has_floats, json_values
from columns.oip import decode_request, encode_request
from columns.oip_tensors import Tensor, datatype_of
from columns.schema import Field, Schema
from columns.types import ListOf, Scalar, TensorShape, Type, clip, innermost
from columns.values import column_from_values, object_array
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]


def to_columns(tensors: Mapping[str, Tensor], schema: Schema) -> Columns:
    """The columns of tensors. Raises BadInput for a field that is unknown, missing, or of another type or shape."""
    schema.check_names(tensors, "the request")
    arrays = {field.name: _column(field, tensors[field.name]) for field in schema}
    rows = len(arrays[schema.names[0]])
    for name, array in arrays.items():
        if len(array) != rows or not rows:
            raise BadInput(f"input '{name}' has {len(array)} rows, expected {rows or 'at least 1'}", field=name)
    return Columns(schema, arrays, rows)


def from_columns(columns: Columns) -> list[Tensor]:
    """The tensors of columns, in the order of their schema."""
    return [_tensor(field, columns.arrays[field.name]) for field in columns.schema]


def describe(schema: Schema) -> list[dict[str, Any]]:
    """Name, datatype and shape of each field, as a model's metadata lists them; -1 is a free axis."""
    return [_described(field) for field in schema]


def fitted(tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    """A tensor's elements as a dtype that holds each of them exactly. Raises BadInput where none does."""
    array = tensor.array
    if array.dtype == dtype:
        return array
    if {"O", "b"} & {array.dtype.kind, dtype.kind} or not np.can_cast(array.dtype, dtype, "safe"):
        raise BadInput(
            f"input '{clip(tensor.name)}' is {tensor.datatype}, expected {datatype_of(dtype)}", field=clip(tensor.name)
        )
    wider: Array = array.astype(dtype)
    return wider


def encode_oip(columns: Columns, *, raw: bool) -> tuple[bytes, int | None]:
    """Columns as a request; the second value is the length of its JSON where raw tensors follow."""
    return encode_request(from_columns(columns), raw=raw)


def decode_oip(body: bytes | memoryview, schema: Schema, json_size: int | None = None) -> Columns:
    """The columns of a request."""
    return to_columns(decode_request(body, json_size).tensors, schema)


def texts(name: str, array: Array) -> Array:
    """The elements of BYTES as text. Raises BadInput for bytes that are no UTF-8."""
    found = [_as_text(name, value) for value in array.reshape(-1).tolist()]
    shaped: Array = object_array(found).reshape(array.shape)
    return shaped


def _column(field: Field, tensor: Tensor) -> Array:
    found = field.type.tensor_dtype_and_shape()
    dims = found[1] if found else _text_dims(field.type)
    if dims is None or (tensor.datatype == "BYTES" and tensor.array.ndim == 1 and (found or dims)):
        return _from_json_texts(field, tensor)
    array = tensor.array[np.newaxis] if tensor.array.ndim == len(dims) else tensor.array
    if not dims and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # one value a row, sent as a column
    if not shape_fits(array.shape[1:], dims) or array.ndim == 0:
        said = f"has shape {list(tensor.array.shape)}, expected {_described(field)['shape']} for {field.text}"
        raise BadInput(f"input '{field.name}' {said}", field=field.name)
    if found:
        return fitted(Tensor(field.name, tensor.datatype, array), found[0])
    return _texts_of(field, tensor.datatype, array)


def _texts_of(field: Field, datatype: str, array: Array) -> Array:
    if datatype != "BYTES":
        raise BadInput(
            f"input '{field.name}' is {datatype}, the schema says {field.text}: send BYTES", field=field.name
        )
    binary = innermost(field.type) == Scalar("binary")
    convert = _as_binary if binary else _as_text
    flat = [convert(field.name, value) for value in array.reshape(-1).tolist()]
    return object_array(object_array(flat).reshape(array.shape).tolist())


def _from_json_texts(field: Field, tensor: Tensor) -> Array:
    if tensor.datatype != "BYTES" or tensor.array.ndim != 1:
        said = f"is {tensor.datatype} of shape {list(tensor.array.shape)}: send BYTES, one JSON text a row"
        raise BadInput(f"input '{field.name}' {said} ({field.text})", field=field.name)
    try:
        values = [orjson.loads(value) for value in tensor.array.tolist()]
    except orjson.JSONDecodeError as error:
        raise BadInput(
            f"input '{field.name}' has an element that is not JSON text of {field.text}", field=field.name
        ) from error
    if has_floats(field.type):
        values = [from_exact(field.type, value) for value in values]
    return column_from_values(field, values, json=False)


def _tensor(field: Field, array: Array) -> Tensor:
    if array.dtype != object:
        return Tensor(field.name, datatype_of(array.dtype), array)
    values = array.tolist()
    dims = _text_dims(field.type)
    regular = None if dims is None else _regular(values, dims)
    if regular is None:
        found = json_values(field.type, values, exact=True)
        dumped = [orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode() for value in found]
        return Tensor(field.name, "BYTES", object_array(dumped))
    return Tensor(field.name, "BYTES", regular)


def _regular(values: list[Any], dims: TensorShape) -> Array | None:
    """Nested lists of text as one array; None where their lengths differ."""
    shape = [len(values)]
    for _ in dims:
        lengths = set(map(len, values))
        if len(lengths) > 1:
            return None
        shape.append(lengths.pop() if lengths else 0)
        values = list(chain.from_iterable(values))
    return object_array(values).reshape(shape)


def _described(field: Field) -> dict[str, Any]:
    found = field.type.tensor_dtype_and_shape()
    dims = found[1] if found else _text_dims(field.type) or ()
    datatype = datatype_of(found[0]) if found else "BYTES"
    return {"name": field.name, "datatype": datatype, "shape": [-1, *(-1 if d is None else d for d in dims)]}


def _text_dims(type_: Type) -> TensorShape | None:
    """The axes of a row of text or binary; None for what BYTES alone does not say."""
    if type_.nullable:
        return None
    if isinstance(type_, ListOf):
        inner = _text_dims(type_.item)
        return None if inner is None else (type_.size, *inner)
    return () if isinstance(type_, Scalar) and type_.name in ("string", "binary") else None


def _as_text(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"input '{name}' has an element that is not UTF-8 text", field=name) from error


def _as_binary(name: str, value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"input '{name}' has an element that is not base64 text of binary", field=name) from error
