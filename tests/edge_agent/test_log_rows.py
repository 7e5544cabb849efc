"""The rows of a log that several versions of a pipeline write at once."""

from __future__ import annotations

import numpy as np
import pytest

from columns.columns import Columns
from columns.schema import Schema
from edge_agent.inference_log import log_rows
from edge_agent.inference_log.log_rows import LogRows

ONE = np.ones(1, np.float32)


def a_row() -> Columns:
    """A row, with a schema of its own as each version has."""
    return Columns(Schema.parse({"in.x": "float32", "out.y": "float32"}), {"in.x": ONE, "out.y": ONE}, 1)


class Interrupted(LogRows):
    """In the middle of a row of one bundle another thread logs one of another."""

    other: list[tuple[bytes, int]] | None = None

    def is_short(self, row: Columns, limit: int) -> bool:
        if self.other is None:
            self.other = []
            self.other = self.payloads(a_row(), "r-2", "sha256:two", 0)
        return super().is_short(row, limit)


def test_rows_of_two_bundles_are_logged_at_once() -> None:
    rows = Interrupted("line", "here")
    ((one, _),) = rows.payloads(a_row(), "r-1", "sha256:one", 0)
    assert rows.other is not None
    ((two, _),) = rows.other
    assert [each.count(b"sha256:one") for each in (one, two)] == [1, 0]
    assert [each.count(b"sha256:two") for each in (one, two)] == [0, 1]


def test_bundles_that_take_turns_are_encoded_as_quickly_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = list[Columns]()
    encode = log_rows._raw
    monkeypatch.setattr(log_rows, "_raw", lambda columns: (encoded.append(columns), encode(columns))[1])
    rows, both = LogRows("line", "here"), {f"sha256:{name}": a_row() for name in ("one", "two")}

    def turns(count: int) -> None:
        for turn in range(count):
            for bundle, each in both.items():
                rows.payloads(each, f"r-{turn}", bundle, 0)

    turns(4)  # what they have in common is worked out
    seen = len(encoded)
    turns(4)
    assert len(encoded) == seen
