"""The first thing a child runs: bind, set the path, call the program."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from .confine import confine


def start(order: dict[str, Any]) -> None:
    """Bind this process as ordered, then call `main` of the module; it finds the level in `sys.edgepack_sandbox`."""
    level = confine(order["policy"])
    standard = [part for part in sys.path if part != order["shim"]]
    # the standard library first: no file of a model or a wheel stands in its place
    sys.path[:] = [*standard, *order["path"]]
    sys.edgepack_sandbox = level  # type: ignore[attr-defined]
    importlib.import_module(order["module"]).main(*order["arguments"])
