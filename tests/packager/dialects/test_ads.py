"""Artifacts of Oracle ADS: recognised, read strictly, packaged as they are; and each fault in one line."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from columns.columns import Columns
from columns.json_value import JSON_VALUE, one_value
from columns.schema import Field, Schema
from columns.types import parse_type
from columns.values import column_from_values
from edge_agent.doors.ads import rows_of
from edgepack._ads_score import LIBRARIES, score_py
from edgepack.errors import BadInput, RuntimeFailed
from packager import Checklist, Project, package
from packager.archives import Tree, open_tree
from packager.detect import detect
from packager.dialects import ads_layout
from packager.dialects.ads_asking import Answered, Asking, type_of
from packager.dialects.ads_introspection import introspect
from packager.dialects.ads_libraries import libraries_of
from packager.dialects.ads_schema import INPUT, fields_of
from packager.dialects.ads_score import read_score
from packager.inspect import inspect_step
from packager.package import Packaged
from packager.wheels import WheelSource
from runtimes.pipeline import LoadedPipeline
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel

SCORE = """
import json
import os

import numpy as np

model_name = "weights.json"


def load_model():
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), model_name)) as file:
        return np.array(json.load(file))


def predict(data, model=load_model()):
    if isinstance(data, bytes):
        return {"prediction": len(data)}
    return {"prediction": (np.column_stack([data["age"], data["income"]]) @ model).tolist()}
"""
RUNTIME = """
MODEL_ARTIFACT_VERSION: '3.0'
MODEL_DEPLOYMENT:
  INFERENCE_CONDA_ENV:
    INFERENCE_ENV_PATH: oci://bucket@namespace/generalml_p310_cpu_v1
    INFERENCE_ENV_SLUG: generalml_p310_cpu_v1
    INFERENCE_ENV_TYPE: data_science
    INFERENCE_PYTHON_VERSION: 3.10
"""


def attribute(name: object, dtype: str = "float64", **more: object) -> dict[str, object]:
    return {"name": name, "dtype": dtype, "feature_type": "Continuous", "required": True, **more}


def schema(*attributes: dict[str, object]) -> str:
    return json.dumps({"schema": list(attributes), "version": "1.1"})


FILES = {
    "score.py": SCORE,
    "weights.json": "[0.5, 2]",
    "runtime.yaml": RUNTIME,
    "input_schema.json": schema(attribute("age", "int64", order=0), attribute("income", order=1)),
    "output_schema.json": schema(attribute(0)),
    ".model-ignore": "# not needed\n*.ipynb\nnotes/\n",
    "train.ipynb": "{}",
    "notes/today.txt": "none",
}


def artifact(place: Path, **changes: str | None) -> Path:
    """An artifact's folder; `changes` stand for files with `_dot_` for a dot, None for one that is missing."""
    for name, text in {**FILES, **{key.replace("_dot_", "."): text for key, text in changes.items()}}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return place


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


def inspected(source: Path, tmp_path: Path, checklist: Checklist | None = None) -> Any:
    project = Project.open(source)
    return inspect_step(project.steps[0], project.root, checklist or Checklist(), tmp_path / "cache")


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
    assert any("'generalml_p310_cpu_v1'" in line for line in told) and any("Python 3.10" in line for line in told)
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


ROWS, KINDS = (
    'np.column_stack([data["age"], data["income"]])',
    {"array": "numpy.ndarray", "frame": "DataFrame", "tensor": "torch.Tensor __ads_torch_tensor__"},
)
NPY = 'np.load(__import__("io").BytesIO(__import__("base64").b64decode(data["data"])))'
PAYLOADS = {
    "columns": ROWS,
    "records": 'np.array([(row["age"], row["income"]) for row in data])',
    "rows": "np.array([row + [] for row in data])",
    "data": 'np.array(data["data"])',
    "record": 'np.array([data["age"] + 0, data["income"] + 0])',
    "array": NPY,
    "tensor": 'np.array(data["data"]["data"]).reshape(data["data"]["shape"])',
    "frame": 'np.array([list(each.values()) for each in json.loads(data["data"]).values()]).T',
}


def answered(source: Path, given: Schema | None = None) -> Answered:
    """What score.py answers in a worker, to rows made for its fields."""
    tree = open_tree(source, source)
    score, inputs = read_score(tree), Schema.parse(fields_of(tree, INPUT))
    with Asking.start(score, inputs, "churn", source, Path(sys.executable), (numpy_environment(),)) as asking:
        return asking.first_answered(None, tree, given)


