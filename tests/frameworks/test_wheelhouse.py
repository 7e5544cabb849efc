"""Without any network: a folder of wheels is all that converting and packaging need."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packager.environments import CLASSIC, Environment
from packager.environments.interpreters import own_minor
from tests.frameworks.conftest import train
from tests.runtimes.environments import CACHE

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

OFFLINE = ("unshare", "--user", "--map-root-user", "--net")
PROGRAM = (sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()")


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """Every wheel of the classic environment, fetched once by pip."""
    if shutil.which("unshare") is None or subprocess.run([*OFFLINE, "true"], check=False).returncode:
        pytest.skip("no name spaces here: nothing can be cut off from the network")
    lock = CLASSIC.lock(own_minor())
    assert lock is not None
    folder = CACHE / f"wheelhouse-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        part = folder.with_suffix(f".{os.getpid()}")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--require-hashes",
            "-r",
            lock,
            "-d",
            part,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no wheels to be had: {done.stderr.strip()[-200:]}")
        part.rename(folder)
    return folder


def test_a_model_is_converted_proven_and_given_its_worker_without_a_network(
    wheelhouse: Path, classic: Environment, tmp_path: Path
) -> None:
    """Both sides: the environment that converts, and the wheels of a step that stays in Python."""
    train(classic, tmp_path, ["xgb_binary", "label_spreading"])
    environ = {**os.environ, "EDGEPACK_CACHE": str(tmp_path / "cache"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    for name, runtime in (("xgb_binary", "onnx"), ("label_spreading", "python")):
        command = [*OFFLINE, *PROGRAM, "check", str(tmp_path / name), "--wheels", str(wheelhouse), "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert [step["runtime"] for step in said["steps"]] == [runtime]
        assert all(check["passed"] for check in said["checks"])
