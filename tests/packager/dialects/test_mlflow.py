"""MLflow model folders, made here without mlflow: what is read of them, what is unwrapped, what is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import BadInput
from packager.archives import open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.detect import detect
from packager.dialects.mlflow_folder import MlflowModel, read_model
from packager.dialects.mlflow_signature import Untyped, read_signature
from packager.inspect import inspect_step
from packager.project import Project
from tests.make import linear, save

PYFUNC = """\
  python_function:
    loader_module: mlflow.pyfunc.model
    python_model: python_model.pkl
    python_version: 3.11.7
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
"""
COLUMNS = [
    {"type": "double", "name": "sepal length", "required": True},
    {"type": "long", "name": "count", "required": True},
    {"type": "string", "name": "note", "required": False},
]
SUM = [{"type": "double", "name": "sum", "required": True}]


def signature(inputs: Any = None, outputs: Any = None, params: Any = None) -> str:
    """The lines of a signature, each part JSON in a string as MLflow writes it."""
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    lines = [f"  {name}: {json.dumps(json.dumps(said))}" for name, said in parts.items() if said is not None]
    return "\n".join(["signature:", *lines, ""])


def folder(place: Path, text: str, **files: str | bytes) -> Path:
    """A model folder; the names of files have `__` for a slash and `_dot_` for a dot."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "MLmodel").write_text(text)
    for name, content in files.items():
        path = place / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def pyfunc(place: Path, text: str = "", **files: str | bytes) -> Path:
    """A folder of code alone, with a signature."""
    text = text or signature(COLUMNS, SUM)
    content = {"python_model_dot_pkl": b"\x80\x04N.", **files}
    return folder(place, f"flavors:\n{PYFUNC}mlflow_version: 3.17.2\n{text}", **content)


def model_of(place: Path, cache: Path) -> MlflowModel:
    return read_model(open_tree(place, cache))


def inspected(place: Path, tmp_path: Path, checklist: Checklist | None = None) -> ModelArtifact:
    project = Project.open(place)
    return inspect_step(project.steps[0], project.root, checklist or Checklist(), tmp_path / "cache")


def test_a_folder_and_a_zip_of_it_are_recognised_by_their_mlmodel(tmp_path: Path) -> None:
    place = pyfunc(tmp_path / "model")
    zipped = tmp_path / "zipped.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for path in place.iterdir():
            archive.write(path, f"model/{path.name}")
    assert [detect(each) for each in (place, zipped)] == ["mlflow", "mlflow"]
    assert inspected(place, tmp_path).digest == inspected(zipped, tmp_path).digest


def test_a_folder_is_a_project_by_itself_and_its_code_runs_as_pyfunc(tmp_path: Path) -> None:
    found = inspected(pyfunc(tmp_path / "model"), tmp_path)
    assert found.input.to_dict() == {"sepal length": "float64", "count": "int64", "note": "string?"}
    assert (found.output.to_dict(), found.kind, found.framework) == ({"sum": "float64"}, "mlflow", "mlflow")
    assert found.reason == "code of the user's own: it runs as pyfunc in a worker"
    assert found.spec.runtime == "python" and "models/model/MLmodel" in found.files


def test_an_onnx_flavour_is_unwrapped_and_runs_natively(tmp_path: Path) -> None:
    text = f"flavors:\n  onnx: {{data: model.onnx, code: null}}\n{PYFUNC}"
    place = folder(tmp_path / "model", text)
    save(linear(), place / "model.onnx")
    found = inspected(place, tmp_path)
    assert (found.kind, found.spec.runtime, found.framework) == (None, "onnx", "mlflow")
    assert found.input.to_dict() == {"tensor": "list<float32>[3]"}
    assert found.summary.startswith("flavour 'onnx': ")


def test_a_flavour_whose_file_is_refused_runs_as_pyfunc_with_the_reason(tmp_path: Path) -> None:
    class Custom:
        def __reduce__(self) -> Any:
            return os.getcwd, ()

    text = f"flavors:\n  sklearn: {{pickled_model: model.pkl, code: null}}\n{PYFUNC}{signature(COLUMNS[:2], SUM)}"
    place = folder(tmp_path / "model", text, model_dot_pkl=pickle.dumps(Custom(), 4))
    checklist = Checklist()
    found = inspected(place, tmp_path, checklist)
    assert found.kind == "mlflow" and "names 'posix.getcwd'" in (found.reason or "")
    assert all(check.passed for check in checklist.checks)


