"""Sealing: how a segment that takes no row any more becomes immutable, also on a disk that refuses.

- a sound file is cut to its rows, synced and renamed: in that order, so that a sealed name never stands over a tail;
- a file of which a sync has failed is never synced again: what was acknowledged is copied to a fresh one;
- what the disk refuses now waits, readable, and is tried again; its name tells the next process what it must know.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from durable.catalog import Catalog
from durable.disk import Disk
from durable.files import write_atomically
from durable.frames import FRAME_OVERHEAD, holes_in, join_frames, length_of, scan_frames, whole_frames
from durable.segment_names import Name


@dataclass(eq=False)
class Writing:
    """A segment that is being written, or could not be sealed yet. It counts acknowledged rows only."""

    number: int
    first_seq: int
    path: Path
    reserved: int  # bytes on disk
    handle: int
    size: int = 0
    end_seq: int = 0
    rows: int = 0
    dirty: bool = False  # holds rows that are acknowledged and not synced
    sound: bool = True  # no sync of this file has failed, and there is no hole in it
    born: float = field(default_factory=time.monotonic)


class Sealer:
    """Seals the segments of one log. Called by one thread at a time."""

    def __init__(self, folder: Path, epoch: str, catalog: Catalog, disk: Disk) -> None:
        self._folder = folder
        self._epoch = epoch
        self._catalog = catalog
        self._disk = disk
        self.waiting: list[Writing] = []  # in the order of their numbers

    def seal_all(self) -> OSError | None:
        """Seal what takes no row any more; returns the first refusal. What was refused is tried again later."""
        refused = None
        for segment in list(self.waiting):
            try:
                self._seal(segment)
            except OSError as error:
                refused = refused or error
                self._distrust(segment)
            else:
                self.waiting.remove(segment)
                with contextlib.suppress(OSError):  # its bytes are durable under another proof
                    self._disk.close(segment.handle)
        return refused

    def _seal(self, segment: Writing) -> None:
        if segment.number in self._catalog.segments:  # the last try got as far as the rename
            self._disk.sync_folder(self._folder)
        elif segment.rows == 0:
            self._catalog.leave_floor(segment.path, segment.number)
        elif segment.sound:
            self._trim(segment)
            name = Name("sealed", segment.number, segment.first_seq, segment.end_seq, segment.rows, "")
            self._catalog.add(name, segment.size, replacing=segment.path)
        else:
            self._copy(segment)

    def _distrust(self, segment: Writing) -> None:
        """Tell the next process, should this one end, that a sync of the file failed: its pages only look clean."""
        if not segment.sound and segment.path.suffix != ".suspect":
            with contextlib.suppress(OSError):
                suspect = segment.path.with_suffix(".suspect")
                self._disk.rename(segment.path, suspect)
                segment.path = suspect

    def _trim(self, segment: Writing) -> None:
        self._disk.truncate(segment.handle, segment.size)
        segment.reserved = segment.size
        segment.sound = False  # until the sync returns
        self._disk.sync(segment.handle)
        segment.sound = True

    def _copy(self, segment: Writing) -> None:
        """Save what was acknowledged from a file that cannot be trusted to a fresh one."""
        data = self._disk.read(segment.path, segment.size)
        frames = whole_frames(data, self._epoch, segment.first_seq, segment.end_seq)
        for start, end in holes_in(frames, segment.first_seq, segment.end_seq):
            self._catalog.record_gap(segment.number, start, end, "damaged")
        rows = sum(frame.rows for frame in frames)
        if rows:
            name = Name("sealed", segment.number, segment.first_seq, segment.end_seq, rows, "")
            whole = join_frames(self._epoch, frames)
            write_atomically(self._catalog.path(name), whole, disk=self._disk)
            self._catalog.add(name, len(whole))
        with contextlib.suppress(OSError):  # removed at the next opening
            self._disk.unlink(segment.path)

    def recover(self, name: Name) -> None:
        """Take over what the last process left open: its whole frames are its rows."""
        path = self._catalog.path(name)
        data = self._disk.read(path)
        found = list(scan_frames(data, self._epoch, name.first_seq))
        if not found:
            self._catalog.leave_floor(path, name.number)
            return
        frames = [frame for _, frame in found]
        size = found[-1][0] + FRAME_OVERHEAD + len(frames[-1].payload)
        self.waiting.append(
            Writing(
                name.number,
                name.first_seq,
                path,
                len(data),
                self._disk.open(path),
                size=size,
                end_seq=frames[-1].end_seq,
                rows=sum(frame.rows for frame in frames),
                sound=name.kind == "open" and size == length_of(frames),
            )
        )
        self._catalog.next_seq = max(self._catalog.next_seq, frames[-1].end_seq)
