"""When each device was last heard of: kept in memory, written many at a time.

A crash of the hub loses presence only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import DatabaseError

from hub.store import Database
from hub.store.database import reason_of
from hub.store.devices import save_seen

_FLUSH_S = 5.0
_log = logging.getLogger(__name__)


class Presence:
    """The newest sign of life of each device, with a thread that writes what changed."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._changed: set[str] = set()
        self._is_failing = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-presence", daemon=True)
        self._thread.start()

    def note(self, device: str) -> None:
        """A device spoke just now."""
        with self._lock:
            self._seen[device] = self._clock()
            self._changed.add(device)

    def last_seen(self, device: str, stored: float | None) -> float | None:
        """When it spoke last: as remembered here, else as the database knows."""
        return self._seen.get(device, stored)

    def flush(self) -> None:
        """Write what changed since the last time."""
        with self._lock:
            changed = {device: self._seen[device] for device in self._changed}
            self._changed.clear()
        if not changed:
            return
        try:
            with self._database.write() as db:
                save_seen(db, changed)
        except DatabaseError:
            with self._lock:
                self._changed.update(changed)
            raise

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._stop.set()
        self._thread.join()
        self._flush_quietly()

    def _run(self) -> None:
        while not self._stop.wait(_FLUSH_S):
            self._flush_quietly()

    def _flush_quietly(self) -> None:
        try:
            self.flush()
            self._is_failing = False
        except DatabaseError as error:
            if not self._is_failing:
                _log.warning("presence not written, tried again every %s s: %s", _FLUSH_S, reason_of(error))
            self._is_failing = True
