"""Timing a disk leaves nothing behind, also on a disk that fails."""

from __future__ import annotations

import pytest

from durable.disk import Disk
from durable.sync_latency import SyncPace, measure_sync


class Broken(Disk):
    def sync(self, handle):
        raise OSError(5, "input/output error")


class Slow(Disk):
    def __init__(self):
        self.syncs = 0

    def sync(self, handle):
        self.syncs += 1
        super().sync(handle)


def test_each_write_is_synced_and_nothing_stays(tmp_path):
    disk = Slow()
    found = measure_sync(tmp_path, disk=disk)
    assert disk.syncs == found.writes == 20
    assert 0 < found.median_ms <= found.worst_ms
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_says_so_and_nothing_stays(tmp_path):
    with pytest.raises(OSError, match="input/output error"):
        measure_sync(tmp_path, disk=Broken())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_is_quick_after_many_quick_syncs_and_doubted_after_one_slow_one():
    pace = SyncPace()
    for _ in range(SyncPace.TRUSTED):
        assert not pace.is_quick
        pace.note(SyncPace.QUICK_S / 2)
    assert pace.is_quick
    pace.note(SyncPace.QUICK_S)
    assert not pace.is_quick
