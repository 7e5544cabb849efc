from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from arch.target import host_target
from edgepack.commands._build_run import wanted_targets
from edgepack.commands._terminal import TerminalReport
from edgepack.errors import BadInput
from oci.tar import Tar
from oci.validate import validate
from tests.buildx.parts import agent_wheels, make_base

EXAMPLE = Path(__file__).parents[2] / "examples/wine-line"


def edgepack(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", *arguments]
    inherited = {**os.environ, "EDGEPACK_CACHE": str(cwd / "cache"), "UV_OFFLINE": "1", **environ}
    return subprocess.run(command, capture_output=True, text=True, env=inherited, cwd=cwd, check=False)


@pytest.fixture
def offline(tmp_path) -> list[str]:
    """What makes a build need no network."""
    return ["--base", str(make_base(tmp_path / "base")), "--wheels", str(agent_wheels(tmp_path / "wheels"))]


def test_a_build_prints_one_object_and_writes_the_file(tmp_path, offline):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    done = edgepack("build", "wine.onnx", "--target", "arm", *offline, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["target"], said["platform"], said["path"]) == (
        "arm/none",
        "linux/arm64/v8",
        "dist/wine-arm-none.oci.tar",
    )
    assert said["parity"]["rows"] > 0
    assert validate(Tar(tmp_path / said["path"])) == []
    assert (tmp_path / "edgepack.lock").is_file()
    again = edgepack("build", "wine.onnx", "--target", "arm", *offline, cwd=tmp_path)
    assert said["digest"] in again.stdout
    assert "cached  edgepack-agent" in again.stdout
    assert "builder direct (auto: it needs no daemon)" in again.stdout
    assert "created 2024-01-01T00:00:00Z: a fixed date" in again.stdout
    assert "\x1b" not in again.stderr


@pytest.mark.parametrize("place", ["wine.onnx", "folder", ".", "/dev/null"])
def test_what_is_no_tar_is_never_written_over(tmp_path, place):
    model = (EXAMPLE / "wine-line.onnx").read_bytes()
    (tmp_path / "wine.onnx").write_bytes(model)
    (tmp_path / "folder").mkdir()
    done = edgepack("build", "wine.onnx", "--target", "arm", "-o", place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith(
        f"'{place}' is there already and is no tar: choose another name with -o, or remove it first"
    )
    assert (tmp_path / "wine.onnx").read_bytes() == model
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("verb", ["build", "bundle"])
def test_a_file_that_only_bears_the_name_of_a_tar_is_kept_and_an_empty_one_is_filled(tmp_path, verb, offline):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    place, more = tmp_path / "notes.tar", offline if verb == "build" else []
    place.write_text("mine")
    done = edgepack(verb, "wine.onnx", "--target", "arm", *more, "-o", "notes.tar", cwd=tmp_path)
    assert (done.returncode, place.read_text()) == (2, "mine")
    place.write_text("")
    for _ in range(2):  # the second writes over a tar
        done = edgepack(verb, "wine.onnx", "--target", "arm", *more, "-o", "notes.tar", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert validate(Tar(place)) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.onnx"], "no such file"),
        (["--arch", "riscv"], "riscv"),
        (["--target", "arm/tpu"], "target 'arm/tpu' does not exist"),
        (["--compression", "brotli"], "brotli"),
        (["broken.onnx"], "broken.onnx"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, expected):
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 not a model")
    done = edgepack("build", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "dist").exists()


def test_a_wheel_folder_that_does_not_suffice_offline_is_one_line(tmp_path, offline):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    (tmp_path / "wheels").joinpath("numpy-1.26.0-py3-none-any.whl").unlink()
    done = edgepack("build", "wine.onnx", "--arch", "x86", *offline, cwd=tmp_path)
    assert done.returncode == 2
    assert "the wheels for x86/none cannot be resolved" in done.stderr.strip().splitlines()[-1]


def test_targets_are_listed_for_scripts_and_people(tmp_path):
    said = json.loads(edgepack("targets", "--json", cwd=tmp_path).stdout)
    assert {"x86/none", "x86/cuda", "x86/openvino", "arm/none", "arm/cuda", "arm/jetson", "arm/aio"} == {
        row["target"] for row in said
    }
    assert all(set(row) == {"target", "platform", "python", "base", "providers", "glibc", "status"} for row in said)
    assert "linux/arm64/v8" in edgepack("targets", cwd=tmp_path).stdout


def test_one_target_is_shown_as_a_target_file_that_can_be_read_again(tmp_path):
    shown = edgepack("targets", "arm/jetson", cwd=tmp_path).stdout
    assert '# base = "host/repository:tag"' in shown
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/mine.toml").write_text('like = "arm/jetson"\n' + shown.replace("arm/jetson", "arm/mine"))
    said = json.loads(edgepack("targets", "arm/mine", "--json", cwd=tmp_path).stdout)
    before = json.loads(edgepack("targets", "arm/jetson", "--json", cwd=tmp_path).stdout)
    assert {**said, "target": "arm/jetson"} == before
    assert "arm/mine" in edgepack("targets", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "x86", "--accel", "rocm"], "target 'x86/rocm' is not supported: ONNX Runtime ended"),
        (["--arch", "x86", "--accel", "jetson"], "does not exist: choose one of x86/none, "),
        (["--target", "power10"], "target 'power10' is not supported: "),
        (["--arch", "arm", "--accel", "jetson"], 'base = "host/repository:tag"'),
    ],
)
def test_a_target_that_cannot_be_built_is_one_line_with_what_to_do_and_exit_code_2(tmp_path, arguments, said):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    done = edgepack("build", "wine.onnx", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "dist").exists()


