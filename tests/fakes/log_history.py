"""What a segment log was told and has promised, so that any disk it left behind can be judged."""

from __future__ import annotations

import random
from pathlib import Path

from durable.frames import scan_frames
from durable.segment_log import LogFull, LogStopped, SegmentLog
from durable.sync_latency import SyncPace
from tests.fakes.disk import MemoryDisk

FOLDER = Path("/spool")
SEGMENT_BYTES = 600
PROBE = b"written after the cut"


class History:
    """Drives a log through random work and remembers: every row offered, every row promised, every segment shown."""

    def __init__(
        self, disk: MemoryDisk, rng: random.Random, *, max_bytes: int | None, drop_oldest: bool = True
    ) -> None:
        self.disk, self.rng = disk, rng
        self.limits = {"segment_bytes": SEGMENT_BYTES, "max_bytes": max_bytes, "drop_oldest": drop_oldest}
        self.offered: dict[int, tuple[int, bytes]] = {}  # first sequence of a frame → rows, payload
        self.promised: set[int] = set()  # first sequences that a power cut may not take
        self.written: set[int] = set()  # acknowledged without a sync
        self.shown: dict[int, bytes] = {}  # sealed segments that a hub may have seen
        self.confirmed: set[int] = set()
        self.given_up: set[int] = set()  # frames in segments that were dropped, or were about to be
        self.refusals = 0
        self.closed = False
        self.log = self.open(disk)

    def open(self, disk: MemoryDisk) -> SegmentLog:
        log = SegmentLog.open(FOLDER, disk=disk, **self.limits)
        for _ in range(SyncPace.TRUSTED):
            log._sync_pace.note(0.0)  # so that synced rows go by `append_at_once` as well
        return log

    # Work

    def work(self, steps: int) -> None:
        for _ in range(steps):
            if self.closed:
                self._restart()
                continue
            weights = [8, 4, 1, 2, 2, 1]
            actions = [self.append_synced, self.append_written, self.sync, self.seal, self.confirm, self.reopen]
            try:
                self.rng.choices(actions, weights)[0]()
            except (LogStopped, LogFull):
                self.refusals += 1
            self.look()

    def append_synced(self) -> None:
        self._append(sync=True)
        self._now_durable()

    def append_written(self) -> None:
        self._append(sync=False)

    def _append(self, sync: bool) -> None:
        payloads, seqs, seq = [], [], self.log.next_seq
        for _ in range(self.rng.randint(1, 3)):
            rows, payload = self.rng.randint(1, 4), self.rng.randbytes(self.rng.randint(0, 150))
            payloads.append((payload, rows))
            self.offered[seq] = (rows, payload)
            seqs.append(seq)
            seq += rows
        first = self.log.append_at_once(payloads, sync) if self.rng.random() < 0.5 else None
        assert (self.log.append(payloads, sync) if first is None else first) == seqs[0]
        self.written.update(seqs)
        if sync:
            self.promised.update(seqs)

    def sync(self) -> None:
        self.log.sync()
        self._now_durable()

    def seal(self) -> None:
        self.log.seal()
        self._now_durable()

    def confirm(self) -> None:
        sealed = [each for each in self.log.segments() if each.state == "sealed"]
        if sealed:
            self.confirmed.add(sealed[0].number)
            self.log.confirm(sealed[0].number)

    def reopen(self) -> None:
        self.log.close()
        self._now_durable(closed=True)
        self.closed = True
        self._restart()

    def _restart(self) -> None:
        try:
            self.log = self.open(self.disk)
        except LogStopped:
            self.refusals += 1
        else:
            self.closed, self.written = False, set()

    def _now_durable(self, *, closed: bool = False) -> None:
        """All that was written is durable, but for segments whose sealing the disk refused."""
        unsealed = [each for each in self.log.segments() if not each.sealed]
        waiting = unsealed if closed else unsealed[:-1]
        kept = {seq for seq in self.written if any(each.first_seq <= seq < each.end_seq for each in waiting)}
        self.promised |= self.written - kept
        self.written = kept

    def look(self) -> None:
        """What a reader and the hub could see now."""
        for segment in self.log.segments():
            if segment.sealed:
                data = self.disk.read(segment.path)
                assert self.shown.setdefault(segment.number, data) == data, "a sealed segment changed"
        assert self.limits["max_bytes"] is None or self.log.size_bytes <= self.limits["max_bytes"]

    # Judgement

    def judge(self, disk: MemoryDisk, *, promised: bool = True) -> None:
        """Open what a cut left, and hold it against the promises; then check that it works on."""
        log = self.open(disk)
        found: dict[int, int] = {}
        last = 0
        for segment in log.segments():
            assert segment.sealed
            assert segment.number not in self.shown or disk.read(segment.path) == self.shown[segment.number]
            for frame in log.read(segment.number):
                known = self.offered.get(frame.first_seq) == (frame.rows, frame.payload)
                assert known or frame.payload == PROBE, "a row nobody wrote"
                assert frame.first_seq > last, "rows out of order, or twice"
                last = frame.end_seq - 1
                found[frame.first_seq] = frame.rows
        self._judge_losses(log, found, promised)
        highest = max([*self.promised, 0])
        assert log.next_seq > highest, "a sequence number would be given twice"
        first = log.append([(PROBE, 1)], sync=True)
        assert log.seal().number > max([*self.shown, 0]), "a segment number would be given twice"
        again = self.open(disk)
        assert any(frame.first_seq == first for each in again.segments() for frame in again.read(each.number))

    def _judge_losses(self, log: SegmentLog, found: dict[int, int], promised: bool) -> None:
        gone = set()
        for gap in log.gaps:
            seqs = set(range(gap.from_seq, gap.to_seq + 1))
            assert gap.rows == len(seqs) or gap.rows < len(seqs), "more rows lost than there were"
            assert not any(seq in seqs for seq in found), "a row that is kept counts as lost"
            assert not gone & seqs, "a loss is counted twice"
            gone |= seqs
        if promised:
            missing = {seq for seq in self.promised if seq not in found and seq not in gone}
            missing -= self._home()
            assert not missing, f"acknowledged rows {sorted(missing)} are gone without a word"

    def _home(self) -> set[int]:
        """Rows in segments the hub has: they may go silently."""
        seqs: set[int] = set()
        for number in self.confirmed:
            data = self.shown.get(number, b"")
            seqs.update(frame.first_seq for _, frame in scan_frames(data, self.log.epoch))
        return seqs
