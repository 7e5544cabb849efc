"""Hugging Face: tiny pipelines of all tasks, saved offline, packaged and answered; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.hugging_face import FRAMEWORKS, PREFIX
from packager.frameworks.hugging_face_native import NATIVE
from packager.frameworks.hugging_face_tasks import TASKS
from packager.inspect import inspect_step
from packager.package import Packaged, package
from packager.project import Project
from runtimes.trial import run_trial

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them unpacks and compiles PyTorch

EXAMPLE = Path(__file__).parents[2] / "examples/text-triage"
IMAGE = "list<list<list<int64>[3]>>"
TEXT = f"{PREFIX}text-classification"
# what the rows of `pipeline_answers.py` have, where that is more than a task needs
FIELDS = {
    "stable-diffusion-text-2-img": {"prompt": "string", "num_inference_steps": "int64"},
    "summarization": {"inputs": "string", "max_new_tokens": "int64"},
    "translation": {"inputs": "string", "max_new_tokens": "int64"},
    "text-generation": {"inputs": "string", "max_new_tokens": "int64"},
    "image-to-text": {"inputs": IMAGE, "max_new_tokens": "int64"},
    "object-detection": {"inputs": IMAGE, "threshold": "float64"},
    "zero-shot-object-detection": {"images": IMAGE, "candidate_labels": "list<string>", "threshold": "float64"},
}


def project(
    model: Path, folder: Path, task: str, fields: dict[str, str] | None = None, outputs: dict[str, str] | None = None
) -> Path:
    """A project around a copy of a saved pipeline; its golden rows, if it has some, are the project's."""
    folder.mkdir()
    shutil.copytree(model, folder / "saved", ignore=shutil.ignore_patterns("golden.json"))
    lines = ['[pipeline]\nname = "tried"\n[[steps]]\nmodel = "saved"', f'framework = "{task}"']
    for side, types in (("input", fields), ("output", outputs)):
        if types:
            lines += [f"[steps.{side}]", *(f'{name} = "{type_}"' for name, type_ in types.items())]
    if (model / "golden.json").is_file():
        shutil.copyfile(model / "golden.json", folder / "golden.json")
        lines.append('[golden]\nrows = "golden.json"')
    (folder / "edgepack.toml").write_text("\n".join(lines) + "\n")
    return folder


def packaged(folder: Path, cache: Path) -> Packaged:
    return package(Project.open(folder), [host_target()], cache=cache)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_pipeline_of_every_task_is_packaged_and_answers(task: str, pipelines: Path, bundled: Any) -> None:
    found = bundled(task, lambda folder: project(pipelines / task, folder, PREFIX + task, FIELDS.get(task)))
    step = found.step
    assert (step.framework, step.runtime) == (PREFIX + task, "onnx" if task in NATIVE else "python")
    assert step.reason is None if task in NATIVE else "runs in a worker" in step.reason
    assert found.parity["rows"] >= 2 and found.parity["label_flips"] == 0


def test_a_bundle_with_a_pipeline_runs_from_its_own_wheels(pipelines: Path, cache: Path, tmp_path: Path) -> None:
    fields = {"inputs": "string", "truncation": "bool"}
    folder = project(pipelines / "text-classification", tmp_path / "p", TEXT, fields)
    (folder / "golden.json").write_text('[{"in.inputs": "all good", "in.truncation": true}]')
    found = packaged(folder, cache)
    worker = found.spec.steps[0].worker
    assert worker is not None and any(line.startswith("transformers==") for line in worker.requirements)
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_the_example_answers_its_golden_rows(cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLE, tmp_path / "text-triage")
    found = packaged(folder, cache)
    assert found.spec.steps[0].runtime == "onnx"
    assert found.parity["rows"] == 14 and found.parity["max_abs"] <= 1e-5
    assert "expected answers" in found.parity["reason"]


@pytest.fixture
def inspected(pipelines: Path, cache: Path, tmp_path: Path) -> Callable[..., ModelArtifact]:
    def inspect(
        name: str, framework: str, fields: Any = None, outputs: Any = None, without: str | None = None
    ) -> ModelArtifact:
        folder = project(pipelines / name, tmp_path / "p", framework, fields, outputs)
        if without:
            (folder / "saved" / without).unlink()
        opened = Project.open(folder)
        return inspect_step(opened.steps[0], opened.root, Checklist(), cache)

    return inspect


def test_another_field_goes_to_the_model_where_it_generates_and_is_refused_elsewhere(inspected: Any) -> None:
    found = inspected("summarization", f"{PREFIX}summarization", {"inputs": "string", "max_new_tokens": "int64"})
    assert list(found.input.names) == ["inputs", "max_new_tokens"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"framework": f"{PREFIX}poetry"}, "framework 'hugging-face-poetry' is not in this version: it packages"),
        ({"framework": "onnx"}, "is a Hugging Face pipeline, not a model of 'onnx': give framework as one of"),
        ({"fields": {"input": "string"}}, r"\[steps.input\] lacks 'inputs', which text-classification needs"),
        ({"fields": {"inputs": "float32"}}, r"\[steps.input\] inputs is float32, text-classification has string"),
        ({"outputs": {"kind": "string"}}, r"\[steps.output\] names 'kind', text-classification gives label, score"),
        ({"without": "tokenizer.json"}, "has no tokenizer .tokenizer.json or vocab.txt., which text-classification"),
        ({"without": "model.safetensors"}, "has no weights"),
        ({"without": "config.json"}, "holds neither a .onnx file nor Python code"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], said: str, inspected: Any) -> None:
    with pytest.raises(BadInput, match=said) as raised:
        inspected("text-classification", changes.pop("framework", TEXT), **changes)
    assert "\n" not in str(raised.value)


def test_a_field_that_a_task_does_not_know_is_refused(inspected: Any) -> None:
    with pytest.raises(BadInput, match=r"names 'max_length', feature-extraction takes inputs"):
        inspected("feature-extraction", f"{PREFIX}feature-extraction", {"inputs": "string", "max_length": "int64"})


def test_a_pipeline_that_needs_code_of_its_own_is_refused(pipelines: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(pipelines / "text-classification", tmp_path / "p", TEXT)
    config = json.loads((folder / "saved/config.json").read_text())
    (folder / "saved/config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Model"}}))
    opened = Project.open(folder)
    with pytest.raises(BadInput, match=r"needs code of its own \(auto_map in config.json\)"):
        inspect_step(opened.steps[0], opened.root, Checklist(), cache)


def test_every_task_has_a_framework() -> None:
    assert len(FRAMEWORKS) == 16
