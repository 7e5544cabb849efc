"""Which system an upload was laid out for, told by the names of its files and by its text; nothing is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

# dialect → whether a file, folder or zip is laid out so; each asks for what no other layout has
RECOGNISES: Mapping[str, Callable[[Path], bool]] = {}


def dialect_of(path: Path) -> str | None:
    """The dialect of an upload, None for one that is of no other system. Raises BadInput for a zip that is none."""
    return next((name for name, is_one in RECOGNISES.items() if is_one(path)), None)
