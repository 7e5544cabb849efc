"""Models that change where they lie while they are served: a real agent and server, the real packager, real clients."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
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
from edge_agent.pipelines.repository import Repository
from edge_agent.pipelines.serving import Late
from edge_agent.status import read_status
from edge_agent.telemetry.metrics import Metrics
from edgepack.errors import RuntimeFailed
from packager import Project, package
from packager.frameworks import onnx
from packager.live import live_source
from packager.package import Packaged
from packager.wheels import WheelSource
from tests.edge_agent.served import until
from tests.runtimes.models import GOLDEN, linear, step

ONES = {"x": [[1, 1, 1]]}
ROUNDS = int(os.environ.get("EDGEPACK_TEST_RELOADS", "1"))  # of five changes each under load; 20 is the long form


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


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    """Follow a folder with these models: path → factor."""
    monkeypatch.setattr("edge_agent.http.server._PARTING_S", 0.0)  # nobody sends while these servers end
    with ExitStack() as stack:

        def make(files: dict[str, float], package: Callable[[Project], Any] = unproven, **budget: int) -> Live:
            source = tmp_path / "models"
            for path, factor in files.items():
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                (source / path).write_bytes(linear(factor=factor))
            return Live(source, package, stack, **budget)

        yield make


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


def test_models_come_go_and_change_under_load_without_a_failed_request(
    live: Callable[..., Live], tmp_path: Path
) -> None:
    served = live({"line/1/m.onnx": 1}, proven(tmp_path))
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
    installed = served.agent.state.installed().values()
    assert {each.active.manifest[7:] for each in installed} == {path.name for path in bundles.iterdir()}
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


def test_a_client_may_load_what_left_memory_and_disk(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2))}, in_memory=1, on_disk=1)
    served.agent.serving.control = Repository(served.agent.serving, served.agent._activator)
    for name in ("a", "b"):
        assert served.http.post(f"{served.server.url}/v2/repository/models/{name}/load", timeout=30).json() == {}
        assert served.agent.serving.in_memory == [(name, "")]


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


def test_others_answer_and_come_back_while_a_model_is_being_made(live: Callable[..., Live]) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    hold = Hold(served.live, "c")
    served.put("c/1/m.onnx", 3)
    served.models.step()
    with ThreadPoolExecutor(1) as looks:
        look = looks.submit(served.models.step)
        assert hold.begun.wait(60)
        with ThreadPoolExecutor(4) as clients:
            found = list(clients.map(lambda name: served.ask_alone(name), "abab"))
        hold.go_on.set()
        look.result()
    assert found == [3.0, 6.0] * 2
    assert served.ask("c") == 9.0


def test_requests_for_a_model_that_is_made_for_them_keep_no_thread_from_others(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": factor for name, factor in (("a", 1), ("b", 2))}, in_memory=1, on_disk=1)
    assert served.ask("b") == 6.0
    hold, woken = Hold(served.live, "a"), list[Any]()
    wake: Any = served.agent.serving.wake
    served.agent.serving.wake = lambda key, by: (woken.append(key), wake(key, by))[1]
    with ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(served.ask_alone, "a") for _ in range(4)]
        until(lambda: woken == [("a", "")] * 4, "all wait, which is more than there are threads")
        assert served.ask("b") == 6.0
        hold.go_on.set()
        assert [each.result() for each in waiting] == [3.0] * 4
    assert hold.count == 1


def test_a_request_waits_for_a_model_no_longer_than_it_may(live: Callable[..., Live]) -> None:
    served = live({f"{name}/1/m.onnx": 1 for name in "ab"}, in_memory=1, on_disk=1)
    assert served.ask("b") == 3.0
    hold = Hold(served.live, "a")
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(served.ask_alone, "a")
        assert hold.begun.wait(60)
        for late in (time.monotonic() - 1, time.monotonic() + 0.01):
            with pytest.raises(Late, match="'a'"):
                served.agent.serving.lease("a", wake_by=late)
        hold.go_on.set()
        assert first.result() == 3.0


def test_a_model_that_failed_to_wake_comes_back_once_its_cause_is_gone(
    live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    (rests,) = served.agent.serving.resting

    def no_memory(*_: Any) -> None:
        raise RuntimeFailed("no memory just now")

    with monkeypatch.context() as now:
        now.setattr(served.agent._stage, "load", no_memory)
        for _ in range(4):
            assert served.ask(rests) == (503, f"model '{rests}' does not come back: no memory just now")
    assert served.ask(rests) == {"a": 3.0, "b": 6.0}[rests]


def test_a_bundle_that_rots_while_its_model_rests_is_made_again(live: Callable[..., Live]) -> None:
    served = live({"a/1/m.onnx": 1, "b/1/m.onnx": 2}, in_memory=1)
    (rests,) = served.agent.serving.resting
    manifest = served.agent.state.installed()[rests].active.manifest
    (rotten,) = (served.data / "bundles" / manifest[7:]).rglob("*.onnx")
    rotten.chmod(0o644)
    rotten.write_bytes(b"rotten")
    code, said = served.ask(rests)
    assert code == 503 and "is damaged on this disk" in said
    assert served.ask(rests) == {"a": 3.0, "b": 6.0}[rests]


def test_a_broken_version_that_waits_is_made_once_and_told_of(live: Callable[..., Live]) -> None:
    served = live({"line/2/m.onnx": 2}, in_memory=1)
    served.put("line/1/m.onnx", b"no model")
    served.settle()
    assert served.versions("line") == ["2", "1"]
    hold = Hold(served.live, "line")
    hold.go_on.set()
    first = served.ask("line", "1")
    assert first[0] == 503 and "'m.onnx' is not a whole ONNX model" in first[1]
    for _ in range(3):
        assert served.ask("line", "1")[0] == 404
        served.settle()
    assert (hold.count, served.versions("line"), served.ask("line")) == (1, ["2"], 6.0)
    reason = "version 1 of 'line': 'm.onnx' is not a whole ONNX model"
    assert served.reasons()["line"].startswith(reason)
    assert read_status(served.data).models["line"].startswith(reason)
    served.put("line/1/m.onnx", 1)
    served.settle()
    assert (served.ask("line", "1"), read_status(served.data).models) == (3.0, {})


def test_a_version_that_waits_does_not_take_the_place_of_a_higher_one_where_it_is_broken(
    live: Callable[..., Live],
) -> None:
    served = live({"line/3/m.onnx": 3, "line/1/m.onnx": 1, "other/m.onnx": 5}, in_memory=1)
    served.put("line/2/m.onnx", b"no model")
    served.settle()
    shutil.rmtree(served.source / "line/3")
    served.settle()
    assert read_status(served.data).models["line"].startswith("version 2 of 'line': 'm.onnx' is not a whole ONNX")
    served.settle()
    assert (served.ask("line"), served.versions("line")) == (3.0, ["1"])


def test_what_was_wrong_with_a_model_is_not_told_after_it_is_gone(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1})
    served.put("stray/m.onnx", b"no model")
    (served.source / "empty").mkdir()
    served.settle()
    told = {name: reason for name, reason in served.reasons().items() if name != "line"}
    assert {name: reason.partition(":")[0] for name, reason in told.items()} == {
        "stray": "version 1 of 'stray'",
        "empty": "model 'empty' has no files",
    }
    assert read_status(served.data).models == told
    shutil.rmtree(served.source / "stray")
    (served.source / "empty").rmdir()
    served.settle()
    assert (served.reasons(), read_status(served.data).models) == ({"line": ""}, {})


def test_trouble_with_the_only_model_of_a_folder_of_its_name_lasts(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    """The source and its model are both called `models`."""
    served = live({"1/m.onnx": 1})
    served.put("2/m.onnx", b"no model")
    for _ in range(3):
        served.settle()
    assert served.reasons()["models"].startswith("version 2 of 'models': ")
    assert [each.message for each in caplog.records].count("model not taken") == 1


def test_a_version_that_does_not_load_is_not_listed(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    served = live({"line/1/m.onnx": 1})

    def no_memory(*_: Any) -> None:
        raise RuntimeFailed("no memory just now")

    monkeypatch.setattr(served.agent._stage, "load", no_memory)
    served.put("line/2/m.onnx", 2)
    served.settle()
    assert served.reasons()["line"] == "version 2 of 'line': no memory just now"
    assert (served.versions("line"), served.ask("line")) == (["1"], 3.0)
    assert served.ask("line", "2")[1].endswith("or '1'")


def test_of_versions_that_go_together_none_comes_back(
    live: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    served = live({f"line/{number}/m.onnx": number for number in (1, 9, 10)})
    for number in (9, 10):
        shutil.rmtree(served.source / f"line/{number}")
    with caplog.at_level(logging.INFO, "edgepack.agent"):
        caplog.clear()
        served.settle()
    assert served.ask("line") == 3.0
    gone = [each.fields["number"] for each in caplog.records if each.message == "model removed"]  # type: ignore[attr-defined]
    assert gone == ["9", "10"]


def test_a_fault_of_ours_in_one_model_holds_up_no_other(live: Callable[..., Live]) -> None:
    served = live({"line/m.onnx": 1})
    make = served.live.make

    def faulty(name: str, number: str) -> Path:
        if name == "a":
            raise ValueError("injected")
        path: Path = make(name, number)
        return path

    served.live.make = faulty
    served.put("a/m.onnx", 2)
    served.put("c/m.onnx", 3)
    served.settle()
    assert served.ask("c") == 9.0
    assert served.reasons()["a"] == "version 1 of 'a': fault of ours: ValueError: injected"


def test_what_is_not_followed_is_taken_at_the_start(live: Callable[..., Live]) -> None:
    served = live({"line/1/m.onnx": 1})
    served.put("line/2/m.onnx", 2)
    served.models.start(follow=False)
    assert served.models.loop.join(0)
    found = {}  # without the name of the only model too
    for query in ("", "?version=1", "?version=2", "?version=latest", "?model=line&version=latest"):
        answer = served.http.post(f"{served.server.url}/predict{query}", json=ONES, timeout=30)
        found[query] = answer.json()["prediction"]["y"][0][0]
    assert list(found.values()) == [6.0, 3.0, 6.0, 6.0, 6.0]
    assert served.http.get(f"{served.server.url}/v2/models/line/versions/latest", timeout=30).ok
