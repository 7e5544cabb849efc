"""Steps that a container answers: what the project must say, packaging with and without it, and serving through it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from arch.target import Target, host_target
from buildx.emit import Service
from buildx.emit.compose import compose
from buildx.emit.k8s import k8s
from buildx.emit.quadlet import quadlet
from buildx.emit.run_lines import run_lines
from buildx.emit.service import Sidecar
from bundle.bundle import bundles
from bundle.pipeline import Resources
from bundle.store import OpenBundle, unpack
from edgepack.errors import BadInput, RuntimeFailed
from packager.package import package
from packager.parity import UNASKED
from packager.project import Project
from runtimes.trial import run_trial
from tests.make import onnx_model, save
from tests.runtimes.scoring import ask_agent, new, scoring

IMAGE = f"registry.example/plant/sum@sha256:{'b' * 64}"
STEP = f'[[steps]]\nname = "sum"\nframework = "mlflow-image"\nimage = "{IMAGE}"\n'
FIELDS = '[steps.input]\na = "float64"\nb = "float64"\n[steps.output]\ntotal = "float64"\n'
VARIABLE = "EDGEPACK_STEP_SUM_URL"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def project(folder: Path, toml: str = STEP + FIELDS) -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "edgepack.toml").write_text(f'[pipeline]\nname = "adder"\n{toml}')
    return Project.open(folder)


def packaged(opened: Project, tmp_path: Path) -> Any:
    return package(opened, [host_target()], cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What is packaged while the container is away, and its bundle's folder: with rows that nobody has answered."""
    place = tmp_path_factory.mktemp("without")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        found = packaged(project(place / "p"), place)
    return found, unpack(bundles(found.index)[0], place / "bundle")


def test_a_pipeline_is_packaged_without_its_container_and_says_so(without: tuple[Any, Path]) -> None:
    found, folder = without
    (step,) = found.spec.steps
    assert (step.runtime, step.framework, step.image) == ("container", "mlflow-image", IMAGE)
    assert found.parity["reason"] == UNASKED and found.parity["rows"] == 0
    assert any("set EDGEPACK_STEP_SUM_URL" in note for note in found.notes)
    assert OpenBundle(folder).golden().outputs is None
    assert run_trial(folder).passed  # a device activates it: the container may come later


def test_a_container_that_is_there_answers_the_golden_rows_and_must_do_so_on_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scoring(new) as (url, _):
        monkeypatch.setenv(VARIABLE, url)
        found = packaged(project(tmp_path / "p"), tmp_path)
        folder = unpack(bundles(found.index)[0], tmp_path / "bundle")
        golden = OpenBundle(folder).golden()
        assert run_trial(folder).rows == golden.rows
    with scoring(lambda asked: asked.give([9.0] * len(asked.said.get("dataframe_records", [])))) as (url, _):
        monkeypatch.setenv(VARIABLE, url)
        assert not run_trial(folder).passed
    with scoring(lambda asked: asked.give({"message": "no such column"}, 400)) as (url, _):
        monkeypatch.setenv(VARIABLE, url)
        with pytest.raises(RuntimeFailed, match="no such column"):
            run_trial(folder)
    rows = golden.inputs.arrays
    assert golden.outputs is not None
    assert golden.outputs.arrays["total"].tolist() == (rows["a"] + rows["b"]).tolist()
    assert found.parity["rows"] > 0


