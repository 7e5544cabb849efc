"""From a pickle to a bundle that answers like the original: natively, and in a worker where no conversion is proven."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from arch.target import Target, host_target
from bundle.bundle import bundles
from bundle.store import unpack
from packager import parity
from packager.checks import Checklist
from packager.package import Packaged, package
from packager.project import Project
from runtimes.trial import run_trial
from tests.frameworks.conftest import project

pytestmark = pytest.mark.frameworks


def packaged(folder: Path, cache: Path, checklist: Checklist | None = None) -> Packaged:
    return package(Project.open(folder), [host_target()], checklist=checklist, cache=cache)


def test_a_native_model_travels_with_rows_that_the_original_answered(models: Path, cache: Path, tmp_path: Path) -> None:
    found = packaged(project(models / "xgb_classes", tmp_path / "p"), cache)
    assert found.spec.steps[0].runtime == "onnx" and "original's answers" in found.parity["reason"]
    assert 8 <= found.parity["rows"] <= 32 and found.parity["label_flips"] == 0
    proven = found.parity["steps"]["model"]
    assert proven["rows"] > 100 and proven["original"] == "xgboost.sklearn.XGBClassifier"
    assert proven["parameters"]["n_estimators"] == 10 and "xgboost-cpu" in proven["versions"]
    assert any("float32" in line and "equal" in line for line in parity.table(found.parity))
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed


def test_a_model_without_proof_runs_in_a_worker(models: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(models / "lgbm_forest", tmp_path / "p")
    found = packaged(folder, cache)
    step = found.spec.steps[0]
    assert step.runtime == "python" and step.worker is not None and step.worker.kind == "estimator"
    assert "averages its trees" in (step.reason or "") and found.parity["runtime"] == "python"
    assert any(line.startswith("lightgbm==") for line in step.worker.requirements)
    again = packaged(folder, cache)
    assert again.index.digest == found.index.digest


def test_a_second_build_converts_nothing(models: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(models / "forest", tmp_path / "p")
    first = packaged(folder, cache)
    start = time.monotonic()
    second = packaged(folder, cache)
    assert second.index.digest == first.index.digest
    assert time.monotonic() - start < 30  # no figure, only a guard: without the cache a child would be started


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


def test_one_bundle_serves_both_architectures(models: Path, cache: Path, tmp_path: Path) -> None:
    folder = project(models / "xgb_classes", tmp_path / "p")
    found = package(Project.open(folder), [Target("x86"), Target("arm")], cache=cache)
    assert [str(each.target) for each in bundles(found.index)] == ["arm/none", "x86/none"]
