"""`Lease`: a pipeline held for one request. Whoever ends the last one of a retired pipeline closes it."""

from __future__ import annotations

import threading

from edge_agent.pipelines.active_pipeline import ActivePipeline


class Slot:
    """A pipeline with the number of requests it has on lease."""

    def __init__(self, active: ActivePipeline) -> None:
        self.active, self.pace = active, active.pace
        self.leases = 0
        self.used = 0  # at which lease of all it was asked for last
        self.retired = False

    @property
    def is_done(self) -> bool:
        """Whether nobody has a use for it any more."""
        return self.retired and self.leases == 0


class Lease:
    """A pipeline held for one request, to the end of a `with` block."""

    __slots__ = ("_lock", "_slot")

    def __init__(self, lock: threading.Lock, slot: Slot) -> None:
        self._lock, self._slot = lock, slot

    def __enter__(self) -> ActivePipeline:
        return self._slot.active

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._slot.leases -= 1
            done = self._slot.is_done
        if done:
            self._slot.active.loaded.close()
