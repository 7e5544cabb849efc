"""Cortex's layouts and APIs: recognised, read strictly, packaged as they are; and each fault in one line."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from columns.columns import Columns
from columns.json_value import asked_schema
from columns.schema import Schema
from columns.values import object_array
from edgepack.errors import BadInput
from packager import Checklist, Project, package
from packager.dialects.cortex import remote_marks
from packager.dialects.cortex_layout import is_cortex, is_models_folder
from packager.inspect import inspect_step
from packager.package import Packaged
from packager.wheels import WheelSource
from runtimes.pipeline import LoadedPipeline
from runtimes.trial import run_trial
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel
from tests.runtimes.models import linear
from tests.tflite_models import dense

API = """
- name: Multiplier_API
  kind: RealtimeAPI
  compute: {cpu: 200m}
  networking: {endpoint: /multiply}
  predictor:
    type: python
    path: predictor.py
    processes_per_replica: 4
    multi_model_reloading:
      dir: ./models/
      cache_size: 2
    config: {offset: 1}
    env: {GREETING: hello, LEVEL: 3}
"""
PREDICTOR = """
import json, os
from pathlib import Path

class PythonPredictor:
    def __init__(self, config, python_client):
        self.client, self.offset = python_client, config["offset"]

    def load_model(self, model_path):
        return json.loads(Path(model_path, "factor.json").read_text())

    def predict(self, payload, query_params, headers):
        if isinstance(payload, bytes):
            return payload[::-1]
        factor = self.client.get_model(query_params["model"], query_params.get("version", "latest"))
        return {"y": [each * factor + self.offset for each in payload["x"]], "said": os.environ["GREETING"],
                "who": headers.get("x-who"), "level": os.environ["LEVEL"]}
"""


def files_of(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def api(folder: Path, **changes: str | bytes | None) -> Path:
    """A project with a predictor and three versions of two models; `changes` replace files by their path."""
    files: dict[str, Any] = {
        "cortex.yaml": API,
        "predictor.py": PREDICTOR,
        "sample.json": '{"x": [1, 2]}',
        "models/a/1/factor.json": "1",
        "models/a/10/factor.json": "10",
        "models/b/factor.json": "5",
    }
    named = {"yaml": "cortex.yaml", "predictor": "predictor.py", "sample": "sample.json"}
    files |= {named.get(name, name): content for name, content in changes.items()}
    return files_of(folder, {name: content for name, content in files.items() if content is not None})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which numpy is unpacked already, and no index."""
    for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(tmp_path / "uv")}.items():
        monkeypatch.setenv(key, value)
    site = numpy_environment()
    shutil.copytree(site, tmp_path / "cache/workers" / site.name, copy_function=os.link)
    (tmp_path / "wheels").mkdir()
    shutil.copy(numpy_wheel(), tmp_path / "wheels")
    return tmp_path / "cache"


def packaged(source: Path, cache: Path) -> Packaged:
    wheels = WheelSource(cache.parent / "wheels")
    return package(Project.open(source), [host_target()], cache=cache, wheels=wheels, here=True)


def loaded(found: Packaged, cache: Path) -> LoadedPipeline:
    folder = unpack(bundles(found.index)[0], cache.parent / "device")
    return LoadedPipeline.open(folder, cache / "workers")


def ask(pipeline: LoadedPipeline, payload: Any, query: str = "", headers: str = "{}") -> Any:
    """What a predictor answers; it is told of query and headers what it wants to know."""
    value = payload if isinstance(payload, bytes) else json.dumps(payload)
    given = {"json": value, "query": query, "headers": headers}
    types = {**dict.fromkeys(given, "string"), "json": "binary" if isinstance(payload, bytes) else "string"}
    names = pipeline.input.names
    schema, arrays = Schema.parse({name: types[name] for name in names}), {n: object_array([given[n]]) for n in names}
    answer = pipeline.infer(Columns(schema, arrays, 1)).outputs["json"][0]
    return answer if isinstance(answer, bytes) else json.loads(answer)


