from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bundle.bundle import bundles
from bundle.pipeline import WorkerSpec
from bundle.store import OpenBundle, faults, unpack
from columns.columns import Columns
from edgepack.errors import RuntimeFailed
from runtimes.environment import environment_names
from runtimes.pipeline import LoadedPipeline
from runtimes.trial import predict_in_child, run_trial
from tests.runtimes.environments import CACHE, installed
from tests.runtimes.models import linear, step
from tests.runtimes.python_steps import GOLDEN, SOURCE, index, python_step, simple

ENVIRONMENTS = CACHE / "environments"


def unpacked(folder: Path, *args, **how) -> Path:
    return unpack(bundles(index(folder, *args, **how))[0], folder / "bundles")


def rows(pipeline: LoadedPipeline, values) -> Columns:
    return Columns.of(pipeline.input, {"x": np.array(values, np.float32)})


def test_a_python_step_answers_from_its_bundle(tmp_path):
    folder = unpack(simple(tmp_path), tmp_path / "bundles")
    assert faults(folder) == []
    with closing(LoadedPipeline.open(folder, ENVIRONMENTS)) as pipeline:
        outcome = pipeline.infer(rows(pipeline, [[1, 2, 3], [0, 0, 1]]))
        assert outcome.outputs.arrays["y"].tolist() == [12.0, 2.0]
        assert outcome.elapsed_ns[0] > 0
        assert [worker.pid is not None for worker in pipeline.workers] == [True]
        assert environment_names(OpenBundle(folder)) == [pipeline.workers[0].job.sites[0].name]


def test_a_python_step_before_a_native_one_is_one_pipeline(tmp_path):
    source = SOURCE.replace('"y"', '"z"').replace(".sum(axis=1) * FACTOR", " + 1").encode()
    first = python_step(output={"z": "list<float32>[3]"})
    second = step("linear", model="models/linear.onnx", input={"z": "list<float32>[3]"}, tensor_fields=["z"])
    files = {"models/prepare/step.py": source, "models/linear.onnx": linear()}
    golden = b'[{"in.x": [1, 2, 3], "out.y": [18.0]}]'
    folder = unpacked(tmp_path, files, [first, second], golden)
    assert run_trial(folder, environments=ENVIRONMENTS).passed
    with closing(LoadedPipeline.open(folder, ENVIRONMENTS)) as pipeline:
        assert pipeline.infer(rows(pipeline, [[0, 0, 0]])).outputs.arrays["y"].tolist() == [[6.0]]


def test_golden_rows_of_a_python_step_run_in_a_trial(tmp_path):
    folder = unpack(simple(tmp_path), tmp_path / "bundles")
    found = run_trial(folder, environments=ENVIRONMENTS)
    assert found.passed
    assert found.rows == 2
    wrong = unpack(simple(tmp_path / "w", factor=3.0), tmp_path / "bundles")
    assert "field 'y': expected 12, found 18" in run_trial(wrong, environments=ENVIRONMENTS).reason
    assert list((ENVIRONMENTS / ".scratch").glob("*")) == []


def test_without_a_folder_to_keep_them_in_environments_are_made_and_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    folder = unpack(simple(tmp_path), tmp_path / "bundles")
    with closing(LoadedPipeline.open(folder)) as pipeline:
        assert pipeline.infer(rows(pipeline, [[1, 1, 1]])).outputs.arrays["y"].tolist() == [6.0]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os; os._exit(7)", "model 'prepare' does not load in its worker: it ended with exit code 7"),
        ("import socket; socket.socket()", "does not load in its worker: PermissionError"),
        ("import nothing_here", "No module named 'nothing_here'"),
        ("open('/etc/passwd')", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        (SOURCE.replace("FACTOR", "(1 / 0)"), "ZeroDivisionError"),
        (SOURCE.replace("return", "import os; os._exit(3); return"), "ended with exit code 3"),
    ],
)
def test_a_step_that_fails_its_trial_is_refused_with_the_reason(tmp_path, source, reason):
    files = {"models/prepare/step.py": (source if "process_data" in source else f"{source}\n{SOURCE}").encode()}
    with pytest.raises(RuntimeFailed, match=reason):
        run_trial(unpacked(tmp_path, files, [python_step()]), environments=ENVIRONMENTS)


