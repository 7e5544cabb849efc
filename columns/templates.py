"""`Templates`: small encodings put together from the bytes that never change and the values that do.

Nothing here knows a format. What an encoder writes for columns of one schema and shape is tried out: each column's bits
are set to zeros and to ones, and where the outcome differs is the column's place. A template is used only after it gave
what the encoder itself gives for the columns at hand. Text stays as it was: a column of text has to be the very same
array each time, except for the ones named as varying, whose length is then part of the template's key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from columns.columns import Columns, is_constant
from columns.schema import Schema

_MOST_ROWS = 64
_MOST_BYTES = 32 << 10
_MOST_TEMPLATES = 64
_WORTH_IT = 3  # times that a shape is seen before a template is made of it

_NO_WORDS: list[bytes] = []

Array = np.ndarray[Any, np.dtype[Any]]
Encode = Callable[[Columns], bytes]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Form:
    """What all columns of one schema have in common. It holds the schema, so that its id stays its own."""

    schema: Schema
    numbers: tuple[str, ...]
    free: tuple[str, ...]  # of the numbers: those whose shape is not given by the type
    texts: tuple[str, ...]
    varying: tuple[str, ...]

    @classmethod
    def of(cls, schema: Schema, varying: Sequence[str]) -> _Form:
        tensors = {field.name: field.type.tensor_dtype_and_shape() for field in schema}
        numbers = tuple(name for name, tensor in tensors.items() if tensor is not None)
        free = tuple(name for name, tensor in tensors.items() if tensor is not None and None in tensor[1])
        texts = tuple(name for name, tensor in tensors.items() if tensor is None and name not in varying)
        return cls(schema, numbers, free, texts, tuple(name for name in varying if name in schema))


@dataclass(frozen=True)
class _Template:
    """Pieces with holes at every other place."""

    pieces: list[Any]
    slots: tuple[tuple[int, str, bool], ...]  # place in pieces, column, whether its bits are packed
    texts: tuple[tuple[str, Array], ...]
    varying: tuple[tuple[int, str], ...]

    def fill(self, arrays: Any, words: Sequence[bytes]) -> bytes | None:
        for name, array in self.texts:
            given = arrays[name]
            if given is not array and _origin(given) is not array:
                return None
        pieces = self.pieces.copy()
        for place, name, is_packed in self.slots:
            array = arrays[name]
            if is_packed:
                array = np.packbits(array, bitorder="little")
            pieces[place] = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        for (place, _), word in zip(self.varying, words, strict=True):
            pieces[place] = word
        return b"".join(pieces)


class Templates:
    """The templates of one encoder. May be used by several threads at once."""

    def __init__(self, encode: Encode, varying: Sequence[str] = ()) -> None:
        self._encode, self._varying = encode, tuple(varying)
        self._forms: dict[int, _Form] = {}
        self._templates: dict[Key, _Template | int] = {}  # or how often a shape was seen; negative: it has none

    def encode(self, columns: Columns) -> bytes:
        """What the encoder gives for these columns."""
        schema, rows, arrays = columns.schema, columns.rows, columns.arrays
        if not 0 < rows <= _MOST_ROWS:
            return self._encode(columns)
        form = self._forms.get(id(schema)) or self._form(schema)
        words = [orjson.dumps(arrays[name][0])[1:-1] for name in form.varying] if form.varying else _NO_WORDS
        key: Key = (id(schema), rows, *[arrays[name].shape for name in form.free], *map(len, words))
        template = self._templates.get(key, 0)
        if not isinstance(template, int):
            filled = template.fill(arrays, words)
            if filled is not None:
                return filled
            self._templates[key] = -1  # its text differs from time to time
        elif template >= 0:
            self._see(key, form, columns, template + 1)
        return self._encode(columns)

    def _form(self, schema: Schema) -> _Form:
        if len(self._forms) >= _MOST_TEMPLATES:
            self._forms, self._templates = {}, {}
        form = self._forms[id(schema)] = _Form.of(schema, self._varying)
        return form

    def _see(self, key: Key, form: _Form, columns: Columns, times: int) -> None:
        if len(self._templates) >= 4 * _MOST_TEMPLATES:
            self._templates = {}
        made = _made(self._encode, form, columns) if times >= _WORTH_IT else None
        self._templates[key] = times if times < _WORTH_IT else made or -1


@dataclass(frozen=True)
class Stencil:
    """An encoded row with holes at every other piece: `names` says which column's bytes belong there."""

    pieces: list[bytes]
    names: tuple[str, ...]

    @classmethod
    def of(cls, encode: Encode, row: Columns, varying: Sequence[str]) -> Stencil | None:
        """Where an encoder writes those of the varying columns that it writes at all; None where one has no place."""
        whole, places = encode(row), {}
        if len(whole) > _MOST_BYTES:
            return None
        for name in varying:
            if row.arrays[name].dtype.kind not in "iuf":
                return None
            low, high = (encode(_with(row, name, filled)) for filled in (False, True))
            if low == high == whole:
                continue
            place = _place(encode, row, name, len(whole))
            if place is None:
                return None
            places[name] = place
        form = _Form(row.schema, tuple(places), (), (), ())
        template = _cut(whole, places, form, row)
        if template is None or template.fill(row.arrays, ()) != whole:
            return None
        return cls(template.pieces, tuple(name for _, name, _ in template.slots))


