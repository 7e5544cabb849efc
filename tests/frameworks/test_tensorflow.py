"""TensorFlow SavedModels, as folder and zip, through the gate; and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.inspect import inspect_step
from packager.package import package
from packager.project import Project
from runtimes.trial import run_trial
from tests.frameworks.conftest import project

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them makes TensorFlow's environment


def inspected(source: Path, cache: Path) -> ModelArtifact:
    opened = Project.open(source)
    return inspect_step(opened.steps[0], opened.root, Checklist(), cache)


def test_a_folder_runs_natively_under_the_names_of_its_signature(saved: Path, cache: Path, tmp_path: Path) -> None:
    found = package(Project.open(saved / "line"), [host_target()], cache=cache)
    step = found.spec.steps[0]
    assert (step.framework, step.runtime) == ("tensorflow", "onnx"), found.parity
    assert (step.input, step.output) == ({"x": "list<float32>[3]"}, {"kind": "int64", "scores": "list<float32>[2]"})
    assert found.parity["label_flips"] == 0 and found.parity["max_rel"] <= 1e-5
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


@pytest.mark.parametrize("top", ["", "model"])
def test_a_zip_with_or_without_a_top_folder_is_the_same(saved: Path, cache: Path, tmp_path: Path, top: str) -> None:
    folder = shutil.copytree(saved / "two", tmp_path / "in" / top, dirs_exist_ok=True)
    path = shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path / "in")
    assert folder.is_dir()
    found = inspected(Path(path), cache)
    assert found.parity is not None and found.spec.runtime == "onnx", found.parity
    assert found.spec.input == {"a": "int64", "b": "list<float32>[4]"}
    assert found.spec.output == {"total": "list<float32>[4]"}


@pytest.mark.parametrize(
    "name, said", [("words", "input 't' is string: package it as framework 'custom'"), ("bare", "it has no signature")]
)
def test_what_cannot_be_served_is_refused_in_one_line(name: str, said: str, saved: Path, cache: Path) -> None:
    with pytest.raises(BadInput, match=said) as raised:
        inspected(saved / name, cache)
    assert "\n" not in str(raised.value)


def test_a_damaged_savedmodel_is_refused_in_one_line(saved: Path, cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "line", tmp_path / "line")
    data = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match="does not load in TensorFlow") as raised:
        inspected(folder, cache)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("at", [0.2, 0.7])
def test_a_changed_byte_is_refused_in_one_line_or_makes_another_model(
    at: float, saved: Path, cache: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved / "line", tmp_path / "line")
    data = bytearray((folder / "saved_model.pb").read_bytes())
    data[int(at * len(data))] ^= 0x55
    (folder / "saved_model.pb").write_bytes(data)
    try:
        assert inspected(folder, cache).framework == "tensorflow"
    except BadInput as error:
        assert "\n" not in str(error)


def test_variables_that_lack_a_piece_are_refused_in_one_line(saved: Path, cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "line", tmp_path / "line")
    data = folder / "variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-3])
    with pytest.raises(BadInput, match="does not load in TensorFlow") as raised:
        inspected(folder, cache)
    assert "\n" not in str(raised.value)


def test_a_tflite_file_with_operators_of_tensorflow_is_refused(saved: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"needs TensorFlow's own operators \(FlexErf\): convert it without"):
        inspected(project(saved / "flex.tflite", tmp_path / "p"), cache)
