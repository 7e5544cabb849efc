"""`Spool`: a pipeline's inference log on this device: result rows in, segments home, and every loss counted.

    <data>/spool/<pipeline>/    one log (durable/segment_log.py); in a frame: columns.raw of some result rows

Rules:

- `record` returns when the rows are as durable as the policy says: `commit`: on disk; `relaxed`: written, on disk
  within a second; `off`: nothing is written. If it raises, the rows are not in the log and no answer may leave;
- rows that can be read are durable: reading syncs first, so a sequence number, once seen, never names another row;
- `confirm` deletes nothing: what the hub has stays readable here until its room is needed, and then goes first. The
  note stands in the segment's file name. A cut may lose it: the segment is then sent once more, and the hub knows it;
- above `max_bytes` the oldest segment goes and leaves a gap (`drop_oldest`), or rows are refused (`reject`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.pipeline import Durability, LogPolicy, parse_bytes
from columns.columns import Columns
from columns.raw_rows import RawRows
from durable.disk import DISK, Disk
from durable.group_commit import GroupCommit
from durable.segment_log import LogStopped, SegmentLog
from durable.segment_names import Gap, Segment
from edge_agent.inference_log.held import HeldRows
from edge_agent.inference_log.log_rows import LogRows
from edge_agent.inference_log.ticket import Refusal, Ticket, disk_refusals
from edgepack.errors import Unreachable

_log = logging.getLogger(__name__)
_HELD = "held"  # in a log's folder: rows whose shadow models have not answered
_SETTLE_S = 5.0  # that a reader waits for them
_WINDOW_S = 0.5  # how long a relaxed row may wait for its sync
_ALIKE_BYTES = 64 << 10  # of rows that are logged together


@dataclass(frozen=True)
class Alike:
    """Rows that differ in few columns, as long as one policy holds; at most so many of them at once."""

    rows: RawRows
    policy: LogPolicy
    most: int


class Spool:
    """The log of one pipeline. All methods may be called by any thread. One opener at a time: BadInput for a second.

    Raises Unreachable where the disk refuses, or the log is full and may drop nothing: later it may work (503).
    """

    def __init__(
        self,
        folder: Path,
        policy: LogPolicy,
        partition: str,
        *,
        pipeline: str | None = None,
        disk: Disk = DISK,
    ) -> None:
        """Open or start the log in `folder`; `pipeline` is its name in rows (default: the folder's)."""
        self._folder = folder
        self._disk = disk
        self._rows = LogRows(pipeline or folder.name, partition)
        self._open = contextlib.ExitStack()
        self._log: SegmentLog | None = None
        self._held: HeldRows | None = None
        self._opening = threading.Lock()
        self._checked: set[int] = set()
        self._sync_failures = 0
        self._refusal = Refusal()
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._syncer: threading.Thread | None = None
        self.change_policy(policy)

    def change_policy(self, policy: LogPolicy) -> None:
        """Follow another policy from now on: a new version of the pipeline may bring one."""
        self._policy = policy
        self._limits = _limits(policy)
        if self._held is not None:
            self._held.follow(self._held_policy())
        if self._log is not None:
            self._log.limit(**self._limits)
        elif policy.durability != "off" or self._disk.is_folder(self._folder):
            self._start()

    def _start(self) -> None:
        """Open the log; with `off` only where an earlier policy left rows that must still go home."""
        with self._opening, contextlib.ExitStack() as undo:
            if self._log is not None:
                return
            undo.enter_context(self._disk.lock(self._folder))
            with disk_refusals():
                self._log = SegmentLog.open(self._folder, disk=self._disk, **self._limits)
            self._commits = GroupCommit(self._log)
            self._open = undo.pop_all()
            if self._disk.is_folder(self._folder / _HELD):
                self._held = self._holding()

    @property
    def epoch(self) -> str:
        """16 hexadecimal digits, new with each new log: with it, sequences and segment numbers are unique for ever."""
        log = self._log
        return log.epoch if log else ""

    @property
    def policy(self) -> LogPolicy:
        """The policy that is followed."""
        return self._policy

    # Rows

    @property
    def refuses(self) -> str | None:
        """Why the log took no row just now, or None."""
        return self._refusal.reason

    def record(self, result: Columns, request_id: str = "", *, bundle: str = "") -> int | None:
        """Log the rows of a result; returns the sequence of the first, or None where nothing is logged.

        `bundle` is the digest of the bundle that answered.
        """
        ticket = self.submit(result, request_id, bundle=bundle)
        return ticket.wait() if ticket is not None else None

    def submit(self, result: Columns, request_id: str = "", *, bundle: str = "") -> Ticket | None:
        """Put the rows of a result on their way into the log; None where nothing is logged."""
        if self._policy.durability == "off" or not result.rows:
            return None
        if self._log is None:
            raise Unreachable(f"the log of pipeline '{self._folder.name}' is closed", retry_after_s=1)
        sync = self._policy.durability == "commit"
        entry = self._commits.enqueue(self._payloads(result, request_id, bundle), sync)
        return Ticket(entry, self._commits, None if sync else self._sync_soon, self._refusal)

    def alike(self, row: Columns, varying: Sequence[str], request_id: str, *, bundle: str) -> Alike | None:
        """How rows like this one are logged together: rows that differ from it in these columns of numbers, and in
        their request id, which is of equal length. None where they are logged one by one, or not at all.
        """
        limit = self._policy.max_value_bytes
        if self._policy.durability == "off" or row.rows != 1 or not self._rows.is_short(row, limit):
            return None
        rows = self._rows.alike(row, varying, request_id, bundle)
        most = min(_ALIKE_BYTES, self._limits["segment_bytes"] // 4) // rows.row_bytes
        return Alike(rows, self._policy, max(1, most))

    def submit_alike(self, alike: Alike, rows: Sequence[Sequence[bytes | bytearray | memoryview]]) -> Ticket:
        """Put rows on their way, at most `alike.most`, each by the bytes of its request id and varying columns."""
        if self._log is None:
            raise Unreachable(f"the log of pipeline '{self._folder.name}' is closed", retry_after_s=1)
        sync = alike.policy.durability == "commit"
        entry = self._commits.enqueue([(alike.rows.encode(rows), len(rows))], sync)
        return Ticket(entry, self._commits, None if sync else self._sync_soon, self._refusal)

    def hold(
        self, row: Columns, whole: Callable[[], Columns], request_id: str = "", *, bundle: str = ""
    ) -> Ticket | None:
        """As `submit`, for rows that `whole` makes complete later (see `held`); None where they are not held:
        nothing is logged, or too many are.
        """
        if self._policy.durability == "off" or self._log is None:
            return None
        with self._opening:
            if self._held is None and not self._closing.is_set():
                self._held = self._holding()
        return self._held.hold(row, whole, request_id, bundle) if self._held is not None else None

    def keep(self, result: Columns, request_id: str = "", *, bundle: str = "", sync: bool = False) -> None:
        """Log rows that were answered already, whatever the policy has become meanwhile, and wait until they are as
        durable as it asks; with `sync` until they are on disk.
        """
        if self._log is None:
            raise Unreachable(f"the log of pipeline '{self.name}' is closed", retry_after_s=1)
        sync = sync or self._policy.durability != "relaxed"
        entry = self._commits.enqueue(self._payloads(result, request_id, bundle), sync)
        Ticket(entry, self._commits, None if sync else self._sync_soon, self._refusal).wait()

    def sync(self) -> None:
        """Wait until every row is on disk, whatever the policy."""
        if self._log is not None:
            with disk_refusals():
                self._log.sync()

    def empty(self) -> None:
        """Delete all rows, without a gap on record: they are elsewhere."""
        log = self._log
        if log is not None:
            with disk_refusals():
                log.seal()
                for segment in log.segments():
                    log.drop(segment.number)

    def _held_policy(self) -> LogPolicy:
        # with `off` it only brings home what an earlier policy has left
        durability: Durability = "relaxed" if self._policy.durability == "relaxed" else "commit"
        return LogPolicy(durability, self._policy.max_value_bytes, "1Gi", "reject")

    def _holding(self) -> HeldRows:
        policy = self._held_policy()
        journal = Spool(self._folder / _HELD, policy, self._rows.partition, pipeline=self.name, disk=self._disk)
        return HeldRows(journal, self)

    @property
    def name(self) -> str:
        """The pipeline's name in rows."""
        return self._rows.pipeline

    def _payloads(self, result: Columns, request_id: str, bundle: str) -> list[tuple[bytes, int]]:
        return self._rows.payloads(result, request_id, bundle, self._policy.max_value_bytes)

    @property
    def next_seq(self) -> int:
        """The sequence that the next row gets."""
        return self._log.next_seq if self._log is not None else 0

    def rows(self, after_seq: int | None = None, limit: int | None = None) -> Iterator[Columns]:
        """The rows that are retained now, oldest first, in blocks; with `metadata.seq` and `metadata.epoch`.

        Rows that are dropped while the iterator runs are left out.
        """
        log = self._log
        if log is None or (limit is not None and limit <= 0):
            return
        if self._held is not None:
            self._held.settle(_SETTLE_S)
        with disk_refusals():
            log.sync()
        after, left = -1 if after_seq is None else after_seq, limit
        for segment in log.segments():
            if segment.end_seq - 1 <= after:
                continue
            for block in self._blocks(log, segment.number, after):
                part = block if left is None else block.slice(0, left)
                yield part
                left = None if left is None else left - part.rows
                if left == 0:
                    return

    def _blocks(self, log: SegmentLog, number: int, after: int) -> Iterator[Columns]:
        with disk_refusals():
            for frame in log.read(number):
                if frame.end_seq - 1 > after:
                    block = self._rows.block(log.epoch, frame, max(0, after + 1 - frame.first_seq))
                    if block is not None:
                        yield block

    # Relaxed: a sync within the window

    def _sync_soon(self) -> None:
        """Called after a row was written, so that a sync under way does not count for it."""
        if self._unsynced.is_set():
            return
        self._unsynced.set()
        if self._syncer is None:
            with self._opening:
                if self._syncer is None and not self._closing.is_set():
                    self._syncer = threading.Thread(
                        target=self._sync_in_windows, name=f"sync-{self._folder.name}", daemon=True
                    )
                    self._syncer.start()

    def _sync_in_windows(self) -> None:
        while self._unsynced.wait() and not self._closing.wait(_WINDOW_S):
            self._unsynced.clear()
            try:
                if self._log is not None:
                    self._log.sync()
            except LogStopped as error:
                self._sync_failures += 1
                _log.error("rows that were answered may be lost: %s", error)

    # The way home

    def seal(self, older_than_s: float = 0) -> Segment | None:
        """Close the open segment if it holds rows and is older than this, so that it can go home."""
        log = self._log
        with disk_refusals():
            return log.seal(older_than_s) if log else None

    def sealed(self) -> list[Segment]:
        """The segments that are to go home, oldest first. Damage in their files is cut out first, and recorded."""
        log = self._log
        if log is None:
            return []
        with disk_refusals():
            for segment in _pending(log):
                if segment.number not in self._checked:
                    log.contents(segment.number)
                    self._checked.add(segment.number)
        return _pending(log)

    def confirm(self, number: int) -> None:
        """The hub has this segment, and the caller has noted so durably. It stays readable until its room is needed."""
        log = self._log
        if log is not None:
            with disk_refusals():
                log.confirm(number)

    @property
    def gaps(self) -> list[Gap]:
        """Rows that were logged and are lost, by sequence, with the reason."""
        log = self._log
        return log.gaps if log else []

    def stats(self) -> dict[str, int]:
        """Figures for /metrics: what is retained, what waits for the hub, what was lost."""
        log = self._log
        segments = log.segments() if log else []
        return {
            "rows": sum(segment.rows for segment in segments),
            "bytes": log.size_bytes if log else 0,
            "pending_segments": sum(segment.state == "sealed" for segment in segments),
            "pending_rows": sum(segment.rows for segment in segments if not segment.confirmed),
            "oldest_seq": segments[0].first_seq if segments else 0,
            "next_seq": log.next_seq if log else 0,
            "dropped_rows": sum(gap.rows for gap in self.gaps),
            "sync_failures": self._sync_failures,
            "held": self._held.count if self._held is not None else 0,
        }

    def close(self) -> None:
        """Sync, seal and give the folder back; records are refused from then on. A second call does nothing."""
        if self._held is not None:
            self._held.close()
        self._closing.set()
        self._unsynced.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._opening:
            log, self._log = self._log, None
            if log is not None:
                self._commits.close()
                log.close()
            self._open.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pending(log: SegmentLog) -> list[Segment]:
    return [segment for segment in log.segments() if segment.state == "sealed"]


def _limits(policy: LogPolicy) -> dict[str, Any]:
    """Segments of 8 MiB, smaller where the spool is: what drops is at most an eighth of it."""
    limit = parse_bytes(policy.max_bytes)
    segment = max(1, min(8 << 20, limit // 8))
    return {"segment_bytes": segment, "max_bytes": limit, "drop_oldest": policy.when_full == "drop_oldest"}
