"""A step without schema: each row is one value in the field `json`, in and out: JSON as text, or bytes as they are.

What stands beside it in a row, the query and headers it was asked with, is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

FIELD = "json"
Answer = Callable[[dict[str, Any], int], Any]


def of_values(answer: Answer) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Ask for one value at a time: `input_data["json"][0]` is it; the answer's `json` or all of it is the result."""

    def ask(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        beside = {name: column for name, column in arrays.items() if name != FIELD}
        found = []
        for row, each in enumerate(arrays[FIELD]):
            given = {FIELD: _column([_value(each)]), **{name: column[row : row + 1] for name, column in beside.items()}}
            try:
                found.append(_said(answer(given, 1)))
            except BaseException as error:
                if rows > 1:
                    _name(error, row, given)
                raise
        return {FIELD: _column(found)}

    return ask


def row_of(error: BaseException) -> str:
    """Which of several rows an error is about, and which model that was asked for; empty where it is about one."""
    return getattr(error, "edgepack_row", "")


def _name(error: BaseException, row: int, given: dict[str, Any]) -> None:
    query = dict(parse_qsl(str(given["query"][0]))) if "query" in given else {}
    asked = "".join(f", {name} {query[name]!r}" for name in ("model", "version") if name in query)
    with suppress(AttributeError, TypeError):  # an error of the user's that takes no attribute is told without
        error.edgepack_row = f"row {row}{asked}"  # type: ignore[attr-defined]


def is_bytes(column: Any) -> bool:
    """Whether these values are bytes; all are, or none."""
    kinds = {isinstance(each, bytes) for each in column}
    if len(kinds) > 1:
        raise TypeError("some answers are bytes and some are JSON values: give all of one kind")
    return kinds == {True}


def _value(given: Any) -> Any:
    return given if isinstance(given, bytes) else json.loads(given)


def _column(values: list[Any]) -> Any:
    """Values as they are: numpy would make one array of lists."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def _said(given: Any) -> Any:
    value = given[FIELD] if isinstance(given, dict) and set(given) == {FIELD} else given
    if value is not given and isinstance(value, (np.ndarray, list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """numpy's values as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")
