"""`Ticket`: rows on their way into a pipeline's log, and what became of the last ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from durable.group_commit import Entry, GroupCommit
from durable.segment_log import LogStopped
from edgepack.errors import Unreachable

_REFUSAL_FRESH_S = 10.0


@contextlib.contextmanager
def disk_refusals() -> Iterator[None]:
    """Turn a log that has stopped into Unreachable: later it may work again."""
    try:
        yield
    except LogStopped as error:
        raise Unreachable(str(error), retry_after_s=1) from error


class Refusal:
    """Why a log takes no rows, as far as its last row shows. It is forgotten soon, so that somebody tries again."""

    __slots__ = ("_at", "_reason")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._at = 0.0

    def note(self, reason: str | None) -> None:
        """What became of a row: None when it was taken."""
        self._reason, self._at = reason, time.monotonic()

    @property
    def reason(self) -> str | None:
        """The reason while it is fresh, else None."""
        return self._reason if time.monotonic() - self._at < _REFUSAL_FRESH_S else None


class Ticket:
    """Rows on their way into a log."""

    __slots__ = ("_commits", "_entry", "_refusal", "_written")

    def __init__(
        self, entry: Entry, commits: GroupCommit, written: Callable[[], None] | None, refusal: Refusal
    ) -> None:
        self._entry = entry
        self._commits = commits
        self._written = written
        self._refusal = refusal

    def wait(self) -> int:
        """The sequence of the first row, once the rows are as durable as the policy asks. Raises Unreachable."""
        if self._entry.done and self._entry.error is None:
            seq = self._entry.seq
        else:
            try:
                with disk_refusals():
                    seq = self._entry.wait()
            except Unreachable as error:
                self._refusal.note(str(error))
                raise
        self._refusal.note(None)
        if self._written is not None:
            self._written()
        return seq

    @property
    def is_decided(self) -> bool:
        """Whether `wait` would not block."""
        return self._entry.done

    def then(self, callback: Callable[[], None]) -> None:
        """Call back, from any thread, once `wait` would not block. Somebody has to `flush` for it to come to that."""
        self._entry.then(callback)

    def flush(self) -> None:
        """See to it that the rows queued in this log get written, without waiting for the disk."""
        self._commits.flush()
