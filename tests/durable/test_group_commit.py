"""Group commit: many threads share a sync, each learns its own fate, and kill -9 takes no acknowledged row."""

import errno
import gc
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from durable.group_commit import GroupCommit
from durable.segment_log import LogStopped, SegmentLog
from durable.sync_latency import SyncPace
from tests.fakes.disk import MemoryDisk, Refusal
from tests.fakes.log_history import FOLDER

CHECKOUT = Path(__file__).resolve().parents[2]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a caller was left waiting"


class SlowDisk(MemoryDisk):
    """Counts syncs; each takes a moment, as on a real disk, so that callers queue up meanwhile."""

    syncs = 0

    def sync(self, handle: int) -> None:
        self.syncs += 1
        time.sleep(0.002)
        super().sync(handle)


def test_each_caller_gets_the_sequence_of_its_own_rows(tmp_path):
    log = SegmentLog.open(tmp_path, segment_bytes=20_000)
    commits = GroupCommit(log)
    given: dict[int, bytes] = {}

    def work(index: int) -> None:
        for turn in range(40):
            payload = f"{index}/{turn}".encode()
            given[commits.submit(payload, 1 + turn % 3)] = payload

    in_threads(8, work)
    stored = {f.first_seq: f.payload for each in log.segments() for f in log.read(each.number)}
    assert stored == given
    assert len(given) == 320


def test_callers_who_wait_share_a_sync():
    disk = SlowDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    in_threads(8, lambda index: [commits.submit(b"row", 1) for _ in range(20)] and None)
    assert disk.syncs < 80  # 160 appends


def test_a_lone_caller_pays_one_write_and_one_sync():
    disk = MemoryDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    commits.submit(b"first", 1)
    calls: list[str] = []
    disk.before = lambda action, name: calls.append(action)
    commits.submit(b"row", 1)
    assert calls == ["write", "sync"]
    calls.clear()
    commits.submit(b"row", 1, sync=False)
    assert calls == ["write"]


def test_several_payloads_of_one_caller_follow_each_other(tmp_path):
    log = SegmentLog.open(tmp_path)
    commits = GroupCommit(log)
    assert commits.submit_all([(b"a", 2), (b"b", 1)]) == 1
    assert [frame.first_seq for frame in log.read(1)] == [1, 3]


@pytest.mark.parametrize("nth", [2, 3, 4, 5])
def test_when_a_group_fails_each_of_its_callers_is_told_and_nobody_hangs(nth):
    disk = SlowDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk)
    commits = GroupCommit(log)
    kept, failed = [], []
    disk.before = Refusal({"sync"}, nth, errno.EIO)

    def work(index: int) -> None:
        for turn in range(5):
            payload = f"{index}/{turn}".encode()
            try:
                commits.submit(payload, 1)
                kept.append(payload)
            except LogStopped as error:
                failed.append(error)

    in_threads(8, work)
    assert len(kept) + len(failed) == 40
    assert failed
    assert len({id(error) for error in failed}) == len(failed)  # each thread has its own, with its own traceback
    for state in disk.crash_states(random.Random(2), 10):
        again = SegmentLog.open(FOLDER, disk=state)
        assert sorted(f.payload for each in again.segments() for f in again.read(each.number)) == sorted(kept)


def test_an_interrupt_in_the_leader_does_not_leave_the_others_waiting():
    disk = SlowDisk()
    log = SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk)
    commits = GroupCommit(log)
    interrupted = []

    def strike(action: str, name: str) -> None:
        if action == "sync" and disk.syncs == 4:
            raise KeyboardInterrupt

    disk.before = strike

    def work(index: int) -> None:
        for _ in range(5):
            try:
                commits.submit(b"row", 1)
            except KeyboardInterrupt as error:
                interrupted.append(error)

    in_threads(6, work)
    assert interrupted
    assert commits.submit(b"after", 1) > 0


WRITER = """
import sys, threading
from pathlib import Path
from durable.group_commit import GroupCommit
from durable.segment_log import SegmentLog

log = SegmentLog.open(Path(sys.argv[1]), segment_bytes=16_000)
commits = GroupCommit(log)
said = threading.Lock()

def work(index):
    turn = 0
    while True:
        payload = f"{sys.argv[2]}/{index}/{turn}/".encode() + b"x" * (turn * 37 % 400)
        seq = commits.submit(payload, 1 + turn % 3)
        with said:
            sys.stdout.write(f"{seq} {len(payload)} {payload[:40].decode()}\\n")
            sys.stdout.flush()
        turn += 1

print("started", flush=True)
for index in range(4):
    threading.Thread(target=work, args=(index,), daemon=True).start()
threading.Event().wait()
"""


