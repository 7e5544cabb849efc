"""`edgepack.ads` in a training program: the files that it writes, what it keeps beside them, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgepack import _ads_metadata as metadata
from edgepack.ads import (
    GenericModel,
    LightGBMModel,
    PyTorchModel,
    SklearnModel,
    SparkPipelineModel,
    TensorFlowModel,
    UseCaseType,
    XGBoostModel,
)
from edgepack.errors import BadInput
from packager.dialects.ads_answers import are_of_other_code
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel

FILES = {"score.py", "runtime.yaml", "input_schema.json", "output_schema.json", ".model-ignore", "model_metadata.json"}
OTHERS = {"train.py", "model.pkl", "golden.json"}
X = np.array([[1.0, 2.0], [3.0, 4.5]])


class Sums:
    """An estimator of nobody's library."""

    factor = 1.0

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows, dtype=float).sum(axis=1) * self.factor

    def get_params(self) -> dict[str, Any]:
        return {"factor": self.factor, "missing": float("nan"), "inner": self}


@pytest.mark.frameworks  # it serves three times
def test_a_template_is_written_for_a_model_that_is_not_serialized_and_works_once_load_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify serves the folder with numpy alone: it says that load_model() is missing, then what the rows give."""
    for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(tmp_path / "uv"), "EDGEPACK_CACHE": str(tmp_path / "c")}.items():
        monkeypatch.setenv(key, value)
    site = numpy_environment()
    shutil.copytree(site, tmp_path / "c/workers" / site.name, copy_function=os.link)
    (tmp_path / "wheels").mkdir()
    shutil.copy(numpy_wheel(), tmp_path / "wheels")
    model = GenericModel(Sums(), tmp_path / "sums", serialize=False)
    model.prepare(use_case_type=UseCaseType.REGRESSION, X_sample=X, y_sample=X.sum(axis=1))
    assert {path.name for path in model.artifact_dir.iterdir()} == FILES | {"golden.json"}
    (model.artifact_dir / "model.pkl").write_text("yours")
    score = model.artifact_dir / "score.py"
    score.write_text(score.read_text().replace("import pandas as pd\n", ""))
    with pytest.raises(BadInput, match=r"NotImplementedError: load_model\(\) is yours to write"):
        model.verify(X, wheels=tmp_path / "wheels")
    text = score.read_text()
    at = text.index("    raise NotImplementedError")
    sums = "    class Sums:\n        def predict(self, rows):\n            return np.sum(rows, axis=1).tolist()\n"
    score.write_text(text[:at] + f"{sums}    return Sums()\n" + text[text.index("\n", at) + 1 :])
    found = model.verify(X, wheels=tmp_path / "wheels")
    assert found == {"prediction": [3.0, 7.5], "expected": [3.0, 7.5], "is_same": True, "largest_difference": 0.0}
    model.estimator.factor = 2.0
    assert model.verify(X, wheels=tmp_path / "wheels")["is_same"] is False


def test_provenance_taxonomy_and_the_tests_are_kept_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "-b", "trunk"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    origin = "https://bob:secret@example.org/line/wear.git?token=secret"
    subprocess.run([*git, "remote", "add", "origin", origin], check=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/train.py").write_text("mine")
    (tmp_path / "sums").symlink_to("kept")
    model = GenericModel(Sums(), tmp_path / "sums", serialize=False)
    model.prepare("oci://bucket@ns/packs/mine_p311_v1", "3.11", use_case_type=UseCaseType.REGRESSION, X_sample=X)
    (model.artifact_dir / "model.pkl").write_text("yours")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == FILES - {"output_schema.json"} | OTHERS
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "kept").iterdir())
    kept = json.loads((model.artifact_dir / "model_metadata.json").read_text())
    assert kept["provenance"]["git_branch"] == "trunk" and len(kept["provenance"]["git_commit"]) == 40
    assert kept["provenance"]["repository_url"] == "https://example.org/line/wear.git"
    taxonomy = kept["taxonomy"]
    assert (taxonomy["UseCaseType"], taxonomy["Algorithm"]) == ("regression", "Sums")
    assert taxonomy["Hyperparameters"]["factor"] == 1.0 and taxonomy["Hyperparameters"]["missing"] == "nan"
    assert taxonomy["ArtifactTestResults"]["runtime_env_path"] == {
        "category": "conda_env",
        "description": "Check that field MODEL_DEPLOYMENT.INFERENCE_CONDA_ENV.INFERENCE_ENV_PATH is set",
        "success": True,
    }
    text = (model.artifact_dir / "runtime.yaml").read_text()
    assert 'INFERENCE_ENV_SLUG: "mine_p311_v1"' in text and 'GIT_BRANCH: "trunk"' in text
    (model.artifact_dir / "score.py").write_text("def predict(:\n")
    again = GenericModel.from_model_artifact(model.artifact_dir)
    results = again.metadata["taxonomy"]["ArtifactTestResults"]
    assert results["score_syntax"]["success"] is False and "score.py:1: " in results["score_syntax"]["error_msg"]
    with pytest.raises(BadInput, match="fails 'score_syntax'"):
        again.save(hub="http://127.0.0.1:1")


def test_what_cannot_be_prepared_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/score.py").write_text("mine")
    with pytest.raises(BadInput, match=r"has a score\.py already: choose a new folder, or give force_overwrite=True"):
        GenericModel(Sums(), tmp_path / "full").prepare()
    with pytest.raises(BadInput, match="is no folder"):
        GenericModel(Sums(), tmp_path / "full/score.py").prepare()
    for name in ("../escaped.pkl", 'a"b.pkl', "score.py", "", ".hidden", "a\\b"):
        with pytest.raises(BadInput, match="model_file_name is"):
            GenericModel(Sums(), tmp_path / "new").prepare(model_file_name=name or " ")
    with pytest.raises(BadInput, match="gives 1 answers for 2 rows"):
        GenericModel(Giving([1.0]), tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match="gives one value for 2 rows"):
        GenericModel(Giving(1.0), tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match="cannot be pickled"):
        GenericModel(lambda: 0, tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match="has no rows"):
        GenericModel(Sums(), tmp_path / "new", serialize=False).prepare(X_sample=X[:0])
    with pytest.raises(BadInput, match="the estimator does not answer"):
        LightGBMModel(Broken(), tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match=r"no Spark runs on a device: convert .* with onnxmltools"):
        SparkPipelineModel(object(), tmp_path / "new")
    with pytest.raises(BadInput, match=r"has no score\.py"):
        GenericModel.from_model_artifact(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [(path.name, path.read_text()) for path in (tmp_path / "full").iterdir()] == [("score.py", "mine")]


def test_the_estimators_answers_are_kept_for_the_score_py_that_asks_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GenericModel, "introspect", lambda _: {})
    GenericModel(Sums(), tmp_path / "sums").prepare(X_sample=X)
    rows, score = (tmp_path / "sums" / name for name in ("golden.json", "score.py"))
    assert [row["out.prediction"] for row in json.loads(rows.read_text())] == [3.0, 7.5]
    assert not are_of_other_code(rows)
    score.write_text(score.read_text().replace("return yhat.tolist()", "return [round(each) for each in yhat]"))
    assert are_of_other_code(rows)
    GenericModel(Sums(), tmp_path / "mine").prepare(X_sample=X, score_py_uri=score)
    assert json.loads((tmp_path / "mine/golden.json").read_text())[0] == {"in.0": 1.0, "in.1": 2.0}


def test_answers_to_other_rows_than_those_given_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GenericModel, "introspect", lambda _: {})
    with pytest.warns(UserWarning, match="y_sample has 3 answers, X_sample 2 rows: are they answers to these rows"):
        GenericModel(Sums(), tmp_path / "sums").prepare(X_sample=X, y_sample=[1.0, 2.0, 3.0])


def test_the_version_is_that_of_the_module_whatever_distribution_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("xgboost")
    monkeypatch.setitem(sys.modules, "xgboost", module)
    assert metadata.taxonomy(Sums(), "xgboost", None)["FrameworkVersion"] is None
    monkeypatch.setattr(module, "__version__", "3.1.0", raising=False)
    assert metadata.taxonomy(Sums(), "xgboost", None)["FrameworkVersion"] == "3.1.0"


class Giving:
    """An estimator that answers any rows alike."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, rows: Any) -> Any:
        return self.answer


