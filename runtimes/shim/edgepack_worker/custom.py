"""The kind `custom` (BYOP): exactly one class of the user's own that builds an `Inference` from a configuration."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .sources import import_the_one

_BUILDER = "InferenceBuilder"


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Import the user's module, build the inference and return its predict; see `main.load`."""
    from mac.config.inference import CustomInferenceConfig
    from mac.inference import Inference
    from mac.inference.creation import InferenceBuilder

    folder = Path(order["model"])
    options = order["options"]
    module = import_the_one(folder, _definitions, f"class derived from {_BUILDER}", options.get("entry"))
    own: list[Any] = [
        each
        for each in vars(module).values()
        # asked of its type: before Python 3.11 an alias such as dict[str, Any] passes for a class itself
        if issubclass(type(each), type) and issubclass(each, InferenceBuilder) and each.__module__ == module.__name__
    ]
    own = [each for each in own if each.__name__ == options.get("name", each.__name__)]
    if len(own) != 1:
        raise TypeError(f"'{module.__name__}.py' has {len(own)} classes derived from {_BUILDER}, expected one")
    framework = options.get("framework", "custom")
    built = own[0]().create(CustomInferenceConfig(model_path=folder, framework=framework))
    if not isinstance(built, Inference):
        raise TypeError(f"{own[0].__name__}.create() gave {type(built).__name__}, expected an Inference")
    return _predict_of(built)


def _definitions(tree: ast.Module) -> int:
    imports = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = {_BUILDER, *(alias.asname for alias in imports if alias.name == _BUILDER and alias.asname)}
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return sum(any(_last_name(base) in names for base in node.bases) for node in classes)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _predict_of(inference: Any) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    if inspect.iscoroutinefunction(inference.predict):
        loop = asyncio.new_event_loop()
        return lambda arrays, rows: loop.run_until_complete(inference.predict(arrays))
    return lambda arrays, rows: inference.predict(arrays)
