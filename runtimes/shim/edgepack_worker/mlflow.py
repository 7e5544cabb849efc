"""The kind `mlflow`: a model folder, loaded by `mlflow.pyfunc`. Columns are a DataFrame, tensors are arrays.

The option `params` names the fields that are the signature's parameters: rows with the same ones are asked together,
and null is the default. `columns` and `answers` are MLflow's own names of the fields, null where it has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from .columns import Misfit
from .types import Type, parse

# nothing here may phone home or write beside the model; this process is the sandbox that pickles are opened in
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_BACKENDS = (
    "tensorflow",
    "torch",
    "jax",
)  # of Keras, which takes the first unless it is told, whether it is there or not


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Load the model; see `main.load`."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    backend = next((name for name in _BACKENDS if find_spec(name)), None)
    if backend is not None:
        os.environ.setdefault("KERAS_BACKEND", backend)
    os.environ["MLFLOW_TRACKING_URI"] = str(Path(gettempdir(), "mlruns"))
    from mlflow.pyfunc import load_model

    model, options = load_model(order["model"]), order["options"]
    schema = {name: parse(text) for name, text in order["input"].items()}
    taken = {name: type_ for name, type_ in schema.items() if name not in options["params"]}
    names = options.get("columns") or list(taken)
    asked = _tensors(taken, names) if options.get("tensors") else _frame(taken, names)

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        parts = []
        for params, chosen in _groups(arrays, rows, options):
            given = {name: arrays[name][chosen] for name in taken}
            found = model.predict(asked(given), params=params) if params else model.predict(asked(given))
            parts.append((chosen, _fields(found, list(order["output"]), options.get("answers"), len(chosen))))
        return parts[0][1] if len(parts) == 1 else _joined(parts, rows)

    return answer


def _groups(
    arrays: Mapping[str, Any], rows: int, options: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Rows that are asked together, with their parameters."""
    if options.get("whole"):
        for row in range(rows):
            yield _params(arrays, row, options), [row]
        return
    found: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for row in range(rows):
        params = _params(arrays, row, options)
        found.setdefault(repr(params), (params, []))[1].append(row)
    yield from found.values()


def _params(arrays: Mapping[str, Any], row: int, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: arrays[name][row] for name in options["params"]}
    return {name: value for name, value in given.items() if value is not None}


def _tensors(taken: Mapping[str, Type], names: list[str | None]) -> Callable[[dict[str, Any]], Any]:
    """One array where the tensor has no name, else a dict of them."""

    def ask(given: dict[str, Any]) -> Any:
        arrays = [_dense(given[field]) for field in taken]
        if names == [None]:
            return arrays[0]
        return {str(name): array for name, array in zip(names, arrays)}

    return ask


def _dense(array: Any) -> Any:
    """Text and ragged lists come as objects: text is made an array of its own."""
    return np.array(array.tolist()) if array.dtype == object else array


def _frame(taken: Mapping[str, Type], names: list[str | None]) -> Callable[[dict[str, Any]], Any]:
    """A DataFrame; a column that may be missing is left out where no row has it."""
    from pandas import DataFrame

    def ask(given: dict[str, Any]) -> Any:
        columns: dict[Any, Any] = {}
        for at, (name, (field, type_)) in enumerate(zip(names, taken.items())):
            array = given[field]
            if type_.nullable and all(value is None for value in array):
                continue
            columns[at if name is None else name] = _filled(array, type_)
        return DataFrame(columns)

    return ask


def _filled(array: Any, type_: Type) -> Any:
    """A nullable column of numbers as pandas has it: floats with NaN, or whole numbers where none is missing."""
    if type_.item is not None and array.dtype != object:
        return list(array)
    plain = type_._replace(nullable=False).tensor()
    if not type_.nullable or plain is None or type_.item is not None:
        return array
    if any(value is None for value in array):
        return np.array([np.nan if value is None else value for value in array], dtype=np.float64)
    return np.array(list(array), dtype=plain[0])


def _fields(found: Any, outputs: list[str], names: list[str | None] | None, rows: int) -> dict[str, Any]:
    """What `predict` gave, by output field."""
    named = dict(zip(outputs, names or outputs))
    if isinstance(found, list) and found and all(isinstance(each, dict) for each in found):
        found = {key: [each.get(key) for each in found] for key in found[0]}
    if hasattr(found, "columns") and hasattr(found, "to_numpy"):
        return _of_frame(found, named)
    if isinstance(found, Mapping):
        return _of_mapping(found, named)
    array = _plain(found)
    if len(outputs) == 1:
        return {outputs[0]: array}
    if getattr(array, "ndim", 0) == 2 and array.shape[1] == len(outputs):
        return {name: array[:, at] for at, name in enumerate(outputs)}
    raise Misfit(f"predict() gave {type(found).__name__} for the fields {', '.join(outputs)}: expected their columns")


def _of_frame(found: Any, named: dict[str, str | None]) -> dict[str, Any]:
    columns = [str(each) for each in found.columns]
    if len(named) == 1 and next(iter(named.values())) not in columns:
        values = found.to_numpy()
        return {next(iter(named)): values[:, 0] if values.shape[1] == 1 else values}
    if len(columns) == len(named) and not set(named.values()) <= set(columns):
        return {name: found.iloc[:, at].to_numpy() for at, name in enumerate(named)}
    return _of_mapping({column: found.iloc[:, at] for at, column in enumerate(columns)}, named)


def _of_mapping(found: Mapping[Any, Any], named: dict[str, str | None]) -> dict[str, Any]:
    made = {}
    for name, original in named.items():
        key = name if original is None else original
        if key not in found:
            raise Misfit(f"predict() gave {', '.join(map(str, found)) or 'nothing'}: expected a field '{key}'")
        made[name] = _plain(found[key])
    return made


def _plain(found: Any) -> Any:
    if hasattr(found, "to_numpy"):
        return found.to_numpy()
    return found.detach().cpu().numpy() if hasattr(found, "detach") else found


def _joined(parts: list[tuple[list[int], dict[str, Any]]], rows: int) -> dict[str, Any]:
    """The answers of several groups in the order of the rows."""
    made: dict[str, Any] = {}
    for name in parts[0][1]:
        column = [None] * rows
        for chosen, answers in parts:
            given = answers[name]
            if len(given) != len(chosen):
                raise Misfit(f"field '{name}': {len(chosen)} rows went in, {len(given)} rows came out")
            for row, value in zip(chosen, given):
                column[row] = value
        made[name] = column
    return made
