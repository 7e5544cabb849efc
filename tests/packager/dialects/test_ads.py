"""Artifacts of Oracle ADS: recognised, read strictly, packaged as they are; and each fault in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from arch.target import host_target
from bundle import media
from bundle.bundle import bundles
from bundle.store import unpack
from columns.columns import Columns
from columns.json_value import JSON_VALUE, one_value
from edgepack import _ads_metadata as metadata
from edgepack.errors import BadInput, RuntimeFailed
from packager import Checklist, Project, package
from packager.archives import open_tree
from packager.detect import detect
from packager.dialects import ads_layout
from packager.dialects.ads_introspection import introspect
from packager.dialects.ads_libraries import libraries_of
from packager.dialects.ads_schema import INPUT, fields_of
from packager.dialects.ads_score import read_score
from packager.package import Packaged
from packager.wheels import WheelSource
from runtimes.pipeline import LoadedPipeline
from tests.packager.dialects.ads_artifacts import FILES, RUNTIME, SCORE, artifact, attribute, inspected, schema, tree_of
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel


@dataclass(frozen=True)
class Packager:
    """Packages with numpy alone, which is unpacked already, and without an index."""

    folder: Path

    def package(self, source: Path, checklist: Checklist | None = None) -> Packaged:
        wheels, checklist = WheelSource(self.folder / "wheels"), checklist or Checklist()
        project, targets = Project.open(source), [host_target()]
        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(self.folder / "uv")}.items():
                patch.setenv(key, value)
            return package(project, targets, cache=self.cache, wheels=wheels, here=True, checklist=checklist)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


@pytest.fixture(scope="module")
def packager(tmp_path_factory: pytest.TempPathFactory) -> Packager:
    folder = tmp_path_factory.mktemp("ads")
    site = numpy_environment()
    shutil.copytree(site, folder / "cache/workers" / site.name, copy_function=os.link)
    (folder / "wheels").mkdir()
    shutil.copy(numpy_wheel(), folder / "wheels")
    return Packager(folder)


def zipped(place: Path, top: str = "") -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"{top}{name}", text)
    return place


def test_a_folder_and_a_zip_are_recognised_by_two_names_and_make_the_same_artifact(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "churn")
    first, second = zipped(tmp_path / "churn.zip"), zipped(tmp_path / "other.zip", "churn/")
    assert [detect(each) for each in (folder, first, second)] == ["ads"] * 3
    assert len({inspected(each, tmp_path).digest for each in (folder, first, second)}) == 1
    (folder / "runtime.yaml").unlink()
    assert not ads_layout.is_artifact(folder)


def test_rows_of_the_schemas_fields_and_whole_payloads_are_both_answered(packager: Packager, tmp_path: Path) -> None:
    told: list[str] = []
    kept = {"provenance": {"git_commit": "c0ffee"}, "taxonomy": {"UseCaseType": "regression", "Hyperparameters": {}}}
    source = artifact(tmp_path / "churn", model_metadata_dot_json=json.dumps(kept))
    found = packager.package(source, Checklist(notice=told.append))
    step = found.spec.steps[0]
    assert (step.framework, step.runtime, step.input) == ("ads", "python", {"age": "int64", "income": "float64"})
    assert step.output == {"prediction": "float64"} and str(step.reason).startswith("score.py runs in a worker: ")
    assert any("'generalml_p38_cpu_v1'" in line for line in told) and any("Python 3.8" in line for line in told)
    training = found.parity["provenance"]["models"]["churn"]["training"]
    assert training["ArtifactTestResults"]["score_load_model"]["success"] is True
    assert (training["git_commit"], training["UseCaseType"]) == ("c0ffee", "regression")
    (bundle,) = bundles(found.index)
    travelling = {path.removeprefix("models/churn/") for path in bundle.blobs if path.startswith("models/")}
    assert travelling == set(FILES) - {".model-ignore", "train.ipynb", "notes/today.txt"} | {"model_metadata.json"}
    loaded = LoadedPipeline.open(unpack(bundle, tmp_path / "device"), packager.cache / "workers")
    try:
        rows = Columns.of(loaded.input, {"age": np.array([1, 2]), "income": np.array([10.5, 3.0])})
        assert loaded.infer(rows).outputs["prediction"].tolist() == [21.5, 7.0]
        assert loaded.values is not None
        said = loaded.values.infer_value(one_value(b'{"age": [1, 2], "income": [10.5, 3]}', is_json=True))
        assert said.schema == JSON_VALUE and json.loads(said["json"][0]) == {"prediction": [21.5, 7.0]}
        assert loaded.values.infer_value(one_value(b"abc", is_json=False))["json"][0] == '{"prediction":3}'
        with pytest.raises(RuntimeFailed, match="KeyError: 'age'"):
            loaded.values.infer_value(one_value(b'{"income": [1]}', is_json=True))
    finally:
        loaded.close()


def test_an_edited_score_py_is_packaged_beside_the_rows_that_prepare_kept(packager: Packager, tmp_path: Path) -> None:
    """The answers in them are the estimator's, of another type than the edited file's."""
    rows = json.dumps([{"in.age": 1, "in.income": 10.5, "out.prediction": 21.5}])
    may_be_null = schema(attribute(0, required=False))
    source = artifact(tmp_path / "churn", golden_dot_json=rows, output_schema_dot_json=may_be_null)
    digests = metadata.digests(source, ("score.py", "golden.json"))
    metadata.write(source / metadata.METADATA, {"custom": {metadata.DIGESTS: digests}})
    gives = 'return {"prediction": [{"watts": each, "is_high": each > 20} for each in '
    code = SCORE.replace('return {"prediction": (', f"{gives}(").replace("@ model).tolist()}", "@ model).tolist()]}")
    (source / "score.py").write_text(code)
    found = packager.package(source)
    assert found.spec.steps[0].output == {"prediction": "struct<watts: float64, is_high: bool>?"}
    assert [note for note in found.notes if note.startswith("golden rows")] == [
        "golden rows: 1 rows from 'golden.json', asked without their answers: those are the estimator's, "
        "and score.py was edited since prepare()"
    ]
    (bundle,) = bundles(found.index)
    (row,) = json.loads(bundle.blobs[media.GOLDEN_FILE].open().read())
    assert row["out.prediction"] == {"watts": 21.5, "is_high": True}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"score_dot_py": "def load_model():\n    return 1\n"}, "no function predict"),
        ({"score_dot_py": "def predict(data):\n    return 1\n"}, "no function load_model"),
        ({"score_dot_py": SCORE.replace("return np.array(json.load(file))", "pass")}, "score.py:10 returns None"),
        ({"score_dot_py": SCORE.replace("predict(data, model=load_model())", "predict()")}, "takes no data"),
        ({"score_dot_py": SCORE.replace("def predict", "async def predict")}, "is async"),
        ({"score_dot_py": "def predict(:\n"}, "'score.py' in 'churn' is not Python"),
        ({"score_dot_py": "import pyspark\n" + SCORE}, "no Spark runs on a device; convert"),
        ({"score_dot_py": "import oci\n" + SCORE}, "imports oci, which needs Oracle's cloud"),
        ({"score_dot_py": "import leftpad\n" + SCORE}, "add a requirements.txt"),
        ({"weights_dot_json": None}, "loads 'weights.json', which 'churn' does not have"),
        ({"_dot_model-ignore": "weights.json"}, "loads 'weights.json', which 'churn' does not have"),
        ({"_dot_model-ignore": "*.py"}, "names score.py"),
        ({"_dot_model-ignore": "*.yaml"}, "names runtime.yaml"),
        ({"output_schema_dot_json": schema(attribute("is:x"), attribute("b", "int64"))}, "the name 'is:x' has a sign"),
        ({"a_dot_joblib": "1", "b_dot_joblib": "2"}, "has 2 models, 'a.joblib' and 'b.joblib'"),
        ({"input_schema_dot_json": None}, "has no input_schema.json: write it with prepare"),
        ({"output_schema_dot_json": None}, "has no output_schema.json: write it with prepare"),
        ({"input_schema_dot_json": "{"}, "input_schema.json in 'churn' is not JSON"),
        ({"input_schema_dot_json": "[" * 100_000}, "input_schema.json in 'churn' is not JSON"),
        ({"input_schema_dot_json": "[]"}, "is no schema"),
        ({"input_schema_dot_json": schema()}, "names no field"),
        ({"input_schema_dot_json": schema(attribute(None))}, "attribute 0 has no name"),
        ({"input_schema_dot_json": schema(attribute("a", "complex128"))}, "has dtype 'complex128'"),
        ({"input_schema_dot_json": schema(attribute("a"), attribute("a"))}, "has two fields 'a'"),
        ({"runtime_dot_yaml": "a: [\n"}, "runtime.yaml in 'churn' is not YAML, line 2"),
        ({"runtime_dot_yaml": "- 1\n"}, "is no mapping"),
        ({"runtime_dot_yaml": "MODEL_DEPLOYMENT: 3\n"}, "MODEL_DEPLOYMENT is no mapping"),
        ({"runtime_dot_yaml": RUNTIME.replace("3.8", "three")}, "INFERENCE_PYTHON_VERSION is 'three'"),
        ({"runtime_dot_yaml": "a: &a [1]\nb: [*a, *a, *a]\n"}, r"line 2: the alias '\*a'"),
        ({"runtime_dot_yaml": "a: !!python/object/apply:os.system [touch]\n"}, ""),
        ({"runtime_dot_yaml": "#" * 300_000}, "larger than"),
        ({"runtime_dot_yaml": "[" * 5_000}, "more than 32 levels"),
        ({"requirements_dot_txt": "-e .\n"}, "requirements.txt in 'churn':1 has the option"),
        ({"model_metadata_dot_json": "[]"}, "not as prepare"),
    ],
)  # fmt: skip
def test_a_fault_of_a_file_is_one_line_before_anything_runs(
    tmp_path: Path, changes: dict[str, str | None], said: str
) -> None:
    checklist = Checklist()
    if changes.keys() & {"a_dot_joblib"}:
        changes = {**changes, "score_dot_py": SCORE.replace('model_name = "weights.json"', 'name = "w"')}
    if "!!python" in str(changes.get("runtime_dot_yaml")):
        assert inspected(artifact(tmp_path / "churn", **changes), tmp_path).framework == "ads"  # a tag means nothing
        return
    with pytest.raises(BadInput, match=said) as error:
        inspected(artifact(tmp_path / "churn", **changes), tmp_path, checklist)
    assert len(str(error.value).splitlines()) == 1


def test_nothing_of_the_code_runs_outside_the_sandbox(packager: Packager, tmp_path: Path) -> None:
    """A model that does not load ends packaging in one line; what else the code wanted to do did not happen."""
    mark = tmp_path / "mark"
    code = f"""
