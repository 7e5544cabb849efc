"""Models of the real mlflow, packaged as they lie: each answers as `mlflow.pyfunc` does, natively where proven."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from columns.records import decode_records, encode_records
from edgepack.errors import BadInput
from packager.environments import Environment, ready
from packager.package import Packaged, package
from packager.project import Project
from runtimes.pipeline import LoadedPipeline
from tests.frameworks.mlflow_environment import MLFLOW

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them makes mlflow's environment

NATIVE = (
    "sklearn_skops", "sklearn_pickle", "sklearn_proba", "xgboost_classifier", "xgboost_booster", "lightgbm_classifier",
    "lightgbm_booster", "onnx",
)  # fmt: skip


@pytest.fixture(scope="module")
def mlflow(cache: Path) -> Environment:
    return ready(MLFLOW, cache, os.environ)


@pytest.fixture(scope="module")
def logged(mlflow: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models of mlflow_models.py, logged and asked by mlflow in one child."""
    folder = tmp_path_factory.mktemp("mlflow")
    script = Path(__file__).with_name("mlflow_models.py")
    subprocess.run([mlflow.python, script, folder], check=True, capture_output=True)
    return folder


def packaged(logged: Path, name: str, cache: Path, tmp_path: Path) -> Packaged:
    return package(Project.open(shutil.copytree(logged / name, tmp_path / name)), [host_target()], cache=cache)


@pytest.fixture
def loaded(request: pytest.FixtureRequest, logged: Path, cache: Path, tmp_path: Path) -> Iterator[LoadedPipeline]:
    """A model's bundle as a device opens it."""
    found = packaged(logged, request.param, cache, tmp_path)
    pipeline = LoadedPipeline.open(unpack(bundles(found.index)[0], tmp_path / "bundle"), cache / "workers")
    yield pipeline
    pipeline.close()


