"""Cortex predictors in their workers, with the libraries that their clients need; one is followed under load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from arch.target import host_target
from bundle.bundle import bundles
from bundle.store import unpack
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.pipelines.repository import Repository
from edge_agent.pipelines.serving import NotAllowed
from edge_agent.status import read_status
from edgepack.errors import BadInput, RuntimeFailed
from oci.image import Index
from oci.layout import write_layout
from packager import Project, package
from packager.package import Packaged
from packager.wheels import WheelSource
from runtimes.pipeline import LoadedPipeline
from runtimes.trial import run_trial
from tests.commands.test_serve import Serve
from tests.edge_agent.live_agent import ONES, Clients, Live, proven
from tests.edge_agent.real_hub import enrolled_folder, running_hub
from tests.edge_agent.served import until
from tests.guides import ROOT, Reader
from tests.packager.dialects.test_cortex import API as FACTORS
from tests.packager.dialects.test_cortex import PYTHON, api, ask, files_of, packaged
from tests.packager.test_wheels import NO_INDEX
from tests.runtimes.environments import numpy_environment, numpy_wheel
from tests.runtimes.models import linear
from tests.tflite_models import dense

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]
PREDICTOR = """
class {kind}Predictor:
    def __init__(self, {client}, config):
        self.client, self.unit = {client}, config["unit"]

    def predict(self, payload, query_params):
        name, version = query_params["model"], query_params.get("version", "latest")
        signature = self.client.input_signature(name, version)
        answer = self.client.predict(payload, name, version)
        return {{"answer": answer, "signature": signature, "unit": self.unit}}
"""
API = """
- name: asked
  kind: RealtimeAPI
  predictor:
    type: {type}
    path: predictor.py
    models: {{dir: models}}
    config: {{unit: mm}}
"""


def project(folder: Path, type_: str, kind: str, sample: Any) -> Path:
    code = PREDICTOR.format(kind=kind, client=f"{type_}_client")
    return files_of(
        folder, {"cortex.yaml": API.format(type=type_), "predictor.py": code, "sample.json": json.dumps(sample)}
    )


@pytest.fixture
def answering(cache: Path, tmp_path: Path) -> Iterator[Callable[[Path], tuple[Packaged, Callable[..., Any]]]]:
    """Package a project and load what a device has of it; what asks it."""
    with ExitStack() as stack:

        def load(source: Path) -> tuple[Packaged, Callable[..., Any]]:
            found = package(Project.open(source), [host_target()], cache=cache, here=True)
            folder = unpack(bundles(found.index)[0], tmp_path / "device")
            pipeline = LoadedPipeline.open(folder, cache / "workers")
            stack.callback(pipeline.close)
            return found, partial(ask, pipeline)

        yield load


def test_an_onnx_predictor_reaches_its_models_and_versions_by_name(answering: Any, tmp_path: Path) -> None:
    source = project(tmp_path / "project", "onnx", "ONNX", [[1, 1, 1]])
    files_of(source / "models", {f"line/{each}/m.onnx": linear(factor=each) for each in (1, 3)})
    files_of(source / "models", {"other/m.onnx": linear(factor=5)})
    found, asked = answering(source)
    worker = found.spec.steps[0].worker
    assert worker is not None and any(line.startswith("onnxruntime==") for line in worker.requirements)
    signature = {"x": {"shape": ["n", 3], "type": "float32"}}
    assert asked([[1, 2, 3]], "model=line") == {"answer": [[[18]]], "signature": signature, "unit": "mm"}
    assert asked([[1, 2, 3]], "model=line&version=1")["answer"] == [[[6]]]
    assert asked([1, 2, 3], "model=other")["answer"] == [[[30]]], "one row without its list takes the input's shape"
    assert asked({"x": [[1, 1, 1]]}, "model=other")["answer"] == [[[15]]]


def test_savedmodels_that_the_gate_lets_through_need_no_tensorflow(answering: Any, saved: Path, tmp_path: Path) -> None:
    source = project(tmp_path / "project", "tensorflow", "TensorFlow", {"x": [[1, 2, 3]]})
    shutil.copytree(saved / "line", source / "models/line/7")
    found, asked = answering(source)
    worker = found.spec.steps[0].worker
    assert worker is not None and not any("tensorflow" in line for line in worker.requirements)
    assert worker.options["models"]["line"]["7"]["path"].endswith(".onnx")
    answer = asked({"x": [[1, 2, 3], [0, 0, 0]]}, "model=line&version=7")
    assert set(answer["answer"]) == {"scores", "kind"} and len(answer["answer"]["scores"]) == 2
    assert answer["answer"]["scores"][1] == pytest.approx([0.5, 0.5])
    assert answer["signature"]["x"]["type"] == "float32"


def test_a_savedmodel_that_cannot_be_converted_runs_in_tensorflow(answering: Any, saved: Path, tmp_path: Path) -> None:
    """Nor does one that takes what no native model does; the payload is no sample for both, so none is there."""
    sample = {"a": [[0, 0, 0]], "b": [[1, 2, 3]]}
    source = project(tmp_path / "project", "tensorflow", "TensorFlow", sample)
    (source / "sample.json").unlink()
    shutil.copytree(saved / "gamma", source / "models/gamma")
    shutil.copytree(saved / "words", source / "models/words")
    found, asked = answering(source)
    worker = found.spec.steps[0].worker
    assert worker is not None and any("tensorflow" in line for line in worker.requirements)
    answer = asked(sample, "model=gamma")["answer"]
    assert answer["whole"][0] == pytest.approx([0.0, 0.6931472, 1.7917595], abs=1e-5)
    assert answer["above"] == [2]
    assert asked({"t": ["a", "four"]}, "model=words")["answer"] == {"n": [1, 4]}, "no model of ours takes text"


def test_a_savedmodel_that_no_tensorflow_loads_is_refused_before_anything_is_installed(
    saved: Path, tmp_path: Path, cache: Path
) -> None:
    source = project(tmp_path / "project", "tensorflow", "TensorFlow", {"x": [[1, 2, 3]]})
    shutil.copytree(saved / "line", source / "models/line/7")
    os.truncate(source / "models/line/7/saved_model.pb", 100)
    with pytest.raises(BadInput, match=r"^model 'line', version 7: it does not load in TensorFlow \S+: Cannot parse"):
        package(Project.open(source), [host_target()], cache=cache, here=True)


@pytest.fixture
def numpy_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels with numpy alone, which is unpacked already at packaging and on the device; no index."""
    for key, value in {**NO_INDEX, "UV_CACHE_DIR": str(tmp_path / "uv")}.items():
        monkeypatch.setenv(key, value)
    site = numpy_environment()
    for place in ("cache/workers", "data/environments"):
        shutil.copytree(site, tmp_path / place / site.name, copy_function=os.link)
    (tmp_path / "wheels").mkdir()
    shutil.copy(numpy_wheel(), tmp_path / "wheels")
    return tmp_path / "wheels"


