"""`GroupCommit`: many threads append to one log and share its syncs.

The thread that finds nobody at work leads: it writes what has queued up, syncs once, wakes those it wrote for, and
hands the lead to the first of those who came meanwhile. There is no committer thread: a lone caller pays no hand-off
(about 100 µs).
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Sequence

from durable.segment_log import SegmentLog


class _Entry:
    """What one caller brought, and what became of it."""

    __slots__ = ("done", "error", "payloads", "seq", "sync", "turn")

    def __init__(self, payloads: Sequence[tuple[bytes, int]], sync: bool) -> None:
        self.payloads = payloads
        self.sync = sync
        self.done = False
        self.seq = 0
        self.error: BaseException | None = None
        self.turn: threading.Lock | None = None  # held; released when done, or when it is this caller's turn to lead


class GroupCommit:
    """Thread-safe appends to a log. One sync carries at most a segment, and `group_bytes`, of several callers."""

    def __init__(self, log: SegmentLog, *, group_bytes: int = 1 << 20) -> None:
        self._log = log
        self._group_bytes = group_bytes
        self._mutex = threading.Lock()
        self._queue: deque[_Entry] = deque()
        self._led = False

    def submit(self, payload: bytes, rows: int, sync: bool = True) -> int:
        """Append one payload; returns its first sequence once it is written, with `sync` once it is durable.

        Raises what `SegmentLog.append` raised for the group it was in: then it is not acknowledged.
        """
        return self.submit_all([(payload, rows)], sync)

    def submit_all(self, payloads: Sequence[tuple[bytes, int]], sync: bool = True) -> int:
        """Append several payloads whose sequences follow each other; returns the first."""
        mine = _Entry(payloads, sync)
        with self._mutex:
            self._queue.append(mine)
            if self._led:
                mine.turn = threading.Lock()
                mine.turn.acquire()
            self._led = True
        if mine.turn is not None:
            mine.turn.acquire()
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.seq

    def _lead(self) -> None:
        group = self._take()
        try:
            seq = self._log.append(
                [each for entry in group for each in entry.payloads], any(entry.sync for entry in group)
            )
            for entry in group:
                entry.seq = seq
                seq += sum(rows for _, rows in entry.payloads)
        except BaseException as error:  # also an interrupt: those who wait must not wait for ever
            for entry in group:
                entry.error = copy.copy(error).with_traceback(None)
                entry.error.__cause__ = error
            raise
        finally:
            self._finish(group)

    def _take(self) -> list[_Entry]:
        group: list[_Entry] = []
        size, limit = 0, min(self._group_bytes, self._log.segment_bytes)
        with self._mutex:
            while self._queue:
                size += sum(len(payload) for payload, _ in self._queue[0].payloads)
                if group and size > limit:
                    break
                group.append(self._queue.popleft())
        return group

    def _finish(self, group: list[_Entry]) -> None:
        with self._mutex:
            heir = self._queue[0] if self._queue else None
            self._led = heir is not None
        if heir is not None and heir.turn is not None:
            heir.turn.release()
        for entry in group:
            entry.done = True
            if entry.turn is not None and entry is not group[0]:
                entry.turn.release()
