"""Reading projects: three kinds of source, strict TOML, paths that stay inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.detect import detect
from packager.project import Project
from tests import make

STEP = '[[steps]]\nmodel = "model.onnx"\n'

EVERYTHING = """
[pipeline]
name = "ccfraud"

[[steps]]
name = "first"
model = "model.onnx"
framework = "onnx"
tensor_fields = ["tensor"]
batch = "single"

[steps.input]
tensor = "list<float32>[3]"
[steps.output]
y = "list<float32>[1]"

[validations]
high_fraud = "out.y[0] > 0.9"

[golden]
rows = "golden.json"
tolerance = 1e-4

[log]
durability = "relaxed"
max_value_bytes = 0
max_bytes = "2Gi"
when_full = "reject"

[resources]
cpus = 0.5
memory = "512Mi"
gpus = 0
replicas = 2
"""


def test_a_bare_model_file_is_a_project(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "fraud.onnx")
    project = Project.open(path)
    assert (project.name, project.steps[0].name, project.notes) == ("fraud", "fraud", ())
    assert project.steps[0].model == path
    assert (project.golden.rows, project.golden.kept) == (None, tmp_path / "fraud.golden.json")


def test_a_bare_saved_model_is_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My_Net"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    (folder / "variables/variables.index").write_bytes(b"\x00")
    project = Project.open(folder)
    assert (project.name, project.steps[0].model, detect(folder)) == ("my-net", folder, "tensorflow")
    assert (project.root, project.golden.kept) == (tmp_path, tmp_path / "My_Net.golden.json"), "not inside the model"
    monkeypatch.chdir(folder)
    assert Project.open(Path()) == project
    assert Project.open(Path("variables/..")).name == "my-net"


def test_a_bare_folder_of_an_onnx_model_is_a_project_unless_it_holds_code(tmp_path: Path) -> None:
    make.save(make.linear(), tmp_path / "net/model.onnx")
    assert (Project.open(tmp_path / "net").name, detect(tmp_path / "net")) == ("net", "onnx")
    (tmp_path / "net/train.py").touch()
    with pytest.raises(BadInput, match=r"'.*net' has no edgepack\.toml"):
        Project.open(tmp_path / "net")


def test_an_edgepack_toml_beside_a_models_files_decides(tmp_path: Path) -> None:
    assert Project.open(make.project(tmp_path / "p")).name == "small"


def test_a_name_that_is_made_legal_is_said(tmp_path: Path) -> None:
    project = Project.open(make.save(make.linear(), tmp_path / "My Model_v2.onnx"))
    assert project.name == "my-model-v2"
    assert project.notes == ("'My Model_v2' is not a DNS label: called 'my-model-v2' here",)


def test_a_folder_and_the_path_of_its_toml_are_the_same_project(tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", EVERYTHING, golden=[{"in.tensor": [1, 2, 3]}])
    project = Project.open(folder)
    assert project == Project.open(folder / "edgepack.toml")
    step = project.steps[0]
    assert (project.name, step.name, step.batch, step.tensor_fields) == ("ccfraud", "first", "single", ("tensor",))
    assert (step.input, step.output) == ({"tensor": "list<float32>[3]"}, {"y": "list<float32>[1]"})
    assert (project.golden.tolerance, project.log.when_full, project.resources.cpus) == (1e-4, "reject", 0.5)
    assert project.golden.rows == folder / "golden.json"


def test_rows_that_an_earlier_run_kept_are_used_again(tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", golden=[{"in.tensor": [1, 2, 3]}])
    assert Project.open(folder).golden.rows == folder / "golden.json"
    path = make.save(make.linear(), tmp_path / "m.onnx")
    (tmp_path / "m.golden.json").write_text("[]")
    assert Project.open(path).golden.rows == tmp_path / "m.golden.json"


@pytest.mark.parametrize(
    "toml, named",
    [
        ("", "[[steps]]"),
        ("steps = 1", "steps: expected 'array'"),
        ("[[steps]]", "steps[0] has no model"),
        (STEP + "[piepline]", "unknown key 'piepline': did you mean 'pipeline'?"),
        (STEP + "tensorfields = []", "steps[0] has an unknown key 'tensorfields': did you mean 'tensor_fields'?"),
        (STEP + "[log]\ndurable = 1", "log has an unknown key 'durable': did you mean 'durability'?"),
        (STEP + "[log]\nzzz = 1", "there is durability, max_value_bytes, max_bytes, when_full"),
        (STEP + "name = 1", "steps[0].name: expected text, got 'int'"),
        (STEP + "batch = 'two'", "steps[0].batch: invalid enum value 'two'"),
        (STEP + "tensor_fields = 'a'", "steps[0].tensor_fields: expected 'array'"),
        (STEP + "tensor_fields = ['a', 'a']", "tensor_fields has a name that is empty or twice"),
        (STEP + "[steps.input]\nx = 1", "steps[0].input"),
        (STEP + "[steps.input]\nx = 'floot'", "steps[0].input: field 'x'"),
        (STEP + "[steps.input]\n", "steps[0].input has no fields"),
        (STEP + "name = 'Not Legal'", "steps[0].name: name 'Not Legal' is not a DNS label"),
        ("[pipeline]\nname = 'Not Legal'\n" + STEP, "pipeline.name: name 'Not Legal'"),
        (STEP + STEP, "two steps are called 'model'"),
        (STEP + "[log]\nmax_bytes = '1 GB'", "log.max_bytes: size '1 GB'"),
        (STEP + "[log]\nmax_value_bytes = -1", "log.max_value_bytes"),
        (STEP + "[resources]\nreplicas = 0", "resources.replicas"),
        (STEP + "[resources]\nreplicas = 65", "resources.replicas"),
        (STEP + "[resources]\ncpus = nan", "resources.cpus"),
        (STEP + "[golden]\ntolerance = -1.0", "golden.tolerance"),
        (STEP + "[golden]\ntolerance = 'x'", "golden.tolerance: expected 'float'"),
        (STEP + "[validations]\nv = 1", "validations"),
        ("not toml", "is not TOML"),
        (STEP + "requirements = 'newest'", "steps[0].requirements: invalid enum value 'newest'"),
        (STEP + "optimize = { quantize = 'int4' }", "steps[0].optimize.quantize = 'int4': expected quantize ="),
        (STEP + "optimize = { quantise = 'static' }", "steps[0].optimize has an unknown key 'quantise': did you mean"),
        (STEP + "optimize = { tolerance = 0.1 }", "steps[0].optimize says nothing to do: expected quantize ="),
        (
            STEP + "optimize = { quantize = 'static', tolerance = 0 }",
            "steps[0].optimize.tolerance = 0.0: expected more",
        ),
        (STEP + "optimize = { quantize = 'static', tolerance = nan }", "steps[0].optimize.tolerance = nan: expected"),
        (STEP + "optimize = 'static'", "steps[0].optimize: expected 'object'"),
        (
            "[[steps]]\nsplit = { a = 1 }\noptimize = { quantize = 'static' }\n[models.a]\nmodel = 'model.onnx'",
            "steps[0].optimize beside a split does not say of which model",
        ),
        (STEP + "split = { champion = 9 }", "steps[0] needs either a `model` or a `split`"),
        ("[[steps]]\nsplit = { a = 9 }", "steps[0].split names 'a': no [models.a], there is none"),
        ("[[steps]]\nsplit = { a = 0 }\n[models.a]\nmodel = 'model.onnx'", "steps[0].split.a: expected a weight"),
        (STEP + "shadow = ['a']", "steps[0].shadow names 'a': no [models.a]"),
        (STEP + "key = 'in.x'", "steps[0].key without a split"),
        (STEP + "image = 'a@sha256:0'", "is not named by digest"),
        (STEP + "[models.champion]\nmodel = 'a.onnx'", "[models.champion] is in no split and no shadow"),
    ],
)
def test_what_is_wrong_in_a_toml_is_named(toml: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        Project.open(make.project(tmp_path / "p", toml or "# nothing"))
    assert named in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["../out.onnx", "/etc/passwd", "a/../../out.onnx", "link.onnx", "folder/out.onnx", ""])
def test_a_path_that_leaves_the_project_is_refused(path: str, tmp_path: Path) -> None:
    make.save(make.linear(), tmp_path / "out.onnx")
    folder = make.project(tmp_path / "p", f'[[steps]]\nmodel = "{path}"\n')
    (folder / "link.onnx").symlink_to(tmp_path / "out.onnx")
    (folder / "folder").symlink_to(tmp_path)
    with pytest.raises(BadInput, match=r"steps\[0\].model = .* leads out of the project"):
        Project.open(folder)


def test_a_link_inside_the_project_is_fine(tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", '[[steps]]\nmodel = "link.onnx"\n')
    (folder / "link.onnx").symlink_to("model.onnx")
    assert Project.open(folder).name == "link"


def test_golden_rows_stay_inside_too(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(BadInput, match=r"golden\.rows"):
        Project.open(make.project(tmp_path / "p", STEP + '[golden]\nrows = "../rows.json"\n'))


@pytest.mark.parametrize(
    "make_it, named", [(Path.touch, "is empty"), (Path.mkdir, "is a folder"), (lambda _: None, "does not exist")]
)
def test_a_model_that_is_no_file_with_content_is_refused(make_it: object, named: str, tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", '[[steps]]\nmodel = "other.onnx"\n')
    make_it(folder / "other.onnx")  # type: ignore[operator]
    with pytest.raises(BadInput, match=f"'other.onnx' {named}"):
        Project.open(folder)


def test_sources_that_do_not_open_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "void.onnx").touch()
    for source in ("nothing", "empty", "a", "pipe", "void.onnx", "x" * 5000, "nul\0"):
        with pytest.raises(BadInput) as refused:
            Project.open(tmp_path / source)
        assert "\n" not in str(refused.value)


def test_a_toml_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p")
    (folder / "edgepack.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="not TOML"):
        Project.open(folder)
    (folder / "edgepack.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(BadInput, match="larger"):
        Project.open(folder)


def test_a_folder_of_code_alone_says_how_it_becomes_a_project(tmp_path: Path) -> None:
    (tmp_path / "step.py").touch()
    with pytest.raises(BadInput, match=rf"has no edgepack\.toml: .*: edgepack init '{tmp_path.name}'$"):
        Project.open(tmp_path)
    (tmp_path / "step.py").unlink()
    with pytest.raises(BadInput, match=r"or the path of a model file$"):
        Project.open(tmp_path)
