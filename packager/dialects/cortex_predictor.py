"""The predictor of a Cortex API, found by parsing: its one class, and what it wants to be told.

A class may inherit what it lacks from another of its own; then only the worker knows what it takes, and it is told all.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from columns.json_value import HEADERS, QUERY
from edgepack.errors import BadInput
from packager.dialects.cortex_api import CLASSES, Predictor
from packager.frameworks.sources import Function, Source

CLIENTS = {"python": "python_client", "onnx": "onnx_client", "tensorflow": "tensorflow_client"}
_ASKED = {"payload": "", "query_params": QUERY, "headers": HEADERS}


@dataclass(frozen=True)
class Found:
    """A predictor's class, whether it has a client, and what it is told beside the payload."""

    name: str
    has_client: bool
    beside: tuple[str, ...]


def predictor_in(source: Source, predictor: Predictor) -> Found:
    """The predictor of a file. Raises BadInput that says which are there, and what the one lacks."""
    node = _one(source, CLASSES[predictor.type], predictor.type)
    methods = {each.name: each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    where = f"{node.name} in {source.path}:{node.lineno}"
    inherits = bool(node.bases)
    wanted = ["__init__", "predict"]
    if predictor.type == "python" and predictor.told is not None:
        wanted.append("load_model")
    for name in wanted:
        if name not in methods and not inherits:
            raise BadInput(f"{where} has no {name}: a {node.name} needs {' and '.join(wanted)}")
    client = CLIENTS[predictor.type]
    made, asked = methods.get("__init__"), methods.get("predict")
    if made is not None:
        _check(where, made, ("config", client))
    if asked is not None:
        _check(where, asked, tuple(_ASKED))
        if isinstance(asked, ast.AsyncFunctionDef):
            raise BadInput(f"{where}: predict is async: expected a plain function")
    has_client = inherits if made is None else client in _names(made)
    if predictor.type == "python" and has_client and predictor.told is None:
        raise BadInput(f"{where} takes python_client: cortex.yaml needs predictor.multi_model_reloading for it")
    beside = (QUERY, HEADERS) if asked is None else tuple(_ASKED[name] for name in _ASKED if name in _names(asked))
    return Found(node.name, has_client, tuple(name for name in beside if name))


def _one(source: Source, name: str, type_: str) -> ast.ClassDef:
    found = [node for node in source.classes() if node.name in CLASSES.values()]
    if not found:
        raise BadInput(f"{source.path} has no class {name}: expected one, as cortex.yaml has type {type_}")
    if len(found) > 1:
        places = " and ".join(f"{node.name} in line {node.lineno}" for node in found[:3])
        raise BadInput(f"{source.path} has {len(found)} predictors, {places}: expected exactly one")
    if found[0].name != name:
        raise BadInput(f"{source.path} has a {found[0].name}: expected {name}, as cortex.yaml has type {type_}")
    return found[0]


def _check(where: str, function: Function, known: tuple[str, ...]) -> None:
    """That it takes nothing that nobody gives it."""
    taken = function.args
    plain = [*taken.posonlyargs, *taken.args][1:]
    without_default = plain[: len(plain) - len(taken.defaults)] if taken.defaults else plain
    keyword = [each for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default is None]
    for each in (*without_default, *keyword):
        if each.arg not in known:
            raise BadInput(f"{where}: {function.name} takes '{each.arg}': expected of {', '.join(known)}")


def _names(function: Function) -> set[str]:
    return {each.arg for each in (*function.args.args[1:], *function.args.kwonlyargs)}