def test_a_step_for_another_python_is_refused_before_anything_is_unpacked(tmp_path):
    foreign = python_step(worker=WorkerSpec("step", "3.7"))
    folder = unpacked(tmp_path, {"models/prepare/step.py": SOURCE.encode()}, [foreign])
    with pytest.raises(RuntimeFailed, match=r"step 'prepare' needs Python 3\.7"):
        run_trial(folder, environments=tmp_path / "e")


CUSTOM = """\
import pickle
from typing import Any, Set
import numpy as np
from mac.config.inference import CustomInferenceConfig
from mac.exceptions import InferenceDataValidationError
from mac.inference import Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData

class Scaling(Inference):
    @property
    def expected_model_types(self) -> Set[Any]:
        return {dict}

    @Inference.model.setter
    def model(self, model) -> None:
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _predict(self, input_data: InferenceData) -> InferenceData:
        if "x" not in input_data:
            raise InferenceDataValidationError("no x")
        offset = np.array([0 if o is None else o for o in input_data["offset"]])
        return {"y": input_data["x"].sum(axis=1) * self.model["factor"] + offset}

class ScalingBuilder(InferenceBuilder):
    @property
    def inference(self) -> Scaling:
        return Scaling()

    def create(self, config: CustomInferenceConfig) -> Scaling:
        inference = self.inference
        inference.model = pickle.loads((config.model_path / "weights" / "factor.pkl").read_bytes())
        return inference
"""


def custom(folder: Path, source: str = CUSTOM, model: object = None, more: dict[str, bytes] | None = None) -> Path:
    import pickle

    weights = pickle.dumps({"factor": 3.0} if model is None else model)
    files = {"models/prepare/main.py": source.encode(), "models/prepare/weights/factor.pkl": weights}
    files.update({f"models/prepare/{path}": data for path, data in (more or {}).items()})
    said = python_step(kind="custom", input={"x": "list<float32>[3]", "offset": "float64?"}, output={"y": "float64"})
    golden = b'[{"in.x": [1, 2, 3], "in.offset": null, "out.y": 18.0}, {"in.x": [1, 0, 0], "in.offset": 1, "out.y": 4}]'
    return unpacked(folder, files, [said], golden)


def test_a_custom_inference_is_built_and_answers_with_nulls_as_none(tmp_path):
    assert run_trial(custom(tmp_path), environments=ENVIRONMENTS).passed


def test_a_builder_may_be_imported_by_another_name_and_other_files_need_not_be_python(tmp_path):
    source = CUSTOM.replace("import InferenceBuilder", "import InferenceBuilder as Base")
    source = source.replace("(InferenceBuilder)", "(Base)")
    assert run_trial(
        custom(tmp_path, source, more={"templates/page.py": b"{% for %}"}), environments=ENVIRONMENTS
    ).passed


def test_a_custom_inference_may_be_async(tmp_path):
    source = CUSTOM.replace("import Inference\n", "import AsyncInference, Inference\n")
    source = source.replace("class Scaling(Inference)", "class Scaling(AsyncInference)")
    source = source.replace("    def _predict", "    async def _predict")
    assert run_trial(custom(tmp_path, source), environments=ENVIRONMENTS).passed


@pytest.mark.parametrize(
    ("source", "model", "reason"),
    [
        (CUSTOM, [1], "TypeError: the model is list, expected dict"),
        (CUSTOM.replace("inference.model =", "unused ="), None, "ModelNotAssignedError: Scaling has no model"),
        (
            CUSTOM + "class Other(InferenceBuilder): pass\n",
            None,
            "expected exactly one class derived from Inference.*found 2",
        ),
        (CUSTOM.replace("(InferenceBuilder)", ""), None, "found 0"),
        (CUSTOM.replace("        return inference", "        return 5"), None, "gave int, expected an Inference"),
        (
            CUSTOM.replace("    def _predict", "    def _other"),
            None,
            "TypeError: Can't instantiate abstract class Scaling",
        ),
    ],
)
def test_a_custom_inference_that_is_not_one_is_refused_with_the_reason(tmp_path, source, model, reason):
    with pytest.raises(RuntimeFailed, match=reason):
        run_trial(custom(tmp_path, source, model), environments=ENVIRONMENTS)


