"""`HeldRows`: rows that were answered and wait for the answers of shadow models, so that these delay nobody.

    <data>/spool/<pipeline>/held/    a log of its own, emptied again and again

An answer leaves when its row is in this log, as durable as the pipeline's policy asks. One thread then asks the
shadows, in the order of the answers, and puts the whole row into the pipeline's log.

Rules:
- a row here says that its shadows were left out: that is what becomes of it if the agent ends before they have answered
- no row is in the pipeline's log twice: after a cut, rows here that it has already are passed over
- what finds no room here is not held: its shadows are left out at once
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bundle.pipeline import LogPolicy
from columns.columns import Columns, constant
from columns.schema import Field, Schema
from columns.types import Scalar
from edgepack.errors import Unreachable

if TYPE_CHECKING:
    from edge_agent.inference_log.spool import Spool
    from edge_agent.inference_log.ticket import Ticket

log = logging.getLogger("edgepack.agent")

MOST_HELD = 64  # requests that wait for their shadows
MOST_BYTES = 64 << 20  # of rows that wait, and of this log before it is emptied
_RETRY_S = 1.0
_AFTER = Field("metadata.held_after", Scalar("int64"))  # the first sequence that the row may have in the pipeline's log
_OWN = (_AFTER.name, "metadata.seq", "metadata.epoch")


@dataclass(frozen=True)
class _Held:
    row: Columns  # as it stays if its shadows do not answer
    whole: Callable[[], Columns]
    request_id: str
    bundle: str
    size: int
    ticket: Ticket

    def is_answered(self) -> bool:
        """Wait until the row is held as the policy asks; False where the disk refused, and so did the agent."""
        # whoever holds the answer back has it written, together with others, and is the one that is called back
        waited_s, pause_s = 0.0, 0.001
        while not self.ticket.is_decided:
            time.sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, 0.02)
            if waited_s > _RETRY_S:
                self.ticket.flush()
                waited_s = 0.0
        try:
            self.ticket.wait()
        except Unreachable:
            return False
        return True


class HeldRows:
    """The held rows of one pipeline."""

    def __init__(self, journal: Spool, into: Spool) -> None:
        """`journal` is this log; what the last run left in it goes `into` the pipeline's at once."""
        self._journal, self._into = journal, into
        self._queue: deque[_Held] = deque()
        self._change = threading.Condition()
        self._waiting_bytes = self._journal_bytes = 0
        self._taken = self._done = 0  # requests, ever
        self._is_whole = True  # the pipeline's log has all that was taken from the queue
        self._closing = self._emptying = False
        self._recover()
        self._thread = threading.Thread(target=self._run, name=f"shadows-{into.name}", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Requests whose shadows have not answered yet."""
        return len(self._queue)

    def hold(self, row: Columns, whole: Callable[[], Columns], request_id: str, bundle: str) -> Ticket | None:
        """Put a row on its way into this log; `whole` is called later. None where there is no room."""
        size = sum(map(_size, row.arrays.values()))
        with self._change:
            is_full = len(self._queue) >= MOST_HELD or self._waiting_bytes + size > MOST_BYTES
            if self._closing or self._emptying or is_full or self._journal_bytes + size > MOST_BYTES:
                return None
            after = constant(np.array([self._into.next_seq], dtype=np.int64), row.rows)
            noted = Columns(Schema((*row.schema, _AFTER)), {**row.arrays, _AFTER.name: after}, row.rows)
            ticket = self._journal.submit(noted, request_id, bundle=bundle)
            if ticket is None:
                return None
            self._queue.append(_Held(row, whole, request_id, bundle, size, ticket))
            self._taken += 1
            self._waiting_bytes += size
            self._journal_bytes += size + 1024
            self._change.notify_all()
        return ticket

    def settle(self, timeout_s: float) -> None:
        """Wait until what is held now is in the pipeline's log, but not for long."""
        with self._change:
            taken = self._taken
            self._change.wait_for(lambda: self._done >= taken, timeout_s)

    def follow(self, policy: LogPolicy) -> None:
        """Follow another policy from now on."""
        self._journal.change_policy(policy)

    def close(self) -> None:
        """Put what is held into the pipeline's log without asking more shadows, and give the folder back."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        self._journal.close()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    break
                held = self._queue[0]
            try:
                if held.is_answered():
                    self._is_whole &= self._put(held, held.row if self._closing else _answered(held))
            except Exception:
                self._is_whole = False  # it stays here for the next start
                log.exception("fault of ours with a held row")
            with self._change:
                self._queue.popleft()
                self._waiting_bytes -= held.size
                self._done += 1
                self._emptying = not self._queue and self._journal_bytes > MOST_BYTES // 16
                self._change.notify_all()
            if self._emptying:
                self._empty()
        self._empty()

    def _put(self, held: _Held, row: Columns) -> bool:
        """Log it, however long that takes; when the agent ends first, it stays here for the next start."""
        while True:
            try:
                self._into.keep(row, held.request_id, bundle=held.bundle)
                return True
            except Unreachable as error:
                log.warning("a row that was answered waits for its log: %s", error)
            with self._change:
                if self._closing or self._change.wait_for(lambda: self._closing, _RETRY_S):
                    return False

    def _empty(self) -> None:
        """Forget rows that the pipeline's log has. Not after each request: that would wear the disk."""
        try:
            if self._is_whole:
                self._into.sync()
                self._journal.empty()
                self._journal_bytes = 0
        except Unreachable as error:
            log.warning("rows that are logged stay held as well, until the disk is well: %s", error)
        self._emptying = False

    def _recover(self) -> None:
        blocks = list(self._journal.rows())
        if not blocks:
            return
        first = int(blocks[0].arrays[_AFTER.name][0]) if _AFTER.name in blocks[0].arrays else 0
        there: Counter[tuple[object, object]] = Counter()
        for block in self._into.rows(after_seq=first - 1):
            there.update(_keys(block))
        for block in blocks:
            names = [name for name in block.schema.names if name not in _OWN]
            for at, key in enumerate(_keys(block)):
                if there[key]:
                    there[key] -= 1
                else:
                    self._into.keep(block.select(names).slice(at, at + 1), sync=True)
        self._journal.empty()


def _answered(held: _Held) -> Columns:
    try:
        return held.whole()
    except Exception:
        log.exception("fault of ours with shadow models")
        return held.row


def _size(array: np.ndarray) -> int:
    """Bytes of a column's values, roughly."""
    if array.dtype != object:
        return array.nbytes
    return sum(len(value) if isinstance(value, (str, bytes)) else 64 for value in array)


def _keys(block: Columns) -> Iterator[tuple[object, object]]:
    """What tells the rows of different requests apart."""
    ids, times = block.arrays.get("metadata.request_id"), block.arrays["time"]
    return zip(ids.tolist() if ids is not None else [""] * block.rows, times.tolist(), strict=True)
