"""MLflow's own scoring servers, of 1.30 and of today: what an `mlflow-image` step asks them, they answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from bundle.pipeline import StepSpec
from edgepack.errors import Unreachable
from packager.environments import ready
from runtimes.container import ContainerRuntime
from tests.frameworks.mlflow_environment import MLFLOW, OLD_MLFLOW
from tests.guides import ROOT

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them makes mlflow's environments

EXAMPLE = ROOT / "examples/mlflow-wine"
OLD_MODEL = """\
flavors:
  python_function: {loader_module: adding, code: code, data: data}
mlflow_version: 1.30.0
"""
OLD_CODE = """
class Adding:
    def predict(self, rows):
        return (rows["a"] + rows["b"]).to_numpy()

def _load_pyfunc(path):
    return Adding()
"""
OLD_SERVER = """
import sys
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import init
init(load_model(sys.argv[1])).run("127.0.0.1", int(sys.argv[2]))
"""


@contextmanager
def scoring(command: Sequence[str | Path], folder: Path, path: str) -> Iterator[str]:
    """A scoring server on a free port, which is the last word of its command; its URL once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, str(port)], stdout=log, stderr=log, env=environ, cwd=folder, start_new_session=True
        )
        try:
            end = time.monotonic() + 120
            while True:
                with suppress(urllib.error.URLError, OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                    break
                said = (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end and server.poll() is None, said
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def step(inputs: dict[str, str], outputs: dict[str, str]) -> StepSpec:
    return StepSpec("model", "models/model/image.txt", "mlflow-image", "container", inputs, outputs, image="unused")


def test_the_old_server_is_asked_by_records(cache: Path, tmp_path: Path) -> None:
    environment = ready(OLD_MLFLOW, cache, os.environ)
    for name in ("code", "data"):
        (tmp_path / "model" / name).mkdir(parents=True)
    (tmp_path / "model/MLmodel").write_text(OLD_MODEL)
    (tmp_path / "model/code/adding.py").write_text(OLD_CODE)
    command = [environment.python, "-c", OLD_SERVER, tmp_path / "model"]
    with scoring(command, tmp_path, str(environment.folder / "bin")) as url:
        runtime = ContainerRuntime(step({"a": "float64", "b": "float64"}, {"total": "float64"}), url)
        given = {"a": np.array([1.0, 2.5]), "b": np.array([2.0, 0.25])}
        assert runtime.infer(given, 2)["total"].tolist() == [3.0, 2.75]
        wrong = ContainerRuntime(step({"x": "float64"}, {"total": "float64"}), url)
        with pytest.raises(Unreachable, match=r"refuses rows that fit its schema \(400"):
            wrong.infer({"x": np.array([1.0])}, 1)
        runtime.close()


@pytest.mark.parametrize("name", ["quality", "grade"])
def test_todays_server_is_asked_by_a_data_frame(cache: Path, tmp_path: Path, name: str) -> None:
    environment = ready(MLFLOW, cache, os.environ)
    command: list[str | Path] = [environment.python, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", EXAMPLE / name, "--host", "127.0.0.1", "--workers", "1", "--port"]
    columns = {"alcohol": 13.2, "malic_acid": 1.8, "color_intensity": 4.4}
    inputs = {column: "float64" for column in columns}
    given = {column: np.array([value]) for column, value in columns.items()}
    with scoring(command, tmp_path, str(environment.folder / "bin")) as url:
        if name == "quality":
            asked = step({**inputs, "proline": "float64"}, {"cultivar": "string"})
            found = ContainerRuntime(asked, url).infer({**given, "proline": np.array([1050.0])}, 1)
            assert found["cultivar"].tolist() == ["barolo"]  # a list without a name
        else:
            found = ContainerRuntime(step(inputs, {"points": "float64", "grade": "string"}), url).infer(given, 1)
            assert found["grade"].tolist() == ["reserve"] and found["points"][0] == pytest.approx(8.52)
