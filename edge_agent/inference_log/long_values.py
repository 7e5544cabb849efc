"""Long values in the log: a camera image is not kept in each row, what proves which image it was is.

A value of `in.*` or `out.*` above the limit becomes `{"sha256": ..., "bytes": ...}`, over these bytes: a tensor's row
as it lies in memory (C order, little-endian), text as UTF-8, binary as it is, lists and structs as the JSON the log
would hold.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import orjson

from columns.columns import Columns, constant, is_constant
from columns.json_values import json_values
from columns.schema import Field, Schema
from columns.types import Scalar, parse_type
from columns.values import object_array

_DIGEST = parse_type("struct<sha256: string, bytes: int64>")
VALUES = ("in.", "out.", "out_")

Array = np.ndarray[Any, np.dtype[Any]]


def without_long_values(result: Columns, limit: int) -> list[Columns]:
    """The rows of a result with long values replaced; a limit of 0 keeps all.

    A column has one type, so rows in which text is short and rows in which it is long come as separate parts, in
    order.
    """
    if limit == 0 or not result.rows:
        return [result]
    long = {}
    for field in result.schema:
        if field.name.startswith(VALUES):
            mask = _long_rows(field, result.arrays[field.name], limit)
            if mask is not None:
                long[field.name] = mask
    return [result] if not long else _parts(result, long)


def _long_rows(field: Field, array: Array, limit: int) -> Array | None:
    """One truth value a row, or None where none is long."""
    if array.dtype != object:
        bytes_each = array.itemsize * math.prod(array.shape[1:])
        return np.ones(len(array), dtype=bool) if bytes_each > limit else None
    if is_constant(array):
        first = _long_rows(field, array[:1], limit)
        return None if first is None else constant(first, len(array))
    mask = np.fromiter((_is_long(field, value, limit) for value in array), dtype=bool, count=len(array))
    return mask if mask.any() else None


def _is_long(field: Field, value: Any, limit: int) -> bool:
    if value is None or (type(value) is str and len(value) * 4 <= limit):  # UTF-8: at most 4 bytes a sign
        return False
    return len(_bytes(field, value)) > limit


def _bytes(field: Field, value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, bytes):
        return value
    if isinstance(field.type, Scalar) and isinstance(value, str):
        return value.encode()
    return orjson.dumps(json_values(field.type, [value], exact=True)[0], option=orjson.OPT_SERIALIZE_NUMPY)


def _parts(result: Columns, long: dict[str, Array]) -> list[Columns]:
    masks = np.stack(list(long.values()))
    changes = np.flatnonzero((masks[:, 1:] != masks[:, :-1]).any(axis=0)) + 1
    starts = [0, *changes.tolist()]
    parts = []
    for start, stop in zip(starts, [*starts[1:], result.rows], strict=True):
        names = {name for name, mask in long.items() if mask[start]}
        parts.append(_replaced(result.slice(start, stop), names))
    return parts


def _replaced(part: Columns, names: set[str]) -> Columns:
    fields = [Field(each.name, _DIGEST) if each.name in names else each for each in part.schema]
    arrays = {
        each.name: _digests(each, part.arrays[each.name]) if each.name in names else part.arrays[each.name]
        for each in part.schema
    }
    return Columns(Schema(tuple(fields)), arrays, part.rows)


def _digests(field: Field, array: Array) -> Array:
    if is_constant(array):
        return constant(_digests(field, array[:1]), len(array))
    return object_array([_digest(_bytes(field, value)) for value in array])


def _digest(value: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
