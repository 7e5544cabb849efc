"""One line on a terminal's standard error that says what is being done; nothing at all where there is no terminal."""

from __future__ import annotations

import sys

_CLEAR = "\r\x1b[K"


def show(what: str) -> None:
    """Replace the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{_CLEAR}{what[:78]} …")
        sys.stderr.flush()


def notice(what: str) -> None:
    """A line that always is written: what will take long or much room."""
    clear()
    sys.stderr.write(f"edgepack: {what}\n")
    sys.stderr.flush()


def clear() -> None:
    """Take the line away."""
    if sys.stderr.isatty():
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