def test_a_pickled_module_of_pytorch_is_not_opened_and_runs_as_pyfunc(tmp_path: Path) -> None:
    place = folder(
        tmp_path / "model",
        f"flavors:\n  pytorch: {{model_data: data}}\n{PYFUNC}{signature(COLUMNS[:2], SUM)}",
    )
    (place / "data").mkdir()
    with zipfile.ZipFile(place / "data/model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02N.")
    found = inspected(place, tmp_path)
    assert found.kind == "mlflow" and "is a pickled module" in (found.reason or "")


def test_without_pyfunc_a_refused_flavour_is_refused_with_the_way_out(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", "flavors:\n  pytorch: {model_data: data}\n")
    (place / "data").mkdir()
    with zipfile.ZipFile(place / "data/model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02N.")
    with pytest.raises(BadInput, match=r"no flavour 'python_function'.*torch\.jit\.script"):
        inspected(place, tmp_path)


def test_optional_columns_and_code_beside_an_estimator_are_left_to_pyfunc(tmp_path: Path) -> None:
    for number, (more, said) in enumerate(((", code: code", COLUMNS[:2]), ("", COLUMNS))):
        text = f"flavors:\n  sklearn: {{pickled_model: model.pkl{more}}}\n{PYFUNC}{signature(said, SUM)}"
        place = folder(tmp_path / str(number), text, model_dot_pkl=b"\x80\x04N.", code__own_dot_py="")
        assert inspected(place, tmp_path).kind == "mlflow"


def test_a_flavour_with_parameters_is_left_to_pyfunc_which_knows_their_defaults(tmp_path: Path) -> None:
    params = [{"name": "output_margin", "type": "boolean", "default": True, "shape": None}]
    text = f"flavors:\n  onnx: {{data: model.onnx, code: null}}\n{PYFUNC}{signature(COLUMNS[:2], SUM, params)}"
    place = folder(tmp_path / "model", text)
    save(linear(), place / "model.onnx")
    found = inspected(place, tmp_path)
    assert found.kind == "mlflow" and "it takes the parameter 'output_margin'" in (found.reason or "")
    assert found.input.to_dict() == {"sepal length": "float64", "count": "int64", "output_margin": "bool?"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("signature_def_key: margins", "its signature_def_key is 'margins', not 'serving_default'"),
        ("meta_graph_tags: [train, gpu]", "its meta_graph_tags is ['train', 'gpu'], not ['serve']"),
    ],
)
def test_another_signature_of_a_savedmodel_than_the_usual_is_left_to_pyfunc(
    tmp_path: Path, said: str, reason: str
) -> None:
    flavor = f"flavors:\n  tensorflow: {{saved_model_dir: tf, model_type: tf1-estimator, {said}}}\n"
    place = folder(tmp_path / "model", f"{flavor}{PYFUNC}{signature(COLUMNS[:2], SUM)}", tf__saved_model_dot_pb=b"x")
    found = inspected(place, tmp_path)
    assert found.kind == "mlflow" and reason in (found.reason or "")


def test_parameters_are_nullable_fields_and_golden_rows_leave_them_null(tmp_path: Path) -> None:
    params = [{"name": "scale", "type": "double", "default": 1.0, "shape": None}]
    params.append({"name": "words", "type": "string", "default": ["a"], "shape": [-1]})
    found = inspected(pyfunc(tmp_path / "model", signature(COLUMNS[:1], SUM, params)), tmp_path)
    assert found.input.to_dict() == {"sepal length": "float64", "scale": "float64?", "words": "list<string>?"}
    assert found.options["params"] == ["scale", "words"] and found.golden is not None
    assert set(found.golden.inputs.arrays["scale"]) == {None}


def test_the_example_that_was_logged_is_asked_first(tmp_path: Path) -> None:
    split = {"columns": ["count", "sepal length"], "data": [[3, 5.1], [4, 4.9]]}
    example = json.dumps({"dataframe_split": split})
    place = pyfunc(tmp_path / "model", signature(COLUMNS[:2], SUM), serving_input_example_dot_json=example)
    golden = inspected(place, tmp_path).golden
    assert golden is not None and golden.inputs.arrays["sepal length"].tolist() == [5.1, 4.9]