def answered(pipeline: LoadedPipeline, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inputs = decode_records(json.dumps(rows).encode(), pipeline.input)
    return list(json.loads(encode_records(pipeline.infer(inputs).outputs)))


def expected(logged: Path, name: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Rows of all columns, and what pyfunc said."""
    said = json.loads((logged / f"{name}.json").read_text())
    return said["rows"], said["answers"]


def same(ours: dict[str, Any], theirs: Any) -> bool:
    """Whether a row of ours says what pyfunc said: records by name, anything else as the only field."""
    named = theirs if isinstance(theirs, dict) else {next(iter(ours)): theirs}
    return ours.keys() == named.keys() and all(
        value == (named[name] if isinstance(value, str) else pytest.approx(named[name], rel=1e-5, abs=1e-6))
        for name, value in ours.items()
    )


@pytest.mark.parametrize(("loaded", "name"), [(name, name) for name in NATIVE], indirect=["loaded"])
def test_an_unwrapped_flavour_runs_natively_and_answers_as_pyfunc(
    loaded: LoadedPipeline, name: str, logged: Path
) -> None:
    step = loaded.spec.steps[0]
    assert (step.framework, step.runtime) == ("mlflow", "onnx"), step.reason
    rows, answers = expected(logged, name)
    pairs = list(zip(answered(loaded, rows), answers, strict=True))
    assert all(same(*pair) for pair in pairs), next(pair for pair in pairs if not same(*pair))


@pytest.mark.parametrize("loaded", ["sklearn_own_code"], indirect=True)
def test_code_of_the_users_own_runs_as_pyfunc_in_a_worker_and_answers_the_same(
    loaded: LoadedPipeline, logged: Path
) -> None:
    step = loaded.spec.steps[0]
    assert (step.runtime, step.worker and step.worker.kind) == ("python", "mlflow")
    assert "cloudpickle" in (step.reason or "") and "it runs as pyfunc in a worker" in (step.reason or "")
    rows, answers = expected(logged, "sklearn_own_code")
    assert all(same(*pair) for pair in zip(answered(loaded, rows), answers, strict=True))


@pytest.mark.parametrize("loaded", ["python_model"], indirect=True)
def test_parameters_and_columns_that_are_missing_reach_the_model(loaded: LoadedPipeline, logged: Path) -> None:
    rows, answers = expected(logged, "python_model")
    assert loaded.input.to_dict() == {"a": "float64", "b": "int64", "c": "float64?", "scale": "float64?"}
    assert all(same(*pair) for pair in zip(answered(loaded, rows), answers, strict=True))
    without = [{**row, "c": None, "scale": None} for row in rows]
    mixed = answered(loaded, [without[0], rows[1], {**without[2], "scale": 2.0}])
    assert [row["sum"] for row in mixed] == [2.0 * 2.5, answers[1]["sum"], 0.0]


@pytest.mark.parametrize("loaded", ["xgboost_margin"], indirect=True)
def test_a_parameter_of_a_flavour_has_the_default_that_it_has_in_pyfunc(loaded: LoadedPipeline, logged: Path) -> None:
    assert loaded.spec.steps[0].runtime == "python" and loaded.input.to_dict()["output_margin"] == "bool?"
    rows, margins = expected(logged, "xgboost_margin")
    said = [{**row, "output_margin": None} for row in rows]
    assert all(same(*pair) for pair in zip(answered(loaded, said), margins, strict=True))
    shares = answered(loaded, [{**row, "output_margin": False} for row in rows])
    assert all(0 < row["predictions"] < 1 for row in shares) and min(margins) < 0


@pytest.mark.parametrize("loaded", ["python_tensor"], indirect=True)
def test_code_that_takes_a_tensor_gets_one(loaded: LoadedPipeline, logged: Path) -> None:
    assert loaded.input.to_dict() == {"inputs": "list<list<float32>[2]>[2]"}
    step = loaded.spec.steps[0]
    assert step.runtime == "python" and step.worker is not None
    assert "-c constraints.txt" in (logged / "python_tensor/requirements.txt").read_text()  # as mlflow itself writes it
    assert "cloudpickle==3.1.1" in step.worker.requirements  # not the newest
    rows, answers = expected(logged, "python_tensor")
    assert all(same(*pair) for pair in zip(answered(loaded, rows), answers, strict=True))


def test_the_wheels_of_a_pyfunc_model_are_its_own_versions(logged: Path, cache: Path, tmp_path: Path) -> None:
    found = packaged(logged, "sklearn_own_code", cache, tmp_path)
    worker = found.spec.steps[0].worker
    pins = dict(line.split("==") for line in (logged / "sklearn_own_code/requirements.txt").read_text().split())
    assert worker is not None
    taken = dict(line.split("==") for line in worker.requirements)
    assert taken["mlflow-skinny"] == pins["mlflow"] and taken["scikit-learn"] == pins["scikit-learn"]


def test_a_network_in_a_folder_is_unwrapped(networks: Path, cache: Path, tmp_path: Path) -> None:
    """As mlflow lays a scripted module out; saving it takes torch in its environment, which these tests do not ask."""
    place = tmp_path / "scripted"
    (place / "data").mkdir(parents=True)
    shutil.copyfile(networks / "mlp.pt", place / "data/model.pth")
    tensor = '[{{"type": "tensor", "tensor-spec": {{"dtype": "float32", "shape": [-1, {}]}}}}]'
    (place / "MLmodel").write_text(
        "flavors:\n  pytorch: {model_data: data, pytorch_version: 2.13.0}\n"
        "  python_function: {loader_module: mlflow.pytorch, data: data}\n"
        f"signature:\n  inputs: '{tensor.format(4)}'\n  outputs: '{tensor.format(2)}'\n"
    )
    found = package(Project.open(place), [host_target()], cache=cache)
    step = found.spec.steps[0]
    assert (step.runtime, step.input) == ("onnx", {"inputs": "list<float32>[4]"}), found.parity
    assert step.output == {"predictions": "list<float32>[2]"}


def test_a_keras_model_in_either_flavour_is_unwrapped(networks: Path, cache: Path, tmp_path: Path) -> None:
    for flavor, said in (("keras", "data: data"), ("tensorflow", "data: data, model_type: keras")):
        place = tmp_path / flavor
        (place / "data").mkdir(parents=True)
        shutil.copyfile(networks / "dense.keras", place / "data/model.keras")
        (place / "MLmodel").write_text(f"flavors:\n  {flavor}: {{{said}}}\n")
        found = package(Project.open(place), [host_target()], cache=cache)
        assert found.spec.steps[0].runtime == "onnx"
        assert found.spec.steps[0].input == {"input": "list<float32>[4]"}


def test_a_savedmodel_in_a_folder_is_unwrapped(saved: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "line", tmp_path / "net/tf2model")
    (tmp_path / "net/MLmodel").write_text(
        "flavors:\n  tensorflow: {saved_model_dir: tf2model, model_type: tf2-module}\n"
    )
    found = package(Project.open(tmp_path / "net"), [host_target()], cache=cache)
    step = found.spec.steps[0]
    assert (step.runtime, step.input) == ("onnx", {"x": "list<float32>[3]"}), found.parity


def test_a_model_that_does_not_load_is_one_line(logged: Path, cache: Path, tmp_path: Path) -> None:
    place = shutil.copytree(logged / "python_model", tmp_path / "broken")
    (place / "python_model.pkl").write_bytes(b"\x80\x04cut")
    with pytest.raises(BadInput, match="does not load in its worker") as caught:
        package(Project.open(place), [host_target()], cache=cache)
    assert "\n" not in str(caught.value)
