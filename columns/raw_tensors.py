"""Tensors of any shape as one JSON head and raw buffers: what engine processes are asked with, rows or not.

    magic `EPT1` · u32 length of the head · head · buffers, each at a multiple of 8

The head is `[[name, dtype, shape, bytes], ...]`; dtype is numpy's (`<f4`), `O` for text as a JSON list in C order.
Everything the head claims is checked against the body before it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import orjson

from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]
Block = bytes | bytearray | memoryview

MAGIC = b"EPT1"
_START = struct.Struct("<4sI")
_ALIGNED = 8
_TEXT = "O"
_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_DTYPES = {dtype.str: dtype for dtype in (np.dtype(f"<{kind}") for kind in _KINDS)}


class _Tensor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    dtype: str
    shape: list[int]
    size: int


_HEADS = msgspec.json.Decoder(list[_Tensor])


def encode_tensors(tensors: Mapping[str, Array]) -> list[bytes | memoryview]:
    """The tensors as pieces to write one after another; numbers are not copied."""
    described, buffers = [], []
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        if array.dtype == object:
            dtype, buffer = _TEXT, memoryview(orjson.dumps(array.reshape(-1).tolist()))
        else:
            plain = np.ascontiguousarray(array)
            dtype, buffer = plain.dtype.newbyteorder("<").str, plain.reshape(-1).view(np.uint8).data
        described.append((name, dtype, array.shape, len(buffer)))
        buffers.append(buffer)
    head = orjson.dumps(described)
    pieces: list[bytes | memoryview] = [_START.pack(MAGIC, len(head)), head]
    at = _START.size + len(head)
    for buffer in buffers:
        gap = -at % _ALIGNED
        pieces += [bytes(gap), buffer] if gap else [buffer]
        at += gap + len(buffer)
    return pieces


def decode_tensors(data: Block) -> dict[str, Array]:
    """Tensors that lie in `data` without a copy. Raises BadInput for what `encode_tensors` would not have written."""
    view = memoryview(data).cast("B")
    if len(view) < _START.size or view[:4] != MAGIC:
        raise BadInput("these are no tensors")
    at = _START.size + _START.unpack_from(view)[1]
    try:
        head = _HEADS.decode(view[_START.size : at])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"the head of the tensors does not read: {error}") from error
    found = {}
    for each in head:
        at += -at % _ALIGNED
        if each.size < 0 or at + each.size > len(view) or any(axis < 0 for axis in each.shape):
            raise BadInput(f"tensor '{each.name}' is cut short")
        found[each.name] = _tensor(each, view[at : at + each.size])
        at += each.size
    if at != len(view):
        raise BadInput(f"{len(view) - at} bytes follow the tensors")
    return found


def _tensor(said: _Tensor, buffer: memoryview) -> Array:
    count = math.prod(said.shape)
    if said.dtype == _TEXT:
        return _texts(said, buffer, count)
    dtype = _DTYPES.get(said.dtype)
    if dtype is None:
        raise BadInput(f"tensor '{said.name}' is of dtype '{said.dtype[:20]}'")
    if count * dtype.itemsize != said.size:
        raise BadInput(f"tensor '{said.name}' has {said.size} bytes, its shape {said.shape} says {count}")
    return np.frombuffer(buffer, dtype).reshape(said.shape)


def _texts(said: _Tensor, buffer: memoryview, count: int) -> Array:
    try:
        values = orjson.loads(buffer)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"tensor '{said.name}' does not read: {error}") from error
    if not isinstance(values, list) or len(values) != count or not all(isinstance(each, str) for each in values):
        raise BadInput(f"tensor '{said.name}' is not {count} texts")
    array = np.empty(count, dtype=object)
    array[:] = values
    return array.reshape(said.shape)
