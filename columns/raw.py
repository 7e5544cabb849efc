"""Columns as one JSON head and raw buffers: what the spool keeps, the worker gets and the hub receives.

    magic `EPC1` · u32 length of the head · head · buffers, each at a multiple of its item size

The head is `[rows, [[name, type, shape, bytes], ...]]`. `shape` is that of the array; null says that the
buffer is a JSON list of values (NaN and infinities as text, binary as base64). A column of which one row is
stored where there are more is the same in each row.

Everything the head claims is checked against the body before it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson

from columns.columns import MAX_ROWS, Columns, constant, is_constant, shape_fits
from columns.json_values import from_exact, has_floats, json_values
from columns.schema import Field, Schema
from columns.values import column_from_values
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]
Block = bytes | bytearray | memoryview

_START = struct.Struct("<4sI")
_MAGIC = b"EPC1"
_PADDING = bytes(8)
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class _Column(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    type: str
    shape: list[int] | None
    size: int


class _Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    rows: int
    columns: list[_Column]


_HEADS = msgspec.json.Decoder(_Head)


def encode_raw(columns: Columns) -> list[bytes | memoryview]:
    """The columns as pieces to write one after another; tensors are not copied.

    First come magic and length, and the head; then for each column a gap, which may be empty, and its buffer.
    """
    described, buffers = [], []
    for field in columns.schema:
        shape, buffer = _buffer(field, columns.arrays[field.name])
        described.append((field.name, field.text, shape, len(buffer)))
        buffers.append((_item_size(field, shape), buffer))
    head = orjson.dumps((columns.rows, described))
    pieces: list[bytes | memoryview] = [_START.pack(_MAGIC, len(head)), head]
    at = _START.size + len(head)
    for item_size, buffer in buffers:
        gap = -at % item_size
        pieces += [_PADDING[:gap], buffer]
        at += gap + len(buffer)
    return pieces


def decode_raw(data: Block) -> Columns:
    """Columns that lie in `data` without a copy, which the caller must not change while they are used.

    Raises BadInput for anything that `encode_raw` would not have written.
    """
    view = memoryview(data).cast("B")
    head, at = _head(view)
    schema = _schema(tuple((column.name, column.type) for column in head.columns))
    arrays = {}
    for field, column in zip(schema, head.columns, strict=True):
        gap = -at % _item_size(field, column.shape)
        buffer = view[at + gap : at + gap + column.size]
        if len(buffer) != column.size or view[at : at + gap] != _PADDING[:gap]:
            raise _damaged(f"the buffer of '{column.name}' is cut short")
        arrays[field.name] = _array(field, column, buffer, head.rows)
        at += gap + column.size
    if at != len(view):
        raise _damaged(f"{len(view) - at} bytes follow the last buffer")
    return Columns(schema, arrays, head.rows)


def _buffer(field: Field, array: Array) -> tuple[tuple[int, ...] | None, bytes | memoryview]:
    stored = array[:1] if is_constant(array) else array
    if array.dtype == object:
        values = json_values(field.type, stored.tolist(), exact=True)
        return None, orjson.dumps(values, option=_NUMPY)
    # Viewed as bytes by numpy: memoryview.cast refuses empty arrays.
    return stored.shape, np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data


def _item_size(field: Field, shape: object) -> int:
    tensor = field.type.tensor_dtype_and_shape()
    return tensor[0].itemsize if shape is not None and tensor is not None else 1


def _head(view: memoryview) -> tuple[_Head, int]:
    if len(view) < _START.size:
        raise _damaged(f"{len(view)} bytes are too few")
    magic, length = _START.unpack_from(view)
    at = _START.size + length
    if magic != _MAGIC or at > len(view):
        raise _damaged("it does not begin with a head")
    try:
        head = _HEADS.decode(view[_START.size : at])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(f"its head does not read: {error}") from error
    if not 0 <= head.rows <= MAX_ROWS:
        raise _damaged(f"it claims {head.rows} rows")
    if any(column.size < 0 for column in head.columns):
        raise _damaged("a buffer has a negative size")
    return head, at


@lru_cache(maxsize=256)
def _schema(described: tuple[tuple[str, str], ...]) -> Schema:
    fields = Schema.parse(dict(described))
    if len(fields) != len(described):
        raise _damaged("two columns have one name")
    return fields


def _array(field: Field, column: _Column, buffer: memoryview, rows: int) -> Array:
    if column.shape is None:
        return _spread(field, _objects(field, buffer), rows)
    tensor = field.type.tensor_dtype_and_shape()
    shape = tuple(column.shape)
    if tensor is None or not shape or not shape_fits(shape[1:], tensor[1]):
        raise _damaged(f"column '{field.name}' of shape {column.shape} is not {field.text}")
    if min(shape) < 0 or math.prod(shape) * tensor[0].itemsize != column.size or max(shape) > MAX_ROWS:
        raise _damaged(f"column '{field.name}' of shape {column.shape} does not have {column.size} bytes")
    if tensor[0].kind == "b" and column.size and np.frombuffer(buffer, np.uint8).max() > 1:
        raise _damaged(f"column '{field.name}' has a truth value that is neither 0 nor 1")
    return _spread(field, np.frombuffer(buffer, tensor[0]).reshape(shape), rows)


def _objects(field: Field, buffer: memoryview) -> Array:
    try:
        values = orjson.loads(buffer)
    except orjson.JSONDecodeError as error:
        raise _damaged(f"column '{field.name}' does not read: {error}") from error
    if not isinstance(values, list):
        raise _damaged(f"column '{field.name}' is not a list of values")
    if has_floats(field.type):
        values = [from_exact(field.type, value) for value in values]
    return column_from_values(field, values, json=False)


def _spread(field: Field, array: Array, rows: int) -> Array:
    if len(array) == rows:
        return array
    if len(array) != 1 or not rows:
        raise _damaged(f"column '{field.name}' has {len(array)} rows, the head says {rows}")
    return constant(array, rows)


def _damaged(why: str) -> BadInput:
    return BadInput(f"the raw columns are damaged: {why}")


def join_raw(pieces: Sequence[bytes | memoryview]) -> bytes:
    """The pieces of `encode_raw` as one run of bytes."""
    return b"".join(pieces)