# Version folders


def versions(folder: Path) -> Path:
    return files_of(folder, {"9/m.onnx": linear(factor=9.0), "10/other.onnx": linear(factor=10.0)})


def test_the_highest_version_folder_is_packaged_as_what_it_holds(tmp_path: Path) -> None:
    found = package(Project.open(versions(tmp_path / "iris")), [host_target()], cache=tmp_path / "cache")
    (step,) = found.spec.steps
    assert (found.spec.name, found.spec.number, step.framework, step.runtime) == ("iris", 10, "onnx", "onnx")
    golden = json.loads((tmp_path / "iris.golden.json").read_bytes())
    assert golden[3]["out.y"] == [30.0], "ones by the tenth, not the ninth"


def test_a_saved_model_of_another_library_is_packaged_as_that(tmp_path: Path) -> None:
    files_of(tmp_path / "gauge", {f"{each}/m.tflite": dense(np.ones((3, 1))) for each in (4, 5)})
    project = Project.open(tmp_path / "gauge")
    made = inspect_step(project.steps[0], project.root, Checklist(), tmp_path / "cache")
    assert (made.number, made.framework, made.native) == (5, "tflite", "tflite")


def test_a_zip_of_version_folders_is_one_too(tmp_path: Path) -> None:
    versions(tmp_path / "in")
    path = Path(shutil.make_archive(str(tmp_path / "iris"), "zip", tmp_path / "in"))
    assert is_cortex(path)
    project = Project.open(path)
    made = inspect_step(project.steps[0], project.root, Checklist(), tmp_path / "cache")
    assert (made.number, made.framework) == (10, "onnx")


def test_a_folder_of_models_is_told_from_one_model_and_from_a_program(tmp_path: Path) -> None:
    versions(tmp_path / "all/iris")
    files_of(tmp_path / "all/bare", {"m.onnx": linear()})
    assert is_models_folder(tmp_path / "all") and not is_cortex(tmp_path / "all")
    assert not is_models_folder(tmp_path / "all/iris") and is_cortex(tmp_path / "all/iris")
    assert not is_models_folder(api(tmp_path / "api")) and is_cortex(tmp_path / "api")
    files_of(tmp_path / "all", {"README.md": "these", "iris.golden.json": "[]"})
    assert is_models_folder(tmp_path / "all")
    for path in ("all/MLmodel", "all/bare/edgepack.toml", "all/bare/step.py"):
        (tmp_path / path).touch()
        assert not is_models_folder(tmp_path / "all"), path
        (tmp_path / path).unlink()


@pytest.mark.parametrize(
    "files, said",
    [
        ({"1/m.onnx": "x", "v2/m.onnx": "x"}, "'v2' lies beside version folders and is no integer: expected folders"),
        ({"1/m.onnx": "x", "07/m.onnx": "x"}, "'07' lies beside version folders"),
        ({"1/m.onnx": "x", "notes.txt": "x"}, "'notes.txt' lies beside version folders"),
        ({"1/a.onnx": "x", "1/b.onnx": "x", "2/m.onnx": "x"}, "'1' has 2 .onnx files ('a.onnx', 'b.onnx'): expected"),
        (
            {"1/m.onnx": "x", "2/saved_model.pb": "x"},
            "has versions for onnx and tensorflow: expected models of one kind",
        ),
        ({"1/saved_model.pb": b"..NeuronOp.."}, "is compiled for AWS Inferentia, which no edge device has"),
        ({"1/m.onnx": "x", "2/notes.txt": "x"}, "has versions for onnx and python: expected models of one kind"),
        (
            {"1/a.pkl": "x", "1/b.pkl": "x"},
            "'1' has 2 files ('a.pkl', 'b.pkl'): expected a .onnx file, a SavedModel or one",
        ),
        ({"1/m.pkl": "x"}, "'m.pkl' is"),
    ],
)
def test_folders_that_are_laid_out_wrongly_are_refused_by_name(
    tmp_path: Path, files: dict[str, str | bytes], said: str
) -> None:
    project = Project.open(files_of(tmp_path / "iris", files))
    with pytest.raises(BadInput) as refused:
        inspect_step(project.steps[0], project.root, Checklist(), tmp_path / "cache")
    assert said in str(refused.value) and "\n" not in str(refused.value)


