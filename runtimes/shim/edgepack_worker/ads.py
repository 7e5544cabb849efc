"""The kind `ads`: a score.py of Oracle ADS with `load_model()` and `predict(data, model=load_model())`.

It is asked in two ways. A value, the field `json` alone, is the body of `POST /predict`: bytes go to predict() as they
are, JSON as what it says, and the answer is the whole of what predict() returns. Rows of typed fields are put into the
form that the option `payload` names, and give `prediction`, one element a row.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .columns import Misfit
from .json_value import FIELD, of_values
from .json_value import _column as _objects
from .json_value import _plain as _plain_value
from .sources import import_the_one

_PREDICTION = "prediction"
_FRAME, _ARRAY = "pandas.core.frame.DataFrame", "numpy.ndarray"  # ADS's client says so in `data_type`
Arrays = dict[str, Any]


def load(order: dict[str, Any]) -> Callable[[Arrays, int], Arrays]:
    """Import score.py, which loads the model, and return what answers; see `main.load`."""
    options = order["options"]
    predict = _predict_of(Path(order["model"]), options["entry"])
    if options.get("probe"):
        return _probe(predict, options["probe"])

    def value(arrays: Arrays, rows: int) -> Arrays:  # the whole of what predict() returns, whatever its members are
        return {FIELD: [predict(arrays[FIELD][0])]}

    if options.get("json"):  # no fields of its own: `main` makes values of it
        return value
    values = of_values(value)
    form, output = FORMS[options["payload"]], list(order["output"])
    never = [name for name, text in order["output"].items() if not text.endswith("?")]

    def answer(arrays: Arrays, rows: int) -> Arrays:
        if list(arrays) == [FIELD] and FIELD not in order["input"]:
            return values(arrays, rows)
        return _without_nulls(_columns(output, form(predict, arrays, rows), rows), never)

    return answer


def _without_nulls(columns: Arrays, never: list[str]) -> Arrays:
    """The columns. Raises Misfit where one of `never` has a null: what to write, ADS's users would not guess."""
    for name in never:
        is_plain = columns[name].dtype != object  # numbers side by side
        row = None if is_plain else next((at for at, each in enumerate(columns[name]) if each is None), None)
        if row is not None:
            raise Misfit(
                f"field '{name}': predict() gave null for row {row}: where it may, write \"required\": false in "
                "output_schema.json, or a type with '?' in [steps.output]"
            )
    return columns


def _predict_of(folder: Path, entry: str) -> Callable[[Any], Any]:
    """predict() of one argument, its model loaded."""
    module = import_the_one(folder, lambda _: 1, "score.py", entry)
    parameters = inspect.signature(module.predict).parameters
    model = parameters.get("model") or (list(parameters.values())[1] if len(parameters) > 1 else None)
    if model is None:
        _checked(module.load_model())
        return lambda data: module.predict(data)
    if model.default is None or model.default is inspect.Parameter.empty:
        loaded = _checked(module.load_model())
        return lambda data: module.predict(data, **{model.name: loaded})
    return lambda data: module.predict(data)


def _checked(model: Any) -> Any:
    if model is None:
        raise ValueError("load_model() in score.py returned None: expected the model")
    return model


def _probe(predict: Callable[[Any], Any], asked: str) -> Callable[[Arrays, int], Arrays]:
    """Ask rows in the form that the field `asked` names, and say as JSON what came: at packaging, to find the form that
    score.py reads.
    """

    def answer(arrays: Arrays, rows: int) -> Arrays:
        form = arrays.pop(asked)[0]
        return {"said": _objects([json.dumps(_tried(form, arrays, rows))] * rows)}

    def _tried(form: str, arrays: Arrays, rows: int) -> dict[str, Any]:
        try:
            found = FORMS[form](predict, arrays, rows)
            found = json.loads(json.dumps(found, default=_plain_value, allow_nan=False))
        except BaseException as error:  # noqa: BLE001 - whatever user-made code raises
            return {"error": f"{type(error).__name__}: {error}"[:500]}
        return {"prediction": found}

    return answer


def _columns(output: list[str], found: list[Any], rows: int) -> Arrays:
    """One field has each element as it is; several are the members of objects, or places of lists."""
    if len(output) == 1:
        return {output[0]: _column(found)}
    if all(isinstance(each, dict) for each in found):
        return {name: _column([each[name] for each in found]) for name in output}
    return {name: _column([each[at] for each in found]) for at, name in enumerate(output)}


