"""What models compute on is said wherever one looks; here the stock engine is asked for a provider that it has not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import requests

from arch.options import VARIABLE, Options
from arch.providers import CPU, CUDA
from edge_agent.agent import Agent
from edge_agent.commands.status import _told
from edge_agent.config import Config
from edge_agent.doctor import check_up
from edge_agent.status import read_status
from tests.edge_agent.served import Front
from tests.edge_agent.test_repository import native_layout

WHY = "this onnxruntime was built without it"
ASKED = {"EDGEPACK_PROVIDERS": f"{CUDA},{CPU}", VARIABLE: Options({CUDA: {"use_tf32": "0"}}).said()}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASKED.items():
        monkeypatch.setenv(name, value)


def test_a_provider_that_is_not_used_is_said_once_in_the_log_and_stands_in_status_doctor_and_models(
    asked: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(data=tmp_path / "data")
    with Agent.open(config) as agent:
        with caplog.at_level(logging.WARNING, "edgepack.agent"):
            agent.begin([native_layout(tmp_path)], strict=True)
        with Front().server(agent.serving) as server:
            models = requests.get(f"{server.url}/models", timeout=20).json()["models"]
            page = requests.get(server.url, headers={"Accept": "text/html"}, timeout=20).text
        status = read_status(config.data)
        findings = [each for each in check_up(config, ASKED).findings if not each.passed]
    said = [vars(each)["fields"] for each in caplog.records if each.getMessage() == "execution provider not used"]
    assert said == [{"pipeline": "demo", "step": "linear", "provider": CUDA, "reason": WHY}]
    choice = status.pipelines[0].providers["linear"]
    assert (choice.used, choice.skipped) == ((CPU,), {CUDA: WHY})
    told = json.loads(json.dumps(status.to_dict()))["pipelines"][0]["providers"]["linear"]
    assert (told["used"], told["skipped"], told["threads"]) == ([CPU], {CUDA: WHY}, choice.threads)
    assert f"linear computes on {CPU}" in _told(status) and f"linear not on {CUDA}: {WHY}" in _told(status)
    assert [(each["providers"], each["skipped"]) for each in models] == [([CPU], {CUDA: WHY})]
    assert f"linear: {CPU}, {choice.threads} thread" in page
    assert [(each.key, each.needed) for each in findings] == [("provider", True), ("model", False)]
    assert all(WHY in each.description for each in findings)


def test_what_was_compiled_goes_with_its_bundle(tmp_path: Path) -> None:
    config = Config(data=tmp_path / "data")
    with Agent.open(config) as agent:
        agent.begin([native_layout(tmp_path)], strict=True)
        manifest = agent.serving.pipelines[0].manifest.removeprefix("sha256:")
        for name in (manifest, "0" * 64):
            (config.data / "compiled" / name).mkdir(parents=True)
    with Agent.open(config) as agent:
        agent.begin()
    assert [path.name for path in (config.data / "compiled").iterdir()] == [manifest]


def test_where_nothing_but_the_cpu_is_asked_for_models_are_listed_as_ever(tmp_path: Path) -> None:
    with Agent.open(Config(data=tmp_path / "data")) as agent:
        agent.begin([native_layout(tmp_path)], strict=True)
        with Front().server(agent.serving) as server:
            (model,) = requests.get(f"{server.url}/models", timeout=20).json()["models"]
        agent.serving.remove("demo")
    assert set(model) == {"name", "sha", "version", "status"}
