"""How a build tells what it is doing. The room prints nothing itself: a command hands in the one who does."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Told of each step as it begins (progress) and of what the user should know (warnings, notices)."""

    def step(self, text: str) -> None:
        """A step begins; worth showing on a terminal."""

    def notice(self, text: str) -> None:
        """Something that the user should know, once."""


class Quiet:
    """Says nothing and keeps the notices; for callers without a terminal, and for tests."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def step(self, text: str) -> None:
        """Forget it."""

    def notice(self, text: str) -> None:
        """Keep it, once."""
        if text not in self.notices:
            self.notices.append(text)
