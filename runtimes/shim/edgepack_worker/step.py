"""The kind `step`: exactly one `process_data(input_data: InferenceData) -> InferenceData`, async too."""

from __future__ import annotations

import ast
import asyncio
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .sources import import_the_one

_NAME = "process_data"
_EXPECTED = "process_data(input_data: InferenceData) -> InferenceData"


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Import the user's module and check the function; see `main.load`."""
    entry = order["options"].get("entry")
    function = getattr(import_the_one(Path(order["model"]), _definitions, f"function {_EXPECTED}", entry), _NAME)
    check_signature(function)
    if inspect.iscoroutinefunction(function):
        loop = asyncio.new_event_loop()
        return lambda arrays, rows: loop.run_until_complete(function(arrays))
    return lambda arrays, rows: function(arrays)


def _definitions(tree: ast.Module) -> int:
    return sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == _NAME for node in tree.body)


def check_signature(function: Any) -> None:
    """Raise TypeError unless the function is written as expected."""
    from mac.types import InferenceData

    names = list(inspect.signature(function).parameters)
    hints = typing.get_type_hints(function)
    if names != ["input_data"] or hints != {"input_data": InferenceData, "return": InferenceData}:
        raise TypeError(f"its signature is process_data{inspect.signature(function)}, expected {_EXPECTED}")