TRAIN = """\
import pickle, sys
import joblib, numpy as np, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
folder = sys.argv[1]
x, y = load_iris(return_X_y=True)
forest = RandomForestClassifier(10, random_state=0, n_jobs=2).fit(x.astype(np.float32), y)
pickle.dump(forest, open(f"{folder}/forest.pkl", "wb"))
joblib.dump(StandardScaler().fit(x), f"{folder}/scaler.joblib")
frame = pd.DataFrame({"size": x[:, 0], "kind": np.where(x[:, 1] > 3, "a", "b")})
mixed = ColumnTransformer([("n", StandardScaler(), ["size"]), ("c", OneHotEncoder(), ["kind"])])
named = make_pipeline(mixed, LogisticRegression()).fit(frame, np.array(["low", "mid", "top"])[y])
pickle.dump(named, open(f"{folder}/named.pkl", "wb"))
texts = ["good fine", "bad poor", "fine day", "poor day"]
words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
pickle.dump(words, open(f"{folder}/words.pkl", "wb"))
import json
print(json.dumps({
    "forest": [forest.predict(x[:5]).tolist(), forest.predict_proba(x[:5]).tolist(), x[:5].tolist()],
    "scaler": [StandardScaler().fit(x).transform(x[:5]).tolist(), x[:5].tolist()],
    "named": [named.predict(frame[:5]).tolist(), frame[:5].to_dict("list")],
    "words": [words.predict(texts).tolist(), texts],
}))
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with packages, one with models, and what the originals answered."""
    import subprocess
    import sys

    site = installed("sklearn-1", "scikit-learn==1.7.2", "pandas==2.3.3")
    folder = tmp_path_factory.mktemp("trained")
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{TRAIN}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site, folder, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("file", "takes", "gives", "inputs", "expected"),
    [
        (
            "forest.pkl",
            {"x": "list<float64>[4]"},
            {"predictions": "int64", "probabilities": "list<float64>[3]"},
            lambda said: {"x": np.array(said["forest"][2])},
            lambda said: {"predictions": said["forest"][0], "probabilities": said["forest"][1]},
        ),
        (
            "scaler.joblib",
            {"x": "list<float64>[4]"},
            {"scaled": "list<float64>[4]"},
            lambda said: {"x": np.array(said["scaler"][1])},
            lambda said: {"scaled": said["scaler"][0]},
        ),
        (
            "named.pkl",
            {"size": "float64", "kind": "string"},
            {"label": "string"},
            lambda said: {"size": np.array(said["named"][1]["size"]), "kind": said["named"][1]["kind"]},
            lambda said: {"label": said["named"][0]},
        ),
        (
            "words.pkl",
            {"text": "string"},
            {"predictions": "int64"},
            lambda said: {"text": said["words"][1]},
            lambda said: {"predictions": said["words"][0]},
        ),
    ],
)
def test_a_trained_estimator_answers_as_the_original_did(trained, tmp_path, file, takes, gives, inputs, expected):
    from columns.schema import Schema
    from runtimes.worker import Job, Worker

    site, folder, said = trained
    job = Job("m", "estimator", folder / file, Schema.parse(takes), Schema.parse(gives), (site,))
    with Worker.start(job, scratch=tmp_path) as worker:
        answer = worker.infer(Columns.of(job.input, inputs(said)))
        for name, values in expected(said).items():
            assert answer.arrays[name].tolist() == values


def test_a_malicious_pickle_reaches_nothing(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return exec, ("open('/etc/passwd').read()",)

    said = python_step("m", "estimator", model="models/m.pkl", input={"x": "float32"}, output={"y": "float32"})
    folder = unpacked(tmp_path, {"models/m.pkl": pickle.dumps(Evil())}, [said], b'[{"in.x": 1, "out.y": 1}]')
    with pytest.raises(RuntimeFailed, match="model 'm' does not load in its worker: PermissionError"):
        predict_in_child(folder, Columns.of(OpenBundle(folder).input, {"x": np.ones(1, np.float32)}))


def test_rows_of_a_trial_are_asked_twice_of_a_python_step_too(tmp_path):
    folder = unpack(simple(tmp_path, golden=GOLDEN), tmp_path / "bundles")
    given = OpenBundle(folder).golden().inputs
    both = predict_in_child(folder, given, twice=True, environments=ENVIRONMENTS)
    assert both.arrays["y"].tolist() == [12.0, 1.0] * 2