try:
    open({str(mark)!r}, "w").close()
except OSError:
    raise ValueError("no such luck") from None
"""
    with pytest.raises(BadInput, match="does not load in its worker: ValueError: no such luck") as error:
        packager.package(artifact(tmp_path / "churn", score_dot_py=code + SCORE))
    assert not mark.exists() and len(str(error.value).splitlines()) == 1


def test_a_zip_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "churn.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../out.py", "")
    with pytest.raises(BadInput, match="plain relative paths"):
        inspected(path, tmp_path)


def test_libraries_follow_from_the_imports_and_json_text_needs_an_older_pandas(tmp_path: Path) -> None:
    code = SCORE.replace("import numpy as np", "import numpy as np\nimport pandas as pd\nimport sklearn")
    old = code + "\n\ndef deserialize(data):\n    return pd.read_json(data)\n"
    found = [libraries_of(tree, read_score(tree)) for tree in (
        tree_of(tmp_path / "new", score_dot_py=code), tree_of(tmp_path / "old", score_dot_py=old),
        tree_of(tmp_path / "told", score_dot_py=code, requirements_dot_txt="pandas==2.2.3\n"),
    )]  # fmt: skip
    assert found == [
        ["numpy", "pandas", "scikit-learn"],
        ["numpy", "pandas<3", "scikit-learn"],
        ["numpy", "pandas==2.2.3"],
    ]


def test_code_without_the_file_that_makes_it_an_artifact_is_told_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"/churn' has score\.py without runtime\.yaml: an artifact of ADS has both"):
        Project.open(artifact(tmp_path / "churn", runtime_dot_yaml=None))


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_a_pickled_estimator_of_a_booster_brings_scikit_learn(tmp_path: Path, library: str) -> None:
    """Its classes are built on scikit-learn's, which neither library requires."""
    folder = artifact(tmp_path / "churn")
    (folder / "model.pkl").write_bytes(f"c{library}.sklearn\nRegressor\n.".encode())
    tree = open_tree(folder, folder)
    assert "scikit-learn" in libraries_of(tree, read_score(tree))


