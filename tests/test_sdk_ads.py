"""`edgepack.ads` in a training program: the files that it writes, what it keeps beside them, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.ads import GenericModel, LightGBMModel, SparkPipelineModel, UseCaseType, _difference
from edgepack.errors import BadInput
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel

FILES = {"score.py", "runtime.yaml", "input_schema.json", "output_schema.json", ".model-ignore", "model_metadata.json"}
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
    monkeypatch.chdir(tmp_path)
    model = GenericModel(Sums(), tmp_path / "sums", serialize=False)
    model.prepare("oci://bucket@ns/packs/mine_p311_v1", "3.11", use_case_type=UseCaseType.REGRESSION, X_sample=X)
    (model.artifact_dir / "model.pkl").write_text("yours")
    kept = json.loads((model.artifact_dir / "model_metadata.json").read_text())
    assert kept["provenance"]["git_branch"] == "trunk" and len(kept["provenance"]["git_commit"]) == 40
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
    assert results["score_syntax"]["success"] is False and "line 1" in results["score_syntax"]["error_msg"]
    with pytest.raises(BadInput, match="fails 'score_syntax'"):
        again.save(hub="http://127.0.0.1:1")


def test_what_cannot_be_prepared_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes").write_text("mine")
    with pytest.raises(BadInput, match="has files in it"):
        GenericModel(Sums(), tmp_path / "full").prepare()
    with pytest.raises(BadInput, match="cannot be pickled"):
        GenericModel(lambda: 0, tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match="has no rows"):
        GenericModel(Sums(), tmp_path / "new", serialize=False).prepare(X_sample=X[:0])
    with pytest.raises(BadInput, match="the estimator does not answer"):
        LightGBMModel(Broken(), tmp_path / "new").prepare(X_sample=X)
    with pytest.raises(BadInput, match=r"no Spark runs on a device: convert .* with onnxmltools"):
        SparkPipelineModel(object(), tmp_path / "new")
    with pytest.raises(BadInput, match=r"has no score\.py"):
        GenericModel.from_model_artifact(tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


class Broken:
    """A booster that was not trained."""

    def save_model(self, path: str) -> None:
        Path(path).write_text("tree")

    def predict(self, rows: Any) -> Any:
        raise ValueError("not fitted")


@pytest.mark.parametrize(
    "found, expected, difference",
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([[1.0]], [[1.0]], 0.0),
        (["a"], ["b"], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
        ("a", ["a"], float("inf")),
        ([None], [float("nan")], 0.0),
        ([None], [1.0], float("inf")),
        ([True], [True], 0.0),
    ],
)
def test_two_answers_differ_by_their_worst_value(found: Any, expected: Any, difference: float) -> None:
    assert _difference(found, expected) == pytest.approx(difference)
