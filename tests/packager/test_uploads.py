"""Uploads of code that cannot be packaged: exit 2, one line, nothing executed, nothing left behind."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arch.target import Target
from bundle.bundle import bundles
from edgepack import launch
from edgepack.commands import program
from packager.detect import detect
from packager.package import package
from packager.project import Project
from tests import make
from tests.packager.test_archives import zipped
from tests.packager.test_custom import CODE
from tests.packager.test_onnx import external
from tests.packager.test_pickles import ROUTES
from tests.packager.test_python_step import GOOD

SECOND_BUILDER = """
from mac.inference.creation import InferenceBuilder

class Second(InferenceBuilder):
    inference = None

    def create(self, config): ...
"""
FIELDS = '[steps.input]\nx = "float32"\n[steps.output]\ntensor = "list<float32>[1]"\n'
MARK = "executed"
LEAVES_A_MARK = f"import pathlib\npathlib.Path(__file__).with_name({MARK!r}).touch()\n{GOOD}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "cache"


def project(folder: Path, toml: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "edgepack.toml").write_text(f'[[steps]]\nmodel = "step.zip"\n{toml}')
    return folder


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run check; it must end with 2 and one line, which is returned, and leave the project as it was."""
    before = sorted(folder.rglob("*"))
    assert launch.run(lambda: program, "edgepack", ["check", str(folder)]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and "Traceback" not in said
    assert sorted(folder.rglob("*")) == before
    assert list((folder.parent / "temporary").iterdir()) == []
    assert not list(folder.parent.rglob(MARK))
    return said


@pytest.mark.parametrize(
    "toml, word",
    [
        ('framework = "python"\n', "has no [steps.input]"),
        ('framework = "python"\n[steps.input]\nx = "float32"\n', "has no [steps.output]"),
        ('framework = "python"\n[steps.input]\nx = "null"\n', "null"),
        ('framework = "python"\n[steps.input]\nx = "list<float32, int8>"\n', "steps[0].input"),
        ('framework = "custom"\n' + FIELDS, "no class that extends"),
        ('framework = "onnx"\n' + FIELDS, "is of framework 'python', not of 'onnx'"),
        ('framework = "sklearn"\n' + FIELDS, "is not a saved model of sklearn"),
        ('tensor_fields = ["y"]\n' + FIELDS, "tensor_fields"),
        (FIELDS + "[validations]\nv = 'out.nothing > 1'\n", "nothing"),
    ],
)
def test_a_project_that_does_not_fit_its_code_says_what_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, word: str
) -> None:
    folder = project(tmp_path / "p", toml)
    zipped(folder / "step.zip", {"step.py": LEAVES_A_MARK})
    assert word in refused(folder, capsys)


@pytest.mark.parametrize(
    "members, word",
    [
        ({"a.py": GOOD, "b.py": GOOD}, "2 functions process_data"),
        ({"a.py": "x = 1\n"}, "neither process_data"),
        ({"a.py": GOOD + CODE}, "both process_data and an InferenceBuilder"),
        ({"a.py": CODE.replace("(InferenceBuilder)", "")}, "no class that extends InferenceBuilder"),
        ({"a.py": CODE.replace("(Inference)", "")}, "no class that extends Inference"),
        ({"a.py": CODE, "b.py": CODE}, "2 classes that extend Inference of mac.inference, 'Clusters' in a.py"),
        ({"a.py": CODE, "b.py": SECOND_BUILDER}, "2 classes that extend InferenceBuilder"),
        ({"a.py": CODE.replace("expected_model_types", "types")}, "lacks `expected_model_types`"),
        ({"top/a.py": GOOD, "top/lib/b.py": GOOD}, "in a.py:10 and lib/b.py:10: expected exactly one"),
        ({"a.py": GOOD, "requirements.txt": "--index-url http://example.org\n"}, "option"),
        ({"a.py": GOOD, "requirements.txt": "numpy @ http://example.org/n.whl\n"}, "address"),
        ({"a.py": GOOD, "../b.py": ""}, "plain relative paths"),
        ({"a.py": GOOD, "/etc/b.py": ""}, "plain relative paths"),
        ({"a.py": GOOD, "A.py": ""}, "differ at most in case"),
        ({"a.txt": "no code"}, "zip archive"),
        ({"a.py": "def process_data(:\n"}, "line 1"),
    ],
)
def test_an_upload_that_is_not_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], members: dict[str, bytes | str], word: str
) -> None:
    folder = project(tmp_path / "p", FIELDS)
    zipped(folder / "step.zip", members)
    assert word in refused(folder, capsys)


