"""Rows for the steps after the first: what the steps before them make of the user's golden rows.

A converted step is proven on rows made for it when it is inspected, because nobody has its real inputs then. They are
the outputs of the steps before it; once these can run, the gate is passed again with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from columns.columns import Columns
from columns.records import encode_records
from packager.artifact import ModelArtifact
from packager.golden import read_golden
from packager.project import Project, StepSource

Run = Callable[[int, Columns], Columns]
Inspect = Callable[[StepSource], ModelArtifact]


def relay(project: Project, models: Sequence[ModelArtifact], run: Run, inspect: Inspect) -> list[ModelArtifact]:
    """The models, those of later steps that were converted proven on real rows too.

    `run(count, rows)` asks the first `count` steps; `inspect` looks at a model anew, with the rows that its source
    names. Without rows of the user's own the models are returned as they are.
    """
    groups = _by_step(project, models)
    if not any(_is_converted(model) for group in groups[1:] for model in group):
        return list(models)
    inputs = _given(project, groups)
    if inputs is None:
        return list(models)
    made = list(groups[0])
    for count, group in enumerate(groups[1:], 1):
        rows = run(count, inputs) if any(_is_converted(model) for model in group) else None
        made += [_again(model, rows, inspect) if rows and _is_converted(model) else model for model in group]
    return made


def _by_step(project: Project, models: Sequence[ModelArtifact]) -> list[list[ModelArtifact]]:
    left = iter(models)
    return [[next(left) for _ in step.every_model] for step in project.steps]


def _is_converted(model: ModelArtifact) -> bool:
    return model.parity is not None and model.kind is None


def _given(project: Project, groups: Sequence[Sequence[ModelArtifact]]) -> Columns | None:
    """The user's inputs; None where there are none, or the step's input has more fields than its models'."""
    if project.golden.rows is None or project.steps[0].routing is not None:
        return None
    found = read_golden(project.golden.rows, groups[0][0].input, groups[-1][0].output, "")
    return found.rows.inputs if found.made_for is None else None


def _again(model: ModelArtifact, rows: Columns, inspect: Inspect) -> ModelArtifact:
    """Inspect with real rows; the fields stay those that the steps have agreed on."""
    source = model.source
    assert source.golden is not None  # noqa: S101 - every step of a project has it
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        path = Path(work, "relayed.json")
        path.write_bytes(encode_records(rows.select(model.input.names), "."))
        given = replace(source, golden=replace(source.golden, rows=path))
        found = inspect(replace(given, input=model.input.to_dict(), output=model.output.to_dict()))
    return replace(found, source=source)
