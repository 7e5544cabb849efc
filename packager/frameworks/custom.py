"""BYOP, "bring your own predict": an upload with exactly one `Inference` and one `InferenceBuilder` of package `mac`.

Both classes are found by parsing, also where they inherit through classes of the upload itself. The builder's
`create(config)` loads what lies beside the code, from `config.model_path`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import BadInput
from packager.archives import Tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.code_model import inspect_code
from packager.frameworks.sources import Entry, Source, sources_of
from packager.project import StepSource

INFERENCES = ("mac.inference.Inference", "mac.inference.AsyncInference")
BUILDERS = ("mac.inference.creation.InferenceBuilder",)


@dataclass(frozen=True)
class _Class:
    """A class of the upload: its full name, where it stands, what it inherits from and what it defines."""

    name: str
    source: Source
    node: ast.ClassDef
    parents: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.source.path}:{self.node.lineno}"

    @property
    def members(self) -> set[str]:
        """Methods, properties and attributes that its body defines."""
        found: set[str] = set()
        for node in self.node.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
        return found


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect an upload, each thing as a named check. Raises BadInput when one of them fails."""
    return inspect_code(source, checklist, cache, "custom", inspect)


def inspect(tree: Tree) -> Entry:
    """Find the one builder; it and the one inference must be whole. Raises BadInput that says which are there."""
    sources = sources_of(tree)
    classes = _classes(sources)
    inference = _one(tree, classes, INFERENCES, "Inference of mac.inference")
    builder = _one(tree, classes, BUILDERS, "InferenceBuilder of mac.inference.creation")
    _check_has(classes, inference, ["expected_model_types"])
    if not {"_predict", "predict"} & _all_members(classes, inference):
        raise BadInput(f"class '{inference.node.name}' in {inference.where} lacks `_predict(self, input_data)`")
    _check_has(classes, builder, ["inference", "create"])
    return Entry(builder.source.path, builder.node.name, tuple(sources))


def is_custom(sources: list[Source]) -> bool:
    """Whether an upload is BYOP, perhaps a faulty one."""
    classes = _classes(sources)
    return any(_inherits(classes, each, (*INFERENCES, *BUILDERS)) for each in classes.values())


def _classes(sources: list[Source]) -> dict[str, _Class]:
    found: dict[str, _Class] = {}
    for source in sources:
        for node in source.classes():
            name = f"{source.module}.{node.name}"
            found[name] = _Class(name, source, node, tuple(source.full_name(base) for base in node.bases))
    return found


def _one(tree: Tree, classes: Mapping[str, _Class], roots: tuple[str, ...], what: str) -> _Class:
    """The one class that inherits from a root and that no other class of the upload inherits from."""
    found = [each for each in classes.values() if _inherits(classes, each, roots)]
    last = [each for each in found if not any(each.name in other.parents for other in found)]
    if not last:
        raise BadInput(f"'{tree.name}' has no class that extends {what}: expected exactly one")
    if len(last) > 1:
        places = " and ".join(f"'{each.node.name}' in {each.where}" for each in last[:3])
        raise BadInput(f"'{tree.name}' has {len(last)} classes that extend {what}, {places}: expected exactly one")
    return last[0]


def _inherits(classes: Mapping[str, _Class], one: _Class, roots: tuple[str, ...]) -> bool:
    return any(root in roots for each in _lineage(classes, one) for root in each.parents)


def _lineage(classes: Mapping[str, _Class], one: _Class) -> list[_Class]:
    """A class and those of the upload that it inherits from; each once, also where they inherit in a circle."""
    found, open_ = {one.name: one}, [one]
    while open_:
        for parent in open_.pop().parents:
            if parent in classes and parent not in found:
                found[parent] = classes[parent]
                open_.append(classes[parent])
    return list(found.values())


def _all_members(classes: Mapping[str, _Class], one: _Class) -> set[str]:
    return set().union(*(each.members for each in _lineage(classes, one)))


def _check_has(classes: Mapping[str, _Class], one: _Class, names: list[str]) -> None:
    missing = [name for name in names if name not in _all_members(classes, one)]
    if missing:
        raise BadInput(f"class '{one.node.name}' in {one.where} lacks `{missing[0]}`: mac's base class asks for it")
