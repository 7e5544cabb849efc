"""`SegmentLog`: acknowledged rows are there after a power cut, in order, or their loss is on record.

    <folder>/<epoch>/0000000007.512.open      names: segment_names.py; what lies in the files: frames.py

What it leaves to others: who waits for whom (group_commit.py), what a row is (the caller), when what goes home.

Rules:

- `append(sync=True)` returns only after fdatasync did; a row is visible to readers only once it is acknowledged;
- fail closed: after a failed write or sync nothing is acknowledged, that segment takes no further row, and its file
  is never trusted by syncing it again: what was acknowledged earlier is copied to a fresh file. The next append
  starts a new segment;
- a sequence number is never given twice, not even that of a row that failed;
- a sealed segment never changes (its digest is what the hub remembers), with one exception: bytes that the disk has
  damaged are cut out, and the rows in them recorded as a gap;
- the size on disk stays below `max_bytes`: confirmed segments go first, silently, since the hub has them; then, if so
  told, the oldest others, each leaving a gap; else the append is refused.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from durable.catalog import Catalog
from durable.disk import DISK, Disk
from durable.files import make_folder, sweep, write_atomically
from durable.frames import (
    FRAME_OVERHEAD,
    Frame,
    encode_frame,
    holes_in,
    join_frames,
    length_of,
    read_frames,
    whole_frames,
)
from durable.sealing import Sealer, Writing
from durable.segment_names import Gap, Name, Segment
from durable.sync_latency import SyncPace
from edgepack.errors import BadInput, RuntimeFailed, Unreachable

__all__ = ["Frame", "Gap", "LogFull", "LogStopped", "Segment", "SegmentLog", "read_frames"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class LogStopped(RuntimeFailed):
    """The disk refused: what was being appended is not acknowledged. The next append starts a new segment."""


class LogFull(Unreachable):
    """There is no room below the log's limit, and nothing may be dropped. Later there may be."""


