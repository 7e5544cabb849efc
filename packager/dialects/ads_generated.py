"""Whether ADS generated a `score.py`: whether nothing but the model decides what is answered.

Comments, names of variables and what is printed may differ: versions of ADS do. With anything else that a function does
(`ads_function`) the file counts as written by hand, and runs itself.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from packager.dialects import ads_beside
from packager.dialects.ads_function import BESIDE, LOAD, LOADERS, Function, Kind
from packager.frameworks.sources import Source

_TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.FunctionDef)


@dataclass(frozen=True)
class Generated:
    """A generated score.py: what the model is loaded by, and the file that it names."""

    kind: Kind
    model: str


def generated(source: Source, model: str | None) -> Generated | str:
    """What it was generated for, or why it counts as written by hand. `model` is the file that it names."""
    if model is None:
        return "it does not name its model as model_name"
    source = replace(source, names=source.names_anywhere)
    if "*" in source.names:
        return "it imports *"
    for node in source.tree.body:
        if not _is_plain(node, source) and not isinstance(node, _TOP_LEVEL):
            return f"line {node.lineno} is none of ADS's own"
        if isinstance(node, ast.FunctionDef):
            function = Function(node, source)
            wrong = next(ads_beside.faults(function) if node.name in BESIDE else function.faults(), None)
            if wrong:
                return wrong
    load = Function([each for each in source.functions(LOAD) if isinstance(each, ast.FunctionDef)][-1], source)
    kinds = {LOADERS[name] for name in map(load.called, load.calls) if name in LOADERS}
    if len(kinds) != 1:
        return "load_model does not load one model by a library's own function"
    return Generated(kinds.pop(), model)


def _is_plain(node: ast.stmt, source: Source) -> bool:
    """A constant under a name, a docstring, or the device of a network."""
    if not isinstance(node, (ast.Assign, ast.Expr)):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else []
    is_device = isinstance(node.value, ast.Call) and source.full_name(node.value.func) == "torch.device"
    return (is_device or isinstance(node.value, ast.Constant)) and all(isinstance(each, ast.Name) for each in targets)
