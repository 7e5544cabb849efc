"""Python steps: an upload with exactly one `process_data(input_data: InferenceData) -> InferenceData`.

The function is found by parsing. It may be async; other functions and files may lie beside it. What it takes and
gives is named by `[steps.input]` and `[steps.output]`, both or neither: without them it takes one JSON value.
"""

from __future__ import annotations

import ast
from pathlib import Path

from edgepack.errors import BadInput
from packager.archives import Tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.code_model import inspect_code
from packager.frameworks.sources import Entry, Function, Source, sources_of
from packager.project import StepSource

FUNCTION = "process_data"
PARAMETER = "input_data"
TYPE = "mac.types.InferenceData"
_SIGNATURE = f"{FUNCTION}({PARAMETER}: InferenceData) -> InferenceData"


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a step, each thing as a named check. Raises BadInput when one of them fails."""
    return inspect_code(source, checklist, cache, "step", inspect)


def inspect(tree: Tree) -> Entry:
    """Find the one function. Raises BadInput that says which are there, and what is wrong with the one."""
    sources = sources_of(tree)
    found = [(source, function) for source in sources for function in source.functions(FUNCTION)]
    if not found:
        raise BadInput(f"'{tree.name}' has no function {_SIGNATURE} at the top level of a .py file{_hint(sources)}")
    if len(found) > 1:
        places = " and ".join(f"{source.path}:{function.lineno}" for source, function in found[:3])
        raise BadInput(f"'{tree.name}' has {len(found)} functions {FUNCTION}, in {places}: expected exactly one")
    source, function = found[0]
    _check_signature(source, function)
    return Entry(source.path, FUNCTION, tuple(sources))


def is_step(sources: list[Source]) -> bool:
    """Whether an upload is a Python step, perhaps a faulty one."""
    return any(source.functions(FUNCTION) for source in sources)


def _check_signature(source: Source, function: Function) -> None:
    where = f"{source.path}:{function.lineno}"
    taken = function.args
    named = [*taken.posonlyargs, *taken.args]
    if len(named) != 1 or taken.vararg or taken.kwarg or taken.kwonlyargs or named[0].arg != PARAMETER:
        raise BadInput(f"{FUNCTION} in {where} takes other arguments: expected {_SIGNATURE}")
    for side, annotation in ((f"its argument {PARAMETER}", named[0].annotation), ("its result", function.returns)):
        if not _is_inference_data(source, annotation):
            said = f"annotated {ast.unparse(annotation)[:60]!r}" if annotation else "not annotated"
            raise BadInput(f"{FUNCTION} in {where}: {side} is {said}, expected InferenceData of mac.types")


def _is_inference_data(source: Source, annotation: ast.expr | None) -> bool:
    return source.full_name(annotation) == TYPE


def _hint(sources: list[Source]) -> str:
    """Where a function of that name was seen that no loader would find."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == FUNCTION:
                return f"; the one in {source.path}:{node.lineno} is inside another function or class"
    return ""
