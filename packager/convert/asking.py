"""Which rows an original is asked: the user's where they were given, then those that decide.

Where no types were declared, the rows are floats of 64 bits, as users have them, whatever the graph's input is: what an
attempt loses by narrowing them is a difference that the gate must see.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

import numpy as np

from .decisive import answered, decisive_rows
from .fields import Field, Unsuited, line
from .original import Original


def rows_for(path: Optional[str], original: Original, fields: List[Field], scalar: str) -> Dict[str, Any]:
    """The user's rows, a JSON file at `path`, then those that decide where a graph takes floats of type `scalar`."""
    given = _given(path, fields)
    made: Optional[Dict[str, Any]] = None
    try:
        original.is_widened = False
        made = decisive_rows(original.model, fields, scalar, original.layout)
        made = _answered(original, fields, made)
    except Unsuited:
        try:
            original.is_widened = _are_narrow(fields)
            made = {name: _tame(array) for name, array in (made or {}).items()}
            made = answered(lambda rows: original.ask(fields, rows), made) if made else None
        except Unsuited:
            made, original.is_widened = None, False
        if made is None and given is None:
            raise
    if given is None:
        assert made is not None  # raised above otherwise
        return made
    if made is None:
        return given
    return {name: np.concatenate([given[name], made[name].astype(given[name].dtype)]) for name in given}


def _are_narrow(fields: List[Field]) -> bool:
    """Whether there is a float of 32 bits: some estimators fitted with 64 take no others (KMeans)."""
    return any(field.dtype == np.float32 for field in fields)


def _answered(original: Original, fields: List[Field], made: Dict[str, Any]) -> Dict[str, Any]:
    """Rows that the original answers, as they are, else widened to 64 bits."""
    try:
        return answered(lambda rows: original.ask(fields, rows), made)
    except Unsuited:
        if not _are_narrow(fields):
            raise
        original.is_widened = True
        return answered(lambda rows: original.ask(fields, rows), made)


def _tame(array: Any) -> Any:
    """Numbers that more estimators take: finite, not negative, not large."""
    if array.dtype.kind != "f":
        return array
    return np.abs(np.clip(np.nan_to_num(array), -10, 10))


def narrowed(rows: Dict[str, Any], fields: List[Field]) -> Dict[str, Any]:
    """The rows as a graph with these fields gets them."""
    with np.errstate(over="ignore"):
        return {field.name: rows[field.name].astype(field.dtype) for field in fields}


def _given(path: Optional[str], fields: List[Field]) -> Optional[Dict[str, Any]]:
    """The user's rows as columns of the fields. A null is a missing number."""
    if not path:
        return None
    with open(path) as file:
        rows = json.load(file)
    return {field.name: _given_column(rows, field) for field in fields}


def _given_column(rows: List[Dict[str, Any]], field: Field) -> Any:
    for number, row in enumerate(rows):
        if field.name not in row:
            raise Unsuited("golden row %d lacks '%s': it has %s" % (number, field.name, ", ".join(map(str, row))))
    values = [row[field.name] for row in rows]
    try:
        if field.scalar == "string":
            made = np.empty(len(values), dtype=object)
            made[:] = [str(value) for value in values]
            return made
        column = np.array(values, dtype=np.float64 if field.dtype.kind == "f" else field.dtype)
        if column.shape[1:] != (() if field.size is None else (field.size,)):
            raise ValueError("the shape of a row is %s" % (column.shape[1:],))
        return column.astype(field.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unsuited("golden rows, field '%s': expected %s: %s" % (field.name, field.text, line(error))) from error
