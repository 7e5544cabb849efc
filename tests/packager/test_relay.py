"""Steps after the first are proven on what the steps before them make of the user's rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from columns.columns import Columns
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.inspect import inspect_step
from packager.project import Project, StepSource
from packager.relay import relay
from tests import make

TOML = """
[pipeline]
name = "two"
[[steps]]
name = "first"
model = "a.onnx"
[[steps]]
name = "second"
model = "b.onnx"
[golden]
tolerance = { y = 1e-3 }
"""


def two_steps(folder: Path, rows: list[dict[str, object]] | None) -> tuple[Project, list[ModelArtifact]]:
    """Two ONNX models; the second one is marked as one that was converted."""
    make.save(make.linear(), folder / "a.onnx")
    make.save(make.linear(1), folder / "b.onnx")
    (folder / "edgepack.toml").write_text(TOML + ('rows = "mine.json"' if rows else ""))
    if rows:
        (folder / "mine.json").write_text(json.dumps(rows))
    project = Project.open(folder)
    first, second = (inspect_step(step, project.root, Checklist()) for step in project.steps)
    return project, [first, replace(second, parity={"rows": 3})]


class Pipeline:
    """What a relay asks of the packager: how many steps it was asked to run, and what it was given to inspect."""

    def __init__(self, model: ModelArtifact) -> None:
        self.model, self.ran = model, 0
        self.sources: list[tuple[StepSource, list[dict[str, object]]]] = []

    def run(self, count: int, rows: Columns) -> Columns:
        self.ran = count
        return Columns.of(self.model.input, {"tensor": rows["tensor"][:, :1] * 2})

    def inspect(self, source: StepSource) -> ModelArtifact:
        assert source.golden is not None and source.golden.rows is not None
        self.sources.append((source, json.loads(source.golden.rows.read_bytes())))
        return replace(self.model, source=source, parity={"rows": 5})


def test_a_converted_step_is_inspected_again_with_real_rows_and_the_users_tolerance(tmp_path: Path) -> None:
    project, models = two_steps(tmp_path, [{"tensor": [1, 2, 3]}, {"tensor": [4, 5, 6]}])
    pipeline = Pipeline(models[1])
    first, second = relay(project, models, pipeline.run, pipeline.inspect)
    assert first is models[0] and second.parity == {"rows": 5} and pipeline.ran == 1
    ((source, rows),) = pipeline.sources
    assert rows == [{"tensor": [2.0]}, {"tensor": [8.0]}]
    assert (
        source.golden is not None
        and source.golden.tolerance == {"y": 1e-3}
        and source.input == {"tensor": "list<float32>[1]"}
    )
    assert second.source is models[1].source  # where its rows lay is nobody's business


def test_without_rows_of_the_users_own_nothing_is_run(tmp_path: Path) -> None:
    project, models = two_steps(tmp_path, None)
    pipeline = Pipeline(models[1])
    assert relay(project, models, pipeline.run, pipeline.inspect) == models and not pipeline.sources


def test_a_step_that_was_not_converted_has_nothing_to_prove(tmp_path: Path) -> None:
    project, models = two_steps(tmp_path, [{"tensor": [1, 2, 3]}])
    models[1] = replace(models[1], parity=None)
    pipeline = Pipeline(models[1])
    assert relay(project, models, pipeline.run, pipeline.inspect) == models and not pipeline.sources
    assert pipeline.ran == 0
