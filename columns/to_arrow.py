"""A column to an Arrow array, built from buffers.

`pyarrow.array` is not used: it imports pandas where that is installed, and it converts value by value.
"""

from __future__ import annotations

import datetime
from itertools import chain
from typing import Any

import numpy as np

from columns._pyarrow import pa
from columns.columns import is_constant
from columns.schema import Field
from columns.types import ListOf, Scalar, StructOf, Type
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]

_MAX_OFFSET = 2**31 - 1
_EPOCH = datetime.date(1970, 1, 1)


def arrow_type(type_: Type) -> Any:
    """The `pyarrow.DataType` of a type."""
    if isinstance(type_, ListOf):
        return pa.list_(arrow_type(type_.item), -1 if type_.size is None else type_.size)
    if isinstance(type_, StructOf):
        return pa.struct([(name, arrow_type(each)) for name, each in type_.fields])
    return pa.type_for_alias(type_.name)


def to_arrow(field: Field, array: Array) -> Any:
    """The Arrow array of a column. Raises BadInput where it holds more than an Arrow list or text column can."""
    try:
        if array.dtype != object:
            return _tensor(field.type, array)
        if is_constant(array) and field.type == Scalar("string"):
            return _repeated(field.type, array[0], len(array))
        if is_constant(array) and array[0] == [] and isinstance(field.type, ListOf) and field.type.size is None:
            nowhere = pa.py_buffer(np.zeros(len(array) + 1, np.int32))
            items = [_objects(field.type.item, [])]
            return pa.Array.from_buffers(arrow_type(field.type), len(array), [None, nowhere], children=items)
        return _objects(field.type, array.tolist())
    except _TooMuch as error:
        said = f"field '{field.name}' has {error} values or bytes, more than one Arrow column holds"
        raise BadInput(f"{said}: send fewer rows", field=field.name) from None


class _TooMuch(Exception):
    pass


def _tensor(type_: Type, array: Array) -> Any:
    if not isinstance(type_, ListOf):
        return _numbers(type_, np.ascontiguousarray(array))
    items = _tensor(type_.item, array.reshape(array.shape[0] * array.shape[1], *array.shape[2:]))
    if type_.size is not None:
        return pa.Array.from_buffers(arrow_type(type_), len(array), [None], children=[items])
    offsets = _offsets(np.full(len(array), array.shape[1], np.int64))
    return pa.Array.from_buffers(arrow_type(type_), len(array), [None, offsets], children=[items])


def _numbers(type_: Type, flat: Array, valid: Any = None) -> Any:
    data = np.packbits(flat, bitorder="little") if flat.dtype == np.bool_ else flat
    return pa.Array.from_buffers(arrow_type(type_), len(flat), [valid, pa.py_buffer(data)])


def _objects(type_: Type, values: list[Any]) -> Any:
    """The Arrow array of Python values, None standing for a null."""
    present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    valid = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    if isinstance(type_, ListOf):
        return _lists(type_, values, valid)
    if isinstance(type_, StructOf):
        children = [_objects(each, [v and v[name] for v in values]) for name, each in type_.fields]
        return pa.Array.from_buffers(arrow_type(type_), len(values), [valid], children=children)
    if type_.name in ("string", "binary"):
        return _texts(type_, values, valid)
    return _numbers(type_, _whole(type_, values), valid)


def _repeated(type_: Scalar, text: str, rows: int) -> Any:
    """The same text in each row."""
    data = text.encode()
    if len(data) * rows > _MAX_OFFSET:
        raise _TooMuch(str(len(data) * rows))
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(len(data))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data * rows)]
    return pa.Array.from_buffers(arrow_type(type_), rows, buffers)


def _lists(type_: ListOf, values: list[Any], valid: Any) -> Any:
    blank = [None] * (type_.size or 0)  # a fixed list that is null still takes its place among the items
    items = _objects(type_.item, list(chain.from_iterable(blank if v is None else v for v in values)))
    buffers = [valid]
    if type_.size is None:
        buffers.append(_offsets(np.fromiter((0 if v is None else len(v) for v in values), np.int64, len(values))))
    return pa.Array.from_buffers(arrow_type(type_), len(values), buffers, children=[items])


def _texts(type_: Scalar, values: list[Any], valid: Any) -> Any:
    texts = [b"" if v is None else v.encode() if isinstance(v, str) else v for v in values]
    offsets = _offsets(np.fromiter(map(len, texts), np.int64, len(texts)))
    buffers = [valid, offsets, pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(arrow_type(type_), len(values), buffers)


def _whole(type_: Scalar, values: list[Any]) -> Array:
    if type_.name == "date32":
        return np.array([0 if v is None else (v - _EPOCH).days for v in values], np.int32)
    if type_.name.startswith("timestamp"):
        return np.array([0 if v is None else int(v.astype(np.int64)) for v in values], np.int64)
    return np.array([0 if v is None else v for v in values], type_.dtype)


def _offsets(lengths: Array) -> Any:
    ends = np.cumsum(lengths)
    if len(ends) and ends[-1] > _MAX_OFFSET:
        raise _TooMuch(str(ends[-1]))
    return pa.py_buffer(np.concatenate(([0], ends)).astype(np.int32))
