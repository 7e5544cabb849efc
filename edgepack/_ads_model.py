"""What ADS's model classes have in common: the files of an artifact, its tests, its answers, and the way to a hub.

No room of the house is imported here: what needs one is asked of `edgepack` in a child.
"""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

from edgepack import _ads_metadata as metadata
from edgepack._ads_folder import check_name, staged
from edgepack._ads_schema import array_of, columns_of, count_of, dtype_of, golden_rows, in_one_line, schema_of
from edgepack._ads_score import INPUTS, score_py
from edgepack._ads_verify import TOLERANCE, difference, first_rows, payload_of, posted, served
from edgepack._golden import write_rows
from edgepack._program import asked
from edgepack.errors import BadInput

SCORE, IGNORE, GOLDEN = "score.py", ".model-ignore", "golden.json"
INPUT, OUTPUT = "input_schema.json", "output_schema.json"
OWN = (SCORE, IGNORE, GOLDEN, INPUT, OUTPUT, metadata.RUNTIME, metadata.METADATA)
_IGNORED = """\
# what stays behind when this folder is packaged
.model-ignore
.git
.ipynb_checkpoints
__pycache__
golden.json
"""


class GenericModel:
    """A model and the folder of its artifact. `serialize=False` leaves the model's file, and load_model(), to you."""

    framework = "other"
    _file = "model.pkl"  # where no name is given
    _takes_tensors = False

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

        With `score_py_uri` that file is the score.py. Rows of `X_sample` are kept as golden rows, with the estimator's
        answers where they are score.py's too: until it is edited. Nothing is there until all is written; other files
        of the folder stay. Raises BadInput for what does not fit, and where a file is there already, unless
        `force_overwrite`.
        """
        name = model_file_name or self._file
        check_name(name, OWN)
        with staged(self.artifact_dir, overwrite=force_overwrite) as stage:
            serializer, file = "none", name
            if self.serialize:
                serializer, file = self._write_model(stage, model_file_name, X_sample)
            code = Path(score_py_uri).read_text("utf-8") if score_py_uri else score_py(serializer, file)
            (stage / SCORE).write_text(code, "utf-8")
            self._write_samples(stage, X_sample, y_sample, is_ours=score_py_uri is None)
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
                    "ModelArtifacts": sorted({*metadata.inventory(stage), file}),
                    metadata.DIGESTS: metadata.digests(stage, (SCORE, GOLDEN)),
                },
            }
            self._write_metadata(stage)
        self.introspect()

    def introspect(self) -> dict[str, dict[str, Any]]:
        """Look at runtime.yaml, score.py and the schemas by named tests: test → category, description, success and,
        where it failed, error_msg. They are kept in the artifact's metadata as ArtifactTestResults.
        """
        said = json.loads(asked("introspect", str(self.artifact_dir), "--json"))
        results: dict[str, dict[str, Any]] = said[metadata.TESTS]
        path = self.artifact_dir / metadata.METADATA
        if path.is_file():
            self.metadata = metadata.read(path)
        self.metadata.setdefault("taxonomy", {})[metadata.TESTS] = results
        self._write_metadata(self.artifact_dir)
        return results

    def verify(self, data: Any, *, wheels: str | Path | None = None) -> dict[str, Any]:
        """Serve the artifact on this machine, send the rows, and compare with the estimator's own answer.

        Returns what the server answered, with `expected` (None without an estimator), `is_same` and
        `largest_difference`, relative to max(1, |expected|). Bytes go to the model as they are. `wheels` is a folder
        of wheels that win over the index.
        """
        is_payload = isinstance(data, (bytes, str, dict))
        rows = data if is_payload else first_rows(data)
        expected = None if self.estimator is None or is_payload else self._answers(self._as_prepared(rows))
        body, kind = payload_of(rows, tensors=self._takes_tensors)
        if self._data is None:  # kept while this object is: the libraries are unpacked once
            self._data = tempfile.mkdtemp(prefix="edgepack-verify-")
            weakref.finalize(self, shutil.rmtree, self._data, ignore_errors=True)
        with served(self.artifact_dir, Path(self._data), wheels) as url:
            found = posted(url, body, kind)
        answer = found if isinstance(found, dict) else {"prediction": found}
        largest = None if expected is None else difference(answer.get("prediction"), expected)
        is_same = None if largest is None else largest <= TOLERANCE
        return {**answer, "expected": expected, "is_same": is_same, "largest_difference": largest}

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
        said = json.loads(asked(*arguments, token=token))
        return str(said["version"])

    def _write_model(self, stage: Path, name: str | None, sample: Any) -> tuple[str, str]:
        """Write the model's file; returns how it was written, and its name."""
        try:
            import cloudpickle as pickling

            serializer = "cloudpickle"
        except ImportError:
            pickling, serializer = pickle, "pickle"
        return serializer, self._pickled(stage, name or self._file, pickling.dumps)

    def _pickled(self, stage: Path, name: str, dumps: Any) -> str:
        try:
            (stage / name).write_bytes(dumps(self.estimator))
        except Exception as error:  # whatever a user's class raises when it is pickled
            raise BadInput(
                f"the estimator cannot be pickled: {in_one_line(error)}; give serialize=False, and write load_model()"
            ) from error
        return name

    def _write_samples(self, stage: Path, x_sample: Any, y_sample: Any, *, is_ours: bool) -> None:
        """Both schemas and golden rows, as far as samples were given. The estimator's answers are those of a score.py
        that is ours alone.
        """
        if x_sample is None:
            return
        tensor = INPUTS if self._takes_tensors else None
        answers = self._answers(x_sample) if self.serialize else None
        known = y_sample if y_sample is not None else answers
        metadata.write(stage / INPUT, schema_of(x_sample, "X_sample", tensor=tensor))
        if known is not None:
            metadata.write(stage / OUTPUT, schema_of(known, "y_sample"))
            if count_of(known) != count_of(x_sample):
                said = f"y_sample has {count_of(known)} answers, X_sample {count_of(x_sample)} rows"
                warnings.warn(f"{said}: are they answers to these rows?", stacklevel=3)
        rows = golden_rows(columns_of(x_sample, "X_sample", tensor=tensor), answers if is_ours else None)
        if rows:
            write_rows(stage / GOLDEN, rows)

    def _answers(self, rows: Any) -> list[Any]:
        """What the estimator itself says of rows, one answer each. Raises BadInput with what it raises, or gives."""
        try:
            answer = array_of(self._predict(rows))
        except Exception as error:
            said = f"{type(error).__name__}: {in_one_line(error)}"
            raise BadInput(f"the estimator does not answer: {said}; give rows as it was fitted with") from error
        count = count_of(rows)
        if answer.ndim == 0 or len(answer) != count:
            given = f"{len(answer)} answers" if answer.ndim else "one value"
            raise BadInput(f"the estimator gives {given} for {count} rows: expected an answer for each")
        return list(answer.tolist())

    def _as_prepared(self, rows: Any) -> Any:
        """Rows as score.py hands them to a network: an array of the dtype that input_schema.json has."""
        path = self.artifact_dir / INPUT
        if not self._takes_tensors or not path.is_file():
            return rows
        try:
            return array_of(rows).astype(dtype_of(path, INPUTS))
        except (TypeError, ValueError) as error:
            raise BadInput(f"the rows are no numbers: {in_one_line(error)}; give rows as X_sample has them") from error

    def _predict(self, rows: Any) -> Any:
        return self.estimator.predict(rows)

    def _write_metadata(self, folder: Path) -> None:
        metadata.write(folder / metadata.METADATA, self.metadata)
