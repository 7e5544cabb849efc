"""The kind `cortex`: a PythonPredictor, ONNXPredictor or TensorFlowPredictor, asked by the names of its arguments.

`__init__` is given `config` and the client of its type, `predict` the payload, the query's parameters and the headers:
as many of them as it names. What it returns is the answer, JSON or bytes.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from . import cortex_clients
from .json_value import FIELD
from .sources import import_the_one

_CLIENTS: Mapping[str, Callable[..., Any]] = {
    "python_client": cortex_clients.PythonClient,
    "onnx_client": cortex_clients.OnnxClient,
    "tensorflow_client": cortex_clients.TensorFlowClient,
}


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Import the user's module, make the predictor and return what asks it; see `main.load`."""
    options = order["options"]
    folder = Path(order["model"])
    os.environ.update(options.get("env", {}))
    said = options.get("python_path")
    first = folder / said if said else None
    module = import_the_one(folder / options["folder"], lambda tree: 0, options["name"], options["entry"], first)
    models = cortex_clients.Models(options.get("models", {}), folder, options.get("cache_size"))
    made = _predictor(getattr(module, options["name"]), options, models)
    takes = set(inspect.signature(made.predict).parameters)

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        asked = {
            "payload": arrays[FIELD][0],
            "query_params": dict(parse_qsl(_text(arrays, "query"), keep_blank_values=True)),
            "headers": json.loads(_text(arrays, "headers") or "{}"),
        }
        with models.asked():
            return {FIELD: _one(made.predict(**{name: value for name, value in asked.items() if name in takes}))}

    return answer


def _predictor(kind: Any, options: dict[str, Any], models: cortex_clients.Models) -> Any:
    """The user's predictor, with all models loaded unless it wants few of them in memory."""
    takes = inspect.signature(kind.__init__).parameters
    clients = {name: make(models) for name, make in _CLIENTS.items() if name in takes}
    given = {"config": options.get("config", {}), **clients}
    made = kind(**{name: value for name, value in given.items() if name in takes})
    if "python_client" in clients:
        models.load = lambda place: made.load_model(str(place))
    if clients:
        models.warm()
    return made


def _text(arrays: dict[str, Any], name: str) -> str:
    return str(arrays[name][0]) if name in arrays else ""


def _one(value: Any) -> Any:
    """One answer in a column of its own: `{"json": ...}` that a predictor gives is no envelope of ours."""
    return [value]
