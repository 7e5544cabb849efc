"""Oracle ADS's model classes, as far as a training program needs them: prepare, verify, introspect, save.

    from edgepack.ads import SklearnModel, UseCaseType

    model = SklearnModel(estimator, artifact_dir="churn")
    model.prepare(X_sample=x, y_sample=y, use_case_type=UseCaseType.BINARY_CLASSIFICATION)
    model.verify(x[:5])
    model.save(hub="http://hub:8090")

The folder is what ADS writes: score.py, runtime.yaml, input_schema.json, output_schema.json, .model-ignore, the model.
It runs wherever ADS's does. No room of the house is imported here: what needs one is asked of `edgepack` in a child.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import pickle
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepack import _ads_metadata as metadata
from edgepack._ads_schema import array_of, columns_of, golden_rows, schema_of
from edgepack._ads_score import INPUTS, score_py
from edgepack.errors import BadInput, RuntimeFailed
from edgepack.sdk import _program

SCORE, IGNORE, GOLDEN = "score.py", ".model-ignore", "golden.json"
INPUT, OUTPUT = "input_schema.json", "output_schema.json"
MOST_ROWS = 200  # golden rows: they travel with every bundle
MOST_ASKED = 1000  # rows that `verify` sends
_TOLERANCE = 1e-5  # relative to max(1, |expected|), as everywhere in edgepack
_ANSWER_S = 60
_IGNORED = """\
# what stays behind when this folder is packaged
.model-ignore
.git
.ipynb_checkpoints
__pycache__
golden.json
"""

__all__ = [
    "GenericModel",
    "LightGBMModel",
    "PyTorchModel",
    "SklearnModel",
    "SparkPipelineModel",
    "TensorFlowModel",
    "UseCaseType",
    "XGBoostModel",
]


class UseCaseType:
    """What a model is for, in ADS's words."""

    BINARY_CLASSIFICATION = "binary_classification"
    REGRESSION = "regression"
    MULTINOMIAL_CLASSIFICATION = "multinomial_classification"
    CLUSTERING = "clustering"
    RECOMMENDER = "recommender"
    DIMENSIONALITY_REDUCTION = "dimensionality_reduction/representation"
    TIME_SERIES_FORECASTING = "time_series_forecasting"
    ANOMALY_DETECTION = "anomaly_detection"
    TOPIC_MODELING = "topic_modeling"
    NER = "ner"
    SENTIMENT_ANALYSIS = "sentiment_analysis"
    IMAGE_CLASSIFICATION = "image_classification"
    OBJECT_LOCALIZATION = "object_localization"
    OTHER = "other"