class SegmentLog:
    """An append-only log of rows in segments, made by `open`. All methods may be called by any thread."""

    def __init__(self, folder: Path, epoch: str, catalog: Catalog, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._catalog = catalog
        self._lock = threading.RLock()
        self._open: Writing | None = None
        self._sealer = Sealer(folder, epoch, catalog, disk)
        self.segment_bytes = 0
        self._max_bytes: int | None = None
        self._drop_oldest = False
        self._sync_pace = SyncPace()
        self._closed = False
        self.epoch = epoch

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        segment_bytes: int = 8 << 20,
        max_bytes: int | None = None,
        drop_oldest: bool = False,
        disk: Disk = DISK,
    ) -> SegmentLog:
        """Open a folder's log, or start one; what a crash left open is cut to its whole frames and sealed.

        `segment_bytes` is the size at which a segment is sealed, `max_bytes` the limit on disk of all of them. One
        process opens a log at a time (see FolderLock). Raises LogStopped when the disk refuses.
        """
        with _refusals(folder, "be opened"):
            epoch = _epoch(folder, disk)
            sweep(folder / epoch, disk=disk)
            catalog = Catalog(folder / epoch, disk)
            catalog.load()
            log = cls(folder / epoch, epoch, catalog, disk)
            log.limit(segment_bytes=segment_bytes, max_bytes=max_bytes, drop_oldest=drop_oldest)
            for name in catalog.unfinished:
                log._sealer.recover(name)
            log._sealer.seal_all()
        return log

    def limit(self, *, segment_bytes: int, max_bytes: int | None, drop_oldest: bool) -> None:
        """Set the limits anew; they hold from the next segment on."""
        self.segment_bytes, self._max_bytes, self._drop_oldest = segment_bytes, max_bytes, drop_oldest

    # Writing

    def append(self, payloads: Sequence[tuple[bytes, int]], sync: bool) -> int:
        """Append payloads, each with its number of rows (at least 1); returns the sequence of the first row.

        With `sync` it returns once they are durable. Raises LogStopped when the disk refuses, LogFull when there is
        no room: then no row of them is acknowledged, and the next call may work.
        """
        with self._lock:
            if self._closed:
                raise LogStopped(f"log '{self._folder.parent}' is closed")
            first = self._catalog.next_seq
            data, end = self._encode(payloads, first)
            if self._max_bytes is not None and len(data) > self._max_bytes and self._drop_oldest:
                return self._skip(first, end)
            with _refusals(self._folder.parent, "take a row"):
                segment = self._writable(len(data))
                self._catalog.next_seq = end
                self._write(segment, data, sync)
            segment.size += len(data)
            segment.rows += end - first
            segment.end_seq = end
            segment.dirty = not sync
            return first

    def append_at_once(self, payloads: Sequence[tuple[bytes, int]], sync: bool = False) -> int | None:
        """Append, but only if nothing makes us wait long: no other thread at work in the log, room in the open segment,
        and with `sync` a disk that has been quick of late. Else None, and nothing was appended. Raises LogStopped as
        `append` does.
        """
        if (sync and not self._sync_pace.is_quick) or not self._lock.acquire(blocking=False):
            return None
        try:
            segment = self._open
            needed = sum(len(payload) + FRAME_OVERHEAD for payload, _ in payloads)
            if segment is None or segment.size + needed > self.segment_bytes:
                return None
            return self.append(payloads, sync)
        finally:
            self._lock.release()

    def _encode(self, payloads: Sequence[tuple[bytes, int]], seq: int) -> tuple[bytes, int]:
        pieces = []
        for payload, rows in payloads:
            pieces += [encode_frame(self.epoch, seq, rows, payload), payload]
            seq += rows
        return b"".join(pieces), seq

    def _skip(self, first: int, end: int) -> int:
        """Rows that alone are larger than the log may be: as if they had been the oldest a moment later."""
        with _refusals(self._folder.parent, "record a gap"):
            self._catalog.next_seq = end
            self._catalog.record_gap(self._catalog.take_number(), first, end, "too-large")
        return first

    def _write(self, segment: Writing, data: bytes, sync: bool) -> None:
        try:
            self._disk.write(segment.handle, segment.size, data)
            if sync:
                segment.sound = False  # until it returns
                begun = time.perf_counter()
                self._disk.sync(segment.handle)
                self._sync_pace.note(time.perf_counter() - begun)
                segment.sound = True
        except OSError:
            self._retire(segment)
            self._sealer.seal_all()
            raise

    def sync(self) -> None:
        """Make every acknowledged row durable. Raises LogStopped when the disk refuses."""
        with self._lock, _refusals(self._folder.parent, "be synced"):
            segment = self._open
            if segment is not None and segment.dirty:
                try:
                    self._disk.sync(segment.handle)
                except OSError:
                    segment.sound = False
                    self._retire(segment)
                    self._sealer.seal_all()
                    raise
                segment.dirty = False

    def _writable(self, needed: int) -> Writing:
        segment = self._open
        if segment is not None and (segment.rows == 0 or segment.size + needed <= self.segment_bytes):
            return segment
        if segment is not None:
            self._retire(segment)
        self._sealer.seal_all()  # one that cannot be sealed now keeps its rows, and is tried again later
        self._open = self._start(max(needed, self.segment_bytes))
        return self._open

    def _start(self, size: int) -> Writing:
        while self._max_bytes is not None and self.size_bytes + size > self._max_bytes:
            if not self._give_up_oldest():
                raise LogFull(
                    f"log '{self._folder.parent}' is full ({self.size_bytes} of {self._max_bytes} bytes) "
                    "and may drop nothing: let it reach its hub, or raise max_bytes",
                    retry_after_s=5,
                )
        while True:
            try:
                return self._create(size)
            except OSError as error:
                if error.errno not in _NO_ROOM or not self._give_up_oldest():
                    raise

    def _create(self, size: int) -> Writing:
        number, first = self._catalog.take_number(), self._catalog.next_seq
        path = self._catalog.path(Name("open", number, first, first, 0, ""))
        handle = self._disk.create(path)
        try:
            self._disk.preallocate(handle, size)
            self._disk.sync_folder(self._folder)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.close(handle)
                self._disk.unlink(path)
            raise
        self._catalog.forget_floors()
        return Writing(number, first, path, size, handle, end_seq=first)

    def _give_up_oldest(self) -> bool:
        segments = sorted(self._catalog.segments.values(), key=lambda each: (not each.confirmed, each.number))
        if not segments or not (segments[0].confirmed or self._drop_oldest):
            return False
        self._catalog.drop(segments[0].number, None if segments[0].confirmed else "full")
        return True

    # Sealing

    def seal(self, older_than_s: float = 0) -> Segment | None:
        """Seal the open segment if it has rows and is older than this; returns it, or None.

        Raises LogStopped when the disk refuses: the rows stay readable, and the next call tries again.
        """
        with self._lock:
            segment = self._open
            if segment is not None and segment.rows and time.monotonic() - segment.born >= older_than_s:
                self._retire(segment)
            refused = self._sealer.seal_all()
            if refused is not None:
                raise LogStopped(_refusal(self._folder.parent, "be sealed", refused)) from refused
            return self._catalog.segments.get(segment.number) if segment and self._open is None else None

    def _retire(self, segment: Writing) -> None:
        self._open = None
        self._sealer.waiting.append(segment)

    # Reading

    def segments(self) -> list[Segment]:
        """All segments that hold rows, oldest first."""
        with self._lock:
            found = list(self._catalog.segments.values())
            for each in [*self._sealer.waiting, *([self._open] if self._open else [])]:
                if each.rows and each.number not in self._catalog.segments:
                    found.append(
                        Segment(each.number, each.first_seq, each.end_seq, each.rows, each.size, "open", each.path)
                    )
            return sorted(found, key=lambda segment: segment.number)

    def read(self, number: int) -> Iterator[Frame]:
        """The frames of a segment, oldest first, up to what is acknowledged now; none if it has been dropped.

        Damage in a sealed segment is mended on the way: the rows in it become a gap.
        """
        segment, data = self._snapshot(number)
        if segment is None:
            return
        frames = whole_frames(data, self.epoch, segment.first_seq, segment.end_seq)
        if segment.sealed and length_of(frames) != len(data):
            with contextlib.suppress(LogStopped):
                self.contents(number)
        yield from frames

    def _snapshot(self, number: int) -> tuple[Segment | None, bytes]:
        with self._lock:
            segment = next((each for each in self.segments() if each.number == number), None)
            if segment is None:
                return None, b""
            with _refusals(self._folder.parent, "be read"):
                return segment, self._disk.read(segment.path, segment.size)

    def contents(self, number: int) -> bytes:
        """The bytes of a sealed segment, every frame checked; damage is first cut out and recorded.

        Empty if there is no such segment (any more). Raises LogStopped when the disk refuses.
        """
        with self._lock, _refusals(self._folder.parent, "be read"):
            segment = self._catalog.segments.get(number)
            if segment is None:
                return b""
            data = self._disk.read(segment.path)
            frames = whole_frames(data, self.epoch, segment.first_seq, segment.end_seq)
            return data if length_of(frames) == len(data) else self._mend(segment, frames)

    def _mend(self, segment: Segment, frames: list[Frame]) -> bytes:
        rows = sum(frame.rows for frame in frames)
        if not rows:
            self._catalog.drop(segment.number, None if segment.confirmed else "damaged")
            return b""
        if not segment.confirmed:
            for start, end in holes_in(frames, segment.first_seq, segment.end_seq):
                self._catalog.record_gap(segment.number, start, end, "damaged")
        renamed = self._catalog.rename(segment, rows, segment.state)
        whole = join_frames(self.epoch, frames)
        write_atomically(renamed.path, whole, disk=self._disk)
        self._catalog.segments[segment.number] = replace(renamed, size=len(whole))
        return whole

    # Letting go

    def confirm(self, number: int) -> None:
        """Note that the hub has a sealed segment: it goes first when room is needed. Twice is fine."""
        with self._lock, _refusals(self._folder.parent, "note a receipt"):
            self._catalog.confirm(number)

    def drop(self, number: int, reason: str | None = None) -> None:
        """Remove a sealed segment. With a reason its rows count as lost: a durable gap record stays."""
        with self._lock, _refusals(self._folder.parent, "drop a segment"):
            self._catalog.drop(number, reason)

    @property
    def gaps(self) -> list[Gap]:
        """All rows that were lost, by sequence: dropped by policy, or damaged by the disk."""
        with self._lock:
            return self._catalog.gaps

    @property
    def next_seq(self) -> int:
        """The sequence that the next row will have."""
        return self._catalog.next_seq

    @property
    def size_bytes(self) -> int:
        """What the log takes on disk."""
        with self._lock:
            held = [*self._sealer.waiting, *([self._open] if self._open else [])]
            sealed = (each.size for each in self._catalog.segments.values())
            return sum(sealed) + sum(each.reserved for each in held if each.number not in self._catalog.segments)

    def close(self) -> None:
        """Sync and seal what is open; nothing can be appended from then on. A second call does nothing."""
        with self._lock, contextlib.suppress(LogStopped):
            self._closed = True
            if self._open is not None:
                self._retire(self._open)
            self.seal()


def _epoch(folder: Path, disk: Disk) -> str:
    """The log's epoch is the name of its one subfolder: made in one step, and nothing in it can be torn."""
    make_folder(folder, disk=disk)
    found = [name for name in disk.names(folder) if len(name) == 16 and set(name) <= set("0123456789abcdef")]
    if len(found) > 1:
        raise BadInput(f"log '{folder}' has {len(found)} epochs ({', '.join(found)}): keep one, move the others away")
    epoch = found[0] if found else secrets.token_hex(8)
    if not found:
        disk.make_folder(folder / epoch)
    disk.sync_folder(folder)  # also where it is found: the process that made it may have died before this
    return epoch


@contextlib.contextmanager
def _refusals(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogStopped(_refusal(folder, what, error)) from error


def _refusal(folder: Path, what: str, error: OSError) -> str:
    return f"log '{folder}' could not {what}: {error.strerror or error}; try again when the disk is well"
