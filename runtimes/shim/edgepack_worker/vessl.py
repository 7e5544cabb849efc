"""The kind `vessl`: a registered runner is loaded, with its model, and asked for one value or one row at a time."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], Any]:
    """Load runner and model and return what answers; see `main.load`.

    The volume is the working folder, and paths in `artifacts` are whole: a runner finds its files by either.
    """
    from vessl.registration import INSTANCE, RECORD, RUNNER, VOLUME

    folder = Path(order["model"])
    record = json.loads((folder / RECORD).read_text())
    volume = folder / VOLUME
    if volume.is_dir():
        os.chdir(volume)
    runner = _unpickled(folder / RUNNER)
    if record["loads"]:
        artifacts = {local: str(volume / path) for local, path in record["artifacts"].items()}
        model = runner.load_model(record["props"], artifacts)
    else:
        model = _unpickled(folder / INSTANCE)
    ask = _asked(runner, model)
    return _of_values(ask) if order["options"].get("json") else _of_rows(ask, list(order["output"]))


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - a confined child loads what its user made


def _asked(runner: Any, model: Any) -> Callable[[Any], Any]:
    def ask(data: Any) -> Any:
        return runner.postprocess_data(runner.predict(model, runner.preprocess_data(data)))

    return ask


def _of_values(ask: Callable[[Any], Any]) -> Callable[[dict[str, Any], int], Any]:
    return lambda arrays, rows: {"json": [_plain(ask(arrays["json"][0]))]}


def _of_rows(ask: Callable[[Any], Any], outputs: list[str]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """A row is an object of its fields, and so is an answer; one output field is the answer itself."""

    def rows_of(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        found = [ask({name: _plain(column[row]) for name, column in arrays.items()}) for row in range(rows)]
        return {name: _column([_part(each, name, outputs) for each in found]) for name in outputs}

    return rows_of


def _part(answer: Any, name: str, outputs: list[str]) -> Any:
    if isinstance(answer, dict):
        if name not in answer:
            raise KeyError(f"the runner's answer has no '{name}': it has {', '.join(map(str, answer)) or 'nothing'}")
        return _plain(answer[name])
    if len(outputs) > 1:
        raise TypeError(f"the runner answered {type(answer).__name__}: expected a dict with {', '.join(outputs)}")
    return _plain(answer)


def _plain(value: Any) -> Any:
    """Arrays, tensors and numpy's values as Python's."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _column(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column
