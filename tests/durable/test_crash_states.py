"""The explorer: after every change a log makes to its disk, every kind of cut is tried and what it left is judged.

EDGEPACK_CRASH_STATES sets how many states are explored at least (default: what fits in some seconds).
"""

import os
import random

import pytest

from durable.segment_log import Gap, SegmentLog
from tests.fakes.disk import ForgetfulDisk, MemoryDisk
from tests.fakes.log_history import FOLDER, History

STATES = int(os.environ.get("EDGEPACK_CRASH_STATES", "6000"))


class Explorer:
    """Judges crash states of a history's disk after each change to it."""

    def __init__(self, seed: int, disk: MemoryDisk, *, each: int = 3, max_bytes: int | None = 4000) -> None:
        self.rng = random.Random(seed)
        self.states = 0
        self.each = each
        self.history = History(disk, random.Random(seed + 1), max_bytes=max_bytes)
        disk.after = self.cut

    def cut(self, action: str) -> None:
        for state in self.history.disk.crash_states(self.rng, self.each):
            self.states += 1
            if self.rng.random() < 0.05:  # the power goes again while the log recovers
                state.after = lambda action, state=state: self.cut_again(state)
            self.history.judge(state)

    def cut_again(self, disk: MemoryDisk) -> None:
        after, disk.after = disk.after, lambda action: None
        for state in disk.crash_states(self.rng, 3):
            self.states += 1
            self.history.judge(state)
        disk.after = after


def test_no_cut_takes_an_acknowledged_row(record_property):
    states, seed = 0, 0
    while states < STATES:
        explorer = Explorer(seed, MemoryDisk(), max_bytes=(None, 4000, 1900)[seed % 3])
        explorer.history.work(12)
        states, seed = states + explorer.states, seed + 1000
    record_property("crash_states", states)
    print(f"{states} crash states of {seed // 1000} traces explored")


def test_no_cut_while_the_oldest_make_room_loses_a_row_without_a_word():
    states = 0
    for seed in range(5):
        explorer = Explorer(seed, MemoryDisk(), each=6, max_bytes=1900)
        for _ in range(14):
            explorer.history.append_synced()
        assert explorer.history.log.gaps
        states += explorer.states
    assert states > 2000


def test_no_cut_while_damage_is_mended_takes_a_neighbour():
    for seed in range(4):
        disk, rng = MemoryDisk(), random.Random(seed)
        log = SegmentLog.open(FOLDER, segment_bytes=4096, disk=disk)
        for index in range(6):
            log.append([(b"%d" % index * 60, 1)], sync=True)
        segment = log.seal()
        handle = disk.open(segment.path)
        disk.write(handle, 84 * 2 + 40, b"damaged")
        disk.sync(handle)
        disk.close(handle)

        def judge(action: str, disk: MemoryDisk = disk, rng: random.Random = rng) -> None:
            for state in disk.crash_states(rng, 10):
                again = SegmentLog.open(FOLDER, segment_bytes=4096, disk=state)
                found = [frame.first_seq for each in again.segments() for frame in again.read(each.number)]
                assert found == [1, 2, 4, 5, 6]
                assert again.gaps == [Gap(3, 3, 1, "damaged")]

        disk.after = judge
        assert len(log.contents(segment.number)) == 84 * 5


@pytest.mark.parametrize("forgets", ["sync", "sync_folder"])
def test_a_log_that_does_not_sync_is_caught(forgets):
    caught = 0
    for seed in range(10):
        try:
            Explorer(seed, ForgetfulDisk(forgets=forgets)).history.work(20)
        except (AssertionError, OSError):
            caught += 1
    assert caught == 10