def test_fields_have_the_types_and_the_order_that_the_schema_says(tmp_path: Path) -> None:
    said = schema(
        attribute("b", "object", feature_type="String", order=1),
        attribute("a", "Int64", required=False, order=0),
        attribute(7, "category", feature_type="Category", order=2),
        attribute("when", "datetime64[ns]", order=3),
        attribute("picture", "float32", shape=[2, 3], order=4),
    )
    assert fields_of(tree_of(tmp_path / "churn", input_schema_dot_json=said), INPUT) == {
        "a": "int64?", "b": "string", "7": "string", "when": "string", "picture": "list<list<float32>[3]>[2]",
    }  # fmt: skip


def test_introspection_names_each_test_and_nothing_ends_it(tmp_path: Path) -> None:
    good = introspect(artifact(tmp_path / "good"), tmp_path)
    assert all(each["success"] for each in good.values())
    assert all(each["category"] and each["description"].startswith("Check that ") for each in good.values())
    bad = introspect(
        artifact(
            tmp_path / "bad",
            score_dot_py="def predict(data, model): return model\n",
            runtime_dot_yaml=RUNTIME.replace("    INFERENCE_ENV_TYPE: data_science\n", "").replace("'3.0'", "2"),
            input_schema_dot_json="{",
        ),
        tmp_path,
    )
    assert {name for name, each in bad.items() if not each["success"]} == {
        "runtime_env_type", "runtime_version", "score_load_model", "score_predict_arg", "score_model", "input_schema",
    }  # fmt: skip
    assert all(each["error_msg"] for each in bad.values() if not each["success"])
    nothing = introspect(artifact(tmp_path / "none", score_dot_py=None, runtime_dot_yaml="a: [\n"), tmp_path)
    assert {"score_py", "score_syntax", "runtime_yaml"} <= {
        name for name, each in nothing.items() if not each["success"]
    }
    (tmp_path / "none/helper.py").write_text("")
    assert introspect(tmp_path / "none", tmp_path)["score_model"]["error_msg"] == "the file score.py is missing"