def test_a_program_gets_its_models_anew_under_load(tmp_path: Path, numpy_only: Path) -> None:
    """All in one bundle: a changed model is a new version of the whole, and the old one goes on where it is broken."""
    source = api(tmp_path / "project")
    with ExitStack() as stack:
        served = Live(source, proven(tmp_path, numpy_only), stack)
        url = f"{served.server.url}/predict"

        def asked(query: str) -> Any:
            found = served.http.post(f"{url}?{query}", json={"x": [1]}, timeout=30)
            return found.json()["y"][0] if found.ok else (found.status_code, found.json()["error"])

        assert (asked("model=a"), asked("model=a&version=1"), asked("model=b")) == (11, 2, 6)
        with Clients(partial(requests.Session.post, url=f"{url}?model=a", json={"x": [1]}, timeout=30)) as clients:
            (source / "models/a/11").mkdir()
            (source / "models/a/11/factor.json").write_text("20")
            served.settle()
            clients.all_answered()
            assert asked("model=a") == 21
            (source / "models/a/11/factor.json").write_text("{")
            served.settle()
            clients.all_answered()
        assert clients.failed == []
        assert {json.loads(each)["y"][0] for each in clients.said} == {11, 21}
        assert asked("model=a") == 21, "what answered before goes on"
        assert "JSONDecodeError" in read_status(served.data).models["multiplier-api"]
        code, said = asked("model=a&version=9")
        assert code == 404 and "there is '1' or '10' or '11'" in said
        named = served.http.get(f"{served.server.url}/v2/models/a", timeout=30).json()
        assert (named["name"], named["versions"]) == ("a", ["1", "10", "11"])
        tensor = {"name": "json", "shape": [1], "datatype": "BYTES", "data": ['{"x": [1]}']}
        answer = served.http.post(
            f"{served.server.url}/v2/models/a/versions/1/infer", json={"inputs": [tensor]}, timeout=30
        ).json()
        assert json.loads(answer["outputs"][0]["data"][0])["y"] == [2]


