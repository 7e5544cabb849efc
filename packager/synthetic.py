"""Rows between the user, the child that knows the model, and the bundle.

The child makes the rows that decide (`packager/convert/decisive.py`); here the user's rows are read for it, and those
that travel are chosen: a few dozen, spread over all sorts, each with the original's answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from bundle.golden import IN, OUT, GoldenRows
from columns.columns import Columns
from columns.records import encode_records
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.conversion import Attempt
from packager.golden import LARGEST, MADE_FOR, read_golden
from packager.project import GoldenSource

CARRIED = 32  # rows in the bundle: devices run them before they serve
MOST_VALUES = 40_000  # in all carried rows together
MOST_ASKED = 2_000  # of the user's rows that the gate compares


def user_rows(golden: GoldenSource, inputs: Schema | None, outputs: Schema | None) -> list[dict[str, Any]] | None:
    """The user's own rows as objects, without expected answers; None where there are none, or only made ones."""
    path = golden.rows
    if path is None:
        return None
    if path.stat().st_size > LARGEST:
        raise BadInput(f"golden rows '{path.name}' are larger than {LARGEST} bytes: a few hundred rows do")
    if path.suffix in (".arrow", ".feather", ".parquet"):
        if inputs is None or outputs is None:
            raise BadInput(
                f"golden rows '{path.name}' need [steps.input] and [steps.output] beside them, or give them as JSON"
            )
        found = read_golden(path, inputs, outputs, "").rows.inputs
        rows = orjson.loads(encode_records(found.slice(0, min(found.rows, MOST_ASKED)), "."))
        return list(rows)
    try:
        rows = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BadInput(f"golden rows '{path.name}' are not JSON: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"golden rows '{path.name}' are not pandas-records: expected a list of objects")
    if any(MADE_FOR in row for row in rows):
        return None
    return [
        {name.removeprefix(IN): value for name, value in row.items() if not name.startswith(OUT)}
        for row in rows[:MOST_ASKED]
    ]


def carried_rows(attempt: Attempt) -> GoldenRows:
    """The rows that travel, spread over those that were asked; without missing numbers, which JSON cannot carry."""
    good = np.flatnonzero(_is_finite(attempt.rows))
    values = sum(_width(side, name) for side in (attempt.rows, attempt.answers) for name in side.schema.names)
    count = max(2, min(CARRIED, MOST_VALUES // max(1, values), len(good)))
    chosen = good[np.unique(np.linspace(0, len(good) - 1, count).astype(int))] if len(good) else good
    if not len(chosen):
        raise BadInput("the model answers only rows with missing numbers: give [golden] rows that it answers")
    return GoldenRows(_taken(attempt.rows, chosen), _taken(attempt.answers, chosen))


def _is_finite(columns: Columns) -> np.ndarray[Any, np.dtype[np.bool_]]:
    good = np.ones(columns.rows, dtype=bool)
    for name in columns.schema.names:
        array = np.asarray(columns.arrays[name])
        if array.dtype.kind == "f":
            good &= np.isfinite(array).reshape(columns.rows, -1).all(axis=1)
    return good


def _width(columns: Columns, name: str) -> int:
    array = np.asarray(columns.arrays[name])
    if array.dtype == object:
        return max(map(_values_in, array), default=1)
    return int(np.prod(array.shape[1:], dtype=np.int64))


def _values_in(value: Any) -> int:
    return sum(map(_values_in, value)) if isinstance(value, list) else 1


def _taken(columns: Columns, rows: Any) -> Columns:
    return Columns.of(columns.schema, {name: np.asarray(columns.arrays[name])[rows] for name in columns.schema.names})
