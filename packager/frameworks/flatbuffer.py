"""Reads tables of a flatbuffer from bytes that may be anything: every position is checked against the file.

Source: "FlatBuffers internals" (flatbuffers.dev): a table begins with the signed distance back to its vtable, which
holds for each field its distance from the table's beginning, or 0 where the field has its default.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgepack.errors import BadInput

MOST_TABLES = 1_000_000  # read of one file: the largest published models have some ten thousand tensors
LONGEST_TEXT = 1 << 16  # bytes of one name


class Flatbuffer:
    """The bytes of one file. What does not fit raises BadInput."""

    def __init__(self, data: memoryview, name: str, kind: str) -> None:
        self._data, self._name, self._kind = data, name, kind
        self._tables = 0

    def root(self) -> Table:
        """The table that the file begins with."""
        return self.table_at(self.number(0, "<I"))

    def table_at(self, at: int) -> Table:
        """The table at a position."""
        self._tables += 1
        if self._tables > MOST_TABLES:
            raise self.damaged(f"it has more than {MOST_TABLES} tables")
        vtable = at - self.number(at, "<i")
        size = self.number(vtable, "<H")
        if size < 4 or size % 2 or vtable + size > len(self._data):
            raise self.damaged("a table of it has no field list")
        return Table(self, at, vtable, size)

    def number(self, at: int, form: str) -> int:
        """A number of a `struct` format at a position."""
        if at < 0 or at + struct.calcsize(form) > len(self._data):
            raise self.damaged("it points past its end")
        found: int = struct.unpack_from(form, self._data, at)[0]
        return found

    def text(self, at: int) -> str:
        """The string at a position."""
        length = self.number(at, "<I")
        if length > LONGEST_TEXT or at + 4 + length > len(self._data):
            raise self.damaged("a name in it does not end")
        try:
            return bytes(self._data[at + 4 : at + 4 + length]).decode()
        except UnicodeDecodeError as error:
            raise self.damaged("a name in it is no UTF-8") from error

    def damaged(self, why: str) -> BadInput:
        """What to raise."""
        return BadInput(f"'{self._name}' is not a whole {self._kind}: {why}; copy or export it again")


@dataclass(frozen=True)
class Table:
    """One table; fields go by their number in the format's schema."""

    file: Flatbuffer
    at: int
    vtable: int
    size: int

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A field that is a number."""
        place = self._place(field)
        return default if place is None else self.file.number(place, form)

    def text(self, field: int) -> str:
        """A field that is a string; empty where it is not there."""
        place = self._target(field)
        return "" if place is None else self.file.text(place)

    def numbers(self, field: int, form: str) -> tuple[int, ...]:
        """A field that is a vector of numbers."""
        return tuple(self.file.number(at, form) for at in self._items(field, struct.calcsize(form)))

    def table(self, field: int) -> Table | None:
        """A field that is a table."""
        place = self._target(field)
        return None if place is None else self.file.table_at(place)

    def tables(self, field: int) -> tuple[Table, ...]:
        """A field that is a vector of tables."""
        return tuple(self.file.table_at(at + self.file.number(at, "<I")) for at in self._items(field, 4))

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        offset = self.file.number(self.vtable + slot, "<H") if slot + 2 <= self.size else 0
        return self.at + offset if offset else None

    def _target(self, field: int) -> int | None:
        place = self._place(field)
        return None if place is None else place + self.file.number(place, "<I")

    def _items(self, field: int, width: int) -> Iterator[int]:
        start = self._target(field)
        if start is None:
            return
        count = self.file.number(start, "<I")
        if count > MOST_TABLES:
            raise self.file.damaged(f"a list in it has {count} entries")
        if count:
            self.file.number(start + 4 + count * width - 1, "<B")  # the whole list lies inside
        yield from range(start + 4, start + 4 + count * width, width)
