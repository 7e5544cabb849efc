"""Raw columns, the format of `columns.raw`, read and written with numpy alone.

    magic `EPC1` · u32 length of the head · head · buffers, each at a multiple of its item size

What comes in was written by our own parent and is not checked again; what goes out is made to fit the schema, or
refused with the field's name: the parent checks every byte of it.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from .types import Type, parse

_START = struct.Struct("<4sI")
_MAGIC = b"EPC1"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Array = np.ndarray


class Misfit(Exception):
    """What the user's code gave does not fit the schema; the message says which field and how."""


def decode(data: Any) -> tuple[dict[str, Array], int]:
    """The arrays by name, writable, and the number of rows."""
    _, length = _START.unpack_from(data)
    at = _START.size + length
    rows, described = json.loads(bytes(data[_START.size : at]))
    arrays = {}
    for name, text, shape, size in described:
        type_ = parse(text)
        tensor = type_.tensor()
        at += -at % (tensor[0].itemsize if tensor is not None and shape is not None else 1)
        if shape is None:
            stored = _objects([_from_json(type_, value) for value in json.loads(bytes(data[at : at + size]))])
        else:
            assert tensor is not None  # noqa: S101 - only tensors have a shape
            stored = np.frombuffer(data, tensor[0], math.prod(shape), at).reshape(shape)
        arrays[name] = stored if len(stored) == rows else np.repeat(stored, rows, axis=0)
        at += size
    return arrays, rows


def encode(schema: Mapping[str, Type], texts: Mapping[str, str], given: Mapping[str, Any], rows: int) -> list[Any]:
    """Buffers of the fields of a schema. Raises Misfit where the user's answer has another name, size or type."""
    for name in given:
        if name not in schema:
            raise Misfit(f"the answer has a field '{name}', the schema has {', '.join(schema)}")
    described, buffers = [], []
    for name, type_ in schema.items():
        if name not in given:
            raise Misfit(f"the answer has no field '{name}': it has {', '.join(map(str, given)) or 'none'}")
        shape, item_size, buffer = _buffer(name, type_, given[name], rows)
        described.append([name, texts[name], shape, memoryview(buffer).nbytes])
        buffers.append((item_size, buffer))
    head = json.dumps([rows, described]).encode()
    pieces: list[Any] = [_START.pack(_MAGIC, len(head)), head]
    at = _START.size + len(head)
    for item_size, buffer in buffers:
        gap = -at % item_size
        pieces += [bytes(gap), buffer]
        at += gap + memoryview(buffer).nbytes
    return pieces


def _buffer(name: str, type_: Type, value: Any, rows: int) -> tuple[Any, int, Any]:
    if hasattr(value, "toarray"):  # a sparse matrix
        value = value.toarray()
    array = _with_rows(name, np.asarray(value) if not isinstance(value, list) else _from_list(value), rows)
    tensor = type_.tensor()
    if tensor is None or array.dtype == object:
        try:
            values = [_to_json(type_, each) for each in array]
        except (TypeError, ValueError) as error:
            raise Misfit(f"field '{name}': {error}") from error
        return None, 1, json.dumps(values, allow_nan=False).encode()
    array = _shaped(name, _cast(name, array, tensor[0]), [rows, *tensor[1]])
    contiguous = np.ascontiguousarray(array)
    return list(contiguous.shape), tensor[0].itemsize, contiguous.reshape(-1).view(np.uint8).data


def _from_list(values: list[Any]) -> Array:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different length
        return _objects(values)


def _with_rows(name: str, array: Array, rows: int) -> Array:
    if array.ndim == 0 and rows == 1:  # a scalar is an array of one element
        array = array.reshape(1)
    if array.ndim == 0 or len(array) != rows:
        found = "a single value" if array.ndim == 0 else f"{len(array)} rows"
        raise Misfit(f"field '{name}': {rows} rows went in, {found} came out")
    return array


def _cast(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Floats may be narrowed, integers where each value fits; nothing else changes its kind but integers to floats."""
    if array.dtype == dtype:
        return array
    kinds = array.dtype.kind + dtype.kind
    if kinds in ("ff", "if", "uf"):
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    if kinds in ("ii", "iu", "ui", "uu"):
        limits = np.iinfo(dtype)
        if not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
            return array.astype(dtype)
        raise Misfit(f"field '{name}': {array.min()} to {array.max()} do not fit {dtype}")
    raise Misfit(f"field '{name}' is {array.dtype}, the schema says {dtype}")


def _shaped(name: str, array: Array, wanted: list[Any]) -> Array:
    if _fits(array.shape, wanted):
        return array
    plain = [size for size in array.shape[1:] if size != 1]
    if plain == [size for size in wanted[1:] if size != 1] and None not in wanted:
        return array.reshape(wanted)  # (rows, 1) for (rows,) and the like: the same values
    raise Misfit(f"field '{name}' has shape {tuple(array.shape)}, the schema says {tuple(wanted)}")


def _fits(shape: tuple[int, ...], wanted: list[Any]) -> bool:
    return len(shape) == len(wanted) and all(size in (None, found) for found, size in zip(shape, wanted))


def _objects(values: list[Any]) -> Array:
    made = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        made[row] = value
    return made


def _from_json(type_: Type, value: Any) -> Any:
    if value is None:
        return None
    if type_.fields is not None:
        return {name: _from_json(each, value[name]) for name, each in type_.fields}
    if type_.item is not None:
        return [_from_json(type_.item, each) for each in value]
    if type_.name.startswith("float"):
        return _NOT_FINITE[value] if isinstance(value, str) else float(value)
    if type_.name == "binary":
        return base64.b64decode(value)
    if type_.name == "date32":
        return datetime.date.fromisoformat(value)
    return np.datetime64(value) if type_.name.startswith("timestamp") else value


def _to_json(type_: Type, value: Any) -> Any:
    if value is None:
        if type_.nullable:
            return None
        raise ValueError("a null, which the schema does not allow (write the type with '?')")
    if type_.fields is not None:
        return {name: _to_json(each, value[name]) for name, each in type_.fields}
    if type_.item is not None:
        items = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, (list, tuple)):
            raise ValueError(f"{type(value).__name__} for a list")
        return [_to_json(type_.item, each) for each in items]
    return _scalar_to_json(type_, value.item() if isinstance(value, np.generic) and not _is_time(value) else value)


def _scalar_to_json(type_: Type, value: Any) -> Any:
    if type_.name == "binary":
        return base64.b64encode(value).decode("ascii")
    if type_.name == "date32" or type_.name.startswith("timestamp"):
        return str(value)
    if type_.name == "string":
        if isinstance(value, str):
            return value
        raise ValueError(f"{type(value).__name__} for a string")
    if type_.name == "bool" or isinstance(value, bool):
        if isinstance(value, bool) and type_.name == "bool":
            return value
        raise ValueError(f"{type(value).__name__} for {type_.name}")
    if type_.name.startswith("float"):
        number = float(value)
        return number if math.isfinite(number) else "NaN" if math.isnan(number) else f"{'-' * (number < 0)}Infinity"
    if not isinstance(value, int):
        raise ValueError(f"{type(value).__name__} for {type_.name}")
    return value


def _is_time(value: Any) -> bool:
    return isinstance(value, np.datetime64)
