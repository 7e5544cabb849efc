"""What Python steps and BYOP share: an upload of code becomes a step that runs in a worker, from wheels of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from columns.json_value import JSON_VALUE
from columns.schema import Schema
from edgepack.errors import BadInput
from packager import requirements
from packager.archives import Tree, open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.sources import Entry, imports_of
from packager.project import StepSource

FRAMEWORKS = {"step": "python", "custom": "custom"}
REASON = "code of the user's own: it runs in a worker"


def inspect_code(
    source: StepSource,
    checklist: Checklist,
    cache: Path,
    kind: Literal["step", "custom"],
    inspect: Callable[[Tree], Entry],
) -> ModelArtifact:
    """Inspect an upload of code, each thing as a named check. Raises BadInput when one of them fails."""
    found: tuple[Tree, Entry] | None = None
    fields: tuple[Schema, Schema] | None = None
    asked: list[str] = []
    with checklist.check("model.code") as told:
        tree = open_tree(source.model, cache)
        found = tree, inspect(tree)
        told.append(f"{found[1].name} in {found[1].path}")
    with checklist.check("model.schema") as told:
        fields = schemas(source, FRAMEWORKS[kind])
        told.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    if found:
        with checklist.check("model.requirements") as told:
            asked = asked_of(*found)
            told.append(", ".join(asked))
    checklist.require()
    assert found and fields  # noqa: S101 - the checks have passed
    tree, entry = found
    options: dict[str, Any] = {"entry": entry.path, "name": entry.name}
    if is_json(source):
        options["json"] = True
    return ModelArtifact.in_worker(
        source,
        kind,
        FRAMEWORKS[kind],
        fields,
        tree.files,
        summary=f"{entry.name} in {entry.path}, {len(tree.files)} files",
        requirements=tuple(asked),
        options=options,
        reason=REASON,
    )


def schemas(source: StepSource, framework: str) -> tuple[Schema, Schema]:
    """The fields that the project gives; without both sides one JSON value. Raises BadInput when one is missing: code
    does not say its own.
    """
    if is_json(source):
        return JSON_VALUE, JSON_VALUE
    for side, given in (("input", source.input), ("output", source.output)):
        if given is None:
            raise BadInput(
                f"step '{source.name}' has no [steps.{side}]: framework '{framework}' needs the type of every field it "
                'takes and gives, as in tensor = "list<float32>[18]"',
                field=f"steps.{side}",
            )
    if source.tensor_fields:
        raise BadInput(
            f"step '{source.name}' has tensor_fields: only ONNX inputs are renamed, name fields in [steps.input]",
            field="steps.tensor_fields",
        )
    return Schema.parse(source.input or {}), Schema.parse(source.output or {})


def is_json(source: StepSource) -> bool:
    """Whether a step takes and gives one JSON value: it names no fields."""
    return source.input is None and source.output is None


def asked_of(tree: Tree, entry: Entry) -> list[str]:
    """The requirement lines of an upload, and what its worker needs besides."""
    lines: list[str] = []
    if requirements.FILE in tree.files:
        data = tree.read(requirements.FILE, requirements.LARGEST)
        lines = requirements.read_requirements(data, f"{requirements.FILE} in '{tree.name}'")
    return requirements.with_imports(lines, imports_of(entry.sources))
