"""The first `edgepack.toml` of a project: written once, then the user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bundle.pipeline import legal_name
from columns.schema import Schema
from durable.files import write_atomically
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.uploads import CODE
from packager.inspect import inspect_step
from packager.project import TOML, StepSource

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Scaffold:
    """What was found out of a model, and the file that says so. `todo` is what the user must still write."""

    name: str
    framework: str
    path: Path
    input: Mapping[str, str]
    output: Mapping[str, str]
    todo: tuple[str, ...] = ()


def write_project(
    source: StepSource,
    *,
    golden: str | None = None,
    cache: Path | None = None,
    wheels: Path | None = None,
    new_checklist: Callable[[], Checklist] = Checklist,
) -> Scaffold:
    """Inspect a model and write an `edgepack.toml` beside it. Fields that `source` names are taken as they are.

    An environment that the model needs is made below `cache`, from the folder `wheels` first. Raises BadInput when
    there is an `edgepack.toml` already, and for a model that is not one; nothing is written then.
    """
    path = source.model.parent / TOML
    if path.exists():
        raise BadInput(f"'{path}' is there already: it is yours to edit; delete it to have it written anew")
    inspect = partial(_inspect, root=path.parent, cache=cache, wheels=wheels, new_checklist=new_checklist)
    artifact, todo = _inspected(source, inspect)
    text = _text(artifact, golden, todo)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written: {error.strerror}; copy the model to a folder of yours") from error
    fields = artifact.input.to_dict(), artifact.output.to_dict()
    return Scaffold(source.name, artifact.framework, path, *(({}, {}) if todo else fields), todo)


def source_of(
    model: Path, framework: str | None, fields: Mapping[str, Mapping[str, str]], name: str | None
) -> StepSource:
    """A step around a model file or folder. Raises BadInput for one that is not there, or types that do not read."""
    model = model.expanduser().absolute()
    if not model.exists():
        raise BadInput(f"no such file: '{model}': expected a model file, or a folder or zip of code")
    fields_of(fields)
    made = name or legal_name(model.stem)
    return StepSource(made, model, framework, input=fields.get("input") or None, output=fields.get("output") or None)


def fields_of(given: Mapping[str, Mapping[str, str]]) -> dict[str, Schema]:
    """The fields of each side that was given. Raises BadInput that names the side for types that do not read."""
    found: dict[str, Schema] = {}
    for side, types in given.items():
        try:
            found[side] = Schema.parse(types)
        except BadInput as error:
            raise BadInput(f"--{side}: {error}", field=side) from error
    return found


def _inspect(
    source: StepSource, root: Path, cache: Path | None, wheels: Path | None, new_checklist: Callable[[], Checklist]
) -> ModelArtifact:
    return inspect_step(source, root, new_checklist(), cache, wheels)


def _inspected(
    source: StepSource, inspect: Callable[[StepSource], ModelArtifact]
) -> tuple[ModelArtifact, tuple[str, ...]]:
    """What is known of a model, and which sides are still to be written: code does not say its own fields."""
    missing = tuple(side for side in ("input", "output") if getattr(source, side) is None)
    try:
        artifact = inspect(source)
        return artifact, missing if artifact.framework in CODE else ()
    except BadInput as error:
        if error.field not in ("steps.input", "steps.output") or not missing:
            raise
    anything = {"field": "list<float32>"}
    stand_in = replace(source, input=source.input or anything, output=source.output or anything)
    artifact = inspect(stand_in)
    return artifact, missing if artifact.framework in CODE else ()


def _text(artifact: ModelArtifact, golden: str | None, todo: tuple[str, ...]) -> str:
    source = artifact.source
    parts = [
        f"# Written by `edgepack init`; yours to edit. {artifact.summary}.\n\n",
        f"[pipeline]\nname = {json.dumps(source.name)}\n\n",
        f"[[steps]]\nname = {json.dumps(source.name)}\nmodel = {json.dumps(source.model.name, ensure_ascii=False)}\n",
        f"framework = {json.dumps(artifact.framework)}\n",
    ]
    for side, schema in (("input", artifact.input), ("output", artifact.output)):
        parts.append(_todo(side) if side in todo else table(f"steps.{side}", schema.to_dict()))
    if golden:
        parts.append(table("golden", {"rows": golden}))
    return "".join(parts)


def table(name: str, entries: Mapping[str, str]) -> str:
    """A table of texts, as TOML."""
    lines = (f"{_key(key)} = {json.dumps(text, ensure_ascii=False)}\n" for key, text in entries.items())
    return f"\n[{name}]\n{''.join(lines)}"


def _todo(side: str) -> str:
    what = "takes" if side == "input" else "gives"
    return f"""
# Name every field that the code {what}, with its type; without both tables it takes and gives one JSON value.
# [steps.{side}]
# tensor = "list<float32>[18]"
"""


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