def test_a_hubs_assignment_and_a_devices_folder_of_models_agree(tmp_path: Path, numpy_only: Path) -> None:
    """The hub sees what it assigned; what it assigns next is given the folder's models in turn."""
    name = "multiplier-api"

    def published(offset: int) -> Index:
        source = api(tmp_path / f"project-{offset}", yaml=FACTORS.replace("offset: 1", f"offset: {offset}"))
        wheels = WheelSource(numpy_only)
        made = package(Project.open(source), [host_target()], cache=tmp_path / "cache", wheels=wheels, here=True)
        hub.publish(made.index, name)
        return made.index

    def asked() -> tuple[int, str] | None:
        if name not in agent.serving.names:
            return None
        with agent.serving.lease(name) as active:
            try:
                return ask(active.loaded, {"x": [1]}, "model=c")["y"][0], active.manifest
            except RuntimeFailed:
                return None  # its own models still

    files_of(tmp_path / "models" / name, {"c/4/factor.json": "4"})
    with running_hub(tmp_path / "hub") as hub:
        one, two = published(1), published(2)
        folders, enrolled = enrolled_folder(hub, tmp_path / "data", hub.url)
        config = Config(data=folders.root, models=tmp_path / "models", models_s=0.2, backoff_first_s=0.1)
        with Agent.open(config) as agent:
            agent.begin()
            agent.start()
            hub.assign(enrolled.device, **{name: one.digest})
            until(lambda: (asked() or (0,))[0] == 5, "the folder's models serve", 120)
            derived = asked()
            for _ in range(3):
                before = read_status(folders.root).last_check_in_ms
                until(lambda before=before: read_status(folders.root).last_check_in_ms != before, "it checks in", 120)
            assert asked() == derived, "no check-in changes it back"
            told = hub.report(enrolled.device, name)
            assert (told["state"], told["manifest"]) == ("active", bundles(one)[0].digest)
            hub.assign(enrolled.device, **{name: two.digest})
            until(lambda: (asked() or (0,))[0] == 6, "the next program has the folder's models too", 120)
            manifest = bundles(two)[0].digest
            until(lambda: hub.report(enrolled.device, name)["manifest"] == manifest, "the hub knows", 120)


def test_a_device_follows_a_folder_of_models_for_its_predictor(tmp_path: Path, numpy_only: Path) -> None:
    """Without a packager: the bundle that was installed, with other models; it survives a restart, and a hub's plan."""
    made = package(
        Project.open(api(tmp_path / "project")), [host_target()], cache=tmp_path / "cache",
        wheels=WheelSource(numpy_only), here=True,
    )  # fmt: skip
    layout = tmp_path / "layout"
    write_layout(made.index, layout)
    base = bundles(made.index)[0].digest
    models, name = tmp_path / "models", "multiplier-api"
    files_of(models / name, {"c/4/factor.json": "4", "c/5/factor.json": "5"})
    config = Config(data=tmp_path / "data", models=models, models_s=0.1)

    def asked(agent: Agent, query: str) -> Any:
        with agent.serving.lease(name) as active:
            try:
                return ask(active.loaded, {"x": [1]}, query)["y"][0]
            except RuntimeFailed as error:
                return str(error)

    with Agent.open(config) as agent:
        agent.begin([layout])
        assert asked(agent, "model=b") == 6
        agent.start()
        until(lambda: asked(agent, "model=c") == 6, "the folder's models serve", 120)
        assert asked(agent, "model=c&version=4") == 5
        assert "no model 'b' is served: there is 'c'" in asked(agent, "model=b")
        assert agent.state.installed()[name].active.manifest != base
        assert [each.base for each in agent.serving.pipelines] == [base], "to a hub it is what was assigned"
        files_of(models / name, {"d/factor.json": "{"})
        until(lambda: "JSONDecodeError" in read_status(config.data).models.get(name, ""), "it is told", 120)
        assert asked(agent, "model=c") == 6
        models.rename(tmp_path / "gone")
        until(lambda: "models" in read_status(config.data).models, "it is told", 120)
        assert asked(agent, "model=c") == 6
    with Agent.open(config) as agent:
        agent.begin([layout])
        assert asked(agent, "model=c") == 6, "as before"
        agent.start()
        files_of(models / name, {"c/7/factor.json": "7"})
        until(lambda: asked(agent, "model=c") == 8, "the folder's models serve", 120)
        (status,) = read_status(config.data).pipelines
        assert status.state == "active"
        repository = Repository(agent.serving, agent._activator)
        with pytest.raises(NotAllowed, match=f"'c' is one of the models of '{name}'"):
            repository.unload("c")
        repository.unload(name)
        assert agent.serving.unloaded == {name: base}, "to a hub it is what was assigned"
        agent._collect()
        repository.load(name)
        files_of(models / name, {"c/8/factor.json": "8"})
        until(lambda: asked(agent, "model=c") == 9, "what it was made of is there still", 120)