class GenericModel:
    """A model and the folder of its artifact. `serialize=False` leaves the model's file, and load_model(), to you."""

    framework = "other"

    def __init__(self, estimator: Any, artifact_dir: str | Path | None = None, *, serialize: bool = True) -> None:
        self.estimator, self.serialize = estimator, serialize
        self.artifact_dir = Path(artifact_dir or tempfile.mkdtemp(prefix="edgepack-ads-")).expanduser().absolute()
        self.metadata: dict[str, Any] = {}
        self._data: str | None = None

    @classmethod
    def from_model_artifact(cls, artifact_dir: str | Path) -> GenericModel:
        """An artifact that lies there, without its estimator. Its introspection runs again."""
        found = cls(None, artifact_dir)
        if not (found.artifact_dir / SCORE).is_file():
            raise BadInput(f"'{found.artifact_dir}' has no {SCORE}: expected the folder that prepare() wrote")
        found.introspect()
        return found

    def prepare(
        self,
        inference_conda_env: str | None = None,
        inference_python_version: str | None = None,
        *,
        training_conda_env: str | None = None,
        use_case_type: str | None = None,
        X_sample: Any = None,
        y_sample: Any = None,
        model_file_name: str | None = None,
        score_py_uri: str | Path | None = None,
        training_script_path: str | Path | None = None,
        force_overwrite: bool = False,
    ) -> None:
        """Write all files of the artifact; `X_sample` are rows that the estimator predicts, `y_sample` known answers.

        With `score_py_uri` that file is the score.py. Nothing is there until all is written. Raises BadInput for what
        does not fit, and for a folder with files in it, unless `force_overwrite`.
        """
        if self.artifact_dir.exists() and any(self.artifact_dir.iterdir()) and not force_overwrite:
            raise BadInput(f"'{self.artifact_dir}' has files in it: choose a new folder, or give force_overwrite=True")
        self.artifact_dir.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=self.artifact_dir.parent, prefix=f".{self.artifact_dir.name}-"))
        try:
            serializer, file = self._write_model(stage, model_file_name, X_sample)
            code = Path(score_py_uri).read_text("utf-8") if score_py_uri else score_py(serializer, file)
            (stage / SCORE).write_text(code, "utf-8")
            self._write_samples(stage, X_sample, y_sample)
            script = Path(training_script_path or Path.cwd()).absolute()
            provenance = metadata.git_provenance(script if script.is_dir() else script.parent)
            text = metadata.runtime_yaml(inference_conda_env, inference_python_version, training_conda_env, provenance)
            (stage / metadata.RUNTIME).write_text(text, "utf-8")
            (stage / IGNORE).write_text(_IGNORED, "utf-8")
            self.metadata = {
                "provenance": {**provenance, "training_script": str(training_script_path or "")},
                "taxonomy": metadata.taxonomy(self.estimator, self.framework, use_case_type),
                "custom": {
                    "CondaEnvironment": inference_conda_env,
                    "ModelSerializationFormat": serializer,
                    "ModelFileName": file,
                    "ModelArtifacts": metadata.inventory(stage),
                },
            }
            self._write_metadata(stage)
            stage.chmod(0o755)
            if self.artifact_dir.exists():
                shutil.rmtree(self.artifact_dir)
            stage.rename(self.artifact_dir)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        self.introspect()

    def introspect(self) -> dict[str, dict[str, Any]]:
        """Look at runtime.yaml, score.py and the schemas by named tests: test → category, description, success and,
        where it failed, error_msg. They are kept in the artifact's metadata as ArtifactTestResults.
        """
        said = json.loads(_asked("introspect", str(self.artifact_dir), "--json"))
        results: dict[str, dict[str, Any]] = said[metadata.TESTS]
        path = self.artifact_dir / metadata.METADATA
        if path.is_file():
            self.metadata = json.loads(path.read_text("utf-8"))
        self.metadata.setdefault("taxonomy", {})[metadata.TESTS] = results
        self._write_metadata(self.artifact_dir)
        return results

    def verify(self, data: Any, *, wheels: str | Path | None = None) -> dict[str, Any]:
        """Serve the artifact on this machine, send the rows, and compare with the estimator's own answer.

        Returns what the server answered, with `expected` (None without an estimator), `is_same` and
        `largest_difference`, relative to max(1, |expected|). Bytes go to the model as they are. `wheels` is a folder
        of wheels that win over the index.
        """
        rows = data if isinstance(data, (bytes, str, dict)) else data[:MOST_ASKED]
        expected = None if self.estimator is None or isinstance(data, (bytes, str, dict)) else self._answers(rows)
        with self._served(wheels) as url:
            found = _posted(url, self._payload(rows))
        answer = found if isinstance(found, dict) else {"prediction": found}
        difference = None if expected is None else _difference(answer.get("prediction"), expected)
        is_same = None if difference is None else difference <= _TOLERANCE
        return {**answer, "expected": expected, "is_same": is_same, "largest_difference": difference}

    def save(self, *, hub: str | None = None, token: str | None = None, targets: tuple[str, ...] = ()) -> str:
        """Publish the artifact to a hub as the newest version of the pipeline that its folder names; returns its id.

        `hub` and `token` are EDGEPACK_HUB and EDGEPACK_TOKEN where not given. Raises BadInput for a test of
        `introspect` that fails.
        """
        failed = {name: each for name, each in self.introspect().items() if not each["success"]}
        if failed:
            name, first = next(iter(failed.items()))
            raise BadInput(f"the artifact fails '{name}': {first['error_msg']}; mend it before it is saved")
        arguments = ["publish", str(self.artifact_dir), "--json", *(["--hub", hub] if hub else [])]
        arguments += [part for target in targets for part in ("--target", target)]
        said = json.loads(_asked(*arguments, token=token))
        return str(said["version"])

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        """Write the model's file; returns how it was written, and its name."""
        if not self.serialize:
            return "none", name or "model.pkl"
        try:
            import cloudpickle as pickling

            serializer = "cloudpickle"
        except ImportError:
            pickling, serializer = pickle, "pickle"
        return serializer, self._pickled(stage, name or "model.pkl", pickling.dumps)

    def _pickled(self, stage: Path, name: str, dumps: Any) -> str:
        try:
            (stage / name).write_bytes(dumps(self.estimator))
        except Exception as error:  # whatever a user's class raises when it is pickled
            raise BadInput(
                f"the estimator cannot be pickled: {error}: give serialize=False, and write load_model()"
            ) from error
        return name

    def _write_samples(self, stage: Path, x_sample: Any, y_sample: Any) -> None:
        """Both schemas and golden rows, as far as samples were given."""
        if x_sample is None:
            return
        tensor = INPUTS if self._takes_tensors else None
        answers = self._answers(x_sample) if self.serialize else None
        known = y_sample if y_sample is not None else answers
        _write_json(stage / INPUT, schema_of(x_sample, "X_sample", tensor=tensor))
        if known is not None:
            _write_json(stage / OUTPUT, schema_of(known, "y_sample"))
        rows = golden_rows(columns_of(x_sample, "X_sample", tensor=tensor), answers, MOST_ROWS)
        if rows:
            (stage / GOLDEN).write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", "utf-8")

    _takes_tensors = False

    def _answers(self, rows: Any) -> list[Any]:
        """What the estimator itself says of rows. Raises BadInput with what it raises."""
        try:
            answer = self._predict(rows)
        except Exception as error:
            raise BadInput(
                f"the estimator does not answer: {type(error).__name__}: {error}; give rows as it was fitted with"
            ) from error
        return list(array_of(answer).tolist())

    def _predict(self, rows: Any) -> Any:
        return self.estimator.predict(rows)

    def _payload(self, rows: Any) -> bytes:
        """Rows as ADS's own client sends them."""
        if isinstance(rows, bytes):
            return rows
        if isinstance(rows, (str, dict)):
            return json.dumps(rows).encode()
        if hasattr(rows, "columns") and hasattr(rows, "dtypes") and not self._takes_tensors:
            columns = {
                name: dict(enumerate(values)) for name, values in ((n, _json_list(rows[n])) for n in rows.columns)
            }
            return json.dumps({"data": json.dumps(columns), "data_type": "pandas.core.frame.DataFrame"}).encode()
        if isinstance(rows, list):
            return json.dumps(rows).encode()
        import numpy as np

        file = io.BytesIO()
        np.save(file, array_of(rows), allow_pickle=False)
        return json.dumps({"data": base64.b64encode(file.getvalue()).decode(), "data_type": "numpy.ndarray"}).encode()

    def _write_metadata(self, folder: Path) -> None:
        _write_json(folder / metadata.METADATA, self.metadata)

    @contextmanager
    def _served(self, wheels: str | Path | None) -> Iterator[str]:
        """The artifact behind a port of this machine, for as long as it is asked."""
        if self._data is None:  # kept while this object is: the libraries are unpacked once
            self._data = tempfile.mkdtemp(prefix="edgepack-verify-")
            weakref.finalize(self, shutil.rmtree, self._data, ignore_errors=True)
        command = [*_program(), "serve", str(self.artifact_dir), "--port", "0", "--data", self._data]
        command += ["--wheels", str(wheels)] if wheels else []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            try:
                yield _address(child)
            finally:
                child.terminate()
                child.communicate(timeout=_ANSWER_S)


