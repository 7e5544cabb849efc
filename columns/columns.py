"""`Columns`: named arrays of equally many rows.

How a field lies in memory:
- numbers and fixed nested lists of them (also a `list<T>` whose rows are equally long): an ndarray
  `(rows, ...)`;
- everything else (text, bytes, ragged lists, structs, nullables): a 1-D object array of plain Python values;
- a column that is the same in each row may be `np.broadcast_to` of one row (`constant`): stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from columns.schema import Field, Schema
from columns.types import TensorShape
from columns.values import column_from_values, object_array
from edgepack.errors import BadInput

MAX_ROWS = 1 << 26  # what a body of 64 MiB can hold at one byte a row; more is forged

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Columns:
    """Named columns. The constructor trusts its caller; `Columns.of` checks."""

    schema: Schema
    arrays: Mapping[str, Array]
    rows: int

    @classmethod
    def of(cls, schema: Schema, arrays: Mapping[str, Array | Sequence[Any]], rows: int | None = None) -> Columns:
        """Columns after a check of names, row counts, dtypes, shapes and Python values.

        A plain list of Python values is converted. Raises BadInput that names the field.
        """
        schema.check_names(arrays, "the columns")
        if rows is None:
            rows = _length(schema.fields[0], arrays[schema.names[0]]) if schema.names else 0
        return cls(schema, {field.name: _checked(field, arrays[field.name], rows) for field in schema}, rows)

    def __getitem__(self, name: str) -> Array:
        """The array of a field."""
        self.schema[name]  # names the fields there are, where this is none
        return self.arrays[name]

    def select(self, names: Sequence[str]) -> Columns:
        """These fields only, in this order."""
        schema = Schema(tuple(self.schema[name] for name in names))
        return Columns(schema, {name: self.arrays[name] for name in names}, self.rows)

    def rename(self, mapping: Mapping[str, str]) -> Columns:
        """The same columns under new names; a name that `mapping` lacks stays."""
        schema = Schema(tuple(Field(mapping.get(f.name, f.name), f.type) for f in self.schema))
        return Columns(schema, {mapping.get(n, n): self.arrays[n] for n in self.schema.names}, self.rows)

    def slice(self, start: int, stop: int) -> Columns:
        """Rows `start` up to `stop`, without copying."""
        start, stop, _ = slice(start, stop).indices(self.rows)
        cut = {name: array[start:stop] for name, array in self.arrays.items()}
        return Columns(self.schema, cut, max(0, stop - start))

    def merge(self, *others: Columns) -> Columns:
        """The fields of all side by side. Raises BadInput for other row counts or a name that comes twice."""
        arrays = dict(self.arrays)
        for other in others:
            if other.rows != self.rows:
                raise BadInput(f"columns of {other.rows} rows do not fit beside columns of {self.rows} rows")
            arrays.update(other.arrays)
        return Columns(Schema(sum((o.schema.fields for o in others), self.schema.fields)), arrays, self.rows)

    @staticmethod
    def concat(parts: Sequence[Columns]) -> Columns:
        """The rows of all one after another. Raises BadInput for none, or for schemas that differ."""
        if not parts:
            raise BadInput("no columns to put one after another")
        schema = parts[0].schema
        for part in parts[1:]:
            if part.schema != schema:
                raise BadInput(f"columns {_text(part.schema)} do not continue columns {_text(schema)}")
        if len(parts) == 1:
            return parts[0]
        arrays = {name: _stack([part.arrays[name] for part in parts]) for name in schema.names}
        return Columns(schema, arrays, sum(part.rows for part in parts))


def constant(array: Array, rows: int) -> Array:
    """One row, `array` of length 1, as a column of `rows` equal rows that takes no more memory."""
    return array if rows == 1 else np.broadcast_to(array, (rows, *array.shape[1:]))


def is_constant(array: Array) -> bool:
    """Whether all rows are one and the same place in memory."""
    return len(array) > 1 and array.strides[0] == 0


def shape_fits(shape: tuple[int, ...], wanted: TensorShape) -> bool:
    """Whether the shape of a row has the axes a type asks for; None is a free axis."""
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))


def _checked(field: Field, array: Array | Sequence[Any], rows: int) -> Array:
    if _length(field, array) != rows:
        raise _unfit(field, f"has {len(array)} rows, other fields have {rows}")
    if not isinstance(array, np.ndarray):
        return column_from_values(field, list(array), json=False)
    tensor = field.type.tensor_dtype_and_shape()
    if array.dtype.kind in "OUSM" or tensor is None:
        return _checked_objects(field, array)
    if array.dtype != tensor[0]:
        raise _unfit(field, f"is {array.dtype}, the schema says {field.text}")
    if not shape_fits(array.shape[1:], tensor[1]):
        raise _unfit(field, f"has rows of shape {array.shape[1:]}, the schema says {field.text}")
    return array


def _length(field: Field, array: Array | Sequence[Any]) -> int:
    if not isinstance(array, (np.ndarray, list, tuple)) or (isinstance(array, np.ndarray) and not array.ndim):
        raise _unfit(field, "is a single value, expected one a row")
    return len(array)


def _unfit(field: Field, why: str) -> BadInput:
    return BadInput(f"field '{field.name}' {why}", field=field.name)


def _checked_objects(field: Field, array: Array) -> Array:
    if is_constant(array):
        return constant(_checked_objects(field, array[:1]), len(array))
    values = list(array) if array.dtype.kind == "M" else array.tolist()
    return column_from_values(field, values, json=False)


def _stack(arrays: list[Array]) -> Array:
    if all(a.shape[1:] == arrays[0].shape[1:] and a.dtype == arrays[0].dtype for a in arrays):
        return np.concatenate(arrays)
    return object_array([row for array in arrays for row in array.tolist()])


def _text(schema: Schema) -> str:
    return "{" + ", ".join(str(field) for field in schema) + "}"
