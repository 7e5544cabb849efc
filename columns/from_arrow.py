"""A validated Arrow column to a column of ours. Tensors are taken from the buffers as they lie.

`Array.to_numpy` and `Array.to_pandas` are not used: they import pandas where it is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from columns._pyarrow import pa
from columns.ipc import MAX_UNPACKED_BYTES
from columns.schema import Field
from columns.types import TensorShape, parse_type
from columns.values import column_from_values
from edgepack.errors import BadInput

Array = np.ndarray[Any, np.dtype[Any]]


def from_arrow(field: Field, column: Any) -> Array:
    """The column of a `pyarrow.ChunkedArray` that was validated in full and whose type fits the field's.

    Raises BadInput that names row and field for a null or a length that the field does not take.
    """
    return _values(field, _whole(column, field))


def _whole(column: Any, field: Field) -> Any:
    """A column as one array, a dictionary replaced by its values."""
    chunks = column.chunks
    if pa.types.is_dictionary(column.type):
        _check_expansion(chunks, field)
        chunks = [chunk.dictionary_decode() for chunk in chunks]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _check_expansion(chunks: list[Any], field: Field) -> None:
    """Refuse dictionaries that may unpack to too much: many rows can name one huge value."""
    if sum(len(chunk) * _widest(chunk.dictionary) for chunk in chunks) > MAX_UNPACKED_BYTES:
        said = f"field '{field.name}' unpacks to over {MAX_UNPACKED_BYTES} bytes"
        raise BadInput(f"{said}: send it without a dictionary", field=field.name)


def _widest(values: Any) -> int:
    kind = pa.types
    if not (kind.is_string(values.type) or kind.is_binary(values.type) or _is_large(values.type)):
        return 8
    return int(np.diff(_offsets(values)).max(initial=0))


def _is_large(found: Any) -> bool:
    kind = pa.types
    return any(ask(found) for ask in (kind.is_large_string, kind.is_large_binary, kind.is_large_list))


def _offsets(array: Any) -> Array:
    dtype = np.dtype(np.int64 if _is_large(array.type) else np.int32)
    return _numbers(array.buffers()[1], dtype, array.offset, len(array) + 1)


def _numbers(buffer: Any, dtype: np.dtype[Any], offset: int, count: int) -> Array:
    if buffer is None or not count:  # an empty array may come without a buffer
        return np.zeros(count, dtype)
    numbers = np.frombuffer(buffer, dtype, count, offset * dtype.itemsize)
    return numbers if numbers.flags.aligned else numbers.copy()


def _values(field: Field, array: Any) -> Array:
    tensor = field.type.tensor_dtype_and_shape()
    if tensor is not None:
        found = _tensor(array, *tensor)
        if found is not None:
            return found
    plain = _plain_type(array.type)
    values = array if plain == array.type else array.cast(plain)
    return column_from_values(field, values.to_pylist(), json=False)


def _tensor(array: Any, dtype: np.dtype[Any], shape: TensorShape) -> Array | None:
    """The tensor of nested lists without nulls; None when they are not that, or not equally long."""
    sizes = [len(array)]
    for size in shape:
        flat = None if array.null_count else _flat(array)
        if flat is None or size not in (None, flat[1]):
            return None
        array, length = flat
        sizes.append(length)
    if array.null_count:
        return None
    return _scalars(array).reshape(sizes).astype(dtype, copy=False)


def _flat(array: Any) -> tuple[Any, int] | None:
    """The items of all lists and their common length; None for lists that are not equally long."""
    if pa.types.is_fixed_size_list(array.type):
        length = array.type.list_size
        return array.values.slice(array.offset * length, len(array) * length), length
    if not len(array):
        return array.values.slice(0, 0), 0
    offsets = _offsets(array)
    lengths = np.diff(offsets)
    if lengths.min() != lengths.max():
        return None
    return array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])), int(lengths[0])


def _scalars(array: Any) -> Array:
    data = array.buffers()[1]
    if not pa.types.is_boolean(array.type):
        dtype = parse_type(str(array.type)).tensor_dtype_and_shape()
        return _numbers(data, dtype[0] if dtype else np.dtype(np.uint8), array.offset, len(array))
    stop = array.offset + len(array)
    packed = _numbers(data, np.dtype(np.uint8), 0, (stop + 7) // 8)
    return np.unpackbits(packed, count=stop, bitorder="little")[array.offset :].view(np.bool_)


def _plain_type(found: Any) -> Any:
    """The same type with points in time as whole numbers, times of day as text: read without pandas."""
    kind = pa.types
    if kind.is_fixed_size_list(found):
        return pa.list_(_plain_type(found.value_type), found.list_size)
    if kind.is_list(found):
        return pa.list_(_plain_type(found.value_type))
    if kind.is_large_list(found):
        return pa.large_list(_plain_type(found.value_type))
    if kind.is_struct(found):
        return pa.struct([(each.name, _plain_type(each.type)) for each in found])
    if kind.is_time(found):
        return pa.string()
    return pa.int64() if kind.is_timestamp(found) else pa.int32() if kind.is_date32(found) else found
