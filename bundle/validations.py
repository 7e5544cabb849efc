"""Validations: named boolean expressions on one row of a result, compiled once and evaluated on whole columns.

The language is a small part of Python's: `in.<field>` and `out.<field>` (`out["odd name"]` where the name is no
identifier), an index `[0]`, numbers, strings, `True`, `False`, arithmetic, comparisons, `and`, `or`, `not`, and min,
max, sum, mean, abs, len, any, all. Numbers are computed as 64-bit floats or integers. A list is brought down to one
value by an index or a function: what is left must be one boolean a row. A row that has no value to look at (a null, a
list too short) counts as an anomaly. Nothing of an expression is ever executed as Python: every node is looked up in
the tables below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle._expression import Array, Compiler, Value
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import BadInput

_NAME = re.compile(r"[A-Za-z_][-A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Validation:
    """One validation, ready to be evaluated."""

    name: str
    expression: str
    fields: tuple[str, ...]
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
        return cls(name, expression, tuple(sorted(compiler.fields)), value)

    def evaluate(self, columns: Columns) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Evaluate on columns named `in.<field>` and `out.<field>`: one boolean a row, true is an anomaly."""
        arrays = {field: np.asarray(columns.arrays[field]) for field in self.fields}
        with np.errstate(all="ignore"):
            if all(array.dtype != object for array in arrays.values()):
                return self._evaluate(arrays, columns.rows)
            found = [self._evaluate(_row(arrays, row), 1)[0] for row in range(columns.rows)]
            return np.array(found, dtype=bool)

    def _evaluate(self, arrays: Mapping[str, Array], rows: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        try:
            found = np.empty(rows, dtype=bool)
            found[:] = self._value(arrays)
            return found
        except (IndexError, TypeError, ValueError):
            return np.ones(rows, dtype=bool)  # no value to look at: see the head of this file


def _row(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row of every column, as columns of one row. A null becomes a value that nothing can be done with."""
    return {name: np.asarray([array[row]]) for name, array in arrays.items()}
