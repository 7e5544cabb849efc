"""An agent that follows models which change where they lie: with a real server, clients, and what holds it up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests

from arch.target import host_target
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.doors import TABLE, make_app
from edge_agent.http.hot_path import HotPath
from edge_agent.http.server import Server
from edge_agent.live.models import LiveModels
from edge_agent.live.versions import Budget
from edge_agent.telemetry.metrics import Metrics
from packager import Project, package
from packager.frameworks import onnx
from packager.live import live_source
from packager.package import Packaged
from packager.wheels import WheelSource
from tests.edge_agent.served import until
from tests.runtimes.models import GOLDEN, linear, step

ONES = {"x": [[1, 1, 1]]}


class Live:
    """An agent that follows a folder of models, behind a port. Looks are made by the test: `settle` makes two."""

    def __init__(self, source: Path, make: Callable[[Project], Any], stack: ExitStack, **budget: int) -> None:
        root = source.parent
        self.source, self.data = source, root / "data"
        live = live_source(source, make, root / "work")
        assert live is not None
        self.live: Any = live
        self.agent = stack.enter_context(Agent.open(Config(data=self.data)))
        self.agent.begin()
        self.models: LiveModels = self.agent.live_models([live], interval_s=30, budget=Budget(**budget), trial=False)
        metrics = Metrics()
        hot = HotPath(TABLE, self.agent.serving, metrics)
        self.server = stack.enter_context(Server(make_app(self.agent.serving, metrics), "127.0.0.1", 0, hot=hot))
        self.http = stack.enter_context(requests.Session())
        self.settle()

    def settle(self) -> None:
        """One look sees a change, the next that it has settled."""
        self.models.step()
        self.models.step()

    def put(self, path: str, model: float | bytes) -> None:
        """Write a model that gives so many times the sum of x, or these bytes."""
        place = self.source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(model if isinstance(model, bytes) else linear(factor=model))

    def ask(self, name: str, version: str = "") -> Any:
        """What a version says of three ones, else status and error."""
        more = f"&version={version}" if version else ""
        return self._answer(self.http, f"model={name}{more}")

    def ask_alone(self, name: str) -> Any:
        """As `ask`, over a connection of its own: others may ask at the same time."""
        with requests.Session() as http:
            return self._answer(http, f"model={name}")

    def _answer(self, http: requests.Session, query: str) -> Any:
        found = http.post(f"{self.server.url}/predict?{query}", json=ONES, timeout=30)
        return found.json()["prediction"]["y"][0][0] if found.ok else (found.status_code, found.json()["error"])

    def versions(self, name: str) -> list[str]:
        """The numbers under which a model is listed."""
        found = self.http.get(f"{self.server.url}/v2/models/{name}", timeout=30).json()
        return list(found["versions"][1:])

    def reasons(self) -> dict[str, str]:
        """What the repository index says of each model."""
        found = self.http.post(f"{self.server.url}/v2/repository/index", timeout=30).json()
        return {each["name"]: each["reason"] for each in found}


def proven(root: Path, wheels: Path | None = None) -> Callable[[Project], Packaged]:
    """How models are packaged; beside the source."""
    found = WheelSource(wheels)
    return lambda project: package(project, [host_target()], cache=root / "cache", wheels=found, here=True)


def unproven(project: Project) -> Any:
    """A model's bundle without the proof, which takes a process: for what happens to bundles, whatever they give."""
    place = project.steps[0].model
    (model,) = [place] if place.is_file() else place.glob("*.onnx")
    onnx.inspect(model)
    spec = PipelineSpec(project.name, [step(project.name)], number=project.number)
    return SimpleNamespace(index=pack(spec, {f"{project.name}.onnx": model}, GOLDEN, [host_target()]))


class Hold:
    """Holds up the making of one model, as a conversion that takes minutes would, until `go_on` is set."""

    def __init__(self, live: Any, name: str) -> None:
        self.begun, self.go_on, self.count = threading.Event(), threading.Event(), 0
        self._name, self._make = name, live.make
        live.make = self.make

    def make(self, name: str, number: str) -> Path:
        if name == self._name:
            self.count += 1
            self.begun.set()
            assert self.go_on.wait(60)
        path: Path = self._make(name, number)
        return path


class Clients:
    """Four clients that ask without a pause; what they were told is looked at in the end."""

    def __init__(self, ask: Callable[[requests.Session], requests.Response]) -> None:
        self.over, self.answers, self.failed = threading.Event(), [0] * 4, list[str]()
        self.said: set[str] = set()
        self._ask = ask
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> Clients:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number: int) -> None:
        with requests.Session() as http:
            while not self.over.is_set():
                found = self._ask(http)
                if found.status_code != 200:
                    self.failed.append(f"{found.status_code} {found.text[:200]}")
                self.said.add(found.text)
                self.answers[number] += 1

    def all_answered(self) -> None:
        """Wait until each of them has had three more answers."""
        wanted = [each + 3 for each in self.answers]
        until(lambda: all(has >= want for has, want in zip(self.answers, wanted, strict=True)), "all are answered")
