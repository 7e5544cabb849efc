"""The explorer: after every change a log makes to its disk, every kind of cut is tried and what it left is judged.

EDGEPACK_CRASH_STATES sets how many states are explored at least (default: what fits in some seconds).
"""

import os
import random

import pytest

from tests.fakes.disk import ForgetfulDisk, MemoryDisk
from tests.fakes.log_history import History

STATES = int(os.environ.get("EDGEPACK_CRASH_STATES", "6000"))


class Explorer:
    """Judges crash states of a history's disk after each change to it."""

    def __init__(self, seed: int, disk: MemoryDisk, *, each: int = 4, max_bytes: int | None = 4000) -> None:
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
        explorer = Explorer(seed, MemoryDisk(), max_bytes=None if seed % 3 == 0 else 4000)
        explorer.history.work(25)
        states, seed = states + explorer.states, seed + 1000
    record_property("crash_states", states)
    print(f"{states} crash states of {seed // 1000} traces explored")


@pytest.mark.parametrize("forgets", ["sync", "sync_folder"])
def test_a_log_that_does_not_sync_is_caught(forgets):
    caught = 0
    for seed in range(10):
        try:
            Explorer(seed, ForgetfulDisk(forgets=forgets)).history.work(20)
        except (AssertionError, OSError):
            caught += 1
    assert caught == 10
