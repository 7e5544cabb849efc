"""`Catalog`: which segments, gaps and counters a log has, kept nowhere but in the names of its files.

Rules:

- a segment's number and a row's sequence are given once: some file always carries the highest, also when all rows are
  gone;
- rows are given up in one rename, which at the same moment records the gap; only then is their space freed;
- what a cut in the middle leaves is mended by the next `load`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from durable.disk import Disk, writing
from durable.segment_names import Gap, Name, Segment, State


class Catalog:
    """The files of one log. Methods raise OSError and are called by one thread at a time."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._gaps: list[Name] = []
        self._floors: list[Name] = []
        self.segments: dict[int, Segment] = {}  # the sealed ones, by number
        self.unfinished: list[Name] = []  # what was open when the last process ended
        self.next_number = 1
        self.next_seq = 1

    def load(self) -> None:
        """Read the folder, and mend what a cut in the middle of a change has left."""
        names = [name for name in map(Name.parse, self._disk.names(self._folder)) if name is not None]
        for name in sorted(names, key=lambda name: name.number):
            self.next_number = max(self.next_number, name.number + 1)
            self.next_seq = max(self.next_seq, name.end_seq)
            self._take(name)
        # A log that was rewritten because its disk failed leaves the old file until the new one is durable.
        twice = [name for name in self.unfinished if name.number in self.segments]
        self.unfinished = [name for name in self.unfinished if name.number not in self.segments]
        self._remove(twice)
        self._mend_gaps()
        self._disk.sync_folder(self._folder)

    def _take(self, name: Name) -> None:
        path = self.path(name)
        if name.kind == "sealed" or name.kind == "confirmed":
            self.segments[name.number] = _segment(name, name.kind, path, self._disk.size(path))
        elif name.kind == "gap":
            self._gaps.append(name)
        elif name.kind == "floor":
            self._floors.append(name)
        else:
            self.unfinished.append(name)

    def path(self, name: Name) -> Path:
        """Where the file of a name lies."""
        return self._folder / str(name)

    def take_number(self) -> int:
        """A segment number that was never given before."""
        self.next_number += 1
        return self.next_number - 1

    def add(self, name: Name, size: int, *, replacing: Path | None = None) -> Segment:
        """A segment is sealed: its bytes are durable under `replacing`, or under its own name already."""
        path = self.path(name)
        if replacing is not None:
            self._disk.rename(replacing, path)
        self.segments[name.number] = _segment(name, "sealed", path, size)
        self._disk.sync_folder(self._folder)
        return self.segments[name.number]

    def confirm(self, number: int) -> None:
        """Note that the hub has a segment. Not synced: a note that is lost costs one more upload."""
        segment = self.segments.get(number)
        if segment is not None and not segment.confirmed:
            self.rename(segment, segment.rows, "confirmed")

    def rename(self, segment: Segment, rows: int, state: State) -> Segment:
        """Change what the name of a sealed segment says."""
        name = Name(state, segment.number, segment.first_seq, segment.end_seq, rows, "")
        if self.path(name) != segment.path:
            self._disk.rename(segment.path, self.path(name))
        changed = _segment(name, state, self.path(name), segment.size)
        self.segments[segment.number] = changed
        return changed

    def drop(self, number: int, reason: str | None) -> None:
        """Remove a sealed segment; with a reason, its rows are recorded as a gap."""
        segment = self.segments.get(number)
        if segment is None:
            return
        start = (segment.number, segment.first_seq)
        if reason is not None:
            left = Name("gap", *start, segment.end_seq, segment.rows, reason)
        else:
            left = Name("floor", segment.number, self.next_seq, self.next_seq, 0, "")
        if reason is None and number + 1 < self.next_number:  # a later file carries the counters
            self._disk.unlink(segment.path)
            del self.segments[number]
            return
        self._leave(segment.path, left)
        self._mend_gaps()

    def leave_floor(self, path: Path, number: int) -> None:
        """An open segment ends without a row: keep only what it says about numbers and sequences."""
        self._leave(path, Name("floor", number, self.next_seq, self.next_seq, 0, ""))

    def _leave(self, path: Path, name: Name) -> None:
        self._disk.rename(path, self.path(name))
        self.segments.pop(name.number, None)
        (self._gaps if name.kind == "gap" else self._floors).append(name)
        # Without this sync a cut could keep the old name over a file that was already emptied.
        self._disk.sync_folder(self._folder)
        self._empty(self.path(name))

    def _empty(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # the space comes back at the next load
            if self._disk.size(path):
                with writing(self._disk, self._disk.open(path)) as handle:
                    self._disk.truncate(handle, 0)

    def forget_floors(self) -> None:
        """A later file is durable and carries the counters now."""
        floors, self._floors = self._floors, []
        self._remove(floors)

    def _remove(self, names: Iterable[Name]) -> None:
        for name in names:
            with contextlib.suppress(OSError):  # a file too many is removed at the next load
                self._disk.unlink(self.path(name))

    def record_gap(self, number: int, first_seq: int, end_seq: int, reason: str) -> None:
        """Record rows that are lost, durably. Recording the same loss twice counts it once."""
        name = Name("gap", number, first_seq, end_seq, end_seq - first_seq, reason)
        if not any(_covers(other, name) for other in self._gaps):
            self._disk.close(self._disk.create(self.path(name)))
            self._gaps.append(name)
            self._disk.sync_folder(self._folder)
            self._mend_gaps()

    @property
    def gaps(self) -> list[Gap]:
        """All recorded losses, by sequence."""
        return [name.gap() for name in sorted(self._gaps, key=lambda name: name.first_seq)]

    def _mend_gaps(self) -> None:
        """Merge neighbours, so that a week without a hub leaves one gap record and not a hundred thousand."""
        merged: list[Name] = []
        with contextlib.suppress(OSError):  # two records say the same as one
            for name in sorted(self._gaps, key=lambda name: (name.first_seq, -name.end_seq)):
                self._empty(self.path(name))
                last = merged[-1] if merged else None
                if last and _covers(last, name):
                    self._disk.unlink(self.path(name))
                elif last and last.end_seq == name.first_seq and last.reason == name.reason:
                    merged[-1] = self._merge(last, name)
                else:
                    merged.append(name)
            self._gaps = merged

    def _merge(self, left: Name, right: Name) -> Name:
        both = right._replace(
            number=max(left.number, right.number), first_seq=left.first_seq, rows=left.rows + right.rows
        )
        self._disk.rename(self.path(left), self.path(both))
        self._disk.sync_folder(self._folder)  # before the right one goes
        self._disk.unlink(self.path(right))
        return both


def _covers(outer: Name, inner: Name) -> bool:
    return outer.first_seq <= inner.first_seq and inner.end_seq <= outer.end_seq


def _segment(name: Name, state: State, path: Path, size: int) -> Segment:
    return Segment(name.number, name.first_seq, name.end_seq, name.rows, size, state, path)
