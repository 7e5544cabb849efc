"""Which library reads and writes zstd here: Python 3.14's own, or `zstandard`. Only layers packed so need one."""

from __future__ import annotations

import importlib
from typing import Any

_LIBRARIES = ("compression.zstd", "zstandard")


def find_zstd() -> Any:
    """The library that is there, or None."""
    for name in _LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