def test_a_container_that_is_there_and_answers_what_does_not_fit_passes_nowhere(
    without: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = without
    said: dict[str, Any] = {"status": 200}
    with scoring(lambda asked: asked.give(said["body"], said["status"])) as (url, _):
        monkeypatch.setenv(VARIABLE, url)
        for body, words in (
            (b"<html>", "answers with what is not JSON"),
            ({"predictions": [{"other": 1.0}]}, "answers without field 'total'"),
        ):
            said["body"] = body
            with pytest.raises(RuntimeFailed, match=words):
                run_trial(folder)
        with pytest.raises(BadInput, match="answers none of the rows made for it: the container of step 'sum'"):
            packaged(project(tmp_path / "p"), tmp_path)
        said |= {"body": {"message": "no such month"}, "status": 400}
        assert run_trial(folder).passed  # these rows were made while it was away, and may make no sense to it


def test_a_native_step_before_a_container_is_still_loaded_in_the_trial(tmp_path: Path) -> None:
    first = '[[steps]]\nname = "first"\nmodel = "first.onnx"\n'
    scalars = {name: ("float64", ["N"]) for name in "ab"}
    nodes = [helper.make_node("Identity", [each], [f"{each}2"]) for each in "ab"]
    model = onnx_model(nodes, scalars, {"a2": ("float64", ["N"]), "b2": ("float64", ["N"])})
    fields = FIELDS.replace("a =", "a2 =").replace("b =", "b2 =")
    save(model, tmp_path / "p" / "first.onnx")
    found = packaged(project(tmp_path / "p", first + STEP + fields), tmp_path)
    assert [step.runtime for step in found.spec.steps] == ["onnx", "container"]
    folder = unpack(bundles(found.index)[0], tmp_path / "bundle")
    weights = folder / found.spec.steps[0].model
    weights.chmod(0o644)
    weights.write_bytes(b"no model")
    with pytest.raises(Exception, match="first"):
        run_trial(folder)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (STEP, r"no \[steps\.input\]: a container does not say its fields"),
        (STEP + '[steps.input]\na = "float64"\n', r"no \[steps\.output\]"),
        (STEP.replace(IMAGE, "registry.example/sum:1") + FIELDS, "is not named by digest"),
        (STEP.replace('name = "sum"\n', "") + FIELDS, "has an image and no name"),
        (STEP.replace("mlflow-image", "onnx") + FIELDS, 'expected framework = "mlflow-image" alone'),
        (STEP + 'model = "a.onnx"\n' + FIELDS, 'expected framework = "mlflow-image" alone'),
        (STEP + 'tensor_fields = ["a"]\n' + FIELDS, "are for models"),
        (STEP.replace(f'image = "{IMAGE}"\n', "") + FIELDS, 'framework "mlflow-image" needs `image'),
    ],
)
def test_a_step_with_an_image_that_is_not_whole_is_one_line(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        packaged(project(tmp_path / "p", toml), tmp_path)
    assert "\n" not in str(caught.value)


def test_serve_answers_through_the_container_and_refuses_with_503_while_it_is_away(tmp_path: Path) -> None:
    project(tmp_path / "p")
    program = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]
    command = [*program, "serve", str(tmp_path / "p"), "--no-containers", "--port", "0", "--data", str(tmp_path / "d")]
    faulty: list[int] = []
    with scoring(lambda asked: asked.give(b"<html>") if faulty else new(asked)) as (url, _):
        environ = {**os.environ, VARIABLE: url, "EDGEPACK_CACHE": str(tmp_path / "cache")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as serve:
            try:
                assert serve.stdout and serve.stderr
                line = serve.stdout.readline()
                assert line, serve.stderr.read()
                agent = line.split(" on ")[1].split()[0]
                assert ask_agent(agent) == (200, {"total": 3.5})
                faulty.append(1)
                assert ask_agent(agent) == (503, "the container of step 'sum' answers with what is not JSON")
                faulty.clear()
                assert ask_agent(agent) == (200, {"total": 3.5})
            finally:
                serve.terminate()
                serve.communicate(timeout=60)


SERVICE = Service(
    "adder", "adder:x86-none", False, Target("x86"), Resources(), (), 2 << 30, (),
    sidecars=(Sidecar("sum", IMAGE, VARIABLE),),
)  # fmt: skip


def test_compose_starts_the_container_beside_the_agent() -> None:
    import yaml

    said = yaml.safe_load(compose(SERVICE))["services"]
    assert said["sum"]["image"] == IMAGE and "ports" not in said["sum"]
    assert said["adder"]["environment"][VARIABLE] == "http://sum:8080"
    named = Service("sum", *list(vars(SERVICE).values())[1:])
    assert set(yaml.safe_load(compose(named))["services"]) == {"sum", "sum-agent"}


def test_a_pod_has_the_container_and_the_agent_another_port() -> None:
    import yaml

    _, workload = yaml.safe_load_all(k8s(SERVICE))
    agent, sidecar = workload["spec"]["template"]["spec"]["containers"]
    assert sidecar["image"] == IMAGE and sidecar["securityContext"]["allowPrivilegeEscalation"] is False
    told = {each["name"]: each["value"] for each in agent["env"]}
    assert told == {"EDGEPACK_PORT": "8081", VARIABLE: "http://127.0.0.1:8080"}
    assert agent["ports"] == [{"name": "http", "containerPort": 8081}]


def test_what_can_start_no_second_container_says_so() -> None:
    with pytest.raises(BadInput, match="emit compose or k8s"):
        quadlet(SERVICE)
    assert all(f"--env {VARIABLE}" in line for line in run_lines(SERVICE, None))
