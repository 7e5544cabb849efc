"""Tensors of the Open Inference Protocol v2, as JSON lists and as raw bytes.

Sources: the protocol's "Tensor Data Types" and "Tensor Data", and Triton's binary tensor data extension. Raw bytes
are little-endian without padding; BOOL is one byte, a BYTES element has its length in front (4 bytes). BF16 is
Triton's addition: its values are held as float32 here (`columns.bfloat16`).

A BYTES tensor is an object array. Raw, its elements are `bytes`; in JSON they are text. Elements that are `bytes`
are written into JSON as base64.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from columns import bfloat16
from columns.schema import Field
from columns.types import ListOf, Scalar, clip
from columns.values import column_from_values, object_array
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]

# datatype → the dtype of its array
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(object),
}
_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}
_SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items()} | {"BF16": 2}
_MOST_AXES = 32
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor; the array's shape is the tensor's."""

    name: str
    datatype: str
    array: Array


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype of an array's elements."""
    return _DATATYPES[np.dtype(object) if dtype.kind in "OUS" else dtype]


def check_head(name: str, datatype: str, shape: Sequence[int]) -> int:
    """The number of elements that a tensor's head claims. Raises BadInput that names the tensor."""
    if datatype not in DTYPES:
        raise _refused(name, f"has datatype '{clip(datatype)}': expected one of {', '.join(DTYPES)}")
    if len(shape) > _MOST_AXES or any(size < 0 for size in shape):
        raise _refused(name, f"has shape {clip(str(list(shape)))}: expected up to {_MOST_AXES} sizes of 0 or more")
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Tensor:
    """A tensor that lies in `data`, without a copy where its place there suits the dtype. Raises BadInput."""
    count = check_head(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, _elements(name, count, data).reshape(shape))
    if len(data) != count * _SIZES[datatype]:
        said = f"has {len(data)} bytes, {datatype} of shape {list(shape)} takes {count * _SIZES[datatype]}"
        raise _refused(name, said)
    if datatype == "BF16":
        return Tensor(name, datatype, bfloat16.from_bits(np.frombuffer(data, np.uint16)).reshape(shape))
    if datatype == "BOOL" and count and np.frombuffer(data, np.uint8).max() > 1:
        raise _refused(name, "has a BOOL that is neither 0 nor 1")
    array = np.frombuffer(data, DTYPES[datatype])
    if not array.flags.aligned:  # the JSON in front has any length; engines may read by aligned instructions
        array = array.copy()
    return Tensor(name, datatype, array.reshape(shape))


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """A tensor from a list, flat or nested as its shape. Raises BadInput that names tensor and element."""
    count = check_head(name, datatype, shape)
    values = _flat(name, data, shape, count)
    dtype = DTYPES[datatype]
    item = Scalar("string" if datatype == "BYTES" else dtype.name)
    try:
        array = column_from_values(Field(name, ListOf(item)), [values], json=True)
    except BadInput as error:
        raise BadInput(f"input {str(error).removeprefix('row 0 field ')}", field=name) from error
    if datatype == "BYTES":
        return Tensor(name, datatype, object_array(array[0]).reshape(shape))
    flat = array.reshape(-1) if datatype != "BF16" else bfloat16.from_bits(bfloat16.to_bits(array.reshape(-1)))
    return Tensor(name, datatype, flat.reshape(shape))


def to_raw(tensor: Tensor) -> bytes | memoryview:
    """The tensor's bytes; without a copy where the array is contiguous."""
    if tensor.datatype == "BYTES":
        return b"".join(chain.from_iterable(map(_framed, tensor.array.reshape(-1).tolist())))
    array = bfloat16.to_bits(tensor.array) if tensor.datatype == "BF16" else np.ascontiguousarray(tensor.array)
    return array.reshape(-1).view(np.uint8).data


def to_json(tensor: Tensor) -> bytes:
    """The tensor's elements as one flat JSON list; NaN and infinities are null."""
    flat = tensor.array.reshape(-1)
    if tensor.datatype == "BYTES":
        return orjson.dumps([_text(value) for value in flat.tolist()])
    return orjson.dumps(np.ascontiguousarray(flat), option=orjson.OPT_SERIALIZE_NUMPY) if flat.size else b"[]"


def _elements(name: str, count: int, data: memoryview) -> Array:
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) < count:
        if at + _LENGTH.size > len(data):
            break
        end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            break
        found.append(bytes(data[at + _LENGTH.size : end]))
        at = end
    if at != len(data) or len(found) != count:
        raise _refused(name, f"has {len(data)} bytes that are not {count} BYTES elements with their lengths in front")
    return object_array(found)


def _flat(name: str, data: Any, shape: Sequence[int], count: int) -> list[Any]:
    level = data if isinstance(data, list) else [data]
    if level and type(level[0]) is list:
        for size in shape[1:]:
            if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
                raise _refused(name, f"has nested data that is not of its shape {list(shape)}")
            level = list(chain.from_iterable(level))
    if len(level) != count:
        raise _refused(name, f"has {len(level)} elements, its shape {list(shape)} takes {count}")
    return level


def _framed(value: bytes | str) -> tuple[bytes, bytes]:
    data = value.encode() if isinstance(value, str) else value
    return _LENGTH.pack(len(data)), data


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode("ascii")


def _refused(name: str, why: str) -> BadInput:
    return BadInput(f"input '{clip(name)}' {why}", field=clip(name))
