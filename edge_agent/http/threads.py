"""`Threads`: a bounded number of threads before a bounded queue; what finds no room is refused at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

log = logging.getLogger("edgepack.agent")

Work = Callable[[], None]

_MOST_ASIDE = 16  # threads that others are started for


class Threads:
    """Threads are started when there is work for them, and stay."""

    def __init__(self, name: str, count: int, queue: int, wanted: Callable[[], int] = lambda: 0) -> None:
        """At most `count` at work, or `wanted` where that is more, and `queue` pieces of work that wait for one."""
        self._name, self._count, self._limit, self._wanted = name, count, queue, wanted
        self._lock = threading.Lock()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads without work
        self._waiting = 0  # pieces of work that no thread has begun
        self._aside = 0  # threads whose work waits for something else than a processor

    @property
    def waiting(self) -> int:
        """Pieces of work that wait."""
        return self._waiting

    def submit(self, work: Work) -> bool:
        """Have work done; False where too much waits already."""
        with self._lock:
            has_most = self._has_most
            if self._waiting >= self._free + self._limit and has_most:
                return False
            self._waiting += 1
            if self._waiting > self._free and not has_most:
                self._start()
        self._work.put(work)
        return True

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While work waits, in a thread of these, for something else than a processor: another takes its place."""
        with self._lock:
            self._aside += 1
            if self._waiting > self._free and not self._has_most:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._aside -= 1

    @property
    def _has_most(self) -> bool:
        at_work = len(self._threads) - min(self._aside, _MOST_ASIDE)
        return at_work >= self._count and at_work >= self._wanted()

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