# APIs


def test_a_predictor_answers_as_it_does_by_itself(tmp_path: Path, cache: Path) -> None:
    found = packaged(api(tmp_path / "project"), cache)
    (step,) = found.spec.steps
    assert (found.spec.name, step.framework, step.runtime) == ("multiplier-api", "cortex", "python")
    assert step.worker and step.worker.options["models"].keys() == {"a", "b"}
    golden = json.loads((tmp_path / "project.golden.json").read_bytes())
    assert [row["in.query"] for row in golden] == ["model=a&version=10", "model=b&version=1"]
    pipeline = loaded(found, cache)
    try:
        assert pipeline.input == asked_schema("query", "headers")
        told = {"said": "hello", "level": "3"}
        assert ask(pipeline, {"x": [1]}, "model=a", '{"x-who": "me"}') == {"y": [11], "who": "me", **told}
        assert ask(pipeline, {"x": [1]}, "model=a&version=1") == {"y": [2], "who": None, **told}
        assert ask(pipeline, {"x": [1, 2]}, "model=b") == {"y": [6, 11], "who": None, **told}
        assert ask(pipeline, {"x": [1]}, "model=a&version=10") == {"y": [11], "who": None, **told}
        assert ask(pipeline, b"abc") == b"cba"
    finally:
        pipeline.close()


def test_a_predictor_without_models_and_without_a_sample_is_loaded_and_asked_nothing(
    tmp_path: Path, cache: Path
) -> None:
    """It imports from its `python_path` first, then from where it lies."""
    text = API.partition("    multi_model_reloading")[0] + "    config: {offset: 1}\n    python_path: ./lib/\n"
    modules = {"lib/helper.py": "NAME = 'lib'", "helper.py": "NAME = 'beside'", "other.py": "NAME = 'other'"}
    code = """
import helper, other

class PythonPredictor:
    def __init__(self, config):
        self.offset = config["offset"]

    def predict(self, payload):
        return [payload, self.offset, helper.NAME, other.NAME]
"""
    found = packaged(api(tmp_path / "project", yaml=text, predictor=code, sample=None, **modules), cache)
    assert found.parity["rows"] == 0
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "tried"), environments=cache / "workers").passed
    pipeline = loaded(found, cache)
    try:
        arrays = {"json": object_array(['{"z": null}'])}
        assert pipeline.infer(Columns(asked_schema(), arrays, 1)).outputs["json"][0] == '[{"z":null},1,"lib","other"]'
    finally:
        pipeline.close()


def test_a_sample_that_a_model_does_not_answer_is_refused_with_the_models_name(tmp_path: Path, cache: Path) -> None:
    code = PREDICTOR.replace(
        "        factor = ", "        payload['b' if query_params['model'] == 'b' else 'x']\n        factor = "
    )
    checklist = Checklist()
    source = Project.open(api(tmp_path / "project", predictor=code))
    with pytest.raises(BadInput, match=r"^step 'multiplier-api': row 1, model 'b', version '1': KeyError: 'b'$"):
        wheels = WheelSource(cache.parent / "wheels")
        package(source, [host_target()], cache=cache, wheels=wheels, here=True, checklist=checklist)
    failed = checklist.checks[-1]
    assert failed.key == "parity.runs" and "sample.json" in str(failed.fix) and "onnxruntime" not in str(failed.fix)