@pytest.mark.parametrize("route", ["os.system", "builtins.exec", "numpy.load", "attribute of a class"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], route: str, cache: Path
) -> None:
    folder = project(tmp_path / "p", "")
    (folder / "step.zip").write_bytes(ROUTES[route].replace(b"{path}", str(folder / MARK).encode()))
    assert "pickle 'step.zip' names '" in refused(folder, capsys)
    assert not cache.exists()


@pytest.mark.parametrize(
    "row, word",
    [
        ({"in.tensor": [1.0, "one", 2.0]}, "field 'tensor[1]': expected float32, found 'one'"),
        ({"in.tensor": [1.0, None, 2.0]}, "found null"),
        ({"in.tensor": [1.0, [2.0], 3.0]}, "found a list of 1"),
        ({"in.tensor": [1.0]}, "tensor"),
        ({"in.other": [1.0, 2.0, 3.0]}, "'other'"),
        ({"in.tensor": [1.0, 2.0, 3.0], "out.y": ["a"]}, "field 'y[0]': expected float32, found 'a'"),
    ],
)
def test_golden_rows_of_mixed_or_other_types_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], word: str
) -> None:
    (tmp_path / "p").mkdir()
    folder = make.project(tmp_path / "p", golden=[row])
    assert word in refused(folder, capsys)


def link(path: Path) -> None:
    zipped(path, {"step.py": GOOD, "data.csv": "/etc/passwd"}, **{"data.csv": stat.S_IFLNK})


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("step.py", GOOD)
        with archive.open("zeros.bin", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))


@pytest.mark.parametrize("make_it, word", [(link, "is a link"), (bomb, "refused as a bomb")])
def test_a_hostile_zip_is_refused_before_it_is_unpacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_it: Callable[[Path], None], word: str, cache: Path
) -> None:
    folder = project(tmp_path / "p", 'framework = "python"\n' + FIELDS)
    make_it(folder / "step.zip")
    assert word in refused(folder, capsys)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_each_kind_of_upload_is_told_by_its_content(tmp_path: Path) -> None:
    made = {
        "python": zipped(tmp_path / "1.zip", {"top/step.py": GOOD, "top/data.csv": "1"}),
        "custom": zipped(tmp_path / "2.bin", {"step.py": CODE}),
    }
    assert {name: detect(path) for name, path in made.items()} == {name: name for name in made}
    assert {name: detect(path, name) for name, path in made.items()} == {name: name for name in made}


def test_an_onnx_model_with_external_data_is_taken_from_a_zip(tmp_path: Path) -> None:
    """Each file keeps a digest of its own in the bundle; what the model does not name stays behind."""
    model, weights = external(tmp_path / "model", "w.bin"), np.ones(3, np.float32).tobytes()
    zipped(tmp_path / "net.zip", {"net/m.onnx": model.read_bytes(), "net/w.bin": weights, "net/README.md": "about"})
    assert detect(tmp_path / "net.zip") == "onnx"
    found = package(Project.open(tmp_path / "net.zip"), [Target("x86")], cache=tmp_path / "cache")
    assert set(bundles(found.index)[0].blobs) == {"models/net/m.onnx", "models/net/w.bin", "golden.json"}
    assert found.parity["label_flips"] == 0


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_external_data_outside_the_zip_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], location: str
) -> None:
    source = external(tmp_path / "model", location)
    folder = project(tmp_path / "p", "")
    zipped(folder / "step.zip", {"model.onnx": source.read_bytes()})
    assert "expected a plain path beside the model" in refused(folder, capsys)


def test_two_models_in_one_zip_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path / "p", "")
    model = make.linear().SerializeToString()
    zipped(folder / "step.zip", {"a.onnx": model, "b.onnx": model})
    assert "2 .onnx files ('a.onnx', 'b.onnx')" in refused(folder, capsys)