def test_the_cache_is_listed_and_pruned(tmp_path):
    layer = tmp_path / "cache/layers/blobs/x"
    layer.parent.mkdir(parents=True)
    layer.write_bytes(b"12345")
    assert json.loads(edgepack("cache", "list", "--json", cwd=tmp_path).stdout)["size_bytes"] == 5
    assert json.loads(edgepack("cache", "prune", "--json", cwd=tmp_path).stdout)["freed_bytes"] == 5
    assert not layer.exists()
    assert "layers" in edgepack("cache", "list", cwd=tmp_path).stdout


def test_options_name_targets_and_none_means_this_machine():
    assert [str(each) for each in wanted_targets(("x86", "arm", "x86"), "none", ("arm",))] == ["arm/none", "x86/none"]
    assert wanted_targets((), "none", ()) == [host_target()]
    with pytest.raises(BadInput):
        wanted_targets((), "none", ("mips",))


def test_steps_are_silent_without_a_terminal_and_notices_are_not(capsys):
    with TerminalReport() as report:
        report.step("working")
        report.notice("look")
        report.notice("look")
    assert capsys.readouterr().err == "warning: look\n"


@pytest.mark.parametrize("verb", ["build", "targets", "cache"])
def test_help_shows_a_worked_example(tmp_path, verb):
    text = edgepack(verb, "--help", cwd=tmp_path).stdout
    assert "Example:" in text
    assert f"edgepack {verb}" in text


def test_ctrl_c_while_the_mirror_is_silent_leaves_nothing_and_says_so_in_one_line(tmp_path):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", "build", "wine.onnx"]
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/debian"
        environ = {**os.environ, "EDGEPACK_CACHE": str(tmp_path / "cache"), "EDGEPACK_DEBIAN_MIRROR": mirror}
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
    assert (process.returncode, said.strip()) == (130, "interrupted")
    assert not (tmp_path / "dist").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"] == []


def test_a_layout_is_not_strewn_into_a_folder_of_other_things(tmp_path):
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    done = edgepack("bundle", "wine.onnx", "--target", "arm", "-o", ".", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().endswith("folder '.' is not empty and holds no layout: name another one")
    assert [each.name for each in tmp_path.iterdir()] == ["wine.onnx"]