def _column(values: list[Any]) -> Any:
    """Numbers side by side as an array, all else as objects."""
    if values and isinstance(values[0], (bool, int, float, list, np.ndarray, np.generic)):
        try:
            return np.asarray(values)
        except ValueError:  # lists of different length
            return _objects(values)
    return _objects(values)


def _predictions(answer: Any, rows: int) -> list[Any]:
    """One element a row of what predict() gave: `{"prediction": [...]}`, or the list alone."""
    found = answer[_PREDICTION] if isinstance(answer, dict) and _PREDICTION in answer else answer
    found = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(found, (list, tuple)) or len(found) != rows:
        many = f"{len(found)} elements" if isinstance(found, (list, tuple)) else type(found).__name__
        raise Misfit(f"predict() gave {many} for {rows} rows: expected a list with an element for each")
    return list(found)


def _together(made: Callable[[Arrays, int], Any]) -> Callable[[Callable[[Any], Any], Arrays, int], list[Any]]:
    return lambda predict, arrays, rows: _predictions(predict(made(arrays, rows)), rows)


def _one_by_one(predict: Callable[[Any], Any], arrays: Arrays, rows: int) -> list[Any]:
    """Each row is an object, and so asked by itself: the answer is its prediction, or a list of that one."""
    found = []
    for record in _records(arrays, rows):
        answer = predict(record)
        value = answer[_PREDICTION] if isinstance(answer, dict) and _PREDICTION in answer else answer
        value = value.tolist() if hasattr(value, "tolist") else value
        found.append(value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value)
    return found


def _frame(arrays: Arrays, rows: int) -> Any:
    """A DataFrame as ADS's client sends it: JSON text of columns, each an object of rows by their number."""
    columns = {name: {str(row): value for row, value in enumerate(each)} for name, each in _lists(arrays).items()}
    return {"data": json.dumps(columns), "data_type": _FRAME}


def _array(arrays: Arrays, rows: int) -> Any:
    """An array as ADS's client sends it: a .npy file in base64."""
    file = io.BytesIO()
    np.save(file, _matrix(arrays), allow_pickle=False)
    return {"data": base64.b64encode(file.getvalue()).decode("ascii"), "data_type": _ARRAY}


def _tensor(arrays: Arrays, rows: int) -> Any:
    """A tensor of torch as ADS's newer client sends it: its values in JSON, with dtype and shape."""
    array = _matrix(arrays)
    tensor = {"__ads_torch_tensor__": 1, "dtype": f"torch.{array.dtype}", "shape": list(array.shape)}
    return {"data": {**tensor, "data": array.tolist()}, "data_type": "<class 'torch.Tensor'>"}


def _records(arrays: Arrays, rows: int) -> list[dict[str, Any]]:
    lists = _lists(arrays)
    return [{name: lists[name][row] for name in lists} for row in range(rows)]


def _rows(arrays: Arrays, rows: int) -> list[Any]:
    if len(arrays) == 1:
        return list(next(iter(_lists(arrays).values())))
    return [list(each) for each in zip(*_lists(arrays).values())]


def _lists(arrays: Arrays) -> dict[str, list[Any]]:
    return {name: _plain_list(array) for name, array in arrays.items()}


def _plain_list(array: Any) -> list[Any]:
    if array.dtype == object:
        return [None if each is None else _scalar(each) for each in array]
    listed: list[Any] = array.tolist()
    return [None if value != value else value for value in listed] if array.dtype.kind == "f" else listed


def _scalar(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _matrix(arrays: Arrays) -> Any:
    only = next(iter(arrays.values()))
    return only if len(arrays) == 1 and only.ndim > 1 else np.column_stack(list(arrays.values()))


# how rows are handed to predict(); `packager.dialects.ads_asking` tries them in an order that suits the code
FORMS = {
    "frame": _together(_frame),
    "array": _together(_array),
    "tensor": _together(_tensor),
    "columns": _together(lambda arrays, rows: _lists(arrays)),
    "records": _together(_records),
    "rows": _together(_rows),
    "data": _together(lambda arrays, rows: {"data": _rows(arrays, rows)}),
    "record": _one_by_one,
}
