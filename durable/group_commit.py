"""`GroupCommit`: many callers append to one log and share its syncs.

Whoever waits and finds nobody at work leads: it writes what has queued up, syncs once, wakes those it wrote for, and
hands the lead to one of those who came meanwhile. A lone thread therefore pays no hand-off (about 100 µs).

A caller that must not wait, such as a loop that serves many connections, queues its entries, leaves a callback with
each, and calls `flush`: what the log can take without a wait is then written at once, which includes a sync where the
disk has been quick of late; all else is led by a thread kept for that.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from durable.segment_log import SegmentLog

_CLOSE_S = 5  # for a disk that takes long

Payloads = Sequence[tuple[bytes, int]]


class Entry:
    """What one caller brought, and what became of it."""

    __slots__ = ("_commits", "callback", "done", "error", "leads", "payloads", "seq", "sync", "turn")

    def __init__(self, commits: GroupCommit, payloads: Payloads, sync: bool) -> None:
        self._commits = commits
        self.payloads = payloads
        self.sync = sync
        self.done = False
        self.leads = False  # the lead was handed to whoever waits for this entry
        self.seq = 0
        self.error: BaseException | None = None
        self.turn: threading.Lock | None = None  # held; released when done, or when it is this caller's turn to lead
        self.callback: Callable[[], None] | None = None

    def wait(self) -> int:
        """The sequence of the first row, once it is written, with `sync` once it is durable.

        Raises what `SegmentLog.append` raised for the group it was in: then it is not acknowledged.
        """
        self._commits._await(self)
        if self.error is not None:
            raise self.error
        return self.seq

    def then(self, callback: Callable[[], None]) -> None:
        """Call back once it is decided, from any thread, or at once if it is; `wait` does not block from then on."""
        with self._commits._mutex:
            if not self.done:
                self.callback = callback
                return
        callback()


class GroupCommit:
    """Thread-safe appends to a log. One sync carries at most a segment, and `group_bytes`, of several callers."""

    def __init__(self, log: SegmentLog, *, group_bytes: int = 1 << 20) -> None:
        self._log = log
        self._group_bytes = group_bytes
        self._mutex = threading.Lock()
        self._queue: deque[Entry] = deque()
        self._led = False
        self._work = threading.Semaphore(0)
        self._committer: threading.Thread | None = None
        self._closed = False

    def submit(self, payload: bytes, rows: int, sync: bool = True) -> int:
        """Append one payload and wait; see `Entry.wait`."""
        return self.submit_all([(payload, rows)], sync)

    def submit_all(self, payloads: Payloads, sync: bool = True) -> int:
        """Append several payloads whose sequences follow each other; returns the first."""
        return self.enqueue(payloads, sync).wait()

    def enqueue(self, payloads: Payloads, sync: bool = True) -> Entry:
        """Queue payloads without waiting. Somebody has to `wait` for the entry, or leave a callback and `flush`."""
        entry = Entry(self, payloads, sync)
        with self._mutex:
            self._queue.append(entry)
        return entry

    def flush(self) -> None:
        """See to it that what is queued gets written, without waiting for the disk."""
        if not self._queue:
            return  # nothing since the last time; what another thread queues now, it waits for itself
        with self._mutex:
            if self._led or not self._queue:
                return  # whoever leads hands on
            self._led = True
        if not self._write_at_once():
            self._wake()

    def close(self) -> None:
        """End the thread, if there is one, once what was handed to it is written."""
        if self._committer is None:
            return
        given_up = time.monotonic() + _CLOSE_S
        while self._led and time.monotonic() < given_up:
            time.sleep(0.005)
        self._closed = True
        self._work.release()
        self._committer.join(_CLOSE_S)

    def _await(self, entry: Entry) -> None:
        while True:
            with self._mutex:
                if entry.done:
                    return
                lead, entry.leads = entry.leads or not self._led, False
                self._led = True
                if not lead:
                    entry.turn = threading.Lock()
                    entry.turn.acquire()
            if lead:
                self._lead()
            elif entry.turn is not None:
                entry.turn.acquire()

    def _lead(self) -> None:
        """Write one group and hand the lead on. Errors are kept in the entries; an interrupt also leaves here."""
        group = self._take()
        try:
            seq = self._log.append(_payloads(group), any(entry.sync for entry in group))
            _number(group, seq)
        except BaseException as error:
            for entry in group:
                entry.error = copy.copy(error).with_traceback(None)
                entry.error.__cause__ = error
            if not isinstance(error, Exception):
                raise
        finally:
            self._finish(group)

    def _write_at_once(self) -> bool:
        """Lead one group, unless the log would make us wait; the lead is kept then."""
        group = self._take()
        try:
            seq = self._log.append_at_once(_payloads(group), any(entry.sync for entry in group))
        except Exception:  # noqa: BLE001 - the disk's refusal is found again, and told, by whoever leads next
            seq = None
        if seq is None:
            with self._mutex:
                self._queue.extendleft(reversed(group))
            return False
        _number(group, seq)
        self._finish(group)
        return True

    def _wake(self) -> None:
        if self._committer is None:
            self._committer = threading.Thread(target=self._commit, name="commit", daemon=True)
            self._committer.start()
        self._work.release()

    def _commit(self) -> None:
        """What the thread does: lead once for each time that the lead is handed to it."""
        while True:
            self._work.acquire()
            if self._closed:
                return
            self._lead()

    def _take(self) -> list[Entry]:
        group: list[Entry] = []
        size, limit = 0, min(self._group_bytes, self._log.segment_bytes)
        with self._mutex:
            while self._queue:
                size += sum(len(payload) for payload, _ in self._queue[0].payloads)
                if group and size > limit:
                    break
                group.append(self._queue.popleft())
        return group

    def _finish(self, group: list[Entry]) -> None:
        with self._mutex:
            for entry in group:
                entry.done = True
            heir = next((entry for entry in self._queue if entry.turn is not None), None)
            alone = heir is None and any(entry.callback for entry in self._queue)
            self._led = heir is not None or alone
            if heir is not None:
                heir.leads = True
        if heir is not None and heir.turn is not None:
            heir.turn.release()
        elif alone:
            self._wake()
        for entry in group:
            if entry.turn is not None:
                entry.turn.release()
            callback, entry.callback = entry.callback, None  # it may lead back to the entry: no cycle stays
            if callback is not None:
                callback()


def _payloads(group: list[Entry]) -> list[tuple[bytes, int]]:
    return [each for entry in group for each in entry.payloads]


def _number(group: list[Entry], seq: int) -> None:
    for entry in group:
        entry.seq = seq
        seq += sum(rows for _, rows in entry.payloads)