class SklearnModel(GenericModel):
    """A fitted estimator of scikit-learn, kept with joblib."""

    framework = "sklearn"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        import joblib

        return "joblib", self._pickled(stage, name or "model.joblib", _dumped(joblib))


class XGBoostModel(SklearnModel):
    """An XGBoost estimator, kept with joblib so that it answers labels, or a Booster in its own form."""

    framework = "xgboost"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if hasattr(self.estimator, "predict_proba") or hasattr(self.estimator, "get_booster"):
            return super()._write_model(stage, name, sample)
        self.estimator.save_model(str(stage / (name or "model.json")))
        return "xgboost", name or "model.json"

    def _predict(self, rows: Any) -> Any:
        if hasattr(self.estimator, "get_booster"):
            return self.estimator.predict(rows)
        from xgboost import DMatrix

        return self.estimator.predict(DMatrix(rows))


class LightGBMModel(SklearnModel):
    """A LightGBM estimator, kept with joblib so that it answers labels, or a Booster in its own form."""

    framework = "lightgbm"

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if hasattr(self.estimator, "get_params"):
            return super()._write_model(stage, name, sample)
        self.estimator.save_model(str(stage / (name or "model.txt")))
        return "lightgbm", name or "model.txt"


class PyTorchModel(GenericModel):
    """A module of PyTorch, kept as TorchScript: scripted, or traced with the first rows of X_sample."""

    framework = "pytorch"
    _takes_tensors = True

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if not self.serialize:
            return "none", name or "model.pt"
        import torch

        module = self.estimator.eval()
        try:
            made = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
        except Exception as error:  # whatever the compiler refuses
            if sample is None:
                raise BadInput(f"the module does not script ({error}): give X_sample, to have it traced") from error
            made = torch.jit.trace(module, torch.as_tensor(array_of(sample[:2])))
        made.save(str(stage / (name or "model.pt")))
        return "torchscript", name or "model.pt"

    def _predict(self, rows: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.estimator.eval()(torch.as_tensor(array_of(rows)))


class TensorFlowModel(GenericModel):
    """A Keras model of TensorFlow, kept in Keras's own form."""

    framework = "tensorflow"
    _takes_tensors = True

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        if not self.serialize:
            return "none", name or "model.keras"
        self.estimator.save(str(stage / (name or "model.keras")))
        return "keras", name or "model.keras"

    def _predict(self, rows: Any) -> Any:
        return self.estimator(array_of(rows))


class SparkPipelineModel:
    """ADS's class for Spark pipelines, which do not run on a device."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise BadInput(
            "no Spark runs on a device: convert the fitted pipeline with onnxmltools.convert_sparkml and package the "
            ".onnx, or train it with scikit-learn"
        )


def _dumped(joblib: Any) -> Any:
    def dumps(estimator: Any) -> bytes:
        file = io.BytesIO()
        joblib.dump(estimator, file)
        return file.getvalue()

    return dumps


def _json_list(column: Any) -> list[Any]:
    values = column.to_numpy().tolist()
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n", "utf-8")


def _asked(*arguments: str, token: str | None = None) -> str:
    """What the program `edgepack` prints. Raises BadInput or RuntimeFailed with its last line."""
    environ = {**os.environ, **({"EDGEPACK_TOKEN": token} if token else {})}
    done = subprocess.run([*_program(), *arguments], capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        raise _failed(done.returncode, done.stderr)
    return done.stdout


def _failed(code: int, said: str) -> BadInput | RuntimeFailed:
    last = (said.strip().splitlines() or [f"edgepack ended with {code}"])[-1]
    family = BadInput if code == BadInput.exit_code else RuntimeFailed
    return family(last.removeprefix("edgepack: "))


def _address(child: subprocess.Popen[str]) -> str:
    """Where the child serves, once it says so."""
    for line in child.stdout or ():
        if line.startswith("serving "):
            return line.partition(" on ")[2].split(" ")[0]
    raise _failed(child.wait(), child.stderr.read() if child.stderr else "")


def _posted(url: str, body: bytes) -> Any:
    kind = "application/json" if body[:1] in b'{["' else "application/octet-stream"
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": kind})  # noqa: S310 - our own server's
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310 - as above
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.loads(error.read() or b"{}").get("error", str(error))
        raise BadInput(f"the artifact does not answer these rows: {said}") from error


def _difference(found: Any, expected: Any) -> float:
    """The largest difference of two answers, relative to max(1, |expected|); infinite where they are of two kinds."""
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return math.inf
        return max((_difference(one, other) for one, other in zip(found, expected, strict=True)), default=0.0)
    if isinstance(expected, float) and found is None:
        return 0.0 if not math.isfinite(expected) else math.inf  # JSON has no NaN
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return abs(found - expected) / max(1.0, abs(expected))
    return 0.0 if found == expected else math.inf
