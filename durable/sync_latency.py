"""How long this disk takes to make a small write durable: what durability "commit" costs every group of requests."""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from durable.disk import DISK, Disk, writing

_BYTES = 4096
_TIMES = 20
_LONGEST_S = 5.0  # a disk that is this slow is known to be slow after fewer writes


class SyncPace:
    """Whether a disk is quick enough to be waited for in place: handing a sync to a thread costs two wake-ups.

    One slow sync is enough to doubt it, and many quick ones after it restore the trust: SSDs and SD cards stall now and
    then for many times their usual latency.
    """

    QUICK_S = 0.001
    TRUSTED = 8  # quick syncs in a row

    def __init__(self) -> None:
        self._quick = 0

    def note(self, seconds: float) -> None:
        """Take one sync into account."""
        self._quick = self._quick + 1 if seconds < self.QUICK_S else 0

    @property
    def is_quick(self) -> bool:
        """Whether the next sync is likely to be quick."""
        return self._quick >= self.TRUSTED


@dataclass(frozen=True)
class SyncLatency:
    """Milliseconds from the write to its being durable."""

    median_ms: float
    worst_ms: float
    writes: int


def measure_sync(folder: Path, *, disk: Disk = DISK) -> SyncLatency:
    """Write and sync a file in a folder some twenty times, and remove it. Raises OSError as the disk does."""
    path = folder / f".sync-{secrets.token_hex(6)}.tmp"
    taken: list[float] = []
    try:
        with writing(disk, disk.create(path)) as handle:
            disk.preallocate(handle, _BYTES * _TIMES)
            while len(taken) < _TIMES and sum(taken) < _LONGEST_S:
                begun = time.perf_counter()
                disk.write(handle, _BYTES * len(taken), bytes(_BYTES))
                disk.sync(handle)
                taken.append(time.perf_counter() - begun)
    finally:
        with contextlib.suppress(OSError):
            disk.unlink(path)
    milliseconds = [1000 * each for each in taken]
    return SyncLatency(round(statistics.median(milliseconds), 3), round(max(milliseconds), 3), len(taken))