def _made(encode: Encode, form: _Form, columns: Columns) -> _Template | None:
    """The template of columns like these, or None where a column has no place of its own."""
    if any(columns.arrays[name].dtype == object for name in form.numbers):
        return None
    if columns.rows > 1 and form.varying:
        return None
    whole = encode(columns)
    places = {}
    for name in (*form.numbers, *form.varying):
        place = _place(encode, columns, name, len(whole)) if len(whole) <= _MOST_BYTES else None
        if place is None:
            return None
        places[name] = place
    template = _cut(whole, places, form, columns)
    words = [orjson.dumps(columns.arrays[name][0])[1:-1] for name in form.varying]
    return template if template is not None and template.fill(columns.arrays, words) == whole else None


def _place(encode: Encode, columns: Columns, name: str, size: int) -> tuple[int, int, bool] | None:
    """Where a column's values are written: from, up to, and whether its bits are packed."""
    low, high = (encode(_with(columns, name, filled)) for filled in (False, True))
    if len(low) != size or len(high) != size:
        return None
    differs = np.flatnonzero(np.frombuffer(low, np.uint8) != np.frombuffer(high, np.uint8))
    if not len(differs):
        return None
    begin, stop = int(differs[0]), int(differs[-1]) + 1
    array = columns.arrays[name]
    length = len(orjson.dumps(array[0])) - 2 if array.dtype == object else array.nbytes
    if stop - begin == length and array.dtype != bool:
        return begin, stop, False
    if array.dtype == bool and stop - begin == array.size and _bits(low, high, begin, stop) == {1}:
        # one value alone is one byte in both ways: as a byte, or packed into its lowest bit
        return begin, stop, False
    return (begin, stop, True) if array.dtype == bool and stop - begin == (array.size + 7) // 8 else None


def _bits(low: bytes, high: bytes, begin: int, stop: int) -> set[int]:
    return {one ^ other for one, other in zip(low[begin:stop], high[begin:stop], strict=True)}


def _with(columns: Columns, name: str, filled: bool) -> Columns:
    """The same columns, with all bits of one column set or not."""
    array = columns.arrays[name]
    if array.dtype == object:
        other = np.empty(len(array), dtype=object)
        other[:] = ("1" if filled else "0") * (len(orjson.dumps(array[0])) - 2)
    elif array.dtype == bool:
        other = np.full(array.shape, filled)
    else:
        other = np.full((*array.shape, array.itemsize), 255 if filled else 0, np.uint8).view(array.dtype)[..., 0]
    return Columns(columns.schema, {**columns.arrays, name: other}, columns.rows)


def _cut(whole: bytes, places: dict[str, tuple[int, int, bool]], form: _Form, columns: Columns) -> _Template | None:
    pieces: list[Any] = []
    slots, varying, at = [], {}, 0
    for name, (begin, stop, is_packed) in sorted(places.items(), key=lambda each: each[1]):
        if begin < at:
            return None
        pieces += [whole[at:begin], b""]
        if name in form.varying:
            varying[name] = len(pieces) - 1
        else:
            slots.append((len(pieces) - 1, name, is_packed))
        at = stop
    pieces.append(whole[at:])
    texts = tuple((name, _origin(columns.arrays[name])) for name in form.texts)
    return _Template(pieces, tuple(slots), texts, tuple((varying[name], name) for name in form.varying))


def _origin(array: Array) -> Array:
    """The array itself, or the one row that all its rows are."""
    base = array.base
    return base if isinstance(base, np.ndarray) and is_constant(array) else array