ONNX_API = """
- name: lines
  kind: RealtimeAPI
  predictor: {type: onnx, path: predictor.py, models: {paths: [{name: a, path: ./m}]}}
"""
ONNX = "class ONNXPredictor:\n    def __init__(self, onnx_client): pass\n    def predict(self, payload): pass\n"
PYTHON = "class PythonPredictor:\n    def __init__(self, config{}): pass\n    def predict(self, payload): pass\n"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"yaml": API + API}, "has 2 APIs ('Multiplier_API', 'Multiplier_API'): expected one"),
        ({"yaml": "name: x"}, "is no list of APIs: expected '- name: …'"),
        ({"yaml": "- [1"}, "is not YAML, line 1"),
        ({"yaml": "- &a [1]\n- *a"}, "line 2: the alias '*a' is not read"),
        ({"yaml": "[" * 40 + "]" * 40}, "has more than 32 levels"),
        ({"yaml": "- !!python/object/apply:os.getpid []"}, "is not YAML"),
        ({"yaml": API.replace("RealtimeAPI", "BatchAPI")}, "kind is 'BatchAPI': expected RealtimeAPI"),
        ({"yaml": API.replace("cpu: 200m", "inf: 1")}, "compute.inf asks for AWS Inferentia"),
        ({"yaml": API.replace("config:", "configs:")}, "unknown field `configs`"),
        ({"yaml": API.replace("./models/", "../other")}, "the model path '../other' leads out of the project"),
        ({"yaml": API.replace("./models/", "/etc")}, "the model path '/etc' leads out of the project"),
        ({"yaml": API.replace("./models/", "hdfs://x/y")}, "the model path 'hdfs://x/y' leads out of the project"),
        ({"yaml": API.replace("./models/", "absent")}, "models.dir 'project/absent' has no folders"),
        ({"yaml": API.replace("cache_size: 2", "cache_size: 0")}, "cache_size is 0: expected 1 or more"),
        ({"yaml": API.replace("cache_size: 2", "path: models/a")}, "has path and dir: expected one of path, paths and"),
        ({"yaml": API + "    python_path: ../lib"}, "predictor.python_path '../lib' leads out of the project"),
        ({"yaml": API + "    python_path: lib"}, "predictor.python_path 'lib' is no folder of 'project' with files"),
        (
            {"yaml": API.replace("Multiplier_API", "../x")},
            "name '../x' is not plain: expected one such as 'iris-classifier'",
        ),
        (
            {"yaml": ONNX_API.replace("name: a", "name: a/b")},
            "models.paths name 'a/b' is not plain: expected one such as",
        ),
        ({"yaml": ONNX_API.replace("name: a", "name: '..'")}, "models.paths name '..' is not plain: expected"),
        ({"yaml": ONNX_API.replace("name: a", "name: ''")}, "models.paths name '' is not plain: expected"),
        ({"yaml": ONNX_API.replace("name: a", 'name: "a\\nb"')}, "models.paths name 'a\\nb' is not plain: expected"),
        ({"yaml": API.replace("path: predictor.py", "path: ../p.py")}, "predictor.path '../p.py' is no .py file"),
        ({"predictor": "x = 1"}, "predictor.py has no class PythonPredictor: expected one, as cortex.yaml has type"),
        ({"predictor": PREDICTOR + PREDICTOR}, "predictor.py has 2 predictors, PythonPredictor in line 5 and"),
        ({"predictor": PREDICTOR.replace("Python", "ONNX")}, "has a ONNXPredictor: expected PythonPredictor"),
        ({"predictor": PYTHON.format("")}, "has no load_model: a PythonPredictor needs __init__ and predict and"),
        (
            {"predictor": PREDICTOR.replace("config, py", "job_spec, py")},
            "__init__ takes 'job_spec': expected of config, python_client",
        ),
        ({"predictor": PREDICTOR.replace("headers)", "batch_id)")}, "predict takes 'batch_id': expected of payload"),
        ({"predictor": "class :"}, "'predictor.py' in 'project' is not Python"),
        ({"sample": "{"}, "the body is not JSON"),
        ({"models/a/x/factor.json": "1"}, "model 'a': 'x' lies beside version folders and is no integer"),
        ({"yaml": ONNX_API, "m/a.onnx": b"x", "m/b.onnx": b"x"}, "has a PythonPredictor: expected ONNXPredictor"),
        (
            {"yaml": ONNX_API, "predictor": ONNX, "m/4/a.onnx": linear(), "m/5/a.onnx": linear()[:-9]},
            "model 'a', version 5: 'a.onnx' is not a whole ONNX model: it",
        ),
        ({"yaml": ONNX_API.replace("m}]", "m}], dir: n")}, "has paths and dir: expected one of path, paths and dir"),
    ],
)
def test_what_is_wrong_with_an_api_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, str | bytes], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        project = Project.open(api(tmp_path / "project", **changes))
        inspect_step(project.steps[0], project.root, Checklist(), tmp_path / "cache")
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "cache/workers").exists(), "nothing was executed"


