"""`Task`: what is done before the network and after it, for one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Row = Mapping[str, Any]
Tensors = Mapping[str, np.ndarray]


class Task(Protocol):
    """A task of a pipeline. Rows hold plain values by field."""

    def asks(self, row: Row) -> list[Tensors]:
        """The tensors of each forward pass that a row needs. Raises BadInput that names the field at fault."""

    def answer(self, row: Row, found: list[Tensors]) -> dict[str, Any]:
        """The row's answer by field, of what the network gave for each pass."""


def given(row: Row, name: str) -> Any:
    """An argument; None where it was not given: no such field, null, or an empty text."""
    value = row.get(name)
    return None if isinstance(value, str) and not value else value
