"""`Task`: what is done before the network and after it, for one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Row = Mapping[str, Any]
Tensors = Mapping[str, np.ndarray]


class Asked(NamedTuple):
    """What a row asks of the network: the tensors of each forward pass, and what makes the row's answer by field of
    what the network gave for each.
    """

    passes: list[Tensors]
    answer: Callable[[list[Tensors]], dict[str, Any]]


class Task(Protocol):
    """A task of a pipeline. Rows hold plain values by field."""

    def asks(self, row: Row) -> Asked:
        """What a row asks. Raises BadInput that names the field at fault."""


def given(row: Row, name: str) -> Any:
    """An argument; None where it was not given: no such field, null, or an empty text."""
    value = row.get(name)
    return None if isinstance(value, str) and not value else value
