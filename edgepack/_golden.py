"""Golden rows that the SDK writes: how many of a sample, and the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MOST_ROWS = 200  # they travel with every bundle


def evenly(count: int) -> range:
    """The numbers of the rows to keep of so many."""
    return range(0, count, max(1, math.ceil(count / MOST_ROWS)))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, each on a line of its own."""
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", "utf-8")