@pytest.mark.parametrize("form", PAYLOADS)
def test_the_form_in_which_the_code_reads_rows_is_found_by_asking_it(tmp_path: Path, form: str) -> None:
    changes = {"input_schema_dot_json": schema(attribute(0), attribute(1))} if form == "array" else {}
    reads = f"numpy.ndarray pandas.core.frame.{KINDS.get(form)}"
    code = SCORE.replace(ROWS, PAYLOADS[form]) + f"READS = {reads!r}\n"
    found = answered(artifact(tmp_path / "churn", score_dot_py=code, **changes))
    first, second = ("0", "1") if form == "array" else ("age", "income")
    assert found.payload == form
    assert found.predictions == pytest.approx(0.5 * found.rows[first] + 2 * found.rows[second])


@pytest.mark.parametrize(
    "answer, type_",
    [
        ("['a' if x > 0 else 'b' for x in data['income']]", "string"),
        ("[{'score': x, 'is_high': x > 1} for x in data['income']]", "struct<score: float64, is_high: bool>"),
        ("[[x, 1.5] for x in data['income']]", "list<float64>[2]"),
        ("np.array(data['age'])", "int64"),
        ("[None if x < 0 else x for x in data['income']]", "float64?"),
    ],
)
def test_the_type_of_a_prediction_is_that_of_what_predict_gives(tmp_path: Path, answer: str, type_: str) -> None:
    """output_schema.json has the type of the known answers, which scores need not have."""
    code = SCORE.replace('(np.column_stack([data["age"], data["income"]]) @ model).tolist()', answer)
    assert answered(artifact(tmp_path / "churn", score_dot_py=code)).output.to_dict() == {"prediction": type_}


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
        ({"runtime_dot_yaml": RUNTIME.replace("3.10", "three")}, "INFERENCE_PYTHON_VERSION is 'three'"),
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


@pytest.mark.parametrize(
    "change, said",
    [
        (("return np.array(json.load(file))", "return json.loads('null')"), "load_model.. in score.py returned None"),
        (("model_name =", "raise ValueError('no luck')\nmodel_name ="), "ValueError: no luck"),
        (("model_name =", "raise SystemExit(3)\nmodel_name ="), "SystemExit: 3"),
        (("def predict(data, model=load_model())", "def predict(data, model=None)"), None),
        (("@ model).tolist()", "@ model + 1j).tolist()"), "complex is no JSON value"),
        (('return {"prediction": (', "raise KeyError('spelt')\n    return {'a': ("), "KeyError: 'spelt'"),
        (("@ model).tolist()", "@ model).tolist()[1:]"), "7 elements for 8 rows"),
        (("@ model).tolist()", "@ model * np.nan).tolist()"), "not JSON compliant"),
        (('return {"prediction": (', "json.dumps = lambda *_, **__: '{'\n    return {'a': ("), "does not answer"),
        (('return {"prediction": (', "os._exit(3)\n    return {'a': ("), "score.py does not answer: step 'churn'"),
    ],
    ids=["None", "raises", "exits", "no default", "no JSON", "predict raises", "too few", "NaN", "garbage", "ends"],
)
def test_a_fault_that_shows_when_the_code_runs_is_one_line_too(
    tmp_path: Path, change: tuple[str, str], said: str | None
) -> None:
    source = artifact(tmp_path / "churn", score_dot_py=SCORE.replace(*change))
    if said is None:
        assert answered(source).output.to_dict() == {"prediction": "float64"}
        return
    with pytest.raises((BadInput, RuntimeFailed), match=said) as error:
        answered(source)
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


def tree_of(place: Path, **changes: str | None) -> Tree:
    return open_tree(artifact(place, **changes), place)


@pytest.mark.parametrize("serializer, kind", [
    ("joblib", "pickle"), ("pickle", "pickle"), ("cloudpickle", "pickle"), ("xgboost", "xgboost"),
    ("lightgbm", "lightgbm"), ("keras", "keras"), ("torchscript", "torchscript"), ("none", None),
])  # fmt: skip
def test_a_generated_score_py_is_told_by_its_shape(tmp_path: Path, serializer: str, kind: str | None) -> None:
    assert serializer in LIBRARIES
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=score_py(serializer, "weights.json")))
    assert (found.generated.kind if found.generated else None) == kind
    assert not found.reads_json_text


@pytest.mark.parametrize(
    "change, why",
    [
        (
            ("return deserialize(data, input_schema_path)", "return deserialize(data, None) * 2"),
            "pre_inference computes",
        ),
        (("return yhat.tolist()", "return [2 for each in yhat]"), "post_inference computes"),
        (("return yhat.tolist()", "return sorted(yhat.tolist())"), "post_inference calls sorted"),
        (("model.predict(inputs)", "model.predict_proba(inputs)"), "predict calls model.predict_proba"),
        (("model_name = ", "limit = min(1, 2)\nmodel_name = "), "line 14 is none of ADS's own"),
        (("def predict(", "def other():\n    return 1\n\n\ndef predict("), "other in line 71 is none of ADS's own"),
        (("joblib.load(file)", "eval(file)"), "load_model calls eval"),
        (('model_name = "weights.json"', 'model_name = str("weights.json")'), "does not name its model"),
    ],
)
def test_whatever_else_a_score_py_does_makes_it_one_that_runs_itself(
    tmp_path: Path, change: tuple[str, str], why: str
) -> None:
    text = score_py("joblib", "weights.json")
    assert change[0] in text
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=text.replace(*change)))
    assert found.generated is None and why in str(found.why_not)


