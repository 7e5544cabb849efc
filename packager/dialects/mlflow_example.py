"""Rows to ask a pyfunc model: its own input example where it has one, else made from the fields."""

from __future__ import annotations

import json
from typing import Any

from bundle.golden import GoldenRows
from columns.columns import Columns
from columns.schema import Schema
from columns.values import column_from_values
from edgepack.errors import BadInput
from packager.dialects.mlflow_folder import MlflowModel
from packager.golden import RECIPES, made_rows

EXAMPLE = "serving_input_example.json"
_LARGEST = 4 << 20  # bytes
_MOST_ROWS = 32


def example_rows(model: MlflowModel, inputs: Schema) -> GoldenRows | None:
    """Rows for all fields, parameters null; None where nobody can say any: they are then made like everyone's."""
    params = [name for name in model.signature.params if name in inputs]
    plain = Schema(tuple(field for field in inputs if field.name not in params))
    rows = _of_example(model, plain)
    if rows is None and params:
        rows = _made(model, plain)
    if rows is None:
        return None
    nulls = {name: column_from_values(inputs[name], [None] * rows.rows, json=True) for name in params}
    return GoldenRows(Columns.of(inputs, {**rows.arrays, **nulls}))


def _made(model: MlflowModel, plain: Schema) -> Columns | None:
    try:
        return made_rows(plain, model.tree.digest, RECIPES[0])
    except (BadInput, TypeError, ValueError):  # a type that only the user has rows for
        return None


def _of_example(model: MlflowModel, plain: Schema) -> Columns | None:
    """The example that was logged with the model, if it has these fields. A broken one is left out: it is a comment."""
    if EXAMPLE not in model.tree.files or not len(plain):
        return None
    try:
        said = json.loads(model.tree.read(EXAMPLE, _LARGEST))
        columns = _columns(said, plain)
        counts = {len(values) for values in columns.values()}
        if len(counts) != 1 or 0 in counts:
            return None
        found = {
            each.name: column_from_values(each, _plain(columns[each.name][:_MOST_ROWS], each.text), json=True)
            for each in plain
        }
        return Columns.of(plain, found)
    except (BadInput, ValueError, KeyError, TypeError, RecursionError):
        return None


def _plain(values: list[Any], text: str) -> list[Any]:
    """MLflow ends the base64 text of bytes with a new line."""
    return [each.strip() if isinstance(each, str) else each for each in values] if "binary" in text else values


def _columns(said: Any, plain: Schema) -> dict[str, list[Any]]:
    """Field → values, of the forms in which MLflow writes an example for its own scoring server."""
    if "dataframe_split" in said:
        split = said["dataframe_split"]
        at = {str(name): number for number, name in enumerate(split["columns"])}
        return {name: [row[at[name]] for row in split["data"]] for name in plain.names}
    if "dataframe_records" in said:
        return {name: [row[name] for row in said["dataframe_records"]] for name in plain.names}
    given = said["inputs"] if "inputs" in said else said["instances"]
    if isinstance(given, dict):
        return {name: list(given[name]) for name in plain.names}
    return {plain.names[0]: list(given)} if len(plain) == 1 else {}
