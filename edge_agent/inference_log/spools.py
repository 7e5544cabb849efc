"""All spools of a device: one a pipeline, opened once, also for pipelines that serve no longer and still have rows to
send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bundle.pipeline import LogPolicy
from edge_agent.inference_log.spool import Spool

_NOTHING_NEW = LogPolicy(durability="off")


class Spools:
    """The folder `spool/`. Usable from several threads."""

    def __init__(self, folder: Path, partition: Callable[[], str]) -> None:
        """`partition` gives the name that rows carry home."""
        self._folder = folder
        self._partition = partition
        self._lock = threading.Lock()
        self._open: dict[str, Spool] = {}

    def open(self, name: str, policy: LogPolicy) -> Spool:
        """Return a pipeline's spool. One that is open already keeps its policy until `change_policy`."""
        with self._lock:
            if name not in self._open:
                self._open[name] = Spool(self._folder / name, policy, self._partition())
            return self._open[name]

    def all(self) -> dict[str, Spool]:
        """Every spool by its pipeline's name, those of pipelines that are gone included."""
        with self._lock:
            for path in sorted(self._folder.iterdir()):
                if path.is_dir() and path.name not in self._open:
                    self._open[path.name] = Spool(path, _NOTHING_NEW, self._partition())
            return dict(sorted(self._open.items()))

    def pending_rows(self) -> dict[str, int]:
        """Rows that the hub is not known to have, by pipeline."""
        return {name: spool.stats()["pending_rows"] for name, spool in self.all().items()}

    def close(self) -> None:
        """Sync and close all."""
        with self._lock:
            for spool in self._open.values():
                spool.close()
            self._open.clear()
