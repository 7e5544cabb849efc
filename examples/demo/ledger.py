"""The reckoning: what the applications were answered against what the hub holds."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any

from examples.demo.load import Tally


@dataclass(frozen=True)
class Reckoning:
    """Rows by what became of them; `missing` and `doubled` must be 0."""

    at_hub: int
    matched: int
    missing: int
    doubled: int
    cut_off_at_hub: int
    strange: int

    @property
    def is_right(self) -> bool:
        """Every answered row is at the hub exactly once, and nothing is there that nobody asked for."""
        return self.missing == 0 and self.doubled == 0 and self.strange == 0


class HubLog:
    """The hub's log, read page by page as it grows."""

    def __init__(self, hub: str, token: str) -> None:
        self._hub, self._token = hub, token
        self._after: str | None = None
        self.rows: list[dict[str, Any]] = []

    def read_on(self) -> None:
        """Fetch the pages that are new since the last call."""
        while True:
            query = f"?limit=5000{f'&after={self._after}' if self._after else ''}"
            request = urllib.request.Request(
                f"{self._hub}/api/v1/logs{query}", headers={"Authorization": f"Bearer {self._token}"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                page = json.load(answer)
            if not page["rows"]:
                return
            self.rows += page["rows"]
            self._after = page["next"] or self._after

    def wait_for(self, tally: Tally, seconds: float) -> Reckoning:
        """Read until every answered row is there, or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            self.read_on()
            reckoning = reckon(tally, self.rows)
            if reckoning.missing == 0 or time.monotonic() > deadline:
                return reckoning
            time.sleep(0.3)


def reckon(tally: Tally, rows: list[dict[str, Any]]) -> Reckoning:
    """Match rows by request id; a row's own identity is (partition, epoch, seq)."""
    by_request = Counter(row["metadata"]["request_id"] for row in rows)
    identities = Counter(
        (row["metadata"]["partition"], row["metadata"]["epoch"], row["metadata"]["seq"]) for row in rows
    )
    matched = sum(min(by_request[each], count) for each, count in tally.answered.items())
    too_many = sum(max(0, by_request[each] - count) for each, count in (tally.answered | tally.cut_off).items())
    return Reckoning(
        at_hub=len(rows),
        matched=matched,
        missing=tally.rows_answered - matched,
        doubled=too_many + sum(count - 1 for count in identities.values()),
        cut_off_at_hub=sum(by_request[each] for each in tally.cut_off),
        strange=sum(
            count for each, count in by_request.items() if each not in tally.answered and each not in tally.cut_off
        ),
    )
