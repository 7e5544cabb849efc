"""Arrow bodies read in place: a body that differs from one already validated in nothing but plain numbers.

Reading a message with pyarrow, with the full validation that bytes from outside need, takes some 90 µs; a client sends
the same layout over and over. From a body that went that way, and whose columns turned out to lie in it as plain
numbers, the places of these numbers are kept together with *every other byte* of it. A later body of the same length
with the same other bytes is as valid as the first: any bit pattern is a number. Whatever differs anywhere else, in its
metadata, offsets, padding or footer, goes the slow, fully validated way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from columns.columns import Columns
from columns.schema import Schema

_MOST_LAYOUTS = 64
_MOST_BYTES = 1 << 20  # of one body, beside its numbers; more is not kept

Array = np.ndarray[Any, np.dtype[Any]]
Body = bytes | bytearray
Decode = Callable[[Body, Schema], Columns]


@dataclass(frozen=True)
class Layout:
    """Where the columns of a body lie, and all bytes of it that are no column's."""

    size: int
    rows: int
    columns: tuple[tuple[str, int, np.dtype[Any], tuple[int, ...]], ...]  # name, place, dtype, shape
    others: tuple[tuple[int, int, bytes], ...]  # from, up to, bytes

    @classmethod
    def of(cls, body: Body, columns: Columns) -> Layout | None:
        """The layout of a body that was validated in full; None where its columns do not lie in it as they are."""
        start = _address(np.frombuffer(body, np.uint8))
        places = []
        for name, array in columns.arrays.items():
            at = _address(array) - start
            plain = array.dtype.kind in "iuf" and array.flags.c_contiguous and array.size
            if not plain or not 0 <= at <= len(body) - array.nbytes:
                return None
            places.append((name, at, array.dtype, array.shape))
        others = tuple(_gaps(body, sorted((at, at + columns.arrays[name].nbytes) for name, at, _, _ in places)))
        if sum(stop - begin for begin, stop, _ in others) > _MOST_BYTES:
            return None
        return cls(len(body), columns.rows, tuple(places), others)

    def read(self, body: Body, schema: Schema) -> Columns | None:
        """The columns, lying in `body`; None for a body that is not of this layout."""
        for begin, stop, expected in self.others:
            if body[begin:stop] != expected:
                return None
        arrays: dict[str, Array] = {
            name: np.ndarray(shape, dtype, buffer=body, offset=at) for name, at, dtype, shape in self.columns
        }
        return Columns(schema, arrays, self.rows)


class Layouts:
    """The layouts seen of late. May be used by several threads at once."""

    def __init__(self, decode: Decode) -> None:
        """`decode` is the slow way, which validates in full."""
        self._decode = decode
        self._known: dict[tuple[int, int], tuple[Schema, tuple[Layout, ...]]] = {}

    def decode(self, body: Body, schema: Schema) -> Columns:
        """The columns of a body. Raises BadInput as the slow way does."""
        key = (id(schema), len(body))
        known = self._known.get(key)
        for layout in known[1] if known else ():
            columns = layout.read(body, schema)
            if columns is not None:
                return columns
        columns = self._decode(body, schema)
        learned = Layout.of(body, columns)
        if learned is not None:
            self._keep(key, schema, learned)
        return columns

    def _keep(self, key: tuple[int, int], schema: Schema, layout: Layout) -> None:
        if len(self._known) >= _MOST_LAYOUTS:
            self._known = {}
        before = self._known[key][1] if key in self._known else ()
        self._known[key] = (schema, (layout, *before[:3]))  # the schema is held, so that its id stays its own


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _gaps(body: Body, taken: list[tuple[int, int]]) -> list[tuple[int, int, bytes]]:
    gaps, at = [], 0
    for begin, stop in [*taken, (len(body), len(body))]:
        if begin > at:
            gaps.append((at, begin, bytes(body[at:begin])))
        at = max(at, stop)
    return gaps