def test_bytes_of_an_example_are_read_as_mlflow_writes_them(tmp_path: Path) -> None:
    column = {"name": "blob", "type": "binary", "required": True}
    example = json.dumps({"dataframe_split": {"columns": ["blob"], "data": [["eHl6\n"]]}})
    place = pyfunc(tmp_path / "model", signature([column], SUM), serving_input_example_dot_json=example)
    golden = inspected(place, tmp_path).golden
    assert golden is not None and golden.inputs.arrays["blob"].tolist() == [b"xyz"]


def test_a_broken_example_does_not_matter(tmp_path: Path) -> None:
    for number, text in enumerate(("{", "[]", '{"dataframe_split": {}}', '{"inputs": 3}', "null", "[" * 100_000)):
        place = pyfunc(tmp_path / str(number), serving_input_example_dot_json=text)
        assert inspected(place, tmp_path).golden is None


def test_requirements_keep_their_versions_and_mlflow_becomes_its_small_build(tmp_path: Path) -> None:
    text = "mlflow==2.9.2\nscikit-learn==1.3.0\ncloudpickle==3.0.0\n"
    model = model_of(pyfunc(tmp_path / "model", requirements_dot_txt=text), tmp_path)
    assert model.requirements() == [
        "cloudpickle==3.0.0", "mlflow-skinny==2.9.2", "numpy", "pandas", "scikit-learn==1.3.0"
    ]  # fmt: skip


def test_conda_yaml_and_python_env_yaml_stand_in_for_requirements(tmp_path: Path) -> None:
    conda = """\
dependencies:
- python=3.9.16
- conda-forge::scipy=1.9.1=py39_0
- pip
- pip:
  - mlflow>=1.30,<2
  - pandas==1.5.3
"""
    old = model_of(pyfunc(tmp_path / "conda", conda_dot_yaml=conda), tmp_path)
    assert old.requirements() == ["mlflow-skinny<2,>=1.30", "numpy", "pandas==1.5.3", "scipy==1.9.1"]
    env = "python: 3.10.4\ndependencies:\n- -r requirements.txt\n- joblib==1.3\n"
    other = model_of(pyfunc(tmp_path / "env", python_env_dot_yaml=env), tmp_path)
    assert other.requirements() == ["joblib==1.3", "mlflow-skinny==3.17.2", "numpy", "pandas"]


CONDA_WORDS = {
    "numpy>=1.2": "numpy>=1.2",
    "numpy <2": "numpy<2",
    "numpy>=1.2,<2,!=1.5.*": "numpy!=1.5.*,<2,>=1.2",
    "numpy=1.26": "numpy==1.26.*",
    "numpy=1.26.*": "numpy==1.26.*",
    "numpy==1.26.4": "numpy==1.26.4",
    "numpy 1.26.4": "numpy==1.26.4",
    "numpy 1.26.4 py311_0": "numpy==1.26.4",
    "conda-forge/linux-64::numpy=1.26.4=py311_0": "numpy==1.26.4",
    "numpy~=1.26.0": "numpy~=1.26.0",
    "numpy": "numpy",
}


@pytest.mark.parametrize("words", CONDA_WORDS)
def test_a_version_in_condas_words_is_the_same_in_pips(tmp_path: Path, words: str) -> None:
    conda = f"dependencies:\n- python=3.9.16\n- pip<=23.1\n- {words!r}\n- {{pip: }}\n"
    model = model_of(pyfunc(tmp_path / "model", conda_dot_yaml=conda), tmp_path)
    assert model.requirements() == ["mlflow-skinny==3.17.2", CONDA_WORDS[words], "pandas"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("pip: numpy", "pip is no list of requirements"),
        ("pip: 5", "pip is no list of requirements"),
        ("pip: [numpy, 5]", "pip is no list of requirements"),
        ("{pip: [numpy], conda: [x]}", "which no requirement says"),
        ("5", "lists 5, which no requirement says"),
        ("numpy>=1|<3", r"lists 'numpy>=1\|<3', which no requirement says"),
        ("numpy=", "lists 'numpy=', which no requirement says"),
        ("'numpy[version=\\'>=1\\']'".replace("\\'", "''"), "which no requirement says"),
        ("_libgcc_mutex=0.1=main", "which no requirement says"),
        ("pip: ['numpy==1', '-r more.txt']", "has the option '-r more.txt'"),
    ],
)
def test_an_entry_of_conda_yaml_that_is_no_requirement_is_named(tmp_path: Path, entry: str, words: str) -> None:
    place = pyfunc(tmp_path / "model", conda_dot_yaml=f"dependencies:\n- {entry}\n")
    with pytest.raises(BadInput, match=f"conda.yaml in 'model'.*{words}"):
        inspected(place, tmp_path)