def test_a_cortex_yaml_that_does_not_unpack_is_refused_in_one_line(tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "project"), "zip", api(tmp_path / "in")))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("cortex.yaml")
    data = bytearray(path.read_bytes())
    at = info.header_offset + 30 + len("cortex.yaml")
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"^zip 'project\.zip' does not read: .*; copy it again"):
        Project.open(path)


def test_a_cortex_yaml_deeper_in_a_zip_is_not_the_projects(tmp_path: Path) -> None:
    other = "- {name: other, kind: BatchAPI}"
    path = Path(shutil.make_archive(str(tmp_path / "one"), "zip", api(tmp_path / "in", **{"a/cortex.yaml": other})))
    assert Project.open(path).name == "multiplier-api"
    versions(tmp_path / "versions")
    files_of(tmp_path / "versions", {"9/cortex.yaml": other})
    path = Path(shutil.make_archive(str(tmp_path / "iris"), "zip", tmp_path / "versions"))
    assert Project.open(path).name == "iris"


def test_a_cortex_yaml_that_leads_out_is_not_read(tmp_path: Path) -> None:
    project = api(tmp_path / "project", yaml=None)
    (tmp_path / "secret").write_text("- [secret")
    (project / "cortex.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match=r"'cortex\.yaml' in folder 'project' is a link or no plain file") as refused:
        Project.open(project)
    assert "secret" not in str(refused.value)


def test_a_cortex_yaml_is_read_no_further_than_settings_go(tmp_path: Path) -> None:
    project = api(tmp_path / "project", yaml="")
    with (project / "cortex.yaml").open("r+b") as file:
        file.truncate(1 << 40)
    for read in (Project.open, remote_marks):
        with pytest.raises(BadInput, match=r"'cortex\.yaml' in 'project' is larger than 262144 bytes"):
            read(project)


def test_two_onnx_files_of_an_api_are_refused(tmp_path: Path) -> None:
    code = PYTHON.format(", onnx_client").replace("Python", "ONNX")
    project = api(tmp_path / "project", yaml=ONNX_API, predictor=code, **{"m/a.onnx": b"x", "m/b.onnx": b"x"})
    opened = Project.open(project)
    with pytest.raises(BadInput, match=r"model 'a', 'm' has 2 \.onnx files \('a\.onnx', 'b\.onnx'\): expected exactly"):
        inspect_step(opened.steps[0], opened.root, Checklist(), tmp_path / "cache")


def test_a_link_in_a_project_is_refused(tmp_path: Path) -> None:
    project = api(tmp_path / "project")
    (project / "models/c").symlink_to("/etc")
    opened = Project.open(project)
    with pytest.raises(BadInput, match="'models/c' in folder 'project' is a link"):
        inspect_step(opened.steps[0], opened.root, Checklist(), tmp_path / "cache")
