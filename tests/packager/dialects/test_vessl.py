"""Programs that register a model with `vessl`: what is told without running them, and what registering asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import BadInput
from packager.archives import open_tree
from packager.convert import registering
from packager.detect import detect
from packager.dialects.libraries import packages_of
from packager.dialects.vessl import Registered, read_registration
from packager.dialects.vessl_layout import folder_of, is_one, is_program, repository_of
from packager.dialects.vessl_libraries import _about_mb, libraries_of, pinned
from packager.dialects.vessl_program import write_vessl_project
from packager.environments import Environment, Kept
from packager.project import Project
from runtimes.sandbox import SHIM

EXAMPLE = Path(__file__).parents[3] / "examples" / "vessl-drift"
HEAD = "import vessl\nclass R(vessl.RunnerBase):\n    predict = staticmethod(lambda model, data: data)\n"
KEEPS = HEAD + "    save_model = staticmethod(lambda model: {'a': 'b'})\n"
LOADS = "    load_model = staticmethod(lambda props, artifacts: 1)\n"


def registered(folder: Path, source: str) -> tuple[dict[str, object] | None, str]:
    """Run a program with our `vessl`, and with a pickler that only counts; what it registered, and its last words."""
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(source)
    pickler = "def dump(value, file):\n    file.write(b'pickled')\nregister_pickle_by_value = print\n"
    (folder / "cloudpickle.py").write_text(pickler)
    made = folder.parent / "made"
    made.mkdir()
    code = (
        "import runpy, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(SHIM)!r})\nsys.path.insert(1, '.')\n"
        f"from vessl.registration import register_into\nregister_into(Path({str(made)!r}), Path())\n"
        "runpy.run_path('program.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={**os.environ})
    record = made / "registration.json"
    words = done.stderr.strip().splitlines()
    return (json.loads(record.read_text()) if record.is_file() else None), words[-1] if words else ""


def test_a_program_is_told_by_its_import_and_its_call(tmp_path: Path) -> None:
    for text, expected in {
        "import vessl\nvessl.register_model('a', 1, R)\n": True,
        "from vessl import register_torch_model\nregister_torch_model()\n": True,
        "import vessl\nvessl.log({})\n": False,
        "def register_model(): ...\nregister_model()\n": False,
        "import vessl\nvessl.register_model(\n": False,
        "": False,
    }.items():
        (tmp_path / "program.py").write_text(text)
        assert is_program(tmp_path / "program.py") is expected, text
    (tmp_path / "program.txt").write_text("import vessl\nvessl.register_model()\n")
    assert not is_program(tmp_path / "program.txt") and not is_one(tmp_path)


def test_a_program_itself_is_no_model_and_says_what_makes_one() -> None:
    project = Project.open(EXAMPLE / "register.py")
    assert detect(project.steps[0].model) == "vessl"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (HEAD + "vessl.register_model('', 1, R, 5)", "repository_name is empty: name the model"),
        (HEAD + "vessl.register_model('a', 0, R, 5)", "model_number is 0: expected 1 or more, or None for a new model"),
        (HEAD + "vessl.register_model('a', True, R, 5)", "model_number is True"),
        (HEAD + "vessl.register_model('a', None, R)", "model_number=None makes a new model: give its model_instance"),
        (HEAD + "vessl.register_model('a', 1, R)", "give model_instance, or a load_model(props, artifacts) to class R"),
        (KEEPS + "vessl.register_model('a', 1, R, 5)", "class R has save_model and no load_model"),
        ("import vessl\nclass R(vessl.RunnerBase): pass\nvessl.register_model('a', 1, R, 5)", "R has no predict(model"),
        ("import vessl\nvessl.register_model('a', 1, dict, 5)", "runner_cls is no class that extends vessl.RunnerBase"),
        (
            KEEPS.replace("{'a': 'b'}", "{'a': 1}") + LOADS + "vessl.register_model('a', 1, R, 5)",
            "save_model returned dict: expected a dict of strings to strings",
        ),
        (HEAD + "vessl.register_model('a', 1, R, 5, requirements='torch')", "requirements are no list of strings"),
        (HEAD + "vessl.register_model('a', 1, R, 5, artifacts=['x'])", "artifacts are list"),
        (HEAD + "vessl.register_model('a', 1, R, 5, artifacts={'../x': 'x'})", "'../x': expected a relative path"),
        (HEAD + "vessl.register_model('a', 1, R, 5, artifacts={'x': '/x'})", "'/x': expected a relative path"),
        (HEAD + "vessl.register_model('a', 1, R, 5, artifacts={'*/x': 'x'})", "'*/x': only an asterisk at its end"),
        (HEAD + "vessl.register_model('a', 1, R, 5, artifacts={'away': 'x'})", "artifact 'away' is not there"),
        (HEAD + "for _ in range(2): vessl.register_model('a', 1, R, 5)", "a second model is registered"),
        ("import vessl\nvessl.register_torch_model('a', 1, 5)", "needs model_instance: a torch module"),
        ("import vessl\nvessl.register_torch_model('a', 1, print, 5)", "preprocess_data is int: expected a function"),
        (
            "import vessl\nvessl.register_torch_model('a', 1, print, requirements='torch')",
            "requirements are no list of strings",
        ),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_registered(tmp_path: Path, source: str, expected: str) -> None:
    record, words = registered(tmp_path / "work", source + "\n")
    assert expected in words
    assert record is None or "second" in expected


def test_a_loader_without_an_instance_gets_no_props(tmp_path: Path) -> None:
    record, words = registered(tmp_path / "work", HEAD + LOADS + "vessl.register_model('a', 3, R)\n")
    assert record is not None, words
    assert (record["loads"], record["props"], record["number"]) == (True, None, 3)
    assert not (tmp_path / "made" / "instance.pkl").exists()


def test_artifacts_lie_in_the_volume_as_they_were_placed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "checkpoints" / "deep").mkdir(parents=True)
    for name in ("model.pt", "checkpoints/a.bin", "checkpoints/deep/b.bin", "part-1", "part-2"):
        (work / name).write_text(name)
    places = {"model.pt": "model.pt", "checkpoints/": "kept/", "part-*": "parts/", "checkpoints/a.bin": "single/"}
    record, words = registered(work, HEAD + f"vessl.register_model('a', 1, R, 5, artifacts={places!r})\n")
    assert record is not None, words
    volume = tmp_path / "made" / "volume"
    found = {path.relative_to(volume).as_posix(): path.read_text() for path in volume.rglob("*") if path.is_file()}
    assert found == {
        "model.pt": "model.pt",
        "kept/a.bin": "checkpoints/a.bin",
        "kept/deep/b.bin": "checkpoints/deep/b.bin",
        "parts/part-1": "part-1",
        "parts/part-2": "part-2",
        "single/a.bin": "checkpoints/a.bin",
    }
    assert record["artifacts"] == {
        "model.pt": "model.pt",
        "checkpoints/": "kept",
        "part-*": "parts",
        "checkpoints/a.bin": "single/a.bin",
    }


def test_what_save_model_writes_goes_to_the_volume_by_itself(tmp_path: Path) -> None:
    source = HEAD + (
        "    @staticmethod\n    def save_model(model):\n        import os\n        os.makedirs('out')\n"
        "        open('out/m.json', 'w').write('5')\n        open('old.txt', 'w').write('changed')\n"
        "        return {'f': 'out/m.json'}\n"
    )
    work = tmp_path / "work"
    work.mkdir()
    (work / "old.txt").write_text("before")
    (work / "other.txt").write_text("not of the model")
    record, words = registered(work, source + LOADS + "vessl.register_model('a', 1, R, 5)\n")
    assert record is not None, words
    volume = tmp_path / "made" / "volume"
    found = {path.relative_to(volume).as_posix(): path.read_text() for path in volume.rglob("*") if path.is_file()}
    assert found == {"out/m.json": "5", "old.txt": "changed"}


def test_outside_of_a_packaging_nothing_is_registered() -> None:
    code = f"import sys; sys.path.insert(0, {str(SHIM)!r})\n{HEAD}\nvessl.register_model('a', 1, R, 5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "nothing is registered here: package this file with edgepack" in done.stderr


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "runner.pkl").write_bytes(b"x")
    for text, expected in (("{", "does not read"), ('{"repository": 5}', "does not read")):
        (folder / "registration.json").write_text(text)
        assert is_one(folder)
        with pytest.raises(BadInput, match=expected):
            read_registration(open_tree(folder, tmp_path))
    whole = {"repository": "a", "number": 1, "runner": "R", "loads": False, "props": None, "artifacts": {}}
    (folder / "registration.json").write_text(json.dumps({**whole, "requirements": [], "python": "3.11"}))
    with pytest.raises(BadInput, match=r"lacks instance\.pkl: make it anew"):
        read_registration(open_tree(folder, tmp_path))


def test_a_module_whose_package_is_not_known_must_be_named() -> None:
    assert packages_of({"sklearn", "yaml"}, ["numpy"], "p.py") == ["numpy", "scikit-learn", "pyyaml"]
    assert packages_of({"torch"}, ["torch==2.4.0"], "p.py") == ["torch==2.4.0"]
    assert packages_of({"cv2"}, ["opencv-python"], "p.py") == ["opencv-python"]
    with pytest.raises(BadInput, match="imports plant_tools, and which package has it is not said"):
        packages_of({"plant_tools"}, [], "p.py")


@pytest.mark.parametrize("line", ["torch==2.13.0", "torch~=2.1", "Torch==2.13.0", "torch; python_version > '3'", None])
def test_a_torch_module_asks_for_torch_once(tmp_path: Path, line: str | None) -> None:
    lines = [] if line is None else [line]
    source = f"import vessl\nvessl.register_torch_model('a', 1, print, requirements={lines!r})\n"
    record, words = registered(tmp_path / "work", source)
    assert record is not None, words
    model = Registered(**record)
    kept = Kept(title="t", python="3.11.2", packages={"torch": "2.13.0"}, size_bytes=0, seconds=0)
    (found,) = pinned(model, Environment(tmp_path, kept))
    assert found.lower().startswith("torch==2.13.0")


def a_folder(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "program.py"


def test_of_its_folder_a_program_needs_what_it_reaches(tmp_path: Path) -> None:
    program = a_folder(
        tmp_path,
        {
            "program.py": HEAD + "import sys\nsys.path.insert(0, 'lib')\nimport scales\nfrom line import steps\n",
            "lib/scales.py": "import scipy\n",
            "line/steps.py": "from . import weights\nfrom ..program import R\n",
            "line/weights.py": "def of():\n    import yaml\n",
            "line/__init__.py": "",
            "line/unused.py": "import plant_tools\n",
            "notebook.py": "import plant_tools\n",
            "old.py": "print 'Python 2'\n",
        },
    )
    assert set(libraries_of(program, folder_of(program, tmp_path))) == {"cloudpickle", "numpy", "scipy", "pyyaml"}
    (tmp_path / "line/weights.py").write_text("import plant_tools\n")
    with pytest.raises(BadInput, match=r"'line/weights\.py' imports plant_tools, and which package"):
        libraries_of(program, folder_of(program, tmp_path))


def test_environments_and_hidden_folders_beside_a_program_do_not_go_with_it(tmp_path: Path) -> None:
    files = {
        "program.py": HEAD,
        ".limits.json": "{}",
        ".data/x.csv": "",
        ".venv/lib/a.py": "",
        "env/pyvenv.cfg": "",
        "env/lib/b.py": "",
    }
    program = a_folder(tmp_path, files)
    for place in (".venv/python", "env/lib/python", ".current"):
        (tmp_path / place).symlink_to(sys.executable)
    assert set(folder_of(program, tmp_path).files) == {"program.py", ".limits.json"}
    (tmp_path / "weights.bin").symlink_to(sys.executable)
    with pytest.raises(BadInput, match=r"'weights\.bin' in folder '.*' is a link"):
        folder_of(program, tmp_path)


def test_an_open_torch_is_the_one_without_accelerators_however_it_is_spelt(tmp_path: Path) -> None:
    for said, expected in {"torch": "torch==2.13.0", "Torch": "Torch==2.13.0", "torch>2": "torch>2"}.items():
        program = a_folder(tmp_path, {"program.py": f"vessl.register_model(requirements=[{said!r}])\n"})
        assert expected in libraries_of(program, folder_of(program, tmp_path))


def test_the_size_that_is_said_counts_a_library_of_two_packages_once() -> None:
    assert _about_mb(packages_of({"tensorflow"}, [], "p.py")) == 1600


def test_the_name_that_a_call_registers_is_known_where_it_stands_there(tmp_path: Path) -> None:
    for text, expected in {
        "vessl.register_model('Scale drift', 1)": "Scale drift",
        "register_torch_model(repository_name='net')": "net",
        "vessl.register_model(NAME, 1)": None,
        "vessl.register_model('a')\nvessl.register_model('b')": None,
        "": None,
    }.items():
        assert repository_of(a_folder(tmp_path, {"program.py": text})) == expected


@pytest.mark.parametrize(
    ("more", "rows", "expected"),
    [
        ({"name": "mine"}, None, r"mine' is there already: delete it to have it written anew"),
        ({}, None, r"scale-drift' is there already: delete it to have it written anew"),
        ({"name": "other", "fields": {"input": {"a": "flaot32"}}}, None, r"--input: .*flaot32"),
        ({"name": "other"}, "{", r"golden rows 'rows\.json' are not JSON"),
        ({"name": "other"}, "[NaN]", r"golden rows 'rows\.json': golden rows are not JSON"),
        ({"name": "other"}, "{}", r"golden rows 'rows\.json' are no list of what the runner is asked"),
        (
            {"name": "other", "fields": {"input": {"a": "float32"}, "output": {"b": "float32"}}},
            '[{"c": 1}]',
            r"golden rows 'rows\.json': .*'c'",
        ),
    ],
)
def test_what_is_known_beforehand_is_refused_before_anything_is_installed_or_run(
    tmp_path: Path, more: dict[str, Any], rows: str | None, expected: str
) -> None:
    program = a_folder(tmp_path / "work", {"program.py": HEAD + "vessl.register_model('Scale drift', 1, R, 5)\n"})
    (tmp_path / "work/mine").mkdir()
    (tmp_path / "work/scale-drift").mkdir()
    if rows is not None:
        (tmp_path / "rows.json").write_text(rows)
        more = {**more, "golden": tmp_path / "rows.json"}
    done: list[str] = []
    with pytest.raises(BadInput, match=expected):
        write_vessl_project(program, tmp_path / "cache", {}, notice=done.append, progress=done.append, **more)
    assert not done and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise E()", "line 5: E: E"),
        ("raise SystemExit(E())", "it ended with 'E'"),
        ("raise SystemExit('')", "it ended with ''"),
        ("raise SystemExit(0)", None),
    ],
)
def test_words_of_a_program_that_fail_themselves_are_left_out(tmp_path: Path, source: str, expected: str) -> None:
    head = "class E(Exception):\n    def __str__(self):\n        raise RuntimeError(__file__)\n\n"
    assert registering._run(a_folder(tmp_path, {"program.py": head + source + "\n"})) == expected
