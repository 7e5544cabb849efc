"""The way home: sealed segments go to the hub, in order, and may be deleted once their receipt is on this
device's disk.

Rules, for each segment:
- hub's receipt → receipt durable in the state → spool lets the segment go → receipt forgotten; a kill between
  any two of these is made good by the next pass, and the hub counts a segment once however often it comes
- an outage stops the pass; a refusal (409, 4xx) concerns one segment: it stays on disk, counted, and is not
  sent again
- a new segment is sealed only when those before it went home: an outage of days does not leave thousands of
  tiny ones
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edge_agent.link.hub_client import HubClient, Refused, Upload
from edge_agent.state import State
from edge_agent.telemetry.events import event
from edgepack.errors import Unreachable
from oci.digest import Digest

log = logging.getLogger("edgepack.agent")

# 4xx that say nothing about the segment: who we are, or that this is not (yet) the hub
_NOT_THE_SEGMENT = (401, 403, 404, 405)
_DAMAGED = 400  # perhaps on the way: worth sending again
_TRIES = 3


class Sealed(Protocol):
    """One sealed segment, as `durable.segment_log` gives it."""

    @property
    def number(self) -> int:
        """Its number in the epoch."""

    @property
    def rows(self) -> int:
        """How many it holds."""

    @property
    def path(self) -> Path:
        """The file whose bytes go home."""


class Outbox(Protocol):
    """What sync needs of a pipeline's spool."""

    @property
    def epoch(self) -> str:
        """Under which the segments are numbered; empty where nothing was ever logged."""

    def seal(self) -> object:
        """Close the segment in use, if it holds rows."""

    def sealed(self) -> Sequence[Sealed]:
        """The segments that are to go home, oldest first, checked."""

    def confirm(self, number: int) -> None:
        """The hub holds this segment: it may go. A segment that is gone already is no fault."""


class Sync:
    """Brings the segments of all spools home, one at a time."""

    def __init__(
        self,
        spools: Callable[[], Mapping[str, Outbox]],
        hub: HubClient,
        state: State,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._spools = spools
        self._hub = hub
        self._state = state
        self._stopping = stopping
        self._damaged: dict[tuple[str, str, int], int] = {}

    def send_all(self) -> int:
        """Send what is sealed, then seal and send the rest; returns the rows that went home. Raises
        Unreachable, NotTrusted.
        """
        return sum(self._send_spool(name, spool) for name, spool in sorted(self._spools().items()) if spool.epoch)

    def _send_spool(self, name: str, spool: Outbox) -> int:
        self._settle(name, spool)
        rows = self._send_waiting(name, spool)
        if not self._stopping():
            spool.seal()
            rows += self._send_waiting(name, spool)
        return rows

    def _settle(self, name: str, spool: Outbox) -> None:
        """Finish what a kill cut off between the receipt and the deletion."""
        for epoch, number in sorted(self._state.receipts(name)):
            if epoch == spool.epoch:
                spool.confirm(number)
            self._state.settle(name, epoch, number)

    def _send_waiting(self, name: str, spool: Outbox) -> int:
        refused = self._state.refused_segments(name)
        rows = 0
        for segment in spool.sealed():
            if self._stopping():
                break
            if (spool.epoch, segment.number) not in refused:
                rows += self._send(name, spool, segment)
        return rows

    def _send(self, name: str, spool: Outbox, segment: Sealed) -> int:
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            return 0  # dropped by the spool's own policy meanwhile, which has counted it
        try:
            receipt = self._hub.put_segment(Upload(name, spool.epoch, segment.number, data, Digest.of(data)))
        except Refused as error:
            self._refuse(name, spool.epoch, segment, error)
            return 0
        self._state.record_receipt(name, receipt)
        spool.confirm(segment.number)
        self._state.settle(name, spool.epoch, segment.number)
        return receipt.rows

    def _refuse(self, name: str, epoch: str, segment: Sealed, error: Refused) -> None:
        if error.status in _NOT_THE_SEGMENT:
            raise Unreachable(f"{error}; segments wait") from error
        key = (name, epoch, segment.number)
        tries = self._damaged[key] = self._damaged.get(key, 0) + 1
        if error.status == _DAMAGED and tries < _TRIES:
            raise Unreachable(f"{error}; sent again") from error
        self._state.refuse_segment(name, epoch, segment.number, segment.rows, str(error))
        event(
            log,
            "segment refused, kept on disk",
            level=logging.ERROR,
            pipeline=name,
            segment=segment.number,
            rows=segment.rows,
            reason=str(error),
        )
