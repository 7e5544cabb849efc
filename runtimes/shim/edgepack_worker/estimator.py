"""The kind `estimator`: one trained object that has predict, predict_proba or transform.

One list field is the matrix, several scalar fields are the columns of a DataFrame in their order, one string field is
a text column. The output `predictions` is predict(), `probabilities` predict_proba(), one field of another name
predict(), or transform() where there is no predict. The options `inputs`, `columns`, `outputs` say otherwise.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .types import Type, parse

_METHODS = {"predictions": "predict", "probabilities": "predict_proba"}


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Load the object; see `main.load`."""
    options = order["options"]
    model = _opened(Path(order["model"]), options)
    methods = _methods(list(order["output"]), model, options.get("outputs") or {})
    asked = _input_of({name: parse(text) for name, text in order["input"].items()}, options)

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        given = asked(arrays)
        return {name: _plain(method(given)) for name, method in methods.items()}

    return answer


def _opened(path: Path, options: dict[str, Any]) -> Any:
    form = options.get("format") or _form_of(path)
    if form == "joblib":
        import joblib

        return joblib.load(path)
    if form == "skops":
        from skops.io import load as load_skops

        return load_skops(path, trusted=options.get("trusted") or [])
    if form == "xgboost":
        return _xgboost(path)
    if form == "xgboost-estimator":
        return _xgboost_estimator(path)
    if form == "lightgbm":
        from lightgbm import Booster

        return Booster(model_file=str(path))
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - this process is the sandbox that pickles are opened in


def _form_of(path: Path) -> str:
    by_suffix = {".joblib": "joblib", ".skops": "skops", ".ubj": "xgboost", ".json": "xgboost", ".txt": "lightgbm"}
    return by_suffix.get(path.suffix.lower(), "pickle")


def _xgboost(path: Path) -> Any:
    from xgboost import Booster

    booster = Booster()
    booster.load_model(str(path))
    return booster


def _xgboost_estimator(path: Path) -> Any:
    """The class of scikit-learn's interface that saved a booster, which its file names."""
    from xgboost import XGBClassifier, XGBRegressor

    kind = json.loads(_xgboost(path).attr("scikit_learn") or "{}").get("_estimator_type")
    model = XGBClassifier() if kind == "classifier" else XGBRegressor()
    model.load_model(str(path))
    return model


def _methods(fields: list[str], model: Any, chosen: dict[str, str]) -> dict[str, Callable[[Any], Any]]:
    """What gives each output field."""
    found = {}
    for name in fields:
        method = chosen.get(name) or _METHODS.get(name) or ("predict" if hasattr(model, "predict") else "transform")
        if not hasattr(model, method):
            raise AttributeError(f"field '{name}' is {method}(), which a {type(model).__name__} does not have")
        found[name] = _booster(model) if _is_xgboost_booster(model) else getattr(model, method)
    return found


def _is_xgboost_booster(model: Any) -> bool:
    return type(model).__module__.startswith("xgboost.") and type(model).__name__ == "Booster"


def _booster(model: Any) -> Callable[[Any], Any]:
    """A bare Booster takes a matrix of its own kind, with the feature names that it was trained with."""
    from xgboost import DMatrix

    def predict(given: Any) -> Any:
        names = None if hasattr(given, "columns") else model.feature_names
        return model.predict(DMatrix(given, feature_names=names))

    return predict


def _input_of(schema: dict[str, Type], options: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    form = options.get("inputs") or _shape_of(schema)
    names = list(schema)
    if form == "frame":
        return _frame_of(names, options.get("columns") or names)
    if form == "text":
        return lambda arrays: arrays[names[0]]
    if len(names) > 1:  # the columns side by side, for an object that was trained without names
        return lambda arrays: np.column_stack([arrays[name] for name in names])
    return lambda arrays: _matrix(arrays[names[0]])


def _shape_of(schema: dict[str, Type]) -> str:
    only = next(iter(schema.values()))
    if len(schema) > 1:
        return "frame"
    if only.item is not None:
        return "matrix"
    return "text" if only.name == "string" else "frame"


def _frame_of(names: list[str], columns: list[str]) -> Callable[[dict[str, Any]], Any]:
    from pandas import DataFrame

    def frame(arrays: dict[str, Any]) -> Any:
        return DataFrame({column: arrays[name] for name, column in zip(names, columns)}, columns=columns)

    return frame


def _matrix(array: Any) -> Any:
    if array.dtype == object:  # lists of strings, or of numbers with gaps
        return np.array(array.tolist(), dtype=object)
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _plain(result: Any) -> Any:
    """What numpy can hold: the values of a DataFrame or Series, a dense matrix."""
    if hasattr(result, "toarray"):
        return result.toarray()
    return result.to_numpy() if hasattr(result, "to_numpy") else result
