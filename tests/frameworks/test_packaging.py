"""From a pickle to a bundle that answers like the original: natively, and in a worker where no conversion is proven."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import helper

from arch.target import Target, host_target
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.errors import BadInput
from packager import parity
from packager.checks import Checklist
from packager.frameworks import proving
from packager.package import Packaged, package
from packager.project import Project
from runtimes.trial import run_trial
from tests import make
from tests.frameworks.conftest import project

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]


def packaged(folder: Path, cache: Path, checklist: Checklist | None = None) -> Packaged:
    return package(Project.open(folder), [host_target()], checklist=checklist, cache=cache)


def test_a_native_model_travels_with_rows_that_the_original_answered(models: Path, cache: Path, tmp_path: Path) -> None:
    found = packaged(project(models / "xgb_classes", tmp_path / "p"), cache)
    assert found.spec.steps[0].runtime == "onnx" and "original's answers" in found.parity["reason"]
    assert 8 <= found.parity["rows"] <= 32 and found.parity["label_flips"] == 0
    proven = found.parity["steps"]["model"]
    assert proven["rows"] > 100 and proven["original"] == "xgboost.sklearn.XGBClassifier"
    told = found.parity["provenance"]["models"]["model"]
    assert told["parameters"]["n_estimators"] == 10 and "xgboost-cpu" in told["versions"]
    assert (told["training"]["n_features_in"], told["training"]["num_boosted_rounds"]) == (4, 10)
    assert told["training"]["classes"] == [0, 1, 2]
    assert any("float32" in line and "equal" in line for line in parity.table(found.parity))
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_a_model_without_proof_runs_in_a_worker(models: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(models / "label_spreading", tmp_path / "p")
    found = packaged(folder, cache)
    step = found.spec.steps[0]
    assert step.runtime == "python" and step.worker is not None and step.worker.kind == "estimator"
    assert "LabelSpreading" in (step.reason or "") and found.parity["runtime"] == "python"
    assert any(line.startswith("scikit-learn==") for line in step.worker.requirements)
    again = packaged(folder, cache)
    assert again.index.digest == found.index.digest


def test_a_model_fitted_with_64_bits_that_refuses_32_is_proven_on_declared_rows_of_32(
    models: Path, cache: Path, tmp_path: Path
) -> None:
    """KMeans raises "Buffer dtype mismatch" for them; `init` writes these fields, as the native model takes them."""
    found = packaged(project(models / "clusters", tmp_path / "p", '[steps.input]\ninputs = "list<float32>[4]"'), cache)
    assert found.spec.steps[0].runtime == "onnx" and found.parity["label_flips"] == 0
    assert found.parity["rows"] >= 8 and "original's answers" in found.parity["reason"]


def test_a_second_build_converts_nothing(
    models: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(models / "forest", tmp_path / "p")
    first = packaged(folder, cache)
    monkeypatch.setattr(proving, "convert", lambda *_, **__: pytest.fail("it is converted again"))
    assert packaged(folder, cache).index.digest == first.index.digest


def test_the_users_rows_are_asked_and_their_answers_expected(models: Path, cache: Path, tmp_path: Path) -> None:
    rows = [{"inputs": [5.1, 3.5, 1.4, 0.2]}, {"inputs": [6.7, 3.0, 5.2, 2.3]}]
    folder = project(models / "forest", tmp_path / "p", '[golden]\nrows = "mine.json"')
    (folder / "mine.json").write_text(json.dumps(rows))
    found = packaged(folder, cache)
    assert found.parity["rows"] == 2 and found.parity["steps"]["model"]["rows"] > 100


def test_a_tolerance_may_be_given_for_each_field(models: Path, cache: Path, tmp_path: Path) -> None:
    toml = "[golden]\ntolerance = { transformed = 1e-3 }"
    folder = project(models / "kernel_components", tmp_path / "p", toml)
    found = packaged(folder, cache)
    assert found.spec.steps[0].runtime == "onnx" and found.spec.tolerance == {"transformed": 1e-3}


TWO_STEPS = """
[pipeline]
name = "two"
[[steps]]
name = "first"
model = "first.onnx"
[[steps]]
name = "second"
model = "forest"
[steps.input]
inputs = "list<float32>[4]"
"""


def test_a_later_step_is_proven_on_what_the_first_makes_of_the_users_rows(
    models: Path, cache: Path, tmp_path: Path
) -> None:
    sides = {"raw": ("float32", ["N", 4])}, {"inputs": ("float32", ["N", 4])}
    make.save(make.onnx_model([helper.make_node("Abs", ["raw"], ["inputs"])], *sides), tmp_path / "first.onnx")
    (tmp_path / "forest").write_bytes((models / "forest").read_bytes())
    (tmp_path / "edgepack.toml").write_text(TWO_STEPS)
    made = packaged(tmp_path, cache).parity["steps"]["second"]["rows"]
    (tmp_path / "golden.json").unlink()
    (tmp_path / "mine.json").write_text(json.dumps([{"raw": [-5.1, 3.5, -1.4, 0.2]}, {"raw": [6.7, -3.0, 5.2, 2.3]}]))
    (tmp_path / "edgepack.toml").write_text(TWO_STEPS + '[golden]\nrows = "mine.json"\n')
    found = packaged(tmp_path, cache)
    assert found.parity["steps"]["second"]["rows"] == made + 2
    assert found.spec.steps[1].runtime == "onnx" and found.parity["rows"] == 2


def test_a_model_that_answers_by_chance_is_packaged_and_said_to_be_unproven(
    models: Path, cache: Path, tmp_path: Path
) -> None:
    found = packaged(project(models / "moody", tmp_path / "p"), cache)
    assert found.parity["reason"] == parity.NOT_COMPARABLE and found.parity["runtime"] == "python"
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_models_of_a_split_have_the_users_tolerance(models: Path, cache: Path, tmp_path: Path) -> None:
    toml = '[[steps]]\nname = "main"\nsplit = { a = 1, b = 1 }\n'
    toml += '[models.a]\nmodel = "kernel_components"\n[models.b]\nmodel = "kernel_components"\n'
    (tmp_path / "kernel_components").write_bytes((models / "kernel_components").read_bytes())
    (tmp_path / "edgepack.toml").write_text(toml + "[golden]\ntolerance = { transformed = 1e-3 }\n")
    found = packaged(tmp_path, cache)
    routing = found.spec.steps[0].routing
    assert routing is not None and {model.runtime for model in routing.models.values()} == {"onnx"}
    assert found.parity["others"]["b"]["tolerance"] == {"transformed": 1e-3}


def test_one_bundle_serves_both_architectures(models: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(models / "xgb_classes", tmp_path / "p")
    found = package(Project.open(folder), [Target("x86"), Target("arm")], cache=cache)
    assert [str(each.target) for each in bundles(found.index)] == ["arm/none", "x86/none"]


NUMPY = """
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": np.sqrt(input_data["x"])}
"""
FIELDS = '[steps.input]\nx = "float32"\n[steps.output]\ny = "float32"\n'


@pytest.mark.parametrize("target", [Target("x86"), Target("arm")], ids=str)
def test_a_pin_without_a_wheel_is_refused_or_its_nearest_taken_and_reported(
    target: Target, cache: Path, tmp_path: Path
) -> None:
    """Of the real index. numpy 1.21.0 is older than Python 3.11: 1.23.2 is the first that has wheels for it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/step.py").write_text(NUMPY)
    (tmp_path / "code/requirements.txt").write_text("numpy==1.21.0\n")
    (tmp_path / "golden.json").write_text('[{"in.x": 4.0, "out.y": 2.0}]')
    toml = tmp_path / "edgepack.toml"
    for mode in ("exact", "compatible"):
        toml.write_text(f'[[steps]]\nname = "root"\nmodel = "code"\nrequirements = "{mode}"\n{FIELDS}')
        if mode == "exact":
            said = rf"'numpy==1\.21\.0', which has no wheel for Python 3\.11 on {target}: .* one is 1\.23\.2: write"
            with pytest.raises(BadInput, match=said):
                package(Project.open(tmp_path), [target], cache=cache)
            assert not (tmp_path / "edgepack.lock").exists()
            continue
        found = package(Project.open(tmp_path), [target], cache=cache)
    told = found.parity["environments"]["root"][str(target)]
    assert told["wheels"] == {"numpy": "1.23.2"} and found.notes[-1] == told["changes"][0]
    assert told["changes"] == [f"numpy 1.23.2 instead of 1.21.0, which has no wheel for Python 3.11 on {target}"]
    worker = bundles(found.index)[0].spec.steps[0].worker
    assert worker is not None and worker.requirements == ("numpy==1.23.2",)
