"""Ctrl-C at any moment: one line, exit code 130, and the process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import make

BIN = Path(sys.executable).parent
ENDS_WITHIN_S = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.save(make.linear(), tmp_path_factory.mktemp("model") / "lin.onnx")


def interrupted(arguments: list[str], after_s: float, folder: Path) -> tuple[int, str]:
    """Start a program in a group of its own, send the group SIGINT as a terminal does, and wait for its end.

    The time counts from when our code runs: before, Python itself answers for what Ctrl-C does.
    """
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONFAULTHANDLER": "1"},
    ) as program:
        _wait_until_ours(program)
        time.sleep(after_s)
        os.killpg(program.pid, signal.SIGINT)
        try:
            said, _ = program.communicate(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGABRT)  # shows the stacks of all threads
            said, _ = program.communicate()
            pytest.fail(f"still there {ENDS_WITHIN_S} s after Ctrl-C at {after_s} s:\n{said}")
        return program.returncode, said


def _wait_until_ours(program: subprocess.Popen[str]) -> None:
    """Wait for the first compiled library that only our own imports load."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while program.poll() is None and "msgspec" not in Path(f"/proc/{program.pid}/maps").read_text():
        assert time.monotonic() < deadline, "the program does not get as far as its own code"
        time.sleep(0.002)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7])
def test_serve_ends_whenever_it_is_interrupted(model: Path, tmp_path: Path, after_s: float) -> None:
    arguments = [str(BIN / "edgepack"), "serve", str(model), "--port", "0", "--data", str(tmp_path / "data")]
    code, said = interrupted(arguments, after_s, tmp_path)
    assert code == 130, said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("edgepack-*")), "a temporary folder was left"


@pytest.mark.parametrize("verb", ["check", "bundle"])
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.2])
def test_short_commands_end_whenever_they_are_interrupted(
    model: Path, tmp_path: Path, verb: str, after_s: float
) -> None:
    output = ["-o", str(tmp_path / "out.oci.tar")] if verb == "bundle" else []
    code, said = interrupted([str(BIN / "edgepack"), verb, str(model), *output], after_s, tmp_path)
    assert code in (0, 130), said  # 0: it was done before
    assert "Traceback" not in said
    assert not list(tmp_path.glob(".*")), "a half-written file was left"


AT_ONCE = """
import sys
from edgepack import launch
sys.argv = ["edgepack", "targets"]
load = launch._load_uninterrupted
def said():
    print("now", flush=True)
    load()
launch._load_uninterrupted = said
launch.edgepack()
"""


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.004, 0.006, 0.01, 0.02, 0.04])
def test_ctrl_c_at_the_very_start_does_not_kill_what_is_being_loaded(after_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AT_ONCE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        assert program.stdout is not None and program.stdout.readline() == "now\n"
        time.sleep(after_s)
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=ENDS_WITHIN_S)
    assert program.returncode in (0, 130), said
    assert "Traceback" not in said


IN_A_CALLBACK = """
import signal, time, weakref
from edgepack import launch

class Module:
    pass

def program():
    module = Module()
    kept = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))
    del module
    time.sleep(60)
    return kept

launch._end_with(launch.run(program, "edgepack"))
"""


def test_ctrl_c_in_a_callback_whose_errors_python_ignores_is_heard_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