def test_introspection_says_what_check_would_refuse_and_each_fault_once(tmp_path: Path) -> None:
    for name in ("ads", "oci"):
        found = introspect(artifact(tmp_path / name, score_dot_py=f"from {name} import client\n{SCORE}"), tmp_path)
        assert f"imports {name}, which needs Oracle's cloud" in found["score_model"]["error_msg"]
    wrong = introspect(artifact(tmp_path / "wrong", score_dot_py=f"{SCORE}\ndef other(:\n"), tmp_path)
    said = [each["error_msg"] for name, each in wrong.items() if not each["success"]]
    assert said[0] == "score.py:20: invalid syntax" and set(said[1:]) == {"score.py does not parse: see score_syntax"}


def test_what_needs_oracles_cloud_is_refused_unless_its_package_is_asked_for(tmp_path: Path) -> None:
    code = f"import oci\n{SCORE}"
    checklist = Checklist()
    with pytest.raises(
        BadInput, match=r"score\.py in 'churn' imports oci, .*: score\.py must run with its model alone"
    ):
        inspected(artifact(tmp_path / "churn", score_dot_py=code), tmp_path, checklist)
    assert [each.key for each in checklist.checks if not each.passed] == ["model.code"]
    assert read_score(tree_of(tmp_path / "asked", score_dot_py=code, requirements_dot_txt="oci\nnumpy\n")).predict


@pytest.mark.parametrize("pack", [bytes, zlib.compress], ids=["plain", "compressed"])
def test_a_pickle_that_was_cut_short_is_said_to_be_where_score_py_names_it(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Its libraries, which would be missed first, are not known of such a file."""
    folder = artifact(tmp_path / "churn", score_dot_py=SCORE.replace("weights.json", "model.joblib"))
    whole = pack(pickle.dumps([str(number) for number in range(1000)]))
    (folder / "model.joblib").write_bytes(whole)
    assert read_score(open_tree(folder, tmp_path)).predict
    (folder / "model.joblib").write_bytes(whole[:-100])
    with pytest.raises(BadInput, match=r"score\.py loads a damaged file: 'model\.joblib' is not .*; copy it again"):
        inspected(folder, tmp_path)
    assert "damaged" in introspect(folder, tmp_path)["score_model"]["error_msg"]
    (folder / "model.joblib").write_text("a form of its own")
    assert read_score(open_tree(folder, tmp_path)).predict
