"""Fields of a step, and how an estimator takes them: one matrix, one text column, or columns of a table.

The layouts: `matrix` (one list field, handed over as it is), `stack` (scalar fields side by side as an array), `frame`
(scalar fields as the columns of a DataFrame, in order, under their names), `text` (one string field as a list).
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

DTYPES = {"float": "float32", "double": "float64"}


class Field(NamedTuple):
    """A field: `size` is the length of its lists, None for one value a row, -1 for lists of a length not said."""

    name: str
    scalar: str
    size: Optional[int] = None

    @property
    def dtype(self) -> Any:
        """numpy's type of its values."""
        return np.dtype(object if self.scalar == "string" else DTYPES.get(self.scalar, self.scalar))

    @property
    def text(self) -> str:
        """The type as edgepack writes it."""
        if self.size is None:
            return self.scalar
        return "list<%s>" % self.scalar + ("[%d]" % self.size if self.size > 0 else "")


class Unsuited(Exception):
    """The artefact or its fields cannot be packaged so; the message is for the user."""


def layout_of(fields: List[Field], names: Optional[List[str]], is_text: bool) -> str:
    """Which layout fields mean for an estimator that was fitted with these column names, or with none."""
    if len(fields) == 1 and fields[0].size is not None:
        return "matrix"
    if any(field.size is not None for field in fields):
        raise Unsuited(
            "its input mixes lists and single values: give one list field (the matrix) or single fields (columns)"
        )
    if is_text and len(fields) == 1:
        return "text"
    if names is not None or any(field.scalar == "string" for field in fields):
        return "frame"
    return "stack"


def table(layout: str, fields: List[Field], arrays: Dict[str, Any], names: Optional[List[str]]) -> Any:
    """What the estimator is called with. Columns of a frame get the names it was fitted with, in order."""
    if layout == "matrix":
        return arrays[fields[0].name]
    if layout == "text":
        return list(arrays[fields[0].name])
    if layout == "stack":
        return np.column_stack([arrays[field.name] for field in fields])
    import pandas

    columns = names if names is not None and len(names) == len(fields) else [field.name for field in fields]
    return pandas.DataFrame({name: arrays[field.name] for name, field in zip(columns, fields)})


def rows_of(arrays: Dict[str, Any], chosen: Any) -> Dict[str, Any]:
    """Some rows of all columns."""
    return {name: array[chosen] for name, array in arrays.items()}


def line(error: BaseException) -> str:
    """What an error says, in one line of bounded length."""
    return " ".join(str(error).split())[:300]
