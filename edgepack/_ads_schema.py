"""The schema files of ADS from samples: an attribute a column, with its dtype, feature type and statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack._golden import evenly
from edgepack.errors import BadInput

MOST_COLUMNS = 2000  # ADS's own default bound
_FEATURES = {"b": "Boolean", "i": "Integer", "u": "Integer", "f": "Continuous", "M": "DateTime"}
_MISSING = ("NoneType", "NAType", "NaTType")  # the latter are pandas', which need not be installed
_LONGEST = 300  # characters of what a library raised
_NO_ROWS = "has no rows: give some"


def schema_of(sample: Any, what: str, *, tensor: str | None = None) -> dict[str, Any]:
    """`input_schema.json` or `output_schema.json` of a sample: a DataFrame, a Series, an array or a list.

    With `tensor` all of an array is one field of that name, its shape beside it; else each column is a field.
    """
    columns = columns_of(sample, what, tensor=tensor)
    if len(columns) > MOST_COLUMNS:
        raise BadInput(f"{what} has {len(columns)} columns: expected at most {MOST_COLUMNS}")
    attributes = [_attribute(name, column, order) for order, (name, column) in enumerate(columns.items())]
    return {"schema": attributes, "version": "1.1"}


def dtype_of(path: Path, name: str) -> str:
    """The dtype of a field of a schema file. Raises BadInput where it has none."""
    try:
        said = json.loads(path.read_text("utf-8"))
        return next(str(each["dtype"]) for each in said["schema"] if each["name"] == name)
    except (ValueError, RecursionError, KeyError, TypeError, StopIteration) as error:
        raise BadInput(f"'{path}' has no dtype of '{name}': write it anew with prepare(..., X_sample=...)") from error


def columns_of(sample: Any, what: str, *, tensor: str | None = None) -> dict[Any, Any]:
    """Name → array of a sample's columns; those of an array are numbered. Raises BadInput for one without rows."""
    if tensor is None and hasattr(sample, "columns") and hasattr(sample, "dtypes"):
        columns = {name: sample[name] for name in sample.columns}
        if len(columns) != len(sample.columns) or not columns or not len(sample):
            raise BadInput(f"{what} {_NO_ROWS}, each column of another name")
        return columns
    if tensor is None and hasattr(sample, "to_numpy") and hasattr(sample, "name"):  # a Series
        return {0 if sample.name is None else sample.name: sample}
    array = array_of(sample)
    if array.ndim == 0 or not len(array):
        raise BadInput(f"{what} {_NO_ROWS}")
    if tensor is not None:
        return {tensor: array}
    if array.ndim > 2:
        raise BadInput(f"{what} has shape {array.shape}: expected rows of values")
    return {0: array} if array.ndim == 1 else {at: array[:, at] for at in range(array.shape[1])}


def in_one_line(error: BaseException) -> str:
    """What an error says, in one line that is no longer than it needs to be."""
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__


def count_of(rows: Any) -> int:
    """How many rows there are."""
    return int(rows.shape[0] if hasattr(rows, "shape") else len(rows))


def array_of(sample: Any) -> Any:
    """A sample as a numpy array: also tensors of torch and TensorFlow, sparse matrices, lists."""
    import numpy as np

    for method in ("detach", "cpu", "toarray", "numpy", "to_numpy"):
        if hasattr(sample, method):
            sample = getattr(sample, method)()
    return np.asarray(sample)


def _attribute(name: Any, column: Any, order: int) -> dict[str, Any]:
    import numpy as np

    dtype = str(column.dtype)
    values = np.asarray(column)
    feature = "Category" if dtype == "category" else _FEATURES.get(values.dtype.kind, "String")
    if dtype.startswith("<U"):
        dtype = "object"
    shape = {"shape": list(values.shape[1:])} if values.ndim > 1 else {}
    return {
        "dtype": dtype,
        "feature_type": feature,
        "name": name if isinstance(name, (int, str)) else str(name),
        "domain": {"values": "", "stats": _stats(values), "constraints": []},
        "required": not _has_missing(values),
        "description": str(name),
        "order": order,
        **shape,
    }


def _stats(values: Any) -> dict[str, float]:
    """ADS's words for what it says of a column of numbers, or of one of texts."""
    import numpy as np

    flat = values.ravel()
    if flat.dtype.kind not in "iuf":
        return {"count": len(flat), "unique": len({str(value) for value in flat.tolist()})}
    finite = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
    if not len(finite):
        return {"count": 0}
    low, middle, high = (float(each) for each in np.quantile(finite.astype(float), (0.25, 0.5, 0.75)))
    return {
        "count": len(finite),
        "mean": float(finite.mean(dtype=float)),
        "standard deviation": float(finite.std(dtype=float)),
        "sample minimum": float(finite.min()),
        "lower quartile": low,
        "median": middle,
        "upper quartile": high,
        "sample maximum": float(finite.max()),
    }


def _has_missing(values: Any) -> bool:
    import numpy as np

    if values.dtype.kind in "fM":
        return bool((np.isnan if values.dtype.kind == "f" else np.isnat)(values).any())
    return values.dtype.kind == "O" and any(plain_value(value) is None for value in values.ravel())


def golden_rows(columns: Mapping[Any, Any], answers: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Rows of a sample with the estimator's own answers, those that JSON can hold, evenly over the sample."""
    import numpy as np

    taken = list(evenly(len(next(iter(columns.values())))))
    listed = {f"in.{name}": plain_list(np.asarray(column)[taken]) for name, column in columns.items()}
    if answers is not None:
        listed["out.prediction"] = [plain_value(answers[at]) for at in taken]
    rows = ({name: values[place] for name, values in listed.items()} for place in range(len(taken)))
    return [row for row in rows if all(map(_is_json, row.values())) and _is_answer(row.get("out.prediction", True))]


def _is_answer(value: Any) -> bool:
    """Whether nothing is missing in it: NaN is no answer to compare with."""
    return all(map(_is_answer, value)) if isinstance(value, list) else value is not None


def plain_list(column: Any) -> list[Any]:
    """The values of a column as Python's own: None for what is missing, times as their ISO text."""
    import numpy as np

    values = np.asarray(column)
    if values.dtype.kind == "M":
        return [None if np.isnat(value) else str(value) for value in values]
    return [plain_value(value) for value in values.tolist()]


def plain_value(value: Any) -> Any:
    """A value as JSON has it, also inside lists and objects; what JSON cannot hold stays as it is."""
    if isinstance(value, dict):
        return {name: plain_value(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(each) for each in value]
    if type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return plain_value(value.tolist()) if hasattr(value, "tolist") else value


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
