"""Many rows that differ in few columns as one block of `columns.raw`, put together from the bytes of these columns.

A log gets the same kind of row thousands of times a second. What all of them share is stored once a block anyway; of
the others nothing is needed but their bytes, one row's after another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from columns.columns import Columns, constant
from columns.raw import encode_raw

_MOST_FORMS = 256

Form = tuple[list[bytes], list[int]]  # pieces of a block, and where in them the varying columns go


class RawRows:
    """Blocks of rows like one row. Numbers vary by their bytes, text by what JSON writes of it, equally long always."""

    def __init__(self, row: Columns, varying: Sequence[str]) -> None:
        self._row, self._varying = row, tuple(varying)
        self._joints = tuple(b'","' if row.arrays[name].dtype == object else b"" for name in varying)
        self._forms: dict[int, Form] = {}
        pieces = encode_raw(row)
        self.row_bytes = sum(len(pieces[hole]) for hole in self._form(1)[1])  # about

    def encode(self, rows: Sequence[Sequence[bytes | bytearray | memoryview]]) -> bytes:
        """The block of some rows, at least one; each gives its varying columns in the order given at first."""
        pieces, holes = self._forms.get(len(rows)) or self._form(len(rows))
        pieces = pieces.copy()
        for hole, joint, values in zip(holes, self._joints, zip(*rows, strict=True), strict=True):
            pieces[hole] = joint.join(values)
        return b"".join(pieces)

    def _form(self, rows: int) -> Form:
        """The block of so many rows, with holes where columns vary."""
        row, names = self._row, self._row.schema.names
        arrays = {
            name: np.repeat(array, rows, axis=0) if name in self._varying else constant(array, rows)
            for name, array in row.arrays.items()
        }
        pieces = [*map(bytes, encode_raw(Columns(row.schema, arrays, rows))), b""]
        holes = [3 + 2 * names.index(name) for name in self._varying]
        for hole, joint in zip(holes, self._joints, strict=True):
            pieces[hole] = b""
            if joint:  # a JSON list of text
                pieces[hole - 1] += b'["'
                pieces[hole + 1] = b'"]' + pieces[hole + 1]
        if len(self._forms) >= _MOST_FORMS:
            self._forms.clear()
        self._forms[rows] = pieces, holes
        return pieces, holes