class Broken:
    """A booster that was not trained."""

    def save_model(self, path: str) -> None:
        Path(path).write_text("tree")

    def predict(self, rows: Any) -> Any:
        raise ValueError("not fitted")


@pytest.mark.parametrize("kind", [SklearnModel, XGBoostModel, LightGBMModel, PyTorchModel, TensorFlowModel])
def test_every_class_leaves_a_model_that_is_not_serialized_to_you(
    kind: type[GenericModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No library is needed, and a file that lies there is neither refused nor replaced."""
    monkeypatch.setattr(GenericModel, "introspect", lambda _: {})
    (tmp_path / "model.bin").write_text("yours")
    (tmp_path / "train.py").write_text("yours too")
    for _ in range(2):
        kind(object(), tmp_path, serialize=False).prepare(model_file_name="model.bin", force_overwrite=True)
    assert 'model_name = "model.bin"' in (tmp_path / "score.py").read_text()
    assert [(tmp_path / name).read_text() for name in ("model.bin", "train.py")] == ["yours", "yours too"]
    assert not [path.name for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("said", ["[]", "{", '{"taxonomy": 3}', "[" * 100_000])
def test_metadata_that_prepare_did_not_write_is_named(said: str, tmp_path: Path) -> None:
    (tmp_path / "model_metadata.json").write_text(said)
    with pytest.raises(BadInput, match=r"model_metadata\.json' is not .*delete it, and it is written anew") as error:
        metadata.read(tmp_path / "model_metadata.json")
    assert len(str(error.value).splitlines()) == 1