def test_a_predictor_that_cannot_load_is_refused_with_what_it_says(tmp_path: Path, numpy_only: Path) -> None:
    project = api(tmp_path / "project", **{"models/b/factor.json": "{"})
    with pytest.raises(BadInput, match="JSONDecodeError: Expecting property name"):
        packaged(project, tmp_path / "cache")


def test_a_predictor_that_answers_its_sample_with_bytes_is_packaged(tmp_path: Path, numpy_only: Path) -> None:
    code = PYTHON.format("").replace("predict(self, payload): pass", "predict(self, payload): return b'\\x89PNG'")
    text = FACTORS.partition("    multi_model_reloading")[0]
    found = packaged(api(tmp_path / "project", yaml=text, predictor=code), tmp_path / "cache")
    assert found.parity["rows"] == 1
    assert run_trial(
        unpack(bundles(found.index)[0], tmp_path / "tried"), environments=tmp_path / "cache/workers"
    ).passed


def test_the_command_follows_a_folder_of_models(tmp_path: Path) -> None:
    for path, data in (("a/1/m.onnx", linear(factor=2)), ("b/m.tflite", dense(np.full((3, 1), 2.0)))):
        (tmp_path / "models" / path).parent.mkdir(parents=True)
        (tmp_path / "models" / path).write_bytes(data)
    flags = ["--reload-s", "0.3", "--cache-size", "1", "--port", "0", "--data", tmp_path / "data"]
    serve = Serve(tmp_path / "models", *flags, EDGEPACK_CACHE=str(tmp_path / "cache"))
    try:
        assert any(
            line in serve.lines for line in (f"resting until they are asked for (--cache-size): {n}" for n in "ab")
        )
        assert "/pipelines/" in serve.try_lines[0], "one is in memory, and not the only one"
        for name in ("a", "b", "a"):
            answer = requests.post(f"{serve.url}/predict?model={name}", json=ONES, timeout=60)
            assert answer.json() == {"prediction": {"y": [[6.0]]}}
        (tmp_path / "models/c").mkdir()
        (tmp_path / "models/c/m.onnx").write_bytes(linear(factor=5))
        until(lambda: requests.post(f"{serve.url}/predict?model=c", json=ONES, timeout=60).ok, "it is taken", 60)
    finally:
        code, said = serve.end()
    assert code == 130 and "Traceback" not in said


EXAMPLE = ROOT / "examples/cortex-belt/belt-api"
BY_ITSELF = """
import json, sys
from pathlib import Path
from predictor import PythonPredictor

class Client:
    def get_model(self, name, version):
        folder = Path("models", name)
        numbers = [each.name for each in folder.iterdir() if each.name.isdigit()]
        chosen = max(numbers, key=int, default="") if version == "latest" else version
        return predictor.load_model(str(folder / chosen))

predictor = PythonPredictor({"unit": "g", "digits": 3}, Client())
payload, asked = json.loads(sys.argv[1])
print(json.dumps([predictor.predict(payload, query) for query in asked]))
"""


ASKED = [{"model": "belt-a"}, {"model": "belt-a", "version": "1717200000"}, {"model": "belt-b"}]


def by_itself(payload: Any) -> Any:
    """What the example's predictor answers without edgepack."""
    command = [sys.executable, "-c", BY_ITSELF, json.dumps([payload, ASKED])]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    alone = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=True, env=environ)
    return json.loads(alone.stdout)


def test_the_guides_commands_serve_what_the_predictor_answers_by_itself(tmp_path: Path) -> None:
    payload = json.loads((EXAMPLE / "sample.json").read_bytes())
    with Reader(tmp_path, ("cortex-belt",)) as reader:
        *_, older, _, added = reader.follow(ROOT / "docs/guides/from-cortex.md")
        found = [requests.post(f"{reader.url}/predict", params=each, json=payload, timeout=60).json() for each in ASKED]
    assert found == by_itself(payload)
    assert json.loads(older) == found[1]
    assert json.loads(added) == {**found[2], "belt": "belt-c"}
