"""What a log knows about its segments stands in their file names: one rename changes it, and takes no space.

    0000000007.512.open                       being written; its first row is 512
    0000000007.512.suspect                    the same, but a sync of it failed: to be copied, never to be believed
    0000000007.512.900.388.sealed             rows 512 up to 900 (exclusive), 388 of them; immutable; to go
    home 0000000007.512.900.388.confirmed          the same, and the hub has it
    0000000007.512.900.388.full.gap           no rows any more: those 388 were given up, and why
    0000000007.900.floor                      nothing is left, but numbers go on after 7, sequences at 900

A full disk can still rename: that is why a gap record is a name and not a line in a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

State = Literal["open", "sealed", "confirmed"]
Kind = Literal["open", "suspect", "sealed", "confirmed", "gap", "floor"]
_NAME = re.compile(
    r"(?P<number>\d{10})\.(?P<first>\d+)\.(?:(?P<early>open|suspect|floor)|"
    r"(?P<end>\d+)\.(?P<rows>\d+)\.(?:(?P<late>sealed|confirmed)|(?P<reason>[a-z-]+)\.gap))"
)


@dataclass(frozen=True)
class Segment:
    """A piece of the log: the unit of sync. A sealed one never changes: its file is `size` bytes of frames."""

    number: int
    first_seq: int
    end_seq: int  # after the last row
    rows: int
    size: int
    state: State
    path: Path

    @property
    def sealed(self) -> bool:
        """Whether the segment is immutable."""
        return self.state != "open"

    @property
    def confirmed(self) -> bool:
        """Whether the hub is known to have it."""
        return self.state == "confirmed"


@dataclass(frozen=True)
class Gap:
    """Rows that the log had taken and no longer has, nor has the hub. Sequences are inclusive."""

    from_seq: int
    to_seq: int
    rows: int
    reason: str


class Name(NamedTuple):
    """A file name of the log, taken apart."""

    kind: Kind
    number: int
    first_seq: int
    end_seq: int
    rows: int
    reason: str

    @classmethod
    def parse(cls, text: str) -> Name | None:
        """Read a name, or None where it is none of the log's."""
        match = _NAME.fullmatch(text)
        if not match:
            return None
        first, end = int(match["first"]), int(match["end"] or match["first"])
        kind = cast(Kind, match["early"] or match["late"] or "gap")
        return cls(kind, int(match["number"]), first, end, int(match["rows"] or 0), match["reason"] or "")

    def __str__(self) -> str:
        start = f"{self.number:010d}.{self.first_seq}"
        if self.kind in ("open", "suspect", "floor"):
            return f"{start}.{self.kind}"
        reason = f"{self.reason}." if self.kind == "gap" else ""
        return f"{start}.{self.end_seq}.{self.rows}.{reason}{self.kind}"

    def gap(self) -> Gap:
        """The gap that a name of that kind records."""
        return Gap(self.first_seq, self.end_seq - 1, self.rows, self.reason)
