"""`edgepack check`, `bundle` and `inspect`, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack import launch
from edgepack.commands import program
from oci.tar import read_tar
from tests import make
from tests.packager.test_wheels import NO_INDEX

WINE = Path(__file__).parents[2] / "examples/wine-line"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = launch.run(lambda: program, "edgepack", [str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def one_object(out: str) -> Any:
    assert out.count("\n") == 1
    return json.loads(out)


def test_check_prints_exactly_the_promised_object(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "check", WINE, "--json")
    found = one_object(out)
    assert (code, err) == (0, "")
    assert all(set(check) == {"key", "category", "passed", "description", "fix"} for check in found["checks"])
    assert all(check["passed"] for check in found["checks"])
    (step,) = found["steps"]
    assert {key: step[key] for key in ("name", "framework", "runtime", "reason")} == {
        "name": "wine-line",
        "framework": "onnx",
        "runtime": "onnx",
        "reason": None,
    }
    assert set(step["parity"]) == {"rows", "max_abs", "max_rel", "label_flips"}
    assert step["parity"]["rows"] == 178
    code, out, err = run(capsys, "check", WINE)
    assert (code, err) == (0, "") and out.count("step 'wine-line' runs in onnx\n") == 1


def test_check_lists_what_failed_and_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make.save(make.linear(ir=14, opsets={"": 28}), tmp_path / "new.onnx")
    code, out, err = run(capsys, "check", path, "--json")
    found = one_object(out)
    assert (code, err.count("\n"), found["steps"]) == (2, 1, [])
    failed = [check for check in found["checks"] if not check["passed"]]
    assert [check["key"] for check in failed] == ["model.version"] and failed[0]["fix"]
    assert failed[0]["description"] in err
    code, out, err = run(capsys, "check", path)
    assert code == 2 and "FAIL model.version" in out and "fix: " in out
    assert failed[0]["description"] in err and failed[0]["description"] not in out, "said once"


def test_a_second_refusal_stands_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error line has room for the first."""
    path = make.project(
        tmp_path / "p",
        toml='[[steps]]\nmodel = "model.onnx"\n[validations]\nv = "out.nothing > 1"\nw = "out.neither > 1"\n',
    )
    code, out, err = run(capsys, "check", path)
    assert (code, err.count("\n")) == (2, 1) and "nothing" in err and "neither" not in err
    assert "neither" in out and "nothing" not in out and out.count("FAIL") == 2


def test_a_folder_of_wheels_that_lacks_something_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(tmp_path / "uv"), "EDGEPACK_CACHE": str(tmp_path / "c")}.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02csklearn.linear_model._base\nLinearRegression\n)\x81.")
    (tmp_path / "wheels").mkdir()
    for verb in ("check", "init"):
        code, _, err = run(capsys, verb, tmp_path / "m.pkl", "--wheels", tmp_path / "wheels")
        *notices, line = err.splitlines()
        assert code == 2 and "it lacks cloudpickle " in line and "scikit-learn " in line, err
        assert ["making the environment 'classic' once" in each for each in notices] == [True]


@pytest.mark.parametrize("verb", ["check", "bundle", "inspect"])
@pytest.mark.parametrize("source", ["missing.onnx", "empty.onnx", "text.onnx", "cut.onnx", "folder"])
def test_bad_sources_end_with_two_and_one_line(
    verb: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "cut.onnx").write_bytes(make.linear().SerializeToString()[:-30])
    before = sorted(tmp_path.iterdir())
    code, _, err = run(capsys, verb, source)
    assert code == 2 and err.startswith("edgepack: ") and err.count("\n") == 1
    assert source in err
    assert sorted(tmp_path.iterdir()) == before


def test_bundle_writes_a_tar_that_inspect_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.oci.tar"
    code, out, _ = run(capsys, "bundle", WINE, "--target", "x86", "--target", "arm/none", "-o", path, "--json")
    made = one_object(out)
    assert code == 0 and made["digest"] == read_tar(path).digest
    assert [each["target"] for each in made["targets"]] == ["arm/none", "x86/none"]
    code, out, _ = run(capsys, "inspect", path, "--json")
    found = one_object(out)
    assert (found["kind"], found["digest"], found["version"]) == ("bundle", made["digest"], made["version"])
    assert [each["digest"] for each in found["bundles"]] == [each["digest"] for each in made["targets"]]
    assert "models/wine-line/wine-line.onnx" in found["bundles"][0]["files"]
    code, out, _ = run(capsys, "inspect", path)
    assert code == 0 and "in.inputs: list<float32>[13]" in out


def test_a_bundle_may_be_a_layout_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "bundle", WINE, "-o", tmp_path / "layout")
    assert code == 0 and "178" in out
    code, out, _ = run(capsys, "inspect", tmp_path / "layout", "--json")
    assert one_object(out)["kind"] == "bundle"


def test_the_default_place_is_dist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make.project(tmp_path / "p", golden=json.loads(make.golden_rows(make.linear()))))
    assert run(capsys, "bundle")[0] == 0
    assert [each.name for each in Path("dist").iterdir()] == ["small.bundle.oci.tar"]


def test_a_target_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "bundle", WINE, "--target", "vax")
    assert code == 2 and "vax" in err and "x86/none" in err


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    code, _, err = run(capsys, "bundle", WINE, "-o", tmp_path / "file" / "b.tar")
    assert code == 2 and "cannot be written" in err and err.count("\n") == 1


def test_inspect_shows_a_model_without_running_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", make.save(make.linear(), tmp_path / "m.onnx"), "--json")
    found = one_object(out)
    assert (code, found["kind"]) == (0, "project")
    assert found["steps"][0]["input"] == {"tensor": "list<float32>[3]"}
    assert not (tmp_path / "m.golden.json").exists()
    assert "in.tensor: list<float32>[3]" in run(capsys, "inspect", tmp_path / "m.onnx")[1]


def test_a_damaged_tar_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.tar"
    run(capsys, "bundle", WINE, "-o", path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"pipeline.v1', b'"pipelime.v1').replace(b"in.inputs[0] < 10", b"in.inputs[0] < 99"))
    code, _, err = run(capsys, "inspect", path)
    assert code in (1, 2) and err.count("\n") == 1 and "sha256:" in err


def test_no_engine_is_loaded_in_the_packagers_own_process() -> None:
    code = (
        "import sys; from pathlib import Path; from arch.target import Target; from packager import Project, package;"
        "package(Project.open(Path(sys.argv[1])), [Target('x86')]);"
        "print(sorted({'onnx', 'onnxruntime', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(WINE)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