def test_constraints_that_log_model_wrote_bound_the_lines_of_their_packages(tmp_path: Path) -> None:
    asked = "mlflow==3.17.2\nscipy>=1.10\nxgboost==2.1.4\njoblib; python_version < '3.12'\n-c constraints.txt\n"
    bounds = "numpy<2\nscipy<1.15\nxgboost>=2,<3\njoblib>=1.3; sys_platform == 'linux'\nthreadpoolctl<4\nmlflow<4\n"
    place = pyfunc(tmp_path / "model", requirements_dot_txt=asked, constraints_dot_txt=bounds)
    expected = [
        'joblib; python_version < "3.12"', 'joblib>=1.3; python_version < "3.12" and sys_platform == "linux"',
        "mlflow-skinny==3.17.2", "numpy<2", "pandas", "scipy<1.15,>=1.10", "xgboost==2.1.4",
    ]  # fmt: skip
    assert model_of(place, tmp_path).requirements() == expected
    conda = f"dependencies:\n- pip: {asked.splitlines()}\n"
    other = pyfunc(tmp_path / "conda", conda_dot_yaml=conda, constraints_dot_txt=bounds)
    assert model_of(other, tmp_path).requirements() == expected
    told: list[str] = []
    inspected(place, tmp_path, Checklist(notice=told.append))
    assert any(line.endswith("which is not heeded: threadpoolctl") for line in told)


@pytest.mark.parametrize(
    ("line", "files", "words"),
    [
        ("-c constraints.txt", {}, "names 'constraints.txt', which '.*' does not have"),
        ("-c constraints.txt", {"constraints_dot_txt": "scipy<1"}, "'scipy==1.10' is outside of 'scipy<1'"),
        ("-c constraints.txt", {"constraints_dot_txt": "-r x"}, "constraints.txt in '.*':1 has the option"),
        ("-c ../constraints.txt", {"constraints_dot_txt": "scipy<1"}, "requirements.txt in '.*':2 has the option"),
    ],
)
def test_constraints_that_do_not_fit_are_one_line(tmp_path: Path, line: str, files: dict[str, str], words: str) -> None:
    place = pyfunc(tmp_path / "model", requirements_dot_txt=f"scipy==1.10\n{line}\n", **files)
    with pytest.raises(BadInput, match=words):
        inspected(place, tmp_path)


def test_another_python_is_said(tmp_path: Path) -> None:
    place = pyfunc(tmp_path / "model")
    (place / "MLmodel").write_text((place / "MLmodel").read_text().replace("3.11.7", "3.8.10"))
    told: list[str] = []
    inspected(place, tmp_path, Checklist(notice=told.append))
    assert any("was saved by Python 3.8" in line for line in told)