def killed_after(lines: int, seconds: float, folder: Path, turn: int) -> list[str]:
    """What a writer had acknowledged when it was killed so long after so many lines: whole lines only."""
    command = [sys.executable, "-c", WRITER, str(folder), str(turn)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "started\n"
        first = [writer.stdout.readline().rstrip("\n") for _ in range(lines)]
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        return [*first, *writer.stdout.read().split("\n")[:-1]]


def test_kill_9_at_any_moment_takes_no_acknowledged_row(tmp_path):
    rng = random.Random(9)
    acknowledged: dict[int, tuple[int, str]] = {}
    torn = 0
    for turn in range(25):
        for line in killed_after(2 * turn, rng.uniform(0, 0.08), tmp_path, turn):
            seq, length, start = line.split(" ")
            assert int(seq) not in acknowledged, "a sequence was given twice"
            acknowledged[int(seq)] = (int(length), start)
        torn += any(path.suffix == ".open" for path in tmp_path.rglob("*"))
        log = SegmentLog.open(tmp_path, segment_bytes=16_000)
        found = {f.first_seq: f.payload for each in log.segments() for f in log.read(each.number)}
        for seq, (length, start) in acknowledged.items():
            assert len(found[seq]) == length
            assert found[seq].startswith(start.encode())
        assert log.gaps == []
        log.close()
    assert torn > 10
    assert len(acknowledged) > 500


def test_callbacks_come_for_every_entry_whoever_led_and_share_syncs():
    disk = SlowDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    done = threading.Semaphore(0)
    entries = []
    for turn in range(10):
        for _ in range(8):
            entries.append(commits.enqueue([(b"row", 1)]))
            entries[-1].then(done.release)
        commits.flush()
        if turn % 2:
            commits.submit(b"of a thread", 1)
    for _ in entries:
        assert done.acquire(timeout=60)
    assert sorted(entry.wait() for entry in entries) == sorted({entry.seq for entry in entries})
    assert disk.syncs < 60
    commits.close()


def test_what_needs_no_sync_is_written_at_once_unless_the_log_makes_us_wait():
    log = SegmentLog.open(FOLDER, segment_bytes=1 << 12, disk=SlowDisk())
    commits = GroupCommit(log)
    commits.submit(b"first", 1)
    entry = commits.enqueue([(b"row", 1)], sync=False)
    commits.flush()
    assert entry.done
    with log._lock:  # another thread is at work in the log
        waiting = in_another_thread(lambda: commits.enqueue([(b"row", 1)], sync=False))
        called = threading.Event()
        waiting.then(called.set)
        in_another_thread(commits.flush)
        assert not called.wait(0.05)
    assert called.wait(60)
    large = commits.enqueue([(b"x" * 5000, 1)], sync=False)  # begins a segment: that waits for the disk
    large.then(lambda: None)
    commits.flush()
    assert large.wait() == waiting.seq + 1
    commits.close()


def in_another_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    return found[0]


def test_a_refusing_disk_is_told_to_those_who_left_a_callback():
    disk = MemoryDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    commits.submit(b"first", 1)
    disk.before = Refusal({"write"}, 1, errno.EIO)
    for sync in (True, False):
        entry, called = commits.enqueue([(b"row", 1)], sync), threading.Event()
        entry.then(called.set)
        commits.flush()
        assert called.wait(60)
        if sync:
            with pytest.raises(LogStopped):
                entry.wait()
        else:
            assert entry.wait() > 0  # the next one finds the disk well again
    commits.close()


def test_a_disk_that_syncs_quickly_is_waited_for_in_place(monkeypatch):
    monkeypatch.setattr(SyncPace, "QUICK_S", 60.0)  # by the clock of a busy machine no disk is quick
    disk = MemoryDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    for _ in range(SyncPace.TRUSTED):
        commits.submit(b"row", 1)
    entry = commits.enqueue([(b"at once", 1)])
    commits.flush()
    assert entry.done
    assert commits._committer is None
    for state in disk.crash_states(random.Random(1), 20):
        log = SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=state)
        found = [frame.payload for segment in log.segments() for frame in log.read(segment.number)]
        assert found.count(b"at once") == 1


def test_after_a_slow_sync_the_next_ones_are_waited_for_in_a_thread():
    disk = SlowDisk()
    commits = GroupCommit(SegmentLog.open(FOLDER, segment_bytes=1 << 16, disk=disk))
    for _ in range(SyncPace.TRUSTED + 1):
        commits.submit(b"row", 1)
    entry, called = commits.enqueue([(b"row", 1)]), threading.Event()
    entry.then(called.set)
    commits.flush()
    assert commits._committer is not None
    assert called.wait(60)
    commits.close()


def test_a_callback_that_leads_back_to_its_entry_leaves_no_cycle(tmp_path):
    class Waiting:
        def __call__(self):
            assert self.entry.done

    commits, waiting = GroupCommit(SegmentLog.open(tmp_path / "log", segment_bytes=1 << 16)), Waiting()
    commits.submit(b"first", 1)
    gc.disable()
    try:
        waiting.entry = commits.enqueue([(b"row", 1)], sync=False)
        waiting.entry.then(waiting)
        commits.flush()
        seen = weakref.ref(waiting)
        del waiting
        assert seen() is None
    finally:
        gc.enable()
    commits.close()
