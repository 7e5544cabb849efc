"""`edgepack init`: the file it writes is a project that packages."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgepack import launch
from edgepack.commands import program
from packager.project import Project
from tests import make
from tests.packager.test_custom import CODE as BYOP
from tests.packager.test_python_step import GOOD


def init(*arguments: object) -> int:
    return launch.run(lambda: program, "edgepack", ["init", *map(str, arguments)])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1 and "Traceback" not in text
    return text


def test_the_fields_of_a_model_are_written_and_the_project_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.save(make.linear(), tmp_path / "Cool Model.onnx")
    assert init(tmp_path / "Cool Model.onnx", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "pipeline": "cool-model",
        "framework": "onnx",
        "path": str(tmp_path / "edgepack.toml"),
        "input": {"tensor": "list<float32>[3]"},
        "output": {"y": "list<float32>[1]"},
        "todo": [],
    }
    project = Project.open(tmp_path)
    assert (project.name, project.steps[0].input) == ("cool-model", found["input"])
    assert launch.run(lambda: program, "edgepack", ["check", str(tmp_path)]) == 0


def test_names_that_are_no_bare_keys_are_quoted(tmp_path: Path) -> None:
    shape = ("float32", ["N", 2])
    model = make.onnx_model(
        [helper.make_node("MatMul", ["x:0 ✓", "w"], ['say "y"'])],
        {"x:0 ✓": shape},
        {'say "y"': shape},
        {"w": np.eye(2, dtype=np.float32)},
    )
    make.save(model, tmp_path / "model.onnx")
    assert init(tmp_path / "model.onnx") == 0
    assert dict(Project.open(tmp_path).steps[0].input or {}) == {"x:0 ✓": "list<float32>[2]"}


@pytest.mark.parametrize("code, framework", [(GOOD, "python"), (BYOP, "custom")])
def test_code_does_not_say_its_fields_so_the_user_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, framework: str
) -> None:
    with zipfile.ZipFile(tmp_path / "step.zip", "w") as archive:
        archive.writestr("step/step.py", code)
    assert init(tmp_path / "step.zip") == 0
    told = capsys.readouterr().out
    assert "to do: name the fields of [steps.input]" in told and "to do: name the fields of [steps.output]" in told
    project = Project.open(tmp_path)
    assert (project.steps[0].framework, project.steps[0].input) == (framework, None)
    assert "# [steps.input]" in (tmp_path / "edgepack.toml").read_text()


def test_given_fields_are_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "step.zip", "w") as archive:
        archive.writestr("step.py", GOOD)
    fields = ["--input", "x=list<float32>[2]", "--input", "label=string", "--output", "tensor=list<float32>[2]"]
    assert init(tmp_path / "step.zip", "--name", "prepare", *fields) == 0
    project = Project.open(tmp_path)
    assert project.name == "prepare"
    assert project.steps[0].input == {"x": "list<float32>[2]", "label": "string"}


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.save(make.linear(), tmp_path / "model.onnx")
    (tmp_path / "edgepack.toml").write_text("mine")
    assert init(tmp_path / "model.onnx") == 2
    assert "is there already" in said(capsys)
    assert (tmp_path / "edgepack.toml").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--input", "x"], "is not FIELD=TYPE"),
        (["--input", "x=floot"], "--input: field 'x'"),
        (["--input", "x=null"], "null"),
        (["--input", "x=int8", "--input", "x=int8"], "twice"),
        (["--name", "No Label"], "DNS label"),
        (["--golden", "none.json"], "'none.json' is not a file"),
        (["--framework", "prolog"], "framework 'prolog' is not in this version"),
        (["--input", "other=list<float32>[3]"], "other"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    make.save(make.linear(), tmp_path / "model.onnx")
    assert init(tmp_path / "model.onnx", *arguments) == 2
    assert word in said(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path / "none.pkl") == 2
    assert "no such file" in said(capsys)
