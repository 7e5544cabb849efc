"""The real MLflow server: its models listed, fetched as sources, and its refusals; started here, with its own store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from oci.credentials import Basic
from packager.environments import Environment, ready
from tests.frameworks.mlflow_environment import MLFLOW

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them makes mlflow's environment

PROGRAM = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]
LOG = """
import sys
import mlflow
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import Ridge

x = np.random.RandomState(0).normal(size=(40, 3))
with mlflow.start_run():
    for alpha in (1.0, 50.0):
        model = Ridge(alpha=alpha).fit(x, x @ [1, 2, 3])
        mlflow.sklearn.log_model(
            model, name="model", registered_model_name="wine_quality", signature=infer_signature(x, model.predict(x)),
            pip_requirements=["mlflow"],
        )
        print(model.predict([[1.0, 2.0, 3.0]])[0])
mlflow.MlflowClient().set_registered_model_alias("wine_quality", "champion", 1)
mlflow.MlflowClient().create_registered_model("empty", description="nothing in it")
"""
USER, PASSWORD = "admin", "a-long-password-of-the-tests"
LOGIN = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
SERVER = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests"}
Edgepack = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def mlflow(cache: Path) -> Environment:
    return ready(MLFLOW, cache, os.environ)


def variables(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DATABRICKS_"))}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", **more}


@contextmanager
def serving(mlflow: Environment, folder: Path, *options: str) -> Iterator[str]:
    """A server on a free port of this machine; its URL once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [mlflow.python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/store.db", *options]
    path = f"{mlflow.folder}/bin{os.pathsep}{os.environ['PATH']}"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables(PATH=path, **SERVER), cwd=folder, start_new_session=True
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and server.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"the server did not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def registry(mlflow: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[float]]]:
    """A server that keeps artifacts itself and asks for a login, with two versions of a model; its URL and what each
    version answers.
    """
    folder = tmp_path_factory.mktemp("server")
    options = ("--app-name", "basic-auth", "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"))
    with serving(mlflow, folder, *options) as url:
        logged = subprocess.run(
            [mlflow.python, "-W", "ignore", "-c", LOG],
            env=variables(MLFLOW_TRACKING_URI=url, **LOGIN), capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
        answers = [float(line) for line in logged.stdout.splitlines() if line[:1].isdigit()]
        assert len(answers) == 2, logged.stdout
        yield url, answers


@pytest.fixture
def edgepack(registry: tuple[str, list[float]], tmp_path: Path) -> Edgepack:
    """The program, with MLflow's own variables for the server; `nobody` has none of them."""

    def run(*arguments: str, stdin: str = "", nobody: bool = False) -> subprocess.CompletedProcess[str]:
        own = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        own |= {} if nobody else {"MLFLOW_TRACKING_URI": registry[0], **LOGIN}
        command = [*PROGRAM, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, input=stdin, cwd=tmp_path, env=variables(**own), timeout=300
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_models_versions_and_artifacts_are_listed(registry: tuple[str, list[float]], edgepack: Edgepack) -> None:
    url, _ = registry
    found = said(edgepack("models", "--registry", url, "--json"))
    assert found["registry"] == url and [each["name"] for each in found["models"]] == ["empty", "wine_quality"]
    assert [each["version"] for each in found["models"][1]["versions"]] == ["2", "1"]  # newest first
    assert found["models"][0]["description"] == "nothing in it"
    assert found["models"][1]["created_at"].endswith("+00:00")
    one = said(edgepack("models", "wine_quality", "--registry", url, "--json"))
    for listed in (found["models"][1], one["models"][0]):
        assert [each["aliases"] for each in listed["versions"]] == [[], ["champion"]]
    assert [each["version"] for each in one["models"][0]["versions"]] == ["2", "1"]
    files = said(edgepack("models", "wine_quality/2", "--registry", url, "--json"))
    artifacts = {each["name"]: each for each in files["artifacts"]}
    assert {"MLmodel", "model.skops", "requirements.txt"} <= artifacts.keys() and files["version"] == "2"
    request = urllib.request.Request(
        artifacts["MLmodel"]["full_path"], headers={"Authorization": Basic(USER, PASSWORD).header}
    )
    assert len(urllib.request.urlopen(request).read()) == artifacts["MLmodel"]["size_bytes"]
    table = edgepack("models", "wine_quality/latest")
    assert table.returncode == 0 and "model.skops" in table.stdout


@pytest.mark.parametrize(
    ("address", "version"), [("models:/wine_quality/1", 0), ("models:/wine_quality/latest", 1), ("@champion", 0)]
)
def test_a_version_is_a_source_and_answers_as_the_logged_model(
    registry: tuple[str, list[float]], edgepack: Edgepack, tmp_path: Path, address: str, version: int
) -> None:
    _, answers = registry
    source = address if address.startswith("models:") else f"models:/wine_quality{address}"
    done = said(edgepack("bundle", source, "--target", "x86", "-o", "b.oci", "--json"))
    assert done["pipeline"] == "wine-quality" and done["parity"]["runtime"] == "onnx"
    from bundle.bundle import bundles
    from bundle.store import unpack
    from columns.records import decode_records
    from oci.layout import Layout
    from runtimes.pipeline import LoadedPipeline

    pipeline = LoadedPipeline.open(unpack(bundles(Layout(tmp_path / "b.oci").index())[0], tmp_path / "unpacked"))
    inputs = decode_records(b'[{"inputs": [1.0, 2.0, 3.0]}]', pipeline.input)
    assert pipeline.infer(inputs).outputs.arrays["predictions"][0] == pytest.approx(answers[version], rel=1e-5)
    pipeline.close()
    assert (tmp_path / "wine_quality.golden.json").is_file()  # in the working directory: the cache may be pruned


def test_a_full_path_is_a_source_of_a_folder_and_of_one_file(
    registry: tuple[str, list[float]], edgepack: Edgepack
) -> None:
    url, _ = registry
    files = said(edgepack("models", "wine_quality/1", "--registry", url, "--json"))["artifacts"]
    path = next(each["full_path"] for each in files if each["name"] == "model.skops")
    alone = said(edgepack("check", path, "--json"))
    assert [step["framework"] for step in alone["steps"]] == ["sklearn"]
    folder = said(edgepack("check", path.rpartition("/")[0], "--json"))
    assert [step["framework"] for step in folder["steps"]] == ["mlflow"]
    shown = said(edgepack("inspect", "mlflow-artifacts:/" + path.partition("/artifacts/")[2], "--json"))
    assert shown["steps"][0]["model"] == "model.skops"


def test_a_second_fetch_takes_nothing_anew(edgepack: Edgepack) -> None:
    from edgepack.commands.cache import cache_folder

    assert edgepack("inspect", "models:/wine_quality/2").returncode == 0
    before = {each: each.stat().st_ino for each in (cache_folder(os.environ) / "registry").rglob("MLmodel")}
    assert edgepack("inspect", "models:/wine_quality/2").returncode == 0
    after = {each: each.stat().st_ino for each in (cache_folder(os.environ) / "registry").rglob("MLmodel")}
    assert before and after == before


def test_what_the_registry_does_not_have_is_one_line(edgepack: Edgepack) -> None:
    for source, words in (
        ("models:/nobody/1", "no such thing (404: Model Version (name=nobody, version=1) not found)"),
        ("models:/wine_quality/9", "no such thing"),
        ("models:/wine_quality@nobody", "alias nobody not found"),
        ("models:/wine_quality/Production", "has no version 'Production'"),
        ("models:/empty/latest", "has no version 'latest'"),
        ("mlflow-artifacts:/no/such/folder", "no such thing"),
    ):
        done = edgepack("check", source)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_registries_are_kept_by_name_for_their_owner_alone(
    registry: tuple[str, list[float]], edgepack: Edgepack, tmp_path: Path
) -> None:
    url, _ = registry
    add = ("registries", "add", "plant", "--url", f"{url}/", "--username", USER, "--json")
    kept = Path(said(edgepack(*add, stdin=f"{PASSWORD}\n", nobody=True))["kept_in"])
    assert kept.stat().st_mode & 0o777 == 0o600 and PASSWORD in kept.read_text()
    listed = edgepack("registries", "list", "--json", nobody=True)
    assert said(listed)["registries"][0] | {"added": ""} == {
        "name": "plant", "url": url, "login": f"user {USER}", "added": "",
    }  # fmt: skip
    assert PASSWORD not in listed.stdout
    assert len(said(edgepack("models", "--registry", "plant", "--json", nobody=True))["models"]) == 2
    assert edgepack("inspect", "models:/wine_quality/1", nobody=True).returncode == 0  # the only one that is kept
    assert said(edgepack("registries", "remove", "plant", "--json", nobody=True))["removed"] is True
    done = edgepack("models", nobody=True)
    assert done.returncode == 2 and "no registry is named" in done.stderr


def test_who_is_not_let_in_is_told_how_in_one_line(registry: tuple[str, list[float]], edgepack: Edgepack) -> None:
    url, _ = registry
    add = ("registries", "add", "plant", "--url", url, "--username", USER)
    for done in (
        edgepack("models", "--registry", url, nobody=True), edgepack(*add, stdin="wrong\n", nobody=True)
    ):  # fmt: skip
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "(401): give credentials, by MLFLOW_TRACKING_TOKEN" in done.stderr
    assert said(edgepack("registries", "list", "--json", nobody=True)) == {"registries": []}