def test_what_newer_versions_of_ads_bring_along_is_theirs_too(tmp_path: Path) -> None:
    """A check of the model's digest in load_model, a device for the tensors."""
    text = score_py("torchscript", "weights.json")
    beside = (
        "def _verify_model_artifact_file(folder, name):\n    return len([each for each in folder]) * 2\n\n\n"
        "def get_torch_device():\n    return 'cpu'\n\n\ndevice = torch.device(get_torch_device())\n\n\n"
    )
    text = text.replace("@lru_cache", f"{beside}@lru_cache", 1).replace(
        "    path =", "    _verify_model_artifact_file(1, 2)\n    path ="
    )
    text = text.replace(
        "return deserialize(data, input_schema_path)",
        "data = deserialize(data, input_schema_path)\n    return data.to(device)",
    )
    found = read_score(tree_of(tmp_path / "churn", score_dot_py=text))
    assert found.generated is not None, found.why_not


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


@pytest.mark.parametrize(
    "pattern, left",
    [
        ("*.txt", {"a/b.csv"}),
        ("a/", {"c.txt"}),
        ("/c.txt", {"a/b.csv", "a/d.txt"}),
        ("**/d.txt", {"a/b.csv", "c.txt"}),
        ("a/*.csv", {"a/d.txt", "c.txt"}),
        ("*\n!c.txt\n!score.py", {"c.txt"}),
        ("d.txt", {"a/b.csv", "c.txt"}),
    ],
)
def test_what_model_ignore_names_stays_behind(tmp_path: Path, pattern: str, left: set[str]) -> None:
    for name in ("a/b.csv", "a/d.txt", "c.txt", "score.py"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text("x")
    (tmp_path / "x/.model-ignore").write_text(pattern)
    assert set(ads_layout.without_ignored(open_tree(tmp_path / "x", tmp_path)).files) == left | {"score.py"}


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_type_of_predictions_holds_them_all(values: list[Any]) -> None:
    text = type_of(values)
    if text is not None:
        field = Field("prediction", parse_type(text))
        assert len(column_from_values(field, values, json=True)) == len(values)


NUMBERS = Schema.parse({"age": "int64", "income": "float64", "is_new": "bool"})


def npy(array: Any) -> str:
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def test_a_native_model_reads_every_form_that_a_generated_score_py_reads() -> None:
    columns = {"age": [1, 2], "income": [10.5, 3.0], "is_new": [True, False]}
    frame = json.dumps({name: dict(enumerate(values)) for name, values in columns.items()})
    rows = [[1, 10.5, True], [2.0, 3, False]]
    forms: list[Any] = [
        columns, rows, frame, {"data": columns}, {"data": rows},
        {"data": frame, "data_type": "<class 'pandas.core.frame.DataFrame'>"},
        {"data": npy(np.array([[1, 10.5, 1], [2, 3, 0]])), "data_type": "<class 'numpy.ndarray'>"},
        {"data": {"__ads_torch_tensor__": 1, "dtype": "torch.float32", "data": rows}, "data_type": "torch.Tensor"},
        [dict(zip(columns, row, strict=True)) for row in rows[:1]] + [dict(zip(columns, [2, 3.0, False], strict=True))],
    ]  # fmt: skip
    for form in forms:
        found = rows_of(form, NUMBERS)
        assert {name: found[name].tolist() for name in columns} == columns, form


@pytest.mark.parametrize(
    "payload, said",
    [
        (3, "single JSON value"),
        ("text", "not JSON"),
        ({"data": "3"}, "no DataFrame"),
        ([[1, 2.0]], "row 0 has 2 values, expected 3"),
        ({"age": [1], "income": [1.0]}, "is_new"),
        ({"age": [1.5], "income": [1.0], "is_new": [True]}, "age"),
        ({"data": "%%", "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": 3, "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": npy(np.array([None])), "data_type": "numpy.ndarray"}, "no .npy file"),
        ({"data": npy(np.zeros((2, 3, 4))), "data_type": "numpy.ndarray"}, r"shape \[2, 3, 4\]"),
        ({"data": npy(np.array(["a"])), "data_type": "numpy.ndarray"}, "rows of numbers"),
    ],
)
def test_what_a_native_model_cannot_read_is_named(payload: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        rows_of(payload, NUMBERS)


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
