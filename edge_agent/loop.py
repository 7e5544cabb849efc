"""A loop in a thread of its own: wakes on a timer or on notice, waits longer after each failure, leaves at
once when told to.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.telemetry.events import event
from edgepack.errors import EdgepackError, Unreachable

log = logging.getLogger("edgepack.agent")


@dataclass(frozen=True)
class Backoff:
    """Full-jitter exponential back-off, in seconds: a fleet that comes back must not
    come at once).
    """

    first_s: float = 5.0
    cap_s: float = 3600.0

    def wait(self, failures: int, retry_after_s: float | None = None) -> float:
        """How long to wait after so many failures in a row; at least what the other side asked for, also with
        jitter.
        """
        ceiling = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 30))
        drawn = random.uniform(0, ceiling)  # noqa: S311 - spreads load, guards nothing
        if retry_after_s is None:
            return drawn
        return min(retry_after_s, self.cap_s) + drawn / 10


class Loop:
    """Runs `step` again and again. `step` returns the seconds until the next time; an error it raises is
    logged and backed off.
    """

    def __init__(
        self, name: str, step: Callable[[], float], backoff: Backoff, failed: Callable[[str | None], None]
    ) -> None:
        """`failed` is told what went wrong after each failure, and None after each success."""
        self._name = name
        self._step = step
        self._backoff = backoff
        self._failed = failed
        self._failures = 0
        self._last_said = ""
        self._notice = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"agent-{name}", daemon=True)

    def start(self) -> None:
        """Begin with a first pass at once."""
        self._thread.start()

    def wake(self) -> None:
        """There is work: do not wait for the timer."""
        self._notice.set()

    def stop(self) -> None:
        """Ask to leave after the pass in progress; `join` waits for it."""
        self._stop.set()
        self._notice.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called: a long pass asks this between its parts."""
        return self._stop.is_set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; False if it is still busy, which a stop in the middle of a download may be."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def pass_once(self) -> float:
        """Do one pass; returns the seconds to wait."""
        try:
            wait_s = self._step()
        except Exception as error:  # noqa: BLE001 - the roof of a thread that must outlive every fault
            return self._after(error)
        if self._failures:
            event(log, "works again", loop=self._name, after_failures=self._failures)
        self._failures, self._last_said = 0, ""
        self._failed(None)
        return wait_s

    def _after(self, error: Exception) -> float:
        self._failures += 1
        said = str(error) if isinstance(error, EdgepackError) else f"fault of ours: {type(error).__name__}: {error}"
        wait_s = self._backoff.wait(self._failures, error.retry_after_s if isinstance(error, Unreachable) else None)
        # an outage of days is said at its 1st, 2nd, 4th, 8th … failure, not thousands of times
        if said != self._last_said or self._failures & (self._failures - 1) == 0:
            event(
                log,
                said,
                level=logging.WARNING,
                loop=self._name,
                attempt=self._failures,
                next_in_s=round(wait_s, 1),
            )
        self._last_said = said
        self._failed(said)
        return wait_s

    def _run(self) -> None:
        while not self._stop.is_set():
            wait_s = self.pass_once()
            self._notice.wait(wait_s)
            self._notice.clear()
