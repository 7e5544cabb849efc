"""Validations: named boolean expressions on one row of a result, compiled once and evaluated on whole columns.

The language is a small part of Python's: `in.<field>` and `out.<field>` (`out["odd name"]` where the name is no
identifier), an index `[0]`, numbers, strings, `True`, `False`, arithmetic, comparisons, `and`, `or`, `not`, and min,
max, sum, mean, abs, len, any, all. Numbers are computed as 64-bit floats or integers. A list is brought down to one
value by an index or a function: what is left must be one boolean a row. Nothing of an expression is ever executed as
Python: every node is looked up in a table.

A row without a value to look at counts as an anomaly, whatever the rest of the expression says: a null, a list that is
too short (or empty, for min, max and mean), NaN in a comparison, a division by zero. So a model that gives NaN is seen
by every validation that compares its output, in either direction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle._columnwise import Array, Look, shaped
from bundle._expression import Compiler, Seen, Value
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import BadInput

_NAME = re.compile(r"[A-Za-z_][-A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Validation:
    """One validation, ready to be evaluated."""

    name: str
    expression: str
    fields: Mapping[str, Seen]
    _value: Value

    @classmethod
    def compile(cls, name: str, expression: str, inputs: Schema, outputs: Schema) -> Validation:
        """Check an expression against the pipeline's schemas. Raises BadInput that names the validation and what is
        wrong.
        """
        if not _NAME.fullmatch(name) or name == "count":
            raise BadInput(
                f"validation '{name[:60]}' has a name that results cannot carry as anomaly.<name>: use letters, digits "
                "and '_', and not 'count'",
                field="validations",
            )
        compiler = Compiler(name, {"in": inputs, "out": outputs})
        value = compiler.compile(expression)
        return cls(name, expression, dict(sorted(compiler.fields.items())), value)

    def evaluate(self, columns: Columns) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Evaluate on columns named `in.<field>` and `out.<field>`: one boolean a row, true is an anomaly."""
        arrays = {field: np.asarray(columns.arrays[field]) for field in self.fields}
        with np.errstate(all="ignore"):
            if all(_is_whole(self.fields[field], array) for field, array in arrays.items()):
                return self._evaluate(arrays, columns.rows)
            rows = ({name: _row(array, row) for name, array in arrays.items()} for row in range(columns.rows))
            return np.array([self._evaluate(row, 1)[0] for row in rows], dtype=bool)

    def _evaluate(self, arrays: Mapping[str, Array], rows: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        look = Look(arrays, rows)
        try:
            found = np.empty(rows, dtype=bool)
            found[:] = self._value(look)
        except (IndexError, TypeError, ValueError):
            return np.ones(rows, dtype=bool)  # no value to look at: see the head of this file
        return found | look.blind


def _is_whole(seen: Seen, array: Array) -> bool:
    """Whether a column can be looked at as a whole: not where rows differ in shape, or one is a null."""
    if array.dtype != object:
        return True
    return seen.kind == "string" and not seen.shape and all(isinstance(text, str) for text in array)


def _row(array: Array, row: int) -> Array:
    """One row of a column, as a column of one row."""
    return shaped(array[row]) if array.dtype == object else array[row : row + 1]
