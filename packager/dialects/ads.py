"""Oracle ADS: a folder or zip with score.py and runtime.yaml, packaged as it is.

Its model becomes native where score.py is as ADS generates it and answers as the converted model does; else score.py
runs in a worker. Either way `POST /predict` answers as ADS does (`edge_agent.doors.ads`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from columns.json_value import VALUE
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import Tree, open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.ads_answers import LARGEST_METADATA, METADATA
from packager.dialects.ads_introspection import results_of
from packager.dialects.ads_layout import SCORE, RuntimeYaml, runtime_of, without_ignored
from packager.dialects.ads_libraries import libraries_of, saved_with
from packager.dialects.ads_native import NotNative, inspect_native
from packager.dialects.ads_schema import INPUT, OUTPUT, PREDICTION, fields_of, prediction_of
from packager.dialects.ads_score import Score, read_score
from packager.environments.interpreters import own_minor
from packager.project import StepSource

FRAMEWORK = "ads"
Fields = tuple[Schema, Schema, Schema | None]  # in, out, and out where the project gives it


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect an artifact, each thing as a named check. Raises BadInput when one of them fails."""
    tree: Tree | None = None
    score: Score | None = None
    fields: Fields | None = None
    runtime: RuntimeYaml | None = None
    with checklist.check("model.files") as told:
        tree = without_ignored(open_tree(source.model, cache))
        runtime = runtime_of(tree)
        told += [f"{len(tree.files)} files", *_told(runtime)]
    checklist.require()
    assert tree is not None and runtime is not None  # noqa: S101 - the check has passed
    with checklist.check("model.code") as told:
        score = read_score(tree)
        told.append(f"predict in {SCORE}:{score.predict.lineno}")
    with checklist.check("model.schema") as told:
        fields = _fields(tree, source)
        told.append("; ".join(", ".join(str(field) for field in side) for side in fields[:2]))
    checklist.require()
    assert score is not None and fields is not None  # noqa: S101 - as above
    for line in _told(runtime):
        checklist.notice(f"'{tree.name}' {line}")
    try:
        made = inspect_native(score, tree, source, (fields[0], fields[2]), checklist, cache)
    except NotNative as why:
        return _as_worker(tree, score, source, fields, checklist, why.reason)
    assert made.parity is not None  # noqa: S101 - what became native was compared
    training = {**made.parity.get("training", {}), **_training(tree)}
    summary = f"{made.summary} of a generated {SCORE}"
    return replace(
        made, source=source, framework=FRAMEWORK, summary=summary, parity={**made.parity, "training": training}
    )


def _told(runtime: RuntimeYaml) -> list[str]:
    """What of runtime.yaml is not as it was there."""
    lines = []
    if runtime.slug or runtime.path:
        lines.append(f"names the conda environment '{runtime.slug or runtime.path}': its libraries come as wheels here")
    if runtime.python and runtime.python != own_minor():
        lines.append(f"was written for Python {runtime.python}: it runs in the Python of each target")
    return lines


def _fields(tree: Tree, source: StepSource) -> Fields:
    """The project's fields, else those of the schema files."""
    if source.tensor_fields:
        raise BadInput(
            f"step '{source.name}' has tensor_fields: name the fields in [steps.input]", field="steps.tensor_fields"
        )
    inputs = source.input or fields_of(tree, INPUT)
    outputs = source.output or {PREDICTION: prediction_of(fields_of(tree, OUTPUT))}
    given = None if source.output is None else Schema.parse(source.output)
    return Schema.parse(inputs), Schema.parse(outputs), given


def _as_worker(
    tree: Tree, score: Score, source: StepSource, fields: Fields, checklist: Checklist, why: str
) -> ModelArtifact:
    """The step that runs score.py; the form of its rows is found out once its wheels are there."""
    asked: list[str] = []
    with checklist.check("model.requirements") as told:
        asked = libraries_of(tree, score)
        told.append(", ".join(asked))
    checklist.require()
    inputs, outputs, _ = fields
    return ModelArtifact.in_worker(
        source,
        "ads",
        FRAMEWORK,
        (inputs, outputs),
        tree.files,
        summary=f"{SCORE}, {len(tree.files)} files",
        requirements=tuple(asked),
        options={"entry": SCORE, **({} if VALUE in inputs else {"values": True})},
        reason=f"{SCORE} runs in a worker: {why}",
        training=_training(tree),
    )


def _training(whole: Tree) -> dict[str, Any]:
    """What is known of the making: what the pickles say, what prepare() kept, and ADS's tests, made anew."""
    version = saved_with(whole)[1]
    said = {"scikit-learn": version} if version else {}
    return {**said, **_kept(whole), "ArtifactTestResults": results_of(whole)}


def _kept(tree: Tree) -> dict[str, Any]:
    """Use case, hyper-parameters and provenance, where `edgepack.ads` wrote them beside the model."""
    if METADATA not in tree.files:
        return {}
    try:
        said = json.loads(tree.read(METADATA, LARGEST_METADATA))
        provenance, taxonomy = (dict(said.get(part, {})) for part in ("provenance", "taxonomy"))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise BadInput(f"{METADATA} in '{tree.name}' is not as prepare() writes it: {error}") from error
    kept = {**provenance, **{name: taxonomy.get(name) for name in ("UseCaseType", "Hyperparameters")}}
    return {str(name): value for name, value in kept.items() if value}
