"""`Threads`: a bounded number of threads before a bounded queue; what finds no room is refused at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger("edgepack.agent")

Work = Callable[[], None]


class Threads:
    """Threads are started when there is work for them, and stay."""

    def __init__(self, name: str, count: int, queue: int) -> None:
        """At most `count` at work, and `queue` pieces of work that wait for one."""
        self._name, self._count, self._limit = name, count, queue
        self._lock = threading.Lock()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads without work
        self._waiting = 0  # pieces of work that no thread has begun

    @property
    def waiting(self) -> int:
        """Pieces of work that wait."""
        return self._waiting

    def submit(self, work: Work) -> bool:
        """Have work done; False where too much waits already."""
        with self._lock:
            if self._waiting >= self._free + self._limit and len(self._threads) >= self._count:
                return False
            self._waiting += 1
            if self._waiting > self._free and len(self._threads) < self._count:
                self._start()
        self._work.put(work)
        return True

    def stop(self) -> None:
        """Let the threads end, after the work that is queued."""
        for _ in self._threads:
            self._work.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        self._free += 1
        thread.start()

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            with self._lock:
                self._free -= 1
                self._waiting -= 1
            try:
                work()
            except Exception:
                log.exception("fault of ours in thread %s", self._name)
            with self._lock:
                self._free += 1