def test_types_of_columns_and_tensors() -> None:
    def listed(*columns: dict[str, Any]) -> str:
        return json.dumps(list(columns))

    nested = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "long", "required": False}}}}
    given = {
        "inputs": listed({**nested, "name": "x"}, {"type": "datetime", "name": "t"}, {"type": "boolean", "name": "b"}),
        "outputs": listed({"type": "float"}, {"type": "binary"}),
    }
    found = read_signature(given, "MLmodel")
    assert found.input is not None and found.output is not None
    assert found.input.fields == {"x": "list<struct<a: int64?>>", "t": "timestamp[ns]", "b": "bool"}
    assert found.output.fields == {"predictions_0": "float32", "predictions_1": "binary"}

    def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
        said = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
        return said if name is None else {**said, "name": name}

    given = {
        "inputs": listed(tensor("uint8", [-1, 28, 28], "image"), tensor("str", [-1], "note")),
        "outputs": listed(tensor("float32", [-1, -1])),
    }
    tensors = read_signature(given, "MLmodel")
    assert tensors.input is not None and tensors.output is not None and tensors.input.is_tensors
    assert tensors.input.fields == {"image": "list<list<uint8>[28]>[28]", "note": "string"}
    assert tensors.output.fields == {"predictions": "list<float32>"}
    whole = read_signature({"inputs": listed(tensor("float32", [4, 2]))}, "MLmodel")
    assert whole.input is not None and whole.input.is_whole
    assert whole.input.fields == {"inputs": "list<list<float32>[2]>[4]"}


def test_a_type_that_is_left_open_asks_for_the_fields_in_the_project(tmp_path: Path) -> None:
    said = {"inputs": json.dumps([{"type": "any", "name": "x"}])}
    with pytest.raises(Untyped, match="leaves open what 'x' is"):
        read_signature(said, "MLmodel")
    place = pyfunc(tmp_path / "model", signature([{"type": "any", "name": "x"}], SUM))
    with pytest.raises(BadInput, match=r"no signature for its input .*: give \[steps\.input\]"):
        inspected(place, tmp_path)
    (tmp_path / "edgepack.toml").write_text(
        '[[steps]]\nmodel = "model"\n[steps.input]\nx = "list<float32>"\n[steps.output]\nsum = "float64"\n'
    )
    assert inspected(tmp_path, tmp_path).input.to_dict() == {"x": "list<float32>"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("\tflavors:", "is not YAML"),
        ("", "has no flavors"),
        ("[]", "has no flavors"),
        ("flavors: {}", "has no flavors"),
        ("flavors: {sklearn: 3}", "has no flavors"),
        ("flavors: !!python/object/apply:os.system [id]", "is not YAML"),
        ("a: &a [1]\nflavors: {onnx: {data: *a}}", "alias"),
        ("[" * 60_000, "levels|nested"),
        ("x: " + "y" * 2_000_000, "is larger than"),
        ("flavors:\n  spark: {model_data: sparkml}\n", "Java machine"),
        ("flavors:\n  onnx: {data: ../model.onnx}\n", "leads out of the model"),
        ("flavors:\n  onnx: {data: /etc/passwd}\n", "leads out of the model"),
        ("flavors:\n  onnx: {data: absent.onnx}\n", "does not have"),
        ("flavors:\n  onnx: {data: [1]}\n", "leads out of the model"),
        ("flavors:\n  prophet: {data: m}\n", "no native form here"),
        (f"flavors:\n{PYFUNC}signature: 3\n", "is no table"),
        (f"flavors:\n{PYFUNC}signature: {{inputs: '['}}\n", "is not JSON"),
        (f"flavors:\n{PYFUNC}signature: {{inputs: '{{}}'}}\n", "is no list of fields"),
        (f'flavors:\n{PYFUNC}signature: {{inputs: \'[{{"type": ["double"]}}]\'}}\n', "leaves open what 'inputs' is"),
        (f'flavors:\n{PYFUNC}signature: {{inputs: \'[{{"type": {{"x": 1}}}}]\'}}\n', "leaves open what 'inputs' is"),
        (f'flavors:\n{PYFUNC}signature: {{inputs: \'[{{"name": "\\ud800"}}]\'}}\n', "is not JSON"),
        ('flavors: {"\\ud800": {}}', "is not YAML"),
    ],
)
def test_a_bad_mlmodel_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    place = folder(tmp_path / "model", text)
    with pytest.raises(BadInput, match=words) as caught:
        inspected(place, tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_bad_requirement_names_its_line(tmp_path: Path) -> None:
    for number, (line, words) in enumerate(
        (
            ("--index-url http://x", "has the option"),
            ("a @ http://x/a.whl", "names an address"),
            ("==", "does not read"),
        )
    ):
        place = pyfunc(tmp_path / str(number), requirements_dot_txt=f"numpy\n{line}\n")
        with pytest.raises(BadInput, match=f"requirements.txt in '{number}':2 {words}"):
            inspected(place, tmp_path)
