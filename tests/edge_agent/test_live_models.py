"""Models that change where they lie while they are served: a real agent and server, the real packager, real clients."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from arch.target import host_target
from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.doors import TABLE, make_app
from edge_agent.hot_path import HotPath
from edge_agent.live_models import Budget, LiveModels
from edge_agent.metrics import Metrics
from edge_agent.server import Server
from edge_agent.status import read_status
from packager import Project, package
from packager.live import live_source
from packager.package import Packaged
from packager.wheels import WheelSource
from tests.edge_agent.served import until
from tests.runtimes.models import linear

ONES = {"x": [[1, 1, 1]]}
ROUNDS = int(os.environ.get("EDGEPACK_TEST_RELOADS", "1"))  # of five changes each under load; 20 is the long form


class Live:
    """An agent that follows a folder of models, behind a port. Looks are made by the test: `settle` makes two."""

    def __init__(self, root: Path, source: Path, stack: ExitStack, wheels: Path | None = None, **budget: int) -> None:
        self.source, self.data = source, root / "data"

        def make(project: Project) -> Packaged:
            found = WheelSource(wheels)
            return package(project, [host_target()], cache=root / "cache", wheels=found, here=True)

        live = live_source(source, make, root / "work")
        assert live is not None
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
        found = self.http.post(f"{self.server.url}/predict?model={name}{more}", json=ONES, timeout=30)
        return found.json()["prediction"]["y"][0][0] if found.ok else (found.status_code, found.json()["error"])

    def reasons(self) -> dict[str, str]:
        """What the repository index says of each model."""
        found = self.http.post(f"{self.server.url}/v2/repository/index", timeout=30).json()
        return {each["name"]: each["reason"] for each in found}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Follow a folder with these models: path → factor."""
    with ExitStack() as stack:

        def make(files: dict[str, float], **budget: int) -> Live:
            source = tmp_path / "models"
            for path, factor in files.items():
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                (source / path).write_bytes(linear(factor=factor))
            return Live(tmp_path, source, stack, **budget)

        yield make


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


def test_models_come_go_and_change_under_load_without_a_failed_request(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1})
    changes: list[tuple[Callable[[], Any], float]] = [
        (lambda: served.put("line/2/m.onnx", 2), 6.0),  # added
        (lambda: served.put("line/2/m.onnx", 3), 9.0),  # changed in place
        (lambda: served.put("line/10/m.onnx", b"no model"), 9.0),  # broken: the old one goes on
        (lambda: served.put("line/10/m.onnx", 4), 12.0),  # mended
        (lambda: shutil.rmtree(served.source / "line/10"), 9.0),  # removed
    ]
    ask = partial(requests.Session.post, url=f"{served.server.url}/predict?model=line", json=ONES, timeout=30)
    with Clients(ask) as clients:
        for change, expected in changes * ROUNDS:
            change()
            served.settle()
            clients.all_answered()
            assert (served.ask("line"), served.ask("line", "1")) == (expected, 3.0)
    assert clients.failed == []
    print(f"{len(changes) * ROUNDS} changes, {sum(clients.answers)} answers, none failed")
    assert clients.said == {f'{{"prediction":{{"y":[[{each}]]}}}}' for each in (3.0, 6.0, 9.0, 12.0)}


def test_a_model_that_is_restructured_is_served_as_it_lies_now(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1, "other/1/m.onnx": 5})
    assert served.ask("line", "1") == 3.0
    served.put("line/7/m.onnx", 2)
    served.settle()
    assert served.reasons()["line"].startswith("model 'line': 'm.onnx' lies beside version folders"), "half-way"
    assert served.ask("line") == 3.0
    (served.source / "line/m.onnx").unlink()
    served.settle()
    assert (served.ask("line"), served.ask("line", "7"), served.reasons()["line"]) == (6.0, 6.0, "")
    assert served.ask("line", "1")[0] == 404
    shutil.rmtree(served.source / "line")
    (served.source / "stray").mkdir()
    served.settle()
    assert read_status(served.data).models["stray"].startswith("model 'stray' has no files: expected a model")
    code, said = served.ask("line")
    assert code == 404 and "'line' is not served here: there is 'other'" in said


def test_a_broken_version_is_told_of_everywhere_and_is_not_tried_again_until_it_changes(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    served = live({"line/1/m.onnx": 1})
    served.put("line/2/m.onnx", b"no model")
    for _ in range(3):
        served.settle()
    assert served.ask("line") == 3.0
    reason = "version 2 of 'line': 'm.onnx' is not a whole ONNX model"
    assert served.reasons()["line"].startswith(reason)
    assert read_status(served.data).models["line"].startswith(reason)
    said = [each for each in caplog.records if each.message == "model not taken"]
    assert len(said) == 1 and said[0].fields["reason"].startswith(reason)  # type: ignore[attr-defined]
    shutil.rmtree(served.source / "line/2")
    served.settle()
    assert (served.reasons(), read_status(served.data).models) == ({"line": ""}, {})


def test_files_that_are_being_written_are_left_alone_until_they_rest(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1})
    data = linear(factor=2)
    for size in (10, 50, len(data)):
        served.put("line/2/m.onnx", data[:size])
        served.models.step()
        assert (served.ask("line"), served.reasons()["line"]) == (3.0, "")
    served.models.step()
    assert served.ask("line") == 6.0


def test_a_folder_that_vanishes_leaves_what_is_in_memory_and_refuses_what_is_not(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1, "line/2/m.onnx": 2}, in_memory=1)
    gone = served.source.rename(served.source.with_name("gone"))
    served.settle()
    assert served.ask("line") == 6.0
    code, said = served.ask("line", "1")
    assert code == 503 and said.startswith("model 'line' does not come back: '")
    assert read_status(served.data).models["models"].startswith("'models' cannot be looked at, what it held goes on")
    gone.rename(served.source)
    served.settle()
    assert (served.ask("line", "1"), read_status(served.data).models) == (3.0, {})


def test_the_least_recently_used_leave_memory_and_disk_and_come_back_when_asked_for(live: Callable[..., Live]) -> None:
    served = live(
        {f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2), ("c", 3))}, in_memory=2, on_disk=2
    )
    bundles = served.data / "bundles"

    def figures() -> tuple[int, int]:
        return len(served.agent.serving.in_memory), len([each for each in bundles.iterdir() if each.name[0] != "."])

    assert served.ask("a") == 3.0
    assert figures() == (2, 2)
    for name, expected in (("b", 6.0), ("c", 9.0), ("b", 6.0)):
        assert served.ask(name) == expected
        assert figures() == (2, 2)
    assert [name for name, _ in served.agent.serving.in_memory] == ["c", "b"]
    assert sorted(served.reasons()) == ["a", "b", "c"]
    assert served.http.get(f"{served.server.url}/v2/models", timeout=30).json() == {"models": ["a", "b", "c"]}
    unnamed = served.http.post(f"{served.server.url}/predict", json=ONES, timeout=30)
    assert "several pipelines are served, choose one by its path: 'a', 'b', 'c'" in unnamed.json()["error"]
    answer = served.http.get(f"{served.server.url}/v2/models/a", timeout=30)
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        "model 'a' rests to save memory: an inference request wakes it",
    )
    assert served.http.get(f"{served.server.url}/readyz", timeout=30).status_code == 200


def test_versions_are_asked_for_by_their_numbers_in_the_open_inference_protocol(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1, "line/20/m.onnx": 2})
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
    url = f"{served.server.url}/v2/models/line"
    for path, expected in (("", 6.0), ("/versions/20", 6.0), ("/versions/1", 3.0)):
        answer = served.http.post(f"{url}{path}/infer", json=body, timeout=30).json()
        assert answer["outputs"][0]["data"] == [expected]
    assert served.http.get(url, timeout=30).json()["versions"][1:] == ["20", "1"]
    refused = served.http.post(f"{url}/versions/3/infer", json=body, timeout=30)
    assert refused.status_code == 404 and "or '20' or '1'" in refused.json()["error"]


def test_clients_of_more_models_than_fit_into_memory_are_all_answered(live: Callable[..., Live]) -> None:
    """Each wakes what the other has just put to rest: what was woken may rest again before it is held."""
    served = live({f"{name}/m.onnx": factor for factor, name in enumerate("abcd", 1)}, in_memory=1)
    turns = itertools.cycle("abcd")
    with Clients(lambda http: http.post(f"{served.server.url}/predict?model={next(turns)}", json=ONES)) as clients:
        clients.all_answered()
    assert clients.failed == []
    assert clients.said == {f'{{"prediction":{{"y":[[{3.0 * factor}]]}}}}' for factor in range(1, 5)}
